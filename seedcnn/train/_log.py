"""Logs of a run beside its checkpoint: a CSV of the epochs and, optionally, TensorBoard events."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seedcnn.errors import MissingExtraError, TrainingError
from seedcnn.files import write_file

__all__ = ["open_tensorboard", "write_csv", "write_tensorboard"]


def write_csv(path: Path, history: Sequence[dict[str, float]]) -> None:
    """Write all epochs to a CSV atomically, so that it always matches the checkpoint; the first column counts them.

    Raises:
        TrainingError: if it cannot be written.
    """
    columns = list(dict.fromkeys(name for row in history for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, ["epoch", *columns], lineterminator="\n")
    writer.writeheader()
    writer.writerows({"epoch": number, **row} for number, row in enumerate(history, 1))
    try:
        write_file(path, text.getvalue().encode())
    except OSError as error:
        raise TrainingError(f"the table of epochs {path} cannot be written: {error}") from error


def open_tensorboard(directory: str | Path) -> Any:
    """Open torch's ``SummaryWriter`` for a directory.

    Raises:
        MissingExtraError: if tensorboard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtraError("tensorboard is not installed; install it with: pip install tensorboard") from error
    return SummaryWriter(str(directory))


def write_tensorboard(writer: Any, epoch: int, row: dict[str, float]) -> None:
    """Write the numbers of an epoch as scalars."""
    for name, value in row.items():
        writer.add_scalar(f"train/{name}", value, epoch)
    writer.flush()
