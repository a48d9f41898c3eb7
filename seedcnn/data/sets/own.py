"""Pictures of one's own: a folder of class folders, or a list in a CSV file, decoded by a rule."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from seedcnn.arrays import U8
from seedcnn.bundle import Preprocessing
from seedcnn.data.image_set import ImageSet, Unreadable, channel_statistics
from seedcnn.data.sets._own_files import File, classes_of, listed
from seedcnn.errors import DataError, ImageError
from seedcnn.messages import Say, shown, steps
from seedcnn.runtime.pictures import prepare, read_picture

__all__ = [
    "FOLDER",
    "VAL_SHARE",
    "OwnPictures",
    "TrainedOn",
    "class_names",
    "has_parts",
    "load_folder",
    "load_pictures",
]

FOLDER = "folder"
"""The name of pictures of one's own, which :func:`load_folder` loads by a rule."""
VAL_SHARE = 0.2
_SHOWN = 5
_NOT_WANTED = "it is trained on"


@dataclass(frozen=True, eq=False)
class OwnPictures:
    """Pictures of one's own, decoded, in two parts.

    Attributes:
        train, val: the parts, with the same classes, in the order of their names.
        preprocessing: the rule that decoded them, with mean and standard deviation.
        root: the directory or CSV file.
        left_out: files that are no pictures, or cannot be decoded.
        in_both: number of files of ``val`` that are in ``train``, too, byte for byte.
        about: lines that say what was found.
    """

    train: ImageSet
    val: ImageSet
    preprocessing: Preprocessing
    root: Path
    left_out: tuple[Unreadable, ...] = ()
    in_both: int = 0
    about: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"OwnPictures({self.root}: {len(self.train)} to train on, {len(self.val)} to measure on; {self.classes})"

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, by label."""
        return self.train.classes


@dataclass(frozen=True)
class TrainedOn:
    """The data that a network was trained on, as its checkpoint keeps it.

    Attributes:
        labels: the class names, in the order of the logits.
        preprocessing: the rule by which a picture becomes an input.
        source: NAME or NAME:DIRECTORY of the data, "folder:DIRECTORY" for pictures of one's own.
        val: the share of those that was held back, where they have no parts.
    """

    labels: tuple[str, ...]
    preprocessing: Preprocessing
    source: str
    val: float = VAL_SHARE

    def check(self, classes: Sequence[str], data: str) -> None:
        """Refuse data with other classes.

        Raises:
            DataError: naming both.
        """
        if tuple(classes) != self.labels:
            theirs, ours = (shown(", ".join(names))[:200] for names in (classes, self.labels))
            raise DataError(
                f"{data} has {len(classes)} classes ({theirs}), but the network was trained on {len(self.labels)} "
                f"({ours}), from {self.source or 'other data'}"
            )

    def check_images(self, images: ImageSet, data: str) -> None:
        """Refuse images of other classes, or of another size than the network's input.

        Raises:
            DataError: naming both.
        """
        self.check(images.classes, data)
        height, width, channels = images.images.shape[1:]
        if (channels, height, width) != self.preprocessing.shape:
            ours = " x ".join(map(str, self.preprocessing.shape))
            raise DataError(f"{data} has images of {channels} x {height} x {width}; the network takes {ours}")

    def measured_in(self, place: Path) -> tuple[float | None, str | None]:
        """How pictures of one's own are measured: the share to measure on, and where the network was trained.

        Returns:
            ``val`` and ``trained_in`` of :func:`load_pictures`.
        """
        kind, _, trained_in = self.source.partition(":")
        if kind == FOLDER and Path(trained_in).resolve() == place.resolve():
            return self.val, ""
        if not self.source:  # a bundle, or weights from elsewhere
            return None, None
        return None, trained_in if kind == FOLDER and _may_hold(Path(trained_in), place) else ""


@dataclass(frozen=True)
class _Read:
    """A file that was read: the SHA-256 of its bytes, its size in pixels, and its picture or the reason for none."""

    file: File
    sha256: str
    size: tuple[int, int]
    found: U8 | str


def _may_hold(trained_in: Path, place: Path) -> bool:
    """Whether pictures that were trained on may be in another place: not beside a part that was trained on alone."""
    alone = trained_in / "train"
    return not alone.is_dir() or place.resolve().is_relative_to(alone.resolve())


def class_names(root: str | os.PathLike[str]) -> tuple[str, ...]:
    """Return the classes of pictures of one's own, in the order of their names; no picture is read.

    Raises:
        DataError: as :func:`load_folder`.
    """
    place = Path(root)
    return classes_of(list(listed(place)), place)


def has_parts(root: str | os.PathLike[str]) -> bool:
    """Return whether pictures of one's own say themselves which of them are trained on.

    Raises:
        DataError: as :func:`load_folder`.
    """
    return any(each.part == "train" for each in listed(Path(root)))


def load_folder(
    root: str | os.PathLike[str],
    *,
    preprocessing: Preprocessing | None = None,
    val: float | None = None,
    strict: bool = False,
    progress: Say | None = None,
) -> OwnPictures:
    """Load pictures of one's own into memory.

    ``root`` holds train/ and val/ (or valid/, validation/, test/), each with a folder of pictures for each class; or
    the class folders alone; or it is a CSV file with the columns "path" and "label" (and "part": train or val), whose
    paths start from its directory. Where no parts are given, the digest of a file's bytes decides about it, so that
    new files never move old ones. Hidden files are left out.

    Args:
        root: directory or CSV file.
        preprocessing: the rule; the default is ``Preprocessing.crop(224)``. If its mean is 0 and its standard
            deviation 1, those of the training part take their place.
        val: share of the files that are not trained on, where no parts are given; None for 0.2.
        strict: refuse files that cannot be decoded, instead of leaving them out.
        progress: called with one sentence per step.

    Raises:
        DataError: if there are no two classes, a class has no picture to train on, a class is in val but not in train,
            a file cannot be decoded (``strict``), or the pictures do not fit into memory.
        ValueError: if ``val`` is not in (0, 1).
    """
    if val is not None and not 0 < val < 1:
        raise ValueError(f"`val` (={val}) must be more than 0 and less than 1")
    rule = preprocessing or Preprocessing.crop(224)
    place = Path(root)
    files = list(listed(place))
    if val is not None and val != VAL_SHARE and all(each.part for each in files):
        raise DataError(f"`val` (={val}) has no effect on {place}, which says itself what is measured on")
    val = VAL_SHARE if val is None else val
    directory = place if place.is_dir() else place.parent
    classes = classes_of(files, place)
    _check_memory(len(files), rule)
    if progress:
        progress(f"decoding {len(files):,} files of {place}")
    reads = _read(directory, files, rule, progress)
    left_out = tuple(Unreadable(each.file.name, each.found) for each in reads if isinstance(each.found, str))
    if strict and left_out:
        raise DataError(f"{len(left_out)} of {len(files)} files of {place} cannot be used: {_some(left_out)}")
    good = [each for each in reads if not isinstance(each.found, str)]
    parts = {name: [each for each in good if _part(each, val) == name] for name in ("train", "val")}
    _check_parts(parts, classes, place, left_out, divided=all(each.part for each in files))
    train, other = (_image_set(parts[name], classes, str(place), left_out) for name in ("train", "val"))
    if not any(rule.mean_e8) and set(rule.std_e8) == {10**8}:
        rule = _measured(rule, train, place)
    known = {each.sha256 for each in parts["train"]}
    in_both = sum(each.sha256 in known for each in parts["val"])
    return OwnPictures(train, other, rule, place, left_out, in_both, tuple(_about(parts, classes, left_out, in_both)))


def load_pictures(
    root: str | os.PathLike[str],
    rule: Preprocessing,
    classes: tuple[str, ...],
    *,
    val: float | None = None,
    trained_in: str | None = "",
    progress: Say | None = None,
) -> ImageSet:
    """Load the pictures to measure a network on: the part of ``root`` that is not trained on.

    Args:
        root: as for :func:`load_folder`.
        rule: of the network.
        classes: of the network, in its order.
        val: where ``root`` has one part: the share that :func:`load_folder` held back; None takes all pictures.
        trained_in: where the network was trained, if that is another place, or None if it is not known; a line says
            what that may mean.
        progress: called with one sentence per step.

    Raises:
        DataError: if the classes are not the network's, or there is no picture.
    """
    place = Path(root)
    files = [each for each in listed(place, to_measure=True) if each.part != "train"]
    if new := sorted({each.label for each in files} - set(classes)):
        named, known = shown(", ".join(new))[:200], shown(", ".join(classes))[:200]
        raise DataError(f"{place} has the class {named}, which the network does not know ({known})")
    _check_memory(len(files), rule)
    if progress:
        progress(f"decoding {len(files):,} files of {place}")
        if trained_in != "" and not all(each.part for each in files):
            where = "" if trained_in is None else f" in {trained_in}"
            progress(f"all of it is measured, also what the network was trained on{where}, if it is there")
    share = 2.0 if val is None else val
    directory = place if place.is_dir() else place.parent
    reads = _read(directory, files, rule, progress, None if val is None else share)
    left = tuple(Unreadable(each.file.name, each.found) for each in reads if isinstance(each.found, str))
    good = [each for each in reads if not isinstance(each.found, str) and _part(each, share) == "val"]
    if not good:
        raise DataError(f"{place} has no picture to measure on{f': {_some(left)}' if left else ''}")
    return _image_set(good, classes, str(place), tuple(each for each in left if each.reason != _NOT_WANTED))


def _check_memory(count: int, rule: Preprocessing) -> None:
    needed = count * rule.height * rule.width * rule.channels
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return
    if 2 * needed > free:
        raise DataError(
            f"{count:,} pictures of {rule.height} x {rule.width} take {needed / 1e9:.1f} GB, and as much again while "
            f"they are sorted; {free / 1e9:.1f} GB of memory are free. Take a smaller --input, or fewer pictures"
        )


def _read(
    directory: Path, files: Sequence[File], rule: Preprocessing, progress: Say | None, only: float | None = None
) -> list[_Read]:
    """Read files in threads; with ``only`` those that this share holds back are decoded, the others are not."""
    reads = []
    with (
        steps(progress, "decoding", len(files)) as advance,
        ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="decode") as pool,
    ):
        for each in pool.map(lambda each: _read_one(directory, each, rule, only), files):
            reads.append(each)
            advance()
    return reads


def _leaves(path: Path, directory: Path) -> bool:
    """Whether a file is a link, or lies behind one, that leads out of the directory. A list may name files outside."""
    named_inside = Path(os.path.abspath(path)).is_relative_to(os.path.abspath(directory))
    return (named_inside or path.is_symlink()) and not path.resolve().is_relative_to(directory.resolve())


def _read_one(directory: Path, file: File, rule: Preprocessing, only: float | None) -> _Read:
    path = directory / file.name
    try:
        if _leaves(path, directory):
            return _Read(file, "", (0, 0), "it is a link that leaves the folder")
        if path.is_fifo():
            return _Read(file, "", (0, 0), "it is a pipe, not a file")
        data = path.read_bytes()
    except RuntimeError:  # of `resolve`, before Python 3.13
        return _Read(file, "", (0, 0), "it is a link that leads in a circle")
    except OSError as error:
        return _Read(file, "", (0, 0), error.strerror or str(error))
    digest = hashlib.sha256(data).hexdigest()
    if only is not None and _part(_Read(file, digest, (0, 0), ""), only) == "train":
        return _Read(file, digest, (0, 0), _NOT_WANTED)
    try:
        picture = read_picture(data, orientation=rule.orientation)
        return _Read(file, digest, picture.shape[:2], prepare(picture, rule))
    except ImageError as error:
        return _Read(file, digest, (0, 0), str(error).removeprefix("the picture "))


def _part(read: _Read, val: float) -> str:
    if read.file.part:
        return read.file.part
    return "val" if int(read.sha256[:8], 16) < val * 2**32 else "train"


def _check_parts(
    parts: dict[str, list[_Read]],
    classes: Sequence[str],
    place: Path,
    left_out: Sequence[Unreadable],
    *,
    divided: bool,
) -> None:
    count = Counter(each.file.label for each in parts["train"])
    why = f"; left out: {_some(left_out)}" if left_out else ""
    if none := [name for name in classes if not count[name]]:
        raise DataError(f"{place} has no picture to train on of the class {shown(', '.join(none))}{why}")
    if not parts["val"]:
        advice = "" if divided else "; give more pictures, or a larger share with --val"
        raise DataError(f"{place} has no picture to measure on{advice}{why}")


def _image_set(reads: Sequence[_Read], classes: tuple[str, ...], source: str, left: tuple[Unreadable, ...]) -> ImageSet:
    images = np.stack([each.found for each in reads])  # type: ignore[arg-type]
    labels = np.array([classes.index(each.file.label) for each in reads], np.int64)
    return ImageSet(images, labels, classes, source, None, np.array([each.file.name for each in reads]), left)


def _measured(rule: Preprocessing, train: ImageSet, place: Path) -> Preprocessing:
    mean, std = channel_statistics(train.images)
    if not min(std):
        raise DataError(f"all pictures of {place} have one colour; there is nothing to learn from")
    return replace(rule, mean_e8=tuple(round(m * 1e8) for m in mean), std_e8=tuple(round(s * 1e8) for s in std))


def _about(
    parts: dict[str, list[_Read]], classes: Sequence[str], left_out: Sequence[Unreadable], in_both: int
) -> Iterator[str]:
    trained, measured = (Counter(each.file.label for each in parts[name]) for name in ("train", "val"))
    reads = [*parts["train"], *parts["val"]]
    listed = ", ".join(f"{shown(name)} {trained[name]} + {measured[name]}" for name in classes[:20])
    more = f", and {len(classes) - 20} more" if len(classes) > 20 else ""
    yield f"{len(parts['train']):,} pictures to train on, {len(parts['val']):,} to measure on; {len(classes)} classes"
    yield f"by class: {listed}{more}"
    kinds = Counter(Path(each.file.name).suffix.lower().lstrip(".") or "no suffix" for each in reads)
    sizes = sorted((each.size[0] * each.size[1], each.size) for each in reads)
    (_, (h, w)), (_, (height, width)) = sizes[0], sizes[-1]
    listed = ", ".join(f"{shown(name)} {count}" for name, count in kinds.most_common())
    yield f"kinds: {listed}; smallest {w} x {h}, largest {width} x {height} pixels"
    if left_out:
        yield f"left out {len(left_out)}: {_some(left_out)}"
    if in_both:
        yield f"{in_both} of the pictures to measure on are also trained on, byte for byte"


def _some(left_out: Sequence[Unreadable]) -> str:
    more = f", and {len(left_out) - _SHOWN} more" if len(left_out) > _SHOWN else ""
    return "; ".join(f"{shown(each.name)} ({each.reason})" for each in left_out[:_SHOWN]) + more
