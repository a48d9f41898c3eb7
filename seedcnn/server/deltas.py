"""Deltas from published releases to the next one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from seedcnn.bundle import delta_name, read_bundle, write_delta
from seedcnn.errors import BundleError
from seedcnn.server.intake import Accepted

__all__ = ["MadeDelta", "make_deltas"]


@dataclass(frozen=True)
class MadeDelta:
    """A delta: release and content digest of its parent, target name, and bytes."""

    parent: int
    parent_content: str
    target: str
    data: bytes


def make_deltas(accepted: Accepted, parents: Mapping[int, tuple[Path, str]]) -> list[MadeDelta]:
    """Make a delta from each parent that allows one, and keep those smaller than the bundle.

    Args:
        parents: {release: (published file, its signed SHA-256)}.
    """
    child, family, made = read_bundle(accepted.data), accepted.family, []
    for release, (path, digest) in parents.items():
        try:
            parent = read_bundle(path.read_bytes())
            data = write_delta(parent, child)
        except (OSError, BundleError):
            continue  # the file is gone or damaged, or the bundles differ in more than their weights
        if parent.sha256 == digest and len(data) < len(accepted.data):
            name = delta_name(family, accepted.release, release)
            made.append(MadeDelta(release, parent.manifest.content_sha256(), name, data))
    return made
