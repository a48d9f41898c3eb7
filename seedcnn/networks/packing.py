"""Pack a checkpoint in one call."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from seedcnn.messages import Say
from seedcnn.networks.opening import Trained, open_checkpoint
from seedcnn.pack import PackRequest, PackResult

__all__ = ["pack_checkpoint", "request_for"]


def request_for(request: PackRequest, found: Trained) -> PackRequest:
    """Complete a request by what the network was trained on: its data, if none are named, and what was held out."""
    named = "" if found.trained_on is not None and found.trained_on.source else found.config.data
    data = request.data or named
    same = data.partition(":")[0] in ("", found.config.data)
    return replace(request, data=data, hold_out=found.config.hold_out if same else "")


def pack_checkpoint(
    path: str | Path,
    *,
    family: str,
    release: int,
    max_drop: float | None = None,
    min_release: int = 0,
    step: float | None = None,
    parent: str | Path | None = None,
    data: str = "",
    progress: Say | None = None,
) -> PackResult:
    """Pack a checkpoint: ``pack_checkpoint("runs/a.ckpt", family="parts", release=1).data``.

    Args:
        path: of the checkpoint.
        family, release, min_release, step, data: see :class:`seedcnn.pack.PackRequest`.
        max_drop: largest accepted drop in percentage points; None is half a point for a search, any with ``step`` or
            ``parent``.
        parent: path of a bundle of the family; the release takes its grids, and a delta leads from it to the release.
        progress: called with one sentence for each step of loading.

    Returns:
        The bundle's bytes, and the accuracy before and after.

    Raises:
        ConfigError, DataError, TrainingError, ExportError, BundleError: naming the thing, its value and the rule.
    """
    request = PackRequest(
        family,
        release,
        min_release,
        data=data,
        step=step,
        max_accuracy_drop=max_drop,
        parent=None if parent is None else Path(parent),
    )
    found = open_checkpoint(path)
    return request_for(request, found).pack(
        found.module, found.name, progress, trained_on=found.trained_on, grid_steps=found.grid_steps
    )
