"""``load_detection`` and ``load_segmentation``: list a layout, check every file, and return a set."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from seedcnn.data.dense import coco, folders, voc
from seedcnn.data.dense.detection_set import DetectionSet, from_lists
from seedcnn.data.dense.drafts import Draft, Picture
from seedcnn.data.dense.place import Place
from seedcnn.data.dense.problems import Problems
from seedcnn.data.dense.reading import size_problem
from seedcnn.data.dense.scenes import SCENES, scenes_zip
from seedcnn.data.dense.segmentation_set import Maps, SegmentationSet
from seedcnn.errors import ConfigError, DataError, did_you_mean
from seedcnn.messages import Say, steps

__all__ = ["DETECTION_LAYOUTS", "SEGMENTATION_LAYOUTS", "load_detection", "load_segmentation"]

DETECTION_LAYOUTS: Mapping[str, Callable[[Place, str, Problems], Draft]] = {
    "coco": coco.draft_detection,
    "voc": voc.draft_detection,
}
"""Layout -> its lister."""

SEGMENTATION_LAYOUTS: Mapping[str, Callable[[Place, str], tuple[Draft, Maps]]] = {
    "coco": coco.draft_segmentation,
    "voc": voc.draft_segmentation,
    "cityscapes": folders.draft_cityscapes,
    "camvid": folders.draft_camvid,
    "pairs": folders.draft_pairs,
}
"""Layout -> its lister."""


def _located(
    root: str | os.PathLike[str], layout: str | None, known: Mapping[str, Callable[..., object]], scenes: str, say: Say
) -> tuple[Place, str]:
    if layout is None and os.fspath(root) == SCENES:
        return Place(scenes_zip(say)), scenes
    if layout is None or layout not in known:
        names = ", ".join(known)
        raise ConfigError(f"unknown layout {layout!r} of {root}; {did_you_mean(layout, known)}known: {names}")
    return Place(root), layout


def _check_orientation(orientation: str) -> None:
    if orientation not in ("exif", "stored"):
        raise ValueError(f"`orientation` (={orientation!r}) must be 'exif' or 'stored'")


def _sizes(
    place: Place, pictures: tuple[Picture, ...], orientation: str, problems: Problems, progress: Say | None
) -> list[tuple[int, int] | None]:
    """The size of each picture by its head; None for one that is bad, which goes to ``problems``."""
    found: list[tuple[int, int] | None] = []
    with (
        steps(progress, "checking pictures", len(pictures)) as advance,
        ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="check") as pool,
    ):
        for picture, size in zip(
            pictures,
            pool.map(lambda each: size_problem(place, each.file, each.size, orientation), pictures),
            strict=True,
        ):
            if isinstance(size, str):
                problems.add(place.path(picture.file), size)
            found.append(None if isinstance(size, str) else size)
            advance()
    return found


def load_detection(
    root: str | os.PathLike[str],
    layout: str | None = None,
    *,
    split: str = "",
    orientation: str = "exif",
    on_error: str = "raise",
    verify: bool = True,
    progress: Say | None = None,
) -> DetectionSet:
    """List pictures with boxes and check all annotations; pictures are decoded later, in batches.

    Args:
        root: a directory, a zip file or a folder in one (``data.zip/folder``); "scenes" without a layout is the set
            that seedcnn composes (docs/dense-data.md).
        layout: "coco" or "voc"; docs/dense-data.md has the tree of each.
        split: which part; "" for the only one. Of VOC "2007/trainval" and "2007/trainval+2012/trainval" too.
        orientation: "exif" turns pictures as their EXIF data say, as a device does; "stored" leaves them, for sets
            whose boxes were drawn so.
        on_error: "raise" an error for bad boxes and pictures, or "skip" them and list them in ``skipped``. Official
            COCO has two training boxes without height, for example.
        verify: open the head of every picture; False leaves missing files and wrong sizes to the first reading.
        progress: called with one sentence per step.

    Raises:
        ConfigError: if there is no such layout or split.
        DataError: for anything wrong in annotations or pictures, naming file, id, value and rule. Duplicate ids,
            undeclared categories and annotations without an image are never skipped.
        ValueError: if another argument is not one of its words.
    """
    _check_orientation(orientation)
    problems = Problems(on_error, str(root))
    place, layout = _located(root, layout, DETECTION_LAYOUTS, "coco", progress or _silent)
    draft = DETECTION_LAYOUTS[layout](place, split, problems)
    pictures = draft.pictures
    if verify:
        sizes = _sizes(place, pictures, orientation, problems, progress)
        pictures = tuple(each for each, size in zip(pictures, sizes, strict=True) if size is not None)
    skipped = problems.settle()
    if not pictures:
        raise DataError(f"{draft.source} has no picture that can be used")
    found = from_lists(
        place,
        [each.file for each in pictures],
        [each.size or (0, 0) for each in pictures],
        [each.id for each in pictures],
        [each.objects for each in pictures],
        draft.classes,
        draft.class_ids,
        orientation,
    )
    return replace(found, source=draft.source, skipped=skipped)


def load_segmentation(
    root: str | os.PathLike[str],
    layout: str | None = None,
    *,
    split: str = "",
    orientation: str = "exif",
    on_error: str = "raise",
    verify: bool = True,
    progress: Say | None = None,
) -> SegmentationSet:
    """List pictures with a class for every pixel, and check all index maps; they are decoded again in batches.

    Args:
        root, split, orientation, progress: as for :func:`load_detection`. Index maps never turn.
        layout: "coco" (background and one class per category, drawn from polygons and RLEs), "voc", "cityscapes",
            "camvid" or "pairs"; docs/dense-data.md has the tree of each.
        on_error: "raise" an error for bad pictures and maps, or "skip" them and list them in ``skipped``.
        verify: decode every map; False leaves bad maps to the first reading. The heads of pictures are always read.

    Raises:
        ConfigError, ValueError: as for :func:`load_detection`.
        DataError: for anything wrong, naming file, value and rule: a picture without a map, another size, an index
            that is not declared, a map whose pixels are all ignored.
    """
    _check_orientation(orientation)
    problems = Problems(on_error, str(root))
    place, layout = _located(root, layout, SEGMENTATION_LAYOUTS, "pairs", progress or _silent)
    draft, maps = SEGMENTATION_LAYOUTS[layout](place, split)
    sizes = _sizes(place, draft.pictures, orientation, problems, progress)
    found = SegmentationSet(
        place,
        np.array([each.file for each in draft.pictures], np.str_),
        np.array([size or (0, 0) for size in sizes], np.int64).reshape(-1, 2),
        maps,
        draft.classes,
        draft.source,
        orientation,
    )
    good = np.array([size is not None for size in sizes], np.bool_)
    if verify:
        good = _good_maps(found, good, problems, progress)
    skipped = problems.settle()
    if not good.any():
        raise DataError(f"{draft.source} has no picture that can be used")
    return replace(found.take(good), skipped=skipped)


def _good_maps(data: SegmentationSet, readable: np.ndarray, problems: Problems, progress: Say | None) -> np.ndarray:
    """Which pictures have a good map, bool [N]; the others go to ``problems``."""

    def check(index: int) -> str:
        if not readable[index]:
            return ""
        try:
            data.index_map(index)
        except DataError as error:
            return str(error)
        return ""

    good = readable.copy()
    with (
        steps(progress, "checking index maps", len(data)) as advance,
        ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="check") as pool,
    ):
        for index, problem in enumerate(pool.map(check, range(len(data)))):
            if problem:
                good[index] = False
                name = data.maps.name(index)
                told = problem.startswith(f"{name} ")
                problems.add(name if told else problem, problem.removeprefix(f"{name} ") if told else "")
            advance()
    return good


def _silent(_: str) -> None:
    """Nobody listens."""
