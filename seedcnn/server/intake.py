"""What may be published: bundles that open and expand, under names that mean nothing to a file system or a URL."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from seedcnn.bundle import check_family, read_bundle
from seedcnn.bundle.limits import MAX_FILE_BYTES
from seedcnn.errors import BundleError, RepositoryError

__all__ = ["Accepted", "accept"]


@dataclass(frozen=True)
class Accepted:
    """A bundle fit to publish: its bytes, and what it says about itself."""

    data: bytes
    family: str
    release: int
    sha256: str
    content: str


def _read(bundle: str | Path | bytes, name: str) -> bytes:
    if isinstance(bundle, bytes):
        return bundle
    try:
        size = Path(bundle).stat().st_size
        if size > MAX_FILE_BYTES:
            raise RepositoryError(f"{name}: file has {size} bytes; at most {MAX_FILE_BYTES} are allowed")
        return Path(bundle).read_bytes()
    except OSError as error:
        raise RepositoryError(f"{name} cannot be read: {error.strerror}") from None


def accept(bundle: str | Path | bytes) -> Accepted:
    """Read a bundle, expand all of it as every device will, and check its family's name.

    Raises:
        RepositoryError: naming the file and what is wrong with it.
    """
    name = "bundle" if isinstance(bundle, bytes) else str(bundle)
    data = _read(bundle, name)
    try:
        opened = read_bundle(data)
        opened.tensors()
        opened.graph()
        opened.canned_logits()
    except BundleError as error:
        raise RepositoryError(f"{name} was not published: {error}") from None
    try:
        family = check_family(opened.manifest.family)
    except ValueError as error:
        raise RepositoryError(f"{name} was not published: {error}") from None
    return Accepted(data, family, opened.manifest.release, opened.sha256, opened.manifest.content_sha256())
