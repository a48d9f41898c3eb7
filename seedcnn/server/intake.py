"""Accept bundles for publishing: they must open and expand, and their family must be safe in paths and URLs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from seedcnn.bundle import check_family, open_bundle, read_bundle
from seedcnn.bundle.limits import MAX_FILE_BYTES
from seedcnn.errors import BundleError, RepositoryError

__all__ = ["Accepted", "accept", "check_interface"]


@dataclass(frozen=True)
class Accepted:
    """A bundle fit to publish; ``shape`` is channels, height and width of its input."""

    data: bytes
    family: str
    release: int
    sha256: str
    content: str
    labels: tuple[str, ...]
    shape: tuple[int, int, int]


def _read(bundle: str | Path | bytes, name: str) -> bytes:
    if isinstance(bundle, bytes):
        return bundle
    try:
        size = Path(bundle).stat().st_size
        if size > MAX_FILE_BYTES:
            raise RepositoryError(f"{name}: file has {size} bytes; at most {MAX_FILE_BYTES} are allowed")
        with open(bundle, "rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)  # a device has size 0 and no end
    except OSError as error:
        raise RepositoryError(f"{name} cannot be read: {error.strerror}") from None
    if len(data) > MAX_FILE_BYTES:
        raise RepositoryError(f"{name}: file has more than the {MAX_FILE_BYTES} bytes that are allowed")
    return data


def accept(bundle: str | Path | bytes) -> Accepted:
    """Read a bundle, expand it completely as a device will, and check its family's name.

    Raises:
        RepositoryError: naming the file and the problem.
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
    manifest = opened.manifest
    facts = manifest.release, opened.sha256, manifest.content_sha256(), manifest.labels, manifest.preprocessing.shape
    return Accepted(data, family, *facts)


def check_interface(accepted: Accepted, path: Path, release: int) -> None:
    """Refuse a release that answers with other labels, or takes another input, than the one before it.

    A release before it that is missing or damaged on this server holds nothing back.

    Args:
        accepted: the new bundle.
        path: of the last release.
        release: its number.

    Raises:
        RepositoryError: naming both.
    """
    try:
        before = open_bundle(path).manifest
    except (BundleError, OSError):  # a release that replaces a damaged one must not be held back
        return
    remedy = "publish it as a family of its own, or with --changes-interface"
    if accepted.labels != before.labels:
        old, new = (", ".join(labels)[:100] for labels in (before.labels, accepted.labels))
        other = f"has other labels ({new}) than release {release} ({old})"
        raise RepositoryError(f"release {accepted.release} of {accepted.family!r} {other}: {remedy}")
    if accepted.shape != before.preprocessing.shape:
        old, new = (" x ".join(map(str, shape)) for shape in (before.preprocessing.shape, accepted.shape))
        raise RepositoryError(
            f"release {accepted.release} of {accepted.family!r} takes {new}, release {release} takes {old}: {remedy}"
        )
