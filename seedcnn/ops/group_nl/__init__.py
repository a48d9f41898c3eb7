"""The GroupNL generator: from seed maps to seed maps and generated maps."""

from __future__ import annotations

from seedcnn.ops.group_nl.op import group_nl
from seedcnn.ops.group_nl.reference import NLF, NLFS, group_nl_reference, nlf_index, triangle_wave

__all__ = ["NLF", "NLFS", "group_nl", "group_nl_reference", "nlf_index", "triangle_wave"]
