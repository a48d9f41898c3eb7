"""Properties of ``corrupt`` for all corruptions: addresses, blocks, views, tensors, and errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from seedcnn.data.corruptions import CORRUPTIONS, corrupt, draw_fields
from seedcnn.data.corruptions.frost import frost_pictures
from seedcnn.errors import DataError

NAMES = tuple(CORRUPTIONS)
RANDOM = tuple(name for name, row in CORRUPTIONS.items() if row.draw)
FOUR = ("gaussian_noise", "glass_blur", "fog", "jpeg_compression")


@pytest.fixture
def images():
    coarse = np.random.default_rng(1).integers(0, 256, (8, 8, 8, 3), dtype=np.uint8)
    return coarse.repeat(4, axis=1).repeat(4, axis=2)


@pytest.fixture(autouse=True)
def frost_at_hand(request):
    """Skip tests that need the frost images if they are not available."""
    params = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    if "frost" in (params.get("name"), params.get("change", {}).get("name")):
        try:
            frost_pictures(None, shrink=5, height=32, width=32)
        except DataError as error:
            pytest.skip(f"the frost images are not available: {error}")


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_is_corrupted_alike_in_any_batch(images, name):
    whole = corrupt(images, name, 3, seed=5, indices=range(100, 108))
    parts = [corrupt(images[i : i + 1], name, 3, seed=5, indices=[100 + i]) for i in range(8)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    shuffled = corrupt(images[::-1], name, 3, seed=5, indices=range(107, 99, -1))
    np.testing.assert_array_equal(whole, shuffled[::-1])


@pytest.mark.parametrize("name", FOUR)
def test_blocks_do_not_show(images, name):
    many = np.tile(images, (9, 1, 1, 1))
    whole = corrupt(many, name, 2)
    for i in (0, 23, 24, 47, 71):
        np.testing.assert_array_equal(whole[i : i + 1], corrupt(many[i : i + 1], name, 2, indices=[i]))


@pytest.mark.parametrize("name", RANDOM)
def test_draws_depend_on_seed_index_severity_and_nothing_else(images, name):
    def flat(severity=2, index=3, seed=0):
        fields = draw_fields(images[:1], name, severity, seed=seed, indices=[index])
        return np.concatenate([np.ravel(values).astype(float)[:300] for values in fields.values()])

    base = flat()
    np.testing.assert_array_equal(base, flat())
    for other in (flat(severity=1), flat(index=4), flat(seed=1), flat(index=2**64 - 1), flat(seed=2**64 - 1)):
        assert base.shape != other.shape or np.any(base != other)
    fields = draw_fields(images, name, 4, seed=9)
    np.testing.assert_array_equal(corrupt(images, name, 4, seed=9), corrupt(images, name, 4, fields=fields))


def test_the_stream_is_philox_keyed_by_seed_and_index(images):
    counter = np.array([0, 4, 0, 0x5EEDC0], np.uint64)
    for index in (0, 1, 77):
        bits = np.random.Philox(key=np.array([6, index], np.uint64), counter=counter)
        ours = draw_fields(images[:1], "gaussian_noise", 4, seed=6, indices=[index])["normal"][0]
        np.testing.assert_array_equal(ours, np.random.Generator(bits).standard_normal((32, 32, 3)))
    many = draw_fields(np.tile(images, (12, 1, 1, 1)), "gaussian_noise", 1)["normal"]
    assert abs(many.mean()) < 0.01
    assert abs(many.std() - 1) < 0.01
    assert draw_fields(images, "contrast", 1) == {}


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
    assert not np.shares_memory(ours, frozen)
    empty = corrupt(images[:0], name, 4)
    assert empty.shape == (0, 32, 32, 3)
    assert empty.dtype == np.uint8


@pytest.mark.parametrize("name", FOUR)
def test_tensors_come_back_as_tensors(images, name):
    ours = corrupt(torch.from_numpy(images), name, 2, seed=4, indices=torch.arange(5, 13))
    assert ours.dtype == torch.uint8
    np.testing.assert_array_equal(ours.numpy(), corrupt(images, name, 2, seed=4, indices=range(5, 13)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_tensors_stay_on_their_device(images):
    ours = corrupt(torch.from_numpy(images).cuda(), "fog", 2)
    assert ours.is_cuda
    np.testing.assert_array_equal(ours.cpu().numpy(), corrupt(images, "fog", 2))


def with_frost(number):
    """Arguments of `corrupt` with one changed frost field, for images of 32 x 32."""
    return {"name": "frost", "fields": {"picture": [0, 0], "row": [0, 0], "column": [0, 0], **number}}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "rain"}, r"`name` \(='rain'\) is not a corruption; known: gaussian_noise, shot_noise"),
        ({"name": "gausian_noise"}, r"did you mean gaussian_noise"),
        ({"name": ["fog"]}, r"`name` \(=\['fog'\]\) is not a corruption"),
        ({"severity": 0}, r"`severity` \(=0\) must be one of 1, 2, 3, 4, 5"),
        ({"severity": 6}, r"`severity` \(=6\)"),
        ({"severity": 2.0}, r"`severity` \(=2.0\)"),
        ({"severity": True}, r"`severity` \(=True\)"),
        ({"constants": "svhn"}, r"`constants` \(='svhn'\) must be one of cifar, imagenet"),
        ({"images": np.zeros((2, 32, 32, 3), np.float32)}, r"`images` is float32 \(2, 32, 32, 3\); it must be a uint8"),
        ({"images": torch.zeros(2, 32, 32, 3)}, r"`images` is torch.float32 \(2, 32, 32, 3\); it must be uint8"),
        ({"images": np.zeros((32, 32, 3), np.uint8)}, r"`images` is uint8 \(32, 32, 3\)"),
        ({"images": np.zeros((2, 3, 32, 32), np.uint8)}, r"`images` is uint8 \(2, 3, 32, 32\)"),
        (
            {"images": np.zeros((2, 31, 32, 3), np.uint8)},
            r"`images` are \(31, 32\) pixels large; each side must have at least",
        ),
        ({"images": [[1]]}, "`images` is list"),
        ({"indices": [1, 2, 3]}, r"`indices` has shape \(3,\); it must be \(2,\)"),
        ({"indices": [0, -1]}, "`indices` holds -1"),
        ({"indices": [0.5, 1]}, "`indices` holds 0.5"),
        ({"seed": -1}, r"`seed` \(=-1\)"),
        ({"seed": 1.5}, r"`seed` \(=1.5\)"),
        ({"seed": 2**64}, "`seed`"),
        ({"fields": {"uniform": 0}}, r"`fields` of gaussian_noise has the keys \['uniform'\]"),
        ({"fields": {"normal": np.zeros((1, 32, 32, 3))}}, r"must be \(2, 32, 32, 3\)"),
        ({"fields": {"normal": np.full((2, 32, 32, 3), np.nan)}}, r"`fields\['normal'\]` holds a value that is not"),
        ({"name": "contrast", "fields": {"normal": 0}}, r"must have exactly \[\]"),
        ({"name": "glass_blur", "fields": {"offsets": np.zeros((2, 1, 30, 30, 2))}}, r"is float64; it must be int8"),
        ({"name": "glass_blur", "fields": {"offsets": np.ones((2, 1, 30, 30, 2), int)}}, r"must be in -1..0"),
        (with_frost({"picture": [0, 5]}), r"`fields\['picture'\]` holds 5; it must be 0 to 4"),
        (with_frost({"row": [0, 500]}), r"row 500, column 0; frost image 0 has \(120, 180\) pixels"),
    ],
)
def test_wrong_arguments(change, words):
    arguments = {"images": np.zeros((2, 32, 32, 3), np.uint8), "name": "gaussian_noise", "severity": 1, **change}
    with pytest.raises(ValueError, match=words):
        corrupt(**arguments)
