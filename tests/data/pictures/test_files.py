"""Decoded images in a mapped file: equal to those in memory, used again or refused, complete or absent."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import threading
import tracemalloc
from dataclasses import dataclass

import numpy as np
import pytest

from seedcnn.data.pictures.files import PictureWriter, made_from, read_pictures
from seedcnn.data.pictures.folder import CenterCrop, FullFrame, list_class_folders
from seedcnn.errors import DataError
from seedcnn.evaluate.accuracies import accuracy
from seedcnn.evaluate.record import pictures_digest
from seedcnn.evaluate.robustness_runs import robustness

DECODED = []


@dataclass(frozen=True)
class Told:
    """A decoder whose repr identifies it, and which counts its calls."""

    size: int = 5

    def __call__(self, image):
        DECODED.append(image.size)
        return FullFrame(self.size)(image)


@dataclass(frozen=True)
class Failing:
    def __call__(self, image):
        raise RuntimeError(f"out of order at {image.size}")


@pytest.fixture
def folder(tmp_path, save_picture):
    for label, count in (("ant", 5), ("bee", 1), ("cat", 4)):
        for i in range(count):
            save_picture(tmp_path / "zoo" / label / f"{i}.png", seed=10 * count + i)
    return listed(tmp_path / "zoo")


@pytest.fixture
def file(tmp_path):
    (tmp_path / "kept").mkdir()
    return tmp_path / "kept" / "zoo.npy"


def listed(root):
    return list_class_folders(root, "Zoo", "<class>/*.png", suffixes=(".png",))


def test_the_pictures_are_the_same_and_decoded_once(folder, file):
    plain = folder.load(Told())
    DECODED.clear()
    first = folder.load(Told(), file=file)
    assert len(DECODED) == 10
    again = folder.load(Told(), file=str(file))
    assert len(DECODED) == 10
    for data in (first, again):
        assert isinstance(data.images, np.memmap)
        assert not data.images.flags.writeable
        np.testing.assert_array_equal(data.images, plain.images)
        assert data.labels.tolist() == plain.labels.tolist()
        assert data.names.tolist() == plain.names.tolist()
        assert (data.classes, data.source, data.skipped) == (plain.classes, plain.source, ())
    np.testing.assert_array_equal(np.load(file), plain.images)
    np.testing.assert_array_equal(np.load(file, mmap_mode="r"), plain.images)
    assert [path.name for path in file.parent.iterdir()] == ["zoo.npy"]
    picked = again.take([9, 0])
    assert not isinstance(picked.images, np.memmap)
    np.testing.assert_array_equal(picked.images, plain.images[[9, 0]])


def test_a_moved_directory_is_the_same(folder, file):
    folder.load(Told(), file=file)
    moved = folder.root.with_name("moved")
    folder.root.rename(moved)
    DECODED.clear()
    assert len(listed(moved).load(Told(), file=file)) == 10
    assert not DECODED


def _touch(root):
    os.utime(root / "bee/0.png", ns=(1, 1))


def _grow(root):
    with (root / "bee/0.png").open("ab") as stream:
        stream.write(b"more")


def _add(root):
    (root / "bee/1.png").write_bytes((root / "bee/0.png").read_bytes())


def _rename(root):
    (root / "bee/0.png").rename(root / "bee/7.png")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_touch, "listing: [0-9a-f]{64} in the file, [0-9a-f]{64} here"),
        (_grow, "listing: "),
        (_rename, "listing: "),
        (_add, "files: 10 in the file, 11 here; listing: "),
    ],
)
def test_other_files_are_refused(folder, file, change, words):
    folder.load(Told(), file=file)
    content = file.read_bytes()
    change(folder.root)
    with pytest.raises(DataError, match=rf"zoo\.npy holds the images of other files.*{words}.*remove it"):
        listed(folder.root).load(Told(), file=file)
    assert file.read_bytes() == content


def test_another_decoder_is_refused(folder, file):
    folder.load(Told(), file=file)
    with pytest.raises(DataError, match=r"decode: Told\(size=5\) in the file, Told\(size=6\) here"):
        folder.load(Told(6), file=file)
    with pytest.raises(
        DataError, match=r"decode: Told\(size=5\) in the file, CenterCrop\(size=5, resize=None, resample="
    ):
        folder.load(CenterCrop(5, None), file=file)
    with pytest.raises(DataError, match="files: 10 in the file, 9 here"):
        folder.take(range(9)).load(Told(), file=file)
    with pytest.raises(DataError, match="listing: "):
        folder.take(range(9, -1, -1)).load(Told(), file=file)


def test_a_decoder_that_cannot_be_told_is_refused(folder, file):
    @dataclass(frozen=True)
    class Holding:
        inner: object

    for decode in (lambda image: np.asarray(image), FullFrame, Holding(lambda image: image)):
        with pytest.raises(ValueError, match="must be a dataclass such as CenterCrop"):
            folder.load(decode, file=file)
    assert not file.exists()


def _other_array(file, content):
    np.save(file, np.zeros((10, 5, 5, 3), np.uint8))


def _other_type(file, content):
    header = content.index(b"\n") + 1
    file.write_bytes(content[:header].replace(b"'|u1'", b"'|i1'") + content[header:])


def _other_note(file, content):
    note = json.dumps({"made_from": {}}).encode()
    old = int.from_bytes(content[-16:-8], "little")
    file.write_bytes(content[: -16 - old] + note + len(note).to_bytes(8, "little") + content[-8:])


@pytest.mark.parametrize(
    "damage",
    [
        lambda file, content: file.write_bytes(b""),
        lambda file, content: file.write_bytes(content[:-1]),
        lambda file, content: file.write_bytes(content[: len(content) // 2]),
        lambda file, content: file.write_bytes(content[:200] + content[201:]),
        lambda file, content: file.write_bytes(content[:-16] + b"\xff" * 8 + content[-8:]),
        lambda file, content: file.write_bytes(b"\x93NUMPY\x02" + content[7:]),
        lambda file, content: file.write_text("<html>404</html>"),
        _other_array,
        _other_type,
        _other_note,
    ],
)
def test_a_damaged_file_is_refused_and_left(folder, file, damage):
    folder.load(Told(), file=file)
    damage(file, file.read_bytes())
    content = file.read_bytes()
    with pytest.raises(DataError, match=r"zoo\.npy is damaged, or is not a file of decoded images \(.*remove it"):
        folder.load(Told(), file=file)
    assert file.read_bytes() == content


def test_damaged_pictures_are_remembered(folder, file, caplog):
    (folder.root / "ant/2.png").write_bytes(b"")
    (folder.root / "cat/1.png").write_text("<html>404</html>")
    with pytest.raises(DataError, match=r"2 of 10 images .*ant/2\.png .*cat/1\.png"):
        folder.load(Told(), file=file)
    assert list(file.parent.iterdir()) == []
    plain = folder.load(Told(), on_error="skip")
    for _ in range(2):
        caplog.clear()
        kept = folder.load(Told(), on_error="skip", file=file)
        np.testing.assert_array_equal(kept.images, plain.images)
        assert kept.names.tolist() == plain.names.tolist()
        assert kept.labels.tolist() == plain.labels.tolist() == [0] * 4 + [1] + [2] * 3
        assert kept.skipped == plain.skipped
        assert [each.name for each in kept.skipped] == ["ant/2.png", "cat/1.png"]
        assert "2 of 10 images" in caplog.text
    with pytest.raises(DataError, match=r"2 of 10 images .*ant/2\.png"):
        folder.load(Told(), file=file)


def test_when_all_are_damaged_there_is_no_file(folder, file):
    for name in folder.names:
        (folder.root / name).write_bytes(b"")
    with pytest.raises(DataError, match="10 of 10 images"):
        folder.load(Told(), on_error="skip", file=file)
    assert list(file.parent.iterdir()) == []


def test_an_interrupted_writing_leaves_nothing(folder, file):
    with pytest.raises(RuntimeError, match="out of order"):
        folder.load(Failing(), file=file)
    assert list(file.parent.iterdir()) == []
    # The remains of a killed process, longer than the new file.
    (file.parent / ".zoo.npy.tmp").write_bytes(b"x" * 100_000)
    assert len(folder.load(Told(), file=file)) == 10
    assert [path.name for path in file.parent.iterdir()] == ["zoo.npy"]


def test_a_full_disk_is_told(folder, file):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(DataError, match=r"the decoded images cannot be kept in .*zoo\.npy: .*File too large"):
            folder.load(FullFrame(50), file=file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(file.parent.iterdir()) == []


def test_a_place_that_cannot_be_written(folder, file):
    with pytest.raises(DataError, match=r"cannot be kept in .*nowhere"):
        folder.load(Told(), file=file.parent / "nowhere" / "zoo.npy")
    with pytest.raises(DataError, match=r"the file of decoded images .*kept cannot be read"):
        folder.load(Told(), file=file.parent)


def test_of_two_that_write_one_waits_and_reads(folder, file, caplog):
    origin = made_from(folder.root, folder.names.tolist(), Told())
    images = folder.load(Told()).images
    DECODED.clear()
    found = []
    with PictureWriter(file) as writer:
        other = threading.Thread(target=lambda: found.append(folder.load(Told(), file=file)))
        other.start()
        while "waiting for another process" not in caplog.text:
            other.join(0.01)
            assert other.is_alive()
        writer.add(images)
        writer.finish(origin, [])
    other.join()
    np.testing.assert_array_equal(found[0].images, images)
    assert not DECODED
    assert [path.name for path in file.parent.iterdir()] == ["zoo.npy"]


def test_of_two_that_write_one_goes_on_where_the_other_fails(folder, file, caplog):
    found = []
    with contextlib.suppress(KeyboardInterrupt), PictureWriter(file):
        other = threading.Thread(target=lambda: found.append(folder.load(Told(), file=file)))
        other.start()
        while "waiting for another process" not in caplog.text:
            other.join(0.01)
            assert other.is_alive()
        raise KeyboardInterrupt
    other.join()
    assert len(found[0]) == 10
    assert [path.name for path in file.parent.iterdir()] == ["zoo.npy"]


def test_pictures_of_several_sizes_in_different_batches(folder, file, save_picture):
    save_picture(folder.root / "dog/0.png", (7, 7))
    both = listed(folder.root).take([0] * 256 + [10])
    for more in ({}, {"file": file}):
        with pytest.raises(
            DataError, match=r"uint8 \(6, 8, 3\), uint8 \(7, 7, 3\); all images of a set must have one size"
        ):
            both.load(Whole(), **more)
    assert list(file.parent.iterdir()) == []


@dataclass(frozen=True)
class Whole:
    def __call__(self, image):
        return np.asarray(image)


@pytest.mark.parametrize("count", [1, 9, 257])
def test_the_header_has_one_length(tmp_path, count):
    path = tmp_path / "a.npy"
    images = np.arange(count * 12, dtype=np.uint32).astype(np.uint8).reshape(count, 2, 2, 3)
    with PictureWriter(path) as writer:
        for start in range(0, count, 5):
            writer.add(images[start : start + 5])
        writer.finish({"a": "b"}, [(3, "why")])
    stored = read_pictures(path, {"a": "b"})
    assert stored is not None
    np.testing.assert_array_equal(stored.images, images)
    assert stored.skipped == ((3, "why"),)
    assert read_pictures(tmp_path / "nothing", {}) is None


def right_of_middle(images):
    """Scores of two classes: the mean of the left half and that of the right half."""
    half = images.shape[2] // 2
    sides = [images[:, :, :half], images[:, :, half:]]
    return np.stack([side.mean(axis=(1, 2, 3), dtype=np.float32) for side in sides], axis=1)


def test_memory_stays_at_a_few_batches(folder, file):
    many = folder.take(np.arange(6000) % 10)
    tracemalloc.start()
    try:
        data = many.load(FullFrame(64), file=file, threads=2)
        loading = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        accuracy(right_of_middle, data.images, data.labels % 2, batch_size=100)
        digest = pictures_digest(data.images, data.labels)
        judging = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert data.images.nbytes == 6000 * 64 * 64 * 3 > 73e6
    assert loading < 25e6
    assert judging < 10e6
    assert digest == pictures_digest(np.array(data.images), data.labels)


def test_a_mapped_set_is_evaluated_like_one_in_memory(folder, file):
    plain, mapped = folder.load(FullFrame(32)), folder.load(FullFrame(32), file=file)
    names = ("gaussian_noise", "contrast", "glass_blur")
    tables = [
        robustness(right_of_middle, data.images, data.labels % 2, corruptions=names, batch_size=3, max_images=8)
        for data in (plain, mapped)
    ]
    assert tables[0] == tables[1]
