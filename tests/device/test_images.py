from __future__ import annotations

import numpy as np
import pytest

from seedcnn.device.images import list_pictures, load_batch
from seedcnn.errors import ImageError
from tests.device.bundles import RULE


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)


def test_directories_are_listed_by_name(tmp_path):
    for name in ("b/2.png", "b/1.png", "a.png", ".hidden", ".git/x", "b/c/0.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = list(list_pictures([tmp_path, tmp_path / "absent.png"]))
    assert [str(path.relative_to(tmp_path)) for path in found] == [
        *("a.png", "b/1.png", "b/2.png", "b/c/0.png", "absent.png")
    ]
    (tmp_path / "empty" / ".git").mkdir(parents=True)
    assert list(list_pictures([tmp_path / "empty"])) == [tmp_path / "empty"]  # for whoever reads it to refuse


def test_batch(tmp_path, pixels):
    batch = np.stack([pixels, 255 - pixels])
    np.save(tmp_path / "x.npy", batch)
    np.testing.assert_array_equal(load_batch(tmp_path / "x.npy", RULE), batch)


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.zeros((2, 32, 32, 3), np.float32), r"float32 \(2, 32, 32, 3\)"),
        (np.zeros((2, 3, 32, 32), np.uint8), r"uint8 \(2, 3, 32, 32\)"),
        (np.zeros((32, 32, 3), np.uint8), r"uint8 \(32, 32, 3\)"),
        (np.array([{}], object), r"cannot be read as a NumPy array: .*Python objects"),
    ],
)
def test_wrong_batch(tmp_path, array, found):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(ImageError, match=found):
        load_batch(tmp_path / "x.npy", RULE)


@pytest.mark.parametrize("content", [b"", b"text", b"\x93NUMPY\x01\x00\x46\x00{", b"PK\x03\x04"])
def test_not_a_batch(tmp_path, content):
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(ImageError, match="cannot be read as a NumPy array"):
        load_batch(tmp_path / "x.npy", RULE)


def test_truncated_and_missing_batch(tmp_path, pixels):
    np.save(tmp_path / "x.npy", pixels[None])
    (tmp_path / "x.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-1])
    with pytest.raises(ImageError, match="cannot be read as a NumPy array"):
        load_batch(tmp_path / "x.npy", RULE)
    with pytest.raises(ImageError, match="does not exist"):
        load_batch(tmp_path / "y.npy", RULE)
