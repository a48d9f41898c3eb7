"""The generator of GroupNL: seed maps in, seed maps and generated maps out."""

from __future__ import annotations

from seedcnn.ops.group_nl.reference import NLFS, group_nl_reference, nlf_index

__all__ = ["NLFS", "group_nl_reference", "nlf_index"]
