"""The wire format: one file that carries a model as coded tensors, seeds, a graph and a manifest."""

from __future__ import annotations

from seedcnn.bundle.codings import encode_grid, encode_raw, encode_seeded, grid_of_step
from seedcnn.bundle.manifest import FORMAT, Grid, Manifest, Preprocessing, Seeded, TensorEntry
from seedcnn.bundle.reader import Bundle, open_bundle, read_bundle
from seedcnn.bundle.writer import write_bundle

__all__ = [
    "FORMAT",
    "Bundle",
    "Grid",
    "Manifest",
    "Preprocessing",
    "Seeded",
    "TensorEntry",
    "encode_grid",
    "encode_raw",
    "encode_seeded",
    "grid_of_step",
    "open_bundle",
    "read_bundle",
    "write_bundle",
]
