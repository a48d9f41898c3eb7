"""``scenes``: a small set for detection and segmentation, composed on the user's machine from two packages.

seedcnn redistributes no picture. The cut-outs are Microsoft's Fluent emoji in 3D, the photographs those that foolbox
carries for its tests.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from seedcnn.arrays import U8
from seedcnn.data.dense.composing import SIDE, Scene, compose, prepared
from seedcnn.data.dense.rle import runs_to_text
from seedcnn.data.sets._icons50_sheets import code_points
from seedcnn.data.sets._npm import npm_pack
from seedcnn.data.user_cache import user_cache
from seedcnn.data.wheels import pip_wheel
from seedcnn.errors import DataError
from seedcnn.files import write_file
from seedcnn.messages import Say, steps
from seedcnn.runtime.pictures import on_background, read_picture

__all__ = ["CUT_OUTS", "DIGEST", "PHOTOS", "SCENES", "SPLITS", "Split", "divided", "scenes_zip", "write_scenes"]

SCENES = "scenes"
"""The name of the set."""

SPLITS: Mapping[str, int] = {"train": 320, "val": 80, "test": 100}
"""Scenes of each split."""

CUT_OUTS: Mapping[str, str] = {
    "animal": "1F428 1F42D 1F42E 1F42F 1F430 1F431 1F434 1F435 1F436 1F437 1F438 1F439 1F43A 1F43B 1F43C 1F981 1F984 "
    "1F98A 1F99D",
    "clock": "1F550 1F551 1F552 1F553 1F554 1F555 1F556 1F557 1F558 1F559 1F55A 1F55B 1F55C 1F55D 1F55E 1F55F 1F560 "
    "1F561 1F562 1F563 1F564 1F565 1F566 1F567",
    "face": "1F600 1F603 1F604 1F605 1F606 1F609 1F60A 1F60B 1F60E 1F60D 1F610 1F612 1F614 1F615 1F616 1F618 1F61A "
    "1F61E 1F622 1F62D 1F62E 1F632 1F641 1F642",
    "fruit": "1F345 1F347 1F348 1F349 1F34A 1F34B 1F34C 1F34D 1F34E 1F34F 1F350 1F351 1F352 1F353 1F95D 1F96D",
    "heart": "2764 1F493 1F494 1F496 1F497 1F498 1F499 1F49A 1F49B 1F49C 1F49D 1F49F 1F5A4 1F90D 1F90E 1F9E1",
    "vehicle": "1F68C 1F68D 1F68E 1F690 1F691 1F692 1F693 1F694 1F695 1F696 1F697 1F698 1F699 1F69A 1F69B 1F69C 1F6FB",
}
"""The classes, and the code points of the emoji of each."""

PHOTOS: Mapping[str, tuple[str, ...]] = {
    "train": ("01_559", "02_438", "09_455", "10_541", "13_471", "19_305"),
    "val": ("08_915", "11_630"),
    "test": ("05_853", "12_741", "18_317"),
}
"""The photographs of each split; those that show cars, fruit or heads of animals are left out."""

DIGEST = "6b1a718787b138b594581996043c2d4ae8f0ce5319b6c5dcbe8ed2a0cbd60ee4"
"""SHA-256 of all pixels, index maps and annotations."""

_SEED = 20_261_201
_EMOJI = ("@lobehub/fluent-emoji-3d@1.1.0", "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58")
_FOOLBOX = ("foolbox==3.3.4", "11049d515d38e765e206a73ace9cc648b81a0d6d1da9ad9057e149ee117989cb")
_NOTICE = (
    f"scenes is composed from two packages (17.5 MB), downloaded to this machine: {_EMOJI[0]} (15.8 MB; Microsoft's "
    f"Fluent emoji, MIT) and {_FOOLBOX[0]} (1.7 MB; MIT, its photographs belong to their owners). Do not pass the "
    "pictures on."
)
_DATE = (2020, 1, 1, 0, 0, 0)
_log = logging.getLogger(__name__)


class Split(NamedTuple):
    """Sources of a split: photographs uint8 [h, w, 3], and (label, prepared cut-out)."""

    photos: Sequence[U8]
    cut_outs: Sequence[tuple[int, U8]]
    scenes: int


def scenes_zip(say: Say | None = None, *, cache: Path | None = None) -> Path:
    """The set as a zip file in the layouts ``coco`` and ``pairs``, from the cache or composed once (half a minute).

    Args:
        say: called with one sentence per step; None writes them to the log.
        cache: the directory to use instead of ``scenes`` in the platform's cache directory for seedcnn.

    Raises:
        DataError: if a package cannot be downloaded, the cache cannot be written, or the scenes are not those that
            :data:`DIGEST` pins.
    """
    say = say or _log.info
    directory = cache or user_cache(SCENES)
    path = directory / f"{SCENES}-{DIGEST[:16]}.zip"
    if path.is_file():
        return path
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"the cache directory {directory} cannot be written: {error}") from error
    say(_NOTICE)
    content, digest = write_scenes(_download(say), tuple(CUT_OUTS), say)
    if digest != DIGEST:
        raise DataError(
            f"the scenes composed here have SHA-256 {digest}, expected {DIGEST}: this release of Pillow "
            f"({Image.__version__}) decodes the sources to other bytes; install the one in constraints.txt"
        )
    try:
        write_file(path, content)
    except OSError as error:
        raise DataError(f"the scenes were composed, but {path} cannot be written: {error}") from error
    say(f"{sum(SPLITS.values())} scenes are stored in {path}")
    return path


def _download(say: Say) -> dict[str, Split]:
    """Fetch photographs and cut-outs, and divide them: no two splits share any."""
    try:
        say(f"downloading {_FOOLBOX[0]}")
        with pip_wheel(*_FOOLBOX) as wheel:
            photos = {
                split: [
                    on_background(read_picture(wheel.read(f"foolbox/data/imagenet_{name}.jpg")), 3, (0, 0, 0))
                    for name in names
                ]
                for split, names in PHOTOS.items()
            }
        say(f"downloading {_EMOJI[0]}")
        with npm_pack(*_EMOJI) as package:
            files = {code_points(Path(name).stem): name for name in package.names if name.startswith("assets/")}
            cut_outs: dict[str, list[tuple[int, U8]]] = {split: [] for split in SPLITS}
            for label, codes in enumerate(CUT_OUTS.values()):
                for split, code in divided(codes.split()):
                    cut_outs[split].append((label, prepared(read_picture(package.read(files[code])))))
    except (DataError, KeyError) as error:
        raise DataError(f"scenes cannot be composed: {error}") from error
    return {split: Split(photos[split], cut_outs[split], count) for split, count in SPLITS.items()}


def divided(codes: Sequence[str]) -> list[tuple[str, str]]:
    """Divide the cut-outs of a class, as (split, code point), in the order of their SHA-256.

    Three fifths go to train, a fifth each to val and test.
    """
    order = sorted(codes, key=lambda code: hashlib.sha256(code.encode()).hexdigest())
    fifth = len(order) // 5
    return [(("val", "test")[n // fifth] if n < 2 * fifth else "train", code) for n, code in enumerate(order)]


def write_scenes(splits: Mapping[str, Split], classes: Sequence[str], say: Say | None = None) -> tuple[bytes, str]:
    """Compose all scenes and write them in the layouts ``coco`` and ``pairs``.

    Args:
        splits: what each split is made of.
        classes: names by label, without the background.
        say: as for :func:`scenes_zip`.

    Returns:
        The zip file, and the SHA-256 of pixels, index maps and annotations, which is the same whatever compresses them.
    """
    digest, stream = hashlib.sha256(), io.BytesIO()
    with (
        zipfile.ZipFile(stream, "w") as archive,
        steps(say, "composing scenes", sum(split.scenes for split in splits.values())) as advance,
    ):
        palette = {"classes": ["background", *classes], "ignore": 255}
        _store(archive, "classes.json", json.dumps(palette).encode())
        for salt, (name, split) in enumerate(splits.items(), 1):
            images: list[dict[str, Any]] = []
            annotations: list[dict[str, Any]] = []
            for index in range(split.scenes):
                scene = compose(_SEED, index, split.photos, split.cut_outs, salt=salt)
                digest.update(scene.picture.tobytes() + scene.index_map.tobytes())
                file = f"{index + 1:05d}.png"
                _store(archive, f"{name}/{file}", _png(scene.picture))
                _store(archive, f"{name}_masks/{file}", _png(scene.index_map))
                images.append({"id": index + 1, "file_name": file, "height": SIDE, "width": SIDE})
                annotations += _annotations(scene, index + 1, len(annotations) + 1)
                advance()
            categories = [{"id": label, "name": each} for label, each in enumerate(classes, 1)]
            content = {"images": images, "annotations": annotations, "categories": categories}
            text = json.dumps(content, separators=(",", ":")).encode()
            digest.update(text)
            _store(archive, f"annotations/{name}.json", text)
    return stream.getvalue(), digest.hexdigest()


def _store(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name, _DATE), data)


def _png(array: U8) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG", compress_level=4)
    return stream.getvalue()


def _annotations(scene: Scene, image: int, first: int) -> list[dict[str, Any]]:
    found = []
    for number, each in enumerate(scene.objects):
        x1, y1, x2, y2 = each.box
        flat = each.mask.T.ravel()
        changes = np.flatnonzero(np.diff(flat, prepend=np.uint8(0)))
        runs = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
        found.append({
            "id": first + number,
            "image_id": image,
            "category_id": each.label + 1,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": int(each.mask.sum()),
            "iscrowd": int(not each.counts),
            "segmentation": {"size": [SIDE, SIDE], "counts": runs_to_text(runs)},
        })  # fmt: skip
    return found
