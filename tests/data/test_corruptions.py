"""Corruptions against the official code's output, against Pillow, and against their published statistics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seedcnn.data.corruptions import CORRUPTIONS, GROUPS, SEVERITIES, _resize_box, corrupt, draw_fields

# Official code's output for the first 8 test pictures, np.random.seed(i) before picture i.
GOLDEN = Path(__file__).with_name("golden_corruptions.npz")
NAMES = ("gaussian_noise", "gaussian_blur", "contrast", "pixelate")


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return dict(file)


@pytest.fixture(scope="module")
def images(golden):
    return golden["images"]


def official_noise():
    rows = []
    for i in range(8):
        state = np.random.RandomState(i)
        rows.append(state.normal(size=(32, 32, 3)))
    return {"normal": np.stack(rows)}


@pytest.mark.parametrize("severity", [1, 3, 5])
@pytest.mark.parametrize("name", NAMES)
def test_equal_to_the_official_code(golden, images, name, severity):
    fields = official_noise() if name == "gaussian_noise" else None
    ours, theirs = corrupt(images, name, severity, fields=fields), golden[f"{name}_{severity}"]
    assert np.mean(ours == theirs) >= 0.999
    assert np.abs(ours.astype(int) - theirs).max() <= 1
    assert ours.dtype == np.uint8
    assert np.any(ours != images)


# mean, std and mean absolute difference over the first 1000 test pictures, from the official code.
STATISTICS = {
    ("gaussian_noise", 1): (121.3937, 64.5745, 7.9957),
    ("gaussian_noise", 5): (121.3821, 67.2492, 19.5184),
    ("gaussian_blur", 1): (121.4270, 63.3821, 1.3339),
    ("gaussian_blur", 5): (121.4396, 59.1593, 9.4462),
    ("contrast", 1): (121.4270, 53.3495, 10.6798),
    ("contrast", 5): (121.4272, 35.9546, 36.2951),
    ("pixelate", 1): (121.9887, 63.7854, 1.7788),
    ("pixelate", 5): (122.2964, 62.4253, 8.6309),
}


@pytest.mark.parametrize(("name", "severity"), STATISTICS)
def test_statistics_on_1000_pictures(cifar10, name, severity):
    pictures = cifar10.test_images[:1000]
    ours = corrupt(pictures, name, severity)
    difference = np.abs(ours.astype(int) - pictures).mean()
    tolerance = 0.05 if CORRUPTIONS[name].draw else 0.0001
    np.testing.assert_allclose([ours.mean(), ours.std(), difference], STATISTICS[name, severity], atol=tolerance)


def test_constants_are_the_published_ones():
    assert tuple(CORRUPTIONS) == NAMES
    assert {name: row.group for name, row in CORRUPTIONS.items()} == {
        "gaussian_noise": "Noise",
        "gaussian_blur": "Blur",
        "contrast": "Digital",
        "pixelate": "Digital",
    }
    assert [name for name, row in CORRUPTIONS.items() if not row.main] == ["gaussian_blur"]
    assert all(row.group in GROUPS and row.name == name for name, row in CORRUPTIONS.items())
    assert all(len(values) == 5 for row in CORRUPTIONS.values() for values in row.constants.values())
    assert len({row.number for row in CORRUPTIONS.values()}) == len(CORRUPTIONS)
    assert CORRUPTIONS["contrast"].constants["imagenet"] == (0.4, 0.3, 0.2, 0.1, 0.05)
    assert CORRUPTIONS["gaussian_blur"].constants["cifar"] == (0.4, 0.6, 0.7, 0.8, 1.0)


@pytest.mark.parametrize("name", NAMES)
def test_imagenet_constants_and_other_sizes(name):
    pictures = np.random.default_rng(3).integers(0, 256, (2, 40, 56, 3), dtype=np.uint8)
    ours = corrupt(pictures, name, 5, constants="imagenet")
    assert ours.shape == pictures.shape
    assert (
        np.abs(ours.astype(int) - pictures).mean()
        > np.abs(corrupt(pictures, name, 1, constants="cifar").astype(int) - pictures).mean()
    )


@pytest.mark.parametrize("name", NAMES)
def test_stronger_severity_changes_more(images, name):
    changes = [np.abs(corrupt(images, name, s).astype(int) - images).mean() for s in SEVERITIES]
    assert changes == sorted(changes)
    assert changes[0] < changes[-1]


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (40, 32), (64, 50), (97, 131), (224, 224)])
def test_box_resize_is_pillows_bit_for_bit(size):
    h, w = size
    pictures = np.random.default_rng(h * w).integers(0, 256, (2, h, w, 3), dtype=np.uint8)
    factors = (0.95, 0.9, 0.85, 0.75, 0.65, 0.6, 0.5, 0.4, 0.3, 0.25)
    targets = [(int(h * f), int(w * f)) for f in factors] + [(h * 2 + 1, w + 3), (h, w // 2), (h, w)]
    for height, width in targets:
        theirs = [np.asarray(Image.fromarray(p).resize((width, height), Image.Resampling.BOX)) for p in pictures]
        np.testing.assert_array_equal(_resize_box(pictures, height, width), np.stack(theirs))


def test_a_picture_is_corrupted_alike_in_any_batch(images):
    whole = corrupt(images, "gaussian_noise", 3, seed=5, indices=range(100, 108))
    parts = [corrupt(images[i : i + 1], "gaussian_noise", 3, seed=5, indices=[100 + i]) for i in range(8)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    shuffled = corrupt(images[::-1], "gaussian_noise", 3, seed=5, indices=range(107, 99, -1))
    np.testing.assert_array_equal(whole, shuffled[::-1])


def test_noise_depends_on_seed_index_and_severity():
    def draw(severity=1, index=0, seed=0):
        return draw_fields("gaussian_noise", severity, (32, 32, 3), [index], seed=seed)["normal"]

    base = draw()
    np.testing.assert_array_equal(base, draw())
    for other in (draw(severity=2), draw(index=1), draw(seed=1), draw(index=2**64 - 1), draw(seed=2**64 - 1)):
        assert abs(np.corrcoef(base.ravel(), other.ravel())[0, 1]) < 0.1
    many = draw_fields("gaussian_noise", 1, (32, 32, 3), range(100))["normal"]
    assert abs(many.mean()) < 0.01
    assert abs(many.std() - 1) < 0.01
    assert draw_fields("contrast", 1, (32, 32, 3), [0]) == {}


def test_indices_default_to_the_place_in_the_batch(images):
    np.testing.assert_array_equal(
        corrupt(images, "gaussian_noise", 2), corrupt(images, "gaussian_noise", 2, indices=np.arange(8))
    )
    assert np.any(corrupt(images, "gaussian_noise", 2) != corrupt(images, "gaussian_noise", 2, seed=1))


@pytest.mark.parametrize("name", NAMES)
def test_input_is_untouched_and_views_are_taken(images, name):
    before = images.copy()
    frozen = images.copy()
    frozen.setflags(write=False)
    ours = corrupt(frozen, name, 4)
    np.testing.assert_array_equal(images, before)
    strided = np.ascontiguousarray(images.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3)
    np.testing.assert_array_equal(corrupt(strided, name, 4), ours)
    empty = corrupt(images[:0], name, 4)
    assert empty.shape == (0, 32, 32, 3)
    assert empty.dtype == np.uint8


def test_results_are_truncated():
    grey = np.full((1, 8, 8, 3), 100, np.uint8)
    half = {"normal": np.full((1, 8, 8, 3), 0.9 / 255 / 0.04)}
    assert np.all(corrupt(grey, "gaussian_noise", 1, fields=half) == 100)
    white = np.full((1, 8, 8, 3), 250, np.uint8)
    strong = {"normal": np.full((1, 8, 8, 3), 100.0)}
    assert np.all(corrupt(white, "gaussian_noise", 1, fields=strong) == 255)
    assert np.all(corrupt(white, "gaussian_noise", 1, fields={"normal": -strong["normal"]}) == 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "rain"}, "`name` \\(='rain'\\) is no corruption; known: gaussian_noise, gaussian_blur"),
        ({"severity": 0}, "`severity` \\(=0\\) must be one of 1, 2, 3, 4, 5"),
        ({"severity": 6}, "`severity` \\(=6\\)"),
        ({"severity": 2.5}, "`severity` \\(=2.5\\)"),
        ({"constants": "svhn"}, "`constants` \\(='svhn'\\) must be one of cifar, imagenet"),
        (
            {"images": np.zeros((2, 32, 32, 3), np.float32)},
            "`images` is float32 \\(2, 32, 32, 3\\); it must be a uint8",
        ),
        ({"images": np.zeros((32, 32, 3), np.uint8)}, "`images` is uint8 \\(32, 32, 3\\)"),
        ({"images": np.zeros((2, 3, 32, 32), np.uint8)}, "`images` is uint8 \\(2, 3, 32, 32\\)"),
        ({"images": np.zeros((2, 3, 32, 3), np.uint8)}, "each side must have at least 4"),
        ({"images": [[1]]}, "`images` is list"),
        ({"indices": [1, 2, 3]}, "`indices` has shape \\(3,\\); it must be \\(2,\\)"),
        ({"indices": [0, -1]}, "`indices` holds -1"),
        ({"indices": [0.5, 1]}, "`indices` holds 0.5"),
        ({"seed": -1}, "`seed` \\(=-1\\)"),
        ({"seed": 2**64}, "`seed`"),
        ({"fields": {"uniform": 0}}, "`fields` of gaussian_noise has the keys \\['uniform'\\]"),
        ({"fields": {"normal": np.zeros((1, 32, 32, 3))}}, "must be \\(2, 32, 32, 3\\)"),
        ({"name": "contrast", "fields": {"normal": 0}}, "must have exactly \\[\\]"),
    ],
)
def test_wrong_arguments(change, words):
    arguments = {"images": np.zeros((2, 32, 32, 3), np.uint8), "name": "gaussian_noise", "severity": 1, **change}
    with pytest.raises(ValueError, match=words):
        corrupt(**arguments)
