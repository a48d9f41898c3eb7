"""Expand a bundle to weights: seeds and grids become float32 tensors, each checked against its digest."""

from __future__ import annotations

from seedcnn.arrays import F32
from seedcnn.bundle import Bundle
from seedcnn.errors import BundleFormatError

__all__ = ["MAX_EXPANDED_BYTES", "expand"]

MAX_EXPANDED_BYTES = 256 << 20


def expand(bundle: Bundle, *, max_bytes: int = MAX_EXPANDED_BYTES) -> dict[str, F32]:
    """Regenerate every tensor that the graph needs.

    Args:
        max_bytes: limit on the tensors' memory, compared with the manifest before anything is allocated.

    Returns:
        {name: float32 array of the manifest's shape}.

    Raises:
        BundleFormatError: if the manifest needs more memory, or a tensor is malformed.
        DigestError: if a tensor's stored or expanded bytes do not match the manifest's digest.
    """
    wanted = 4 * sum(entry.elements for entry in bundle.manifest.tensors)
    if wanted > max_bytes:
        raise BundleFormatError(f"the model expands to {wanted} bytes; this device allows {max_bytes}")
    return bundle.tensors()
