"""The files of pictures of one's own: class folders in parts or alone, or a list in a CSV file."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from seedcnn.errors import DataError
from seedcnn.messages import shown

__all__ = ["File", "classes_of", "listed"]

_TRAIN, _VAL = "train", ("val", "valid", "validation", "test")


@dataclass(frozen=True)
class File:
    """One file: its place below the root, its class, and its part, if the folder says so."""

    name: str
    label: str
    part: str = ""


def listed(place: Path, *, to_measure: bool = False) -> Iterator[File]:
    """List the files; ``to_measure`` leaves out a directory of pictures to train on."""
    if place.is_file():
        yield from _of_csv(place)
        return
    if not place.exists():
        raise DataError(f"there is no directory or CSV file {place}; name the pictures with --data")
    if not place.is_dir():
        raise DataError(f"{place} is neither a directory of pictures nor a CSV file")
    folders = {entry.name: entry for entry in _folders(place)}
    other = [name for name in _VAL if name in folders]
    if _TRAIN not in folders:
        alone = to_measure and list(folders) == other and len(other) == 1 and _folders(folders[other[0]])
        yield from _of_classes(place, folders[other[0]], "val") if alone else _of_classes(place, place, "")
        return
    if len(other) != 1:
        found = f"has {' and '.join(other)}" if other else f"has none of {', '.join(_VAL)}"
        raise DataError(f"{place} has {_TRAIN} and {found}; the pictures to measure on must be in one of them")
    if not to_measure:
        yield from _of_classes(place, folders[_TRAIN], "train")
    yield from _of_classes(place, folders[other[0]], "val")


def _folders(place: Path) -> list[Path]:
    return sorted(entry for entry in place.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _of_classes(root: Path, place: Path, part: str) -> Iterator[File]:
    folders = _folders(place)
    if not folders:
        raise DataError(f"{place} holds no class folder: it must hold one folder of pictures for each class")
    for folder in folders:
        _check_name(folder.name, f"{place} has the class folder")
        names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith(".") and _is_named(entry))
        if not names:
            inner = ", only folders" if _folders(folder) else ""
            raise DataError(f"the class folder {shown(str(folder))} holds no file{inner}")
        for name in names:
            yield File((folder / name).relative_to(root).as_posix(), folder.name, part)


def _is_named(entry: Path) -> bool:
    """Whether an entry is to be read, or named if it cannot be: a file, or a link that leads to none."""
    return entry.is_file() or (entry.is_symlink() and not entry.exists())


def _check_name(label: str, what: str) -> None:
    if not label.isascii() and any("\ud800" <= each <= "\udfff" for each in label):
        coding = sys.getfilesystemencoding()
        way = "rename it" if coding == "utf-8" else f"set PYTHONUTF8=1, since Python reads names as {coding} here"
        raise DataError(f"{what} {shown(label)}: a class must have a name in UTF-8, which bundles can carry; {way}")


def _of_csv(path: Path) -> Iterator[File]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            table = csv.DictReader(stream)
            if not {"path", "label"} <= set(table.fieldnames or ()):
                found = ", ".join(table.fieldnames or ("nothing",))
                raise DataError(f"{path} must have the columns path and label; its first line names {found}")
            for row in table:
                part = row.get("part") or ""
                good = row["path"] and row["label"] and "\0" not in row["path"]
                if not good or part not in ("", _TRAIN, *_VAL):
                    found = ", ".join(f"{name} {row.get(name)!r}" for name in ("path", "label", "part"))
                    rule = f"a path, a label, and as part {_TRAIN}, one of {', '.join(_VAL)}, or nothing"
                    raise DataError(f"line {table.line_num} of {path} has {found}; it must have {rule}")
                _check_name(row["label"], f"line {table.line_num} of {path} has the label")
                yield File(row["path"], row["label"], "val" if part in _VAL else part)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a CSV file in UTF-8: {error}") from None


def classes_of(files: Sequence[File], place: Path) -> tuple[str, ...]:
    """The classes in the order of their names.

    Raises:
        DataError: if there are no two, or one is in val alone.
    """
    classes = tuple(sorted({each.label for each in files}))
    if len(classes) < 2:
        found = f"1 class ({shown(classes[0])})" if classes else "no classes"
        raise DataError(f"{place} has {found}; a classifier needs two at least")
    if new := sorted({each.label for each in files if each.part == "val"} - _trained(files)):
        raise DataError(f"{place} has the class {shown(', '.join(new))} in val, but not in train")
    return classes


def _trained(files: Sequence[File]) -> set[str]:
    return {each.label for each in files if each.part != "val"}
