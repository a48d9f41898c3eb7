"""Making bundles adaptable: which norms travel, and the bytes that this takes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from torch import fx

from seedcnn.bundle import Bundle, Grid, Preprocessing
from seedcnn.bundle.entries import NORMS
from seedcnn.bundle.head import pack_head
from seedcnn.bundle.integers import stored_size
from seedcnn.export import TARGETS, OnnxModel
from seedcnn.export.norm_sites import NORMS_TENSOR, NormSites, find_norms
from seedcnn.pack.parent import Parent
from seedcnn.pack.result import Adapts

__all__ = ["adapts_of", "check_adaptable", "norms_to_pack"]


def check_adaptable(target: str, parent: Parent | None, *, int8: bool) -> None:
    """Refuse what an adaptable bundle cannot stand beside.

    Raises:
        ValueError: naming it.
    """
    if int8:
        raise ValueError("`adaptable` contradicts `int8`: an int8 graph has the ranges of its activations built in")
    if TARGETS[target].operator:
        raise ValueError(f"`adaptable` contradicts `target` {target!r}: the operator hides what its norms see")
    if parent is not None and not parent.bundle.manifest.norms:
        raise ValueError("`adaptable` needs a parent that is adaptable: no delta adds the norms' statistics")


def norms_to_pack(
    folded: fx.GraphModule, exported: OnnxModel, rule: Preprocessing, parent: Parent | None, adaptable: bool
) -> tuple[NormSites | None, Grid | None]:
    """The norms that travel, and the parent's grid for them; a child is adaptable if its parent is.

    Raises:
        ExportError: if no norm can be made adaptable.
    """
    entries = () if parent is None else parent.bundle.manifest.tensors
    grid = next((entry.grid for entry in entries if entry.role == NORMS), None)
    if not adaptable and grid is None:
        return None, None
    return find_norms(folded, exported, rule.shape), grid


def adapts_of(bundle: Bundle, norms: NormSites) -> Adapts:
    """The norms of an adaptable bundle, and the bytes that they take."""
    manifest = bundle.manifest
    tensors = tuple(entry for entry in manifest.tensors if entry.role != NORMS)
    bare = len(pack_head(replace(manifest, norms=(), tensors=tensors).dump(), bundle.graph()))
    integers: dict[str, npt.NDArray[np.int16]] = {}
    bundle.unscaled(integers)
    size = len(pack_head(manifest.dump(), bundle.graph())) - bare
    size += stored_size(list(integers.values()), manifest.integers)
    del integers[NORMS_TENSOR]
    size -= stored_size(list(integers.values()), manifest.integers)
    return Adapts(len(norms.channels), norms.left, size)
