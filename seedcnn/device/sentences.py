"""Failures of an update as a sentence for people and as a word for programs."""

from __future__ import annotations

from seedcnn.device.part import is_disk_full
from seedcnn.errors import BundleError, SeedCNNError, SelfTestError, UpdateError

__all__ = ["code_of", "sentence_of"]


def code_of(error: BaseException) -> str:
    """Return the reason of a refusal as a word: "stopped" by a signal, else see :class:`seedcnn.errors.UpdateError`."""
    if isinstance(error, KeyboardInterrupt):
        return "stopped"
    if is_disk_full(error) or is_disk_full(error.__cause__):
        return "space"
    if isinstance(error, SelfTestError):
        return "self-test"
    if isinstance(error, BundleError):
        return "bundle"
    return error.code if isinstance(error, UpdateError) else "other"


def sentence_of(error: BaseException) -> str | None:
    """Describe an expected failure in a sentence; return None for a defect or an interruption, which propagates."""
    if isinstance(error, BundleError):
        return f"the bundle was refused: {error}"
    if isinstance(error, SeedCNNError):
        return str(error)
    if isinstance(error, MemoryError):
        return "the update needs more memory than this device has"
    if isinstance(error, OSError):
        return f"the update could not finish: {error.strerror or error} ({error.filename or 'home'})"
    return None
