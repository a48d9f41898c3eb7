"""Directories and zip files are read alike."""

from __future__ import annotations

import zipfile

import pytest

from seedcnn.data.dense.place import Place, inner
from seedcnn.errors import DataError


@pytest.fixture(params=["directory", "zip", "folder in a zip"])
def place(request, tmp_path):
    files = {"a/b/x.txt": b"x", "a/y.txt": b"yy", "z.txt": b"", "a/.hidden": b"h"}
    if request.param == "directory":
        for name, data in files.items():
            (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "set" / name).write_bytes(data)
        return Place(tmp_path / "set")
    folder = "deep/set/" if request.param != "zip" else ""
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for name, data in files.items():
            archive.writestr(f"{folder}{name}", data)
    return Place(tmp_path / "set.zip" / folder)


def test_names_and_contents(place):
    assert place.names() == ["a", "z.txt"]
    assert place.names("a") == ["b", "y.txt"]
    assert place.names("none") == []
    assert place.read("a/b/x.txt") == b"x"
    assert place.is_file("a/y.txt")
    assert not place.is_file("a")
    assert not place.is_file("a/none")
    assert place.path("a/y.txt").endswith("a/y.txt")
    assert place.found() == "a, z.txt"
    with pytest.raises(DataError, match=r"a/none does not exist"):
        place.read("a/none")
    with pytest.raises(DataError, match=r"a/y\.txt has 2 bytes; at most 1 are read"):
        place.read("a/y.txt", 1)


def test_a_damaged_member(tmp_path):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.txt", b"abcdefgh" * 100)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"abcdefgh", b"abcdefgX", 1))
    with pytest.raises(DataError, match=r"x\.txt cannot be read: Bad CRC-32"):
        Place(path).read("x.txt")
    path.write_bytes(data[:100])
    with pytest.raises(DataError, match="cannot be read as a zip file"):
        Place(path)


def test_places_that_hold_nothing(tmp_path):
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    with pytest.raises(DataError, match=r"empty\.zip holds no file"):
        Place(tmp_path / "empty.zip")
    with pytest.raises(DataError, match=r"empty\.zip/none holds no file"):
        Place(tmp_path / "empty.zip/none")
    with pytest.raises(DataError, match="none does not exist"):
        Place(tmp_path / "none")


@pytest.mark.parametrize("name", ["", "/a", "../a", "a/../../b", "a\0b", "a\\b"])
def test_names_that_leave_their_folder(name):
    with pytest.raises(DataError, match="image 3 has the file name"):
        inner(name, "image 3")
    assert inner("a/./b.jpg", "image 3") == "a/b.jpg"


def test_a_member_of_an_unknown_compression_or_with_a_password_is_named(tmp_path):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", b"text")
    data = path.read_bytes()
    for offsets, value in (((8, data.index(b"PK\x01\x02") + 10), 98), ((6, data.index(b"PK\x01\x02") + 8), 1)):
        changed = bytearray(data)
        for offset in offsets:
            changed[offset] = value
        path.write_bytes(changed)
        with pytest.raises(DataError, match=r"a\.txt"):
            Place(path).read("a.txt")
