"""The models that ``seedcnn evaluate`` is given: checkpoints, bundles and ONNX files, told apart by their content."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from seedcnn.errors import BundleError, BundleFormatError, ConfigError, DataError, TrainingError

if TYPE_CHECKING:
    from seedcnn.bundle import Bundle
    from seedcnn.evaluate.accuracy import Predict
    from seedcnn.evaluate.onnx_file import OnnxFile

__all__ = ["Normalization", "Opened", "channels", "open_models"]

Normalization = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation per channel, on the 0..1 scale."""


@dataclass(frozen=True)
class Opened:
    """A model that answers.

    Attributes:
        predict: uint8 [N, H, W, 3] to logits.
        digest: changes with the model and with how pictures are brought into it.
    """

    predict: Predict
    digest: str


def channels(option: str, text: str | None) -> tuple[float, ...] | None:
    """Three numbers of an option such as "0.5,0.5,0.5".

    Raises:
        ConfigError: if they are not three finite numbers.
    """
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != 3 or not all(map(math.isfinite, values)) or (option == "--std" and min(values) <= 0):
        rule = "three positive numbers" if option == "--std" else "three numbers"
        raise ConfigError(f"{option} {text}: it must be {rule} with commas, one per channel, on the 0..1 scale")
    return values


def _read(path: Path, default: Normalization) -> Opened | Bundle | OnnxFile:
    """A checkpoint comes back ready; the others as what is in the file."""
    from seedcnn.bundle import open_bundle
    from seedcnn.evaluate.accuracy import torch_predictor
    from seedcnn.evaluate.onnx_file import read_onnx
    from seedcnn.train import load_model

    if not path.is_file():
        raise DataError(f"there is no file {path}")
    if path.suffix == ".onnx":
        return read_onnx(path)
    try:
        return open_bundle(path)
    except BundleFormatError as no_bundle:
        try:
            model = load_model(path)[0]
        except TrainingError as no_checkpoint:
            raise DataError(
                f"{path} is neither a bundle ({no_bundle}) nor a checkpoint ({no_checkpoint}), "
                "and its name does not end in .onnx"
            ) from None
    return Opened(torch_predictor(model, *default), f"sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}")


def _of_bundles(bundles: Sequence[Bundle]) -> Normalization:
    """The normalisation on which all bundles agree, for ONNX files evaluated beside them."""
    rules = {(b.manifest.preprocessing.mean_e8, b.manifest.preprocessing.std_e8) for b in bundles}
    if len(rules) != 1:
        why = f"{len(rules)} bundles beside it disagree" if rules else "an ONNX file does not say it"
        raise ConfigError(f"how pictures are normalised is not known ({why}): give --mean and --std")
    mean, std = rules.pop()
    return tuple(value * 1e-8 for value in mean), tuple(value * 1e-8 for value in std)


def open_models(paths: Sequence[Path], given: Normalization | None, default: Normalization) -> dict[str, Opened]:
    """The models by the text of their path.

    Args:
        given: how pictures go into ONNX files; if None, as into the bundles among ``paths``.
        default: how they go into checkpoints.

    Raises:
        ConfigError: if a path comes twice, or there is an ONNX file and no way to know its normalisation.
        DataError: if a file is none of the three kinds, a network of another kind, or one that does not run.
    """
    from seedcnn.bundle import Bundle
    from seedcnn.evaluate.onnx_file import onnx_predictor
    from seedcnn.evaluate.predictors import bundle_predictor

    if len(set(paths)) < len(paths):
        raise ConfigError(f"a model is named twice: {' '.join(map(str, paths))}")
    found = {str(path): _read(path, default) for path in paths}
    bundles = [item for item in found.values() if isinstance(item, Bundle)]
    opened = {}
    for name, item in found.items():
        if isinstance(item, Opened):
            opened[name] = item
        elif isinstance(item, Bundle):
            opened[name] = Opened(bundle_predictor(item), f"sha256 {item.sha256}")
        else:
            mean, std = given or _of_bundles(bundles)
            told = f"sha256 {item.sha256}, mean {list(mean)}, std {list(std)}"
            try:
                opened[name] = Opened(onnx_predictor(item, mean, std), told)
            except BundleError as error:  # it says what the runtime says, not of which file
                raise DataError(f"{name}: {error}") from error
    return opened
