"""CIFAR-10-C in the official layout, as sparse files of the official shape, so that little is written."""

from __future__ import annotations

import numpy as np
import pytest

from seedcnn.data.sets.cifar10_c import list_cifar10_c, load_cifar10_c
from seedcnn.errors import DataError

SHAPE = (50000, 32, 32, 3)


def sparse(path, shape=SHAPE, dtype=np.uint8):
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)


@pytest.fixture(params=[".", "CIFAR-10-C"])
def root(tmp_path, request):
    directory = tmp_path / request.param
    directory.mkdir(exist_ok=True)
    array = sparse(directory / "fog.npy")
    for severity in range(1, 6):
        array[(severity - 1) * 10000] = severity
        array[severity * 10000 - 1, 0, 0, 0] = 10 * severity
    sparse(directory / "frost.npy")
    np.save(directory / "labels.npy", np.tile(np.arange(10000) % 7, 5).astype(np.uint8))
    return tmp_path


@pytest.mark.parametrize("severity", [1, 3, 5])
def test_severity_major(root, severity):
    data = load_cifar10_c(str(root), "fog", severity)
    assert data.images.shape == (10000, 32, 32, 3)
    assert (data.images[0] == severity).all()
    assert data.images[-1, 0, 0, 0] == 10 * severity
    assert data.labels.tolist() == (np.arange(10000) % 7).tolist()
    assert data.classes[3] == "cat"
    assert "fog" in data.source
    data.images[0] = 0
    assert (load_cifar10_c(root, "fog", severity).images[0] == severity).all()


def test_listing(root):
    assert list_cifar10_c(root) == ("fog", "frost")


@pytest.mark.parametrize("severity", [0, 6, 1.5, "1"])
def test_wrong_severity(root, severity):
    with pytest.raises(ValueError, match=rf"`severity` \(={severity!r}\) must be one of 1, 2, 3, 4, 5"):
        load_cifar10_c(root, "fog", severity)


@pytest.mark.parametrize("name", ["snow", "labels", "../fog", ""])
def test_unknown_corruption_says_what_there_is(root, name):
    with pytest.raises(DataError, match=rf"holds no {name!r}\. Found: fog, frost$"):
        load_cifar10_c(root, name, 1)


def test_missing_layout(tmp_path):
    with pytest.raises(DataError, match=r"does not exist\. Expected for CIFAR-10-C: labels\.npy"):
        load_cifar10_c(tmp_path / "nowhere", "fog", 1)
    (tmp_path / "fog.npy").write_bytes(b"")
    with pytest.raises(DataError, match=r"holds no CIFAR-10-C\. Expected: labels\.npy .*Found: fog\.npy"):
        load_cifar10_c(tmp_path, "fog", 1)
    (tmp_path / "fog.npy").unlink()
    np.save(tmp_path / "labels.npy", np.zeros(50000, np.uint8))
    with pytest.raises(DataError, match=r"no corruption of CIFAR-10-C\. Expected: .*Found: labels\.npy"):
        list_cifar10_c(tmp_path)


@pytest.mark.parametrize(
    ("name", "make", "words"),
    [
        ("fog", lambda p: p.write_bytes(b"no array"), "fog.npy cannot be read as an array"),
        ("fog", lambda p: p.write_bytes(p.read_bytes()[:100000]), "fog.npy cannot be read as an array"),
        ("fog", lambda p: sparse(p, (10000, 32, 32, 3)), r"is uint8 \(10000, 32, 32, 3\); it must be uint8 \(50000"),
        ("fog", lambda p: sparse(p, SHAPE, np.uint16), r"is uint16 .*; it must be uint8"),
        ("fog", lambda p: np.save(p, np.array([{}]), allow_pickle=True), "fog.npy cannot be read as an array"),
        ("labels", lambda p: np.save(p, np.zeros(10000, np.int64)), r"is int64 \(10000,\); it must be integers"),
        ("labels", lambda p: np.save(p, np.zeros(50000)), r"is float64 .*; it must be integers"),
        ("labels", lambda p: np.save(p, np.full(50000, 10)), "labels from 10 to 10; they must be 0 to 9"),
        ("labels", lambda p: np.save(p, np.full(50000, -1)), "labels from -1 to -1"),
    ],
)
def test_damaged_files(root, name, make, words):
    (path,) = root.rglob(f"{name}.npy")
    make(path)
    with pytest.raises(DataError, match=words):
        load_cifar10_c(root, "fog", 1)
