from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from seedcnn.device.images import load_batch, load_image
from seedcnn.errors import ImageError
from tests.device.bundles import RULE


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)


def png(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("name", ["x.png", "x.bmp", "x.ppm"])
def test_lossless_images_come_back_exactly(tmp_path, pixels, name):
    Image.fromarray(pixels).save(tmp_path / name)
    loaded = load_image(tmp_path / name, RULE)
    assert loaded.dtype == np.uint8
    np.testing.assert_array_equal(loaded, pixels)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n", b"GIF89a" + bytes(100)])
def test_not_an_image(tmp_path, content):
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(ImageError, match=r"not an image of a known format|cannot be read as an image"):
        load_image(tmp_path / "x.png", RULE)


def test_missing_file_and_directory(tmp_path):
    with pytest.raises(ImageError, match=r"absent\.png does not exist"):
        load_image(tmp_path / "absent.png", RULE)
    with pytest.raises(ImageError, match="Is a directory"):
        load_image(tmp_path, RULE)


def test_truncated_image(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "x.png")
    (tmp_path / "x.png").write_bytes((tmp_path / "x.png").read_bytes()[:1000])
    with pytest.raises(ImageError, match="is damaged"):
        load_image(tmp_path / "x.png", RULE)


def test_wrong_size_is_refused_or_resized(tmp_path, pixels):
    Image.fromarray(np.full((48, 64, 3), 77, np.uint8)).save(tmp_path / "x.png")
    with pytest.raises(ImageError, match=r"is 64 x 48 pixels; the model takes 32 x 32"):
        load_image(tmp_path / "x.png", RULE)
    np.testing.assert_array_equal(load_image(tmp_path / "x.png", RULE, resize=True), np.full((32, 32, 3), 77))


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGBA", 4), ("LA", 2), ("P", 1), ("1", 1), ("I;16", 1)])
def test_wrong_channels(tmp_path, mode, channels):
    Image.new(mode, (32, 32)).save(tmp_path / "x.png")
    for resize in (False, True):
        with pytest.raises(ImageError, match=rf"has mode {mode} \({channels} channels\); the model takes RGB"):
            load_image(tmp_path / "x.png", RULE, resize=resize)


@pytest.mark.parametrize("size", [(8000, 8000), (12_000, 12_000), (60_000, 60_000)])
def test_decompression_bomb_is_not_decompressed(tmp_path, size):
    (tmp_path / "x.png").write_bytes(png(*size))
    with pytest.raises(ImageError, match=r"at most 50000000 are allowed|decompression bomb"):
        load_image(tmp_path / "x.png", RULE, resize=True)


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
