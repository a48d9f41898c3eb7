"""The wire format: one file that carries a model as coded tensors, seeds, a graph and a manifest.

Names are imported from their modules on first use. The update agent runs without numpy, which most of the modules need,
and still reads rollout rules through this package.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seedcnn.bundle.codings import as_scale, encode_grid, encode_raw, encode_seeded, grid_of_step
    from seedcnn.bundle.delta import apply_delta, read_delta, write_delta
    from seedcnn.bundle.entries import Grid, Seeded
    from seedcnn.bundle.manifest import CannedPictures, Measured
    from seedcnn.bundle.preprocessing import Preprocessing
    from seedcnn.bundle.reader import Bundle, open_bundle, read_bundle
    from seedcnn.bundle.rollout import (
        Artefact,
        Probation,
        Rollout,
        bundle_name,
        check_family,
        delta_name,
        release_of,
        rollout_name,
    )
    from seedcnn.bundle.writer import with_accuracy, write_bundle

__all__ = [
    "Artefact",
    "Bundle",
    "CannedPictures",
    "Grid",
    "Measured",
    "Preprocessing",
    "Probation",
    "Rollout",
    "Seeded",
    "apply_delta",
    "as_scale",
    "bundle_name",
    "check_family",
    "delta_name",
    "encode_grid",
    "encode_raw",
    "encode_seeded",
    "grid_of_step",
    "open_bundle",
    "read_bundle",
    "read_delta",
    "release_of",
    "rollout_name",
    "with_accuracy",
    "write_bundle",
    "write_delta",
]

_MODULES = {
    "codings": ("as_scale", "encode_grid", "encode_raw", "encode_seeded", "grid_of_step"),
    "delta": ("apply_delta", "read_delta", "write_delta"),
    "entries": ("Grid", "Seeded"),
    "manifest": ("CannedPictures", "Measured"),
    "preprocessing": ("Preprocessing",),
    "reader": ("Bundle", "open_bundle", "read_bundle"),
    "rollout": (
        "Artefact",
        "Probation",
        "Rollout",
        "bundle_name",
        "check_family",
        "delta_name",
        "release_of",
        "rollout_name",
    ),
    "writer": ("with_accuracy", "write_bundle"),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            value = getattr(import_module(f"{__name__}.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
