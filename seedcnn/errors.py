"""The errors that this library raises on purpose.

The tree::

    SeedCNNError
    ├── ConfigError            an option, recipe or method name that does not exist or contradicts another
    ├── ConversionError        a model that cannot be converted as asked
    ├── DataError              data that is missing, damaged or of the wrong shape
    ├── TrainingError          a training run that cannot continue or be resumed
    │   └── PluginError            a checkpoint that needs a plugin which is not loaded, or not as it was
    ├── ExportError            a model that cannot be folded or exported
    ├── BundleError            a bundle that cannot be read
    │   ├── BundleFormatError      malformed, truncated, over a limit, or of an unknown version or coding
    │   └── DigestError            well-formed, but its content does not match the manifest
    ├── ProcessError           a process that torchrun started and that is lost, or differs from the others
    ├── RepositoryError        a publishing repository or a key that cannot be used
    ├── DeviceError            the device cannot do what was asked
    │   ├── AdaptError             statistics of a place were refused or could not be kept; the model answers as before
    │   ├── UpdateError            an update was refused or could not finish; the active model is unchanged
    │   │   ├── PostponedError         the server asks to come back later
    │   │   └── RolledBackError        the new model failed its probe or probation; the one before is active
    │   ├── SlotError              no usable model in any slot
    │   ├── SelfTestError          a model that fails its canned test vectors
    │   └── ImageError             an input image that cannot be used
    └── MissingExtraError      a part of seedcnn whose dependencies are not installed

A wrong argument to a function or constructor raises a plain ``ValueError`` or ``TypeError``, as in PyTorch.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "AdaptError",
    "BundleError",
    "BundleFormatError",
    "ConfigError",
    "ConversionError",
    "DataError",
    "DeviceError",
    "DigestError",
    "ExportError",
    "ImageError",
    "MissingExtraError",
    "PluginError",
    "PostponedError",
    "ProcessError",
    "RepositoryError",
    "RolledBackError",
    "SeedCNNError",
    "SelfTestError",
    "SlotError",
    "TrainingError",
    "UpdateError",
    "did_you_mean",
    "is_shared",
    "missing_extra",
    "shared",
]


class SeedCNNError(Exception):
    """Base of all errors raised on purpose; the message is one sentence for the user."""


class ConfigError(SeedCNNError):
    """An option, recipe or method name that does not exist or contradicts another."""


class ConversionError(SeedCNNError):
    """A model that cannot be converted as asked."""


class DataError(SeedCNNError):
    """Data that is missing, damaged or of the wrong shape."""


class TrainingError(SeedCNNError):
    """A training run that cannot continue or be resumed."""


class PluginError(TrainingError):
    """A checkpoint that needs a plugin which is not loaded, or whose file is not as it was."""


class ExportError(SeedCNNError):
    """A model that cannot be folded or exported."""


class BundleError(SeedCNNError):
    """A bundle that cannot be read."""


class BundleFormatError(BundleError):
    """A bundle that is malformed, truncated, over a limit, or of an unknown version or coding."""


class DigestError(BundleError):
    """A well-formed bundle whose content does not match its manifest."""


class ProcessError(SeedCNNError):
    """A process that torchrun started and that is lost, did not arrive, or differs from the others."""


class RepositoryError(SeedCNNError):
    """A publishing repository or a key that cannot be used."""


class DeviceError(SeedCNNError):
    """The device cannot do what was asked."""


class UpdateError(DeviceError):
    """An update was refused or could not finish; the active model is unchanged.

    ``code`` is a word for programs: "transfer" and "metadata" for what may come right by itself, "known" for a file
    that has failed before, one of :data:`seedcnn.bundle.report.CODES` otherwise.
    """

    def __init__(self, message: str, code: str = "other") -> None:
        super().__init__(message)
        self.code = code


class PostponedError(UpdateError):
    """An update that a server has put off; ``seconds`` is for how long."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message, "transfer")
        self.seconds = seconds


class RolledBackError(UpdateError):
    """A new model that failed its probe or its probation; the one before it is active again."""


class AdaptError(DeviceError):
    """Statistics of a device's place that were refused or could not be kept; the model answers as before."""


class SlotError(DeviceError):
    """No usable model in any slot."""


class SelfTestError(DeviceError):
    """A model that fails its canned test vectors."""


class ImageError(DeviceError):
    """An input image that cannot be used."""


class MissingExtraError(SeedCNNError, ImportError):
    """A part of seedcnn whose dependencies are not installed."""


_EXTRA_OF_MODULE = {
    "tuf": "agent",
    "securesystemslib": "agent",
    "urllib3": "agent",
    "numpy": "device",
    "onnxruntime": "device",
    "openvino": "openvino",
    "safetensors": "torch",
    "PIL": "device",
    "backports": "device",
    "cryptography": "server",
    "starlette": "server",
    "uvicorn": "server",
    "typer": "torch",
    "rich": "torch",
    "torch": "torch",
    "triton": "torch",
    "onnx": "torch",
    "onnxscript": "torch",
    "jinja2": "torch",
    "markupsafe": "torch",
    "matplotlib": "torch",
    "platformdirs": "torch",
    "faster_coco_eval": "torch",
    "torchvision": "train",
    "timm": "train",
}


def missing_extra(error: ModuleNotFoundError) -> MissingExtraError | None:
    """Turn an import failure into an error that names the extra to install.

    Returns:
        The error to raise, or None if the missing module belongs to no extra, which makes its absence a defect.
    """
    top = (error.name or "").split(".")[0]
    extra = _EXTRA_OF_MODULE.get(top)
    if extra is None:
        return None
    return MissingExtraError(
        f"{top} is not installed; install this part of seedcnn with: pip install 'seedcnn[{extra}]'"
    )


_SHARED = "all processes of the run have this error"


def shared(error: BaseException) -> BaseException:
    """Mark an error that all processes of a run raise, so that one of them is enough to say it."""
    error.add_note(_SHARED)
    return error


def is_shared(error: BaseException) -> bool:
    """Whether all processes of the run raise this error."""
    return _SHARED in getattr(error, "__notes__", ())


def did_you_mean(name: object, known: Iterable[str], count: int = 3) -> str:
    """Return ``"did you mean A, B? "`` with the known names closest to ``name``, or ``""``, as a part of a message."""
    near = difflib.get_close_matches(str(name), list(known), n=count, cutoff=0.5)
    return f"did you mean {', '.join(near)}? " if near else ""
