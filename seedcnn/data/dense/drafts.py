"""The listing of a layout before any picture is opened, and the choice of a split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from seedcnn.data.dense.detection_set import Object
from seedcnn.data.dense.place import Place
from seedcnn.data.sets._layouts import some_of
from seedcnn.errors import ConfigError, DataError, did_you_mean
from seedcnn.literals import parse_json

__all__ = ["Draft", "Palette", "Picture", "declared", "one_split"]

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".tif", ".tiff", ".gif")
_DECLARED = "classes.json"


class Picture(NamedTuple):
    """A picture: its path, height and width as the annotations state them, its id, and its objects."""

    file: str
    size: tuple[int, int] | None
    id: int
    objects: tuple[Object, ...] = ()


class Draft(NamedTuple):
    """The pictures of a split, the classes and their ids by label, and what it was listed from."""

    pictures: tuple[Picture, ...]
    classes: tuple[str, ...]
    class_ids: tuple[int, ...]
    source: str


class Palette(NamedTuple):
    """The classes of ``classes.json``, and the index of ignored pixels; None if there is none."""

    classes: tuple[str, ...]
    ignore: int | None


def one_split(place: Place, what: str, expected: str, known: Sequence[str], split: str) -> str:
    """Check the name of a split; "" means the only one.

    Raises:
        DataError: if there are no splits.
        ConfigError: if there is no such split, or several and none was named.
    """
    if not known:
        raise DataError(f"{place.root} holds no {what}. Expected: {expected}. Found: {place.found()}")
    if not split and len(known) == 1:
        return known[0]
    if split in known:
        return split
    if not split:
        raise ConfigError(f"{place.root} has the splits {some_of(sorted(known))}; name one with `split`")
    hint = did_you_mean(split, known)
    raise ConfigError(f"{place.root} has no split {split!r}; {hint}it has {some_of(sorted(known))}")


def declared(place: Place, folder: str = "") -> Palette | None:
    """Read ``classes.json``: {"classes": [names by index], "ignore": an index behind them, or absent, ...}.

    Raises:
        DataError: if it is there and not of that form.
    """
    name = f"{folder}{_DECLARED}"
    if not place.is_file(name):
        return None
    path = place.path(name)
    try:
        content: Any = parse_json(place.read(name, 1 << 20))
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}") from None
    classes: Any = content.get("classes") if isinstance(content, dict) else None
    good = isinstance(classes, list) and 0 < len(classes) <= 253
    if not good or not all(isinstance(each, str) and each for each in classes) or len(set(classes)) != len(classes):
        raise DataError(f"{path} must declare 1 to 253 different names as classes, not {str(classes)[:200]}")
    ignore = content.get("ignore")
    if ignore is not None and (type(ignore) is not int or not len(classes) <= ignore <= 255):
        raise DataError(f"{path} ignores the index {ignore!r}; it must be in {len(classes)} to 255, behind the classes")
    return Palette(tuple(classes), ignore)
