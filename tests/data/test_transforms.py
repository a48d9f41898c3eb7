"""Augmentation against a reference that works image by image, and normalisation against its formula."""

from __future__ import annotations

import pytest
import torch

from seedcnn.data.transforms import normalize, random_crop_flip, random_shift_flip


@pytest.fixture
def images():
    return torch.randint(1, 256, (64, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def generator(seed=1):
    return torch.Generator().manual_seed(seed)


def candidates(image, padding):
    """Every crop of the padded image, plain and mirrored: [2, 2p+1, 2p+1, C, H, W]."""
    c, h, w = image.shape
    padded = torch.zeros(c, h + 2 * padding, w + 2 * padding, dtype=torch.uint8)
    padded[:, padding : padding + h, padding : padding + w] = image
    crops = padded.unfold(1, h, 1).unfold(2, w, 1).permute(1, 2, 0, 3, 4)
    return torch.stack([crops, crops.flip(-1)])


@pytest.mark.parametrize(("shape", "padding"), [((32, 32), 4), ((32, 32), 0), ((7, 11), 2), ((1, 5), 1)])
def test_each_result_is_one_of_the_crops(shape, padding):
    batch = torch.randint(1, 256, (40, 3, *shape), dtype=torch.uint8, generator=generator())
    result = random_crop_flip(batch, generator(), padding)
    assert result.shape == batch.shape
    assert result.dtype == torch.uint8
    for image, ours in zip(batch, result, strict=True):
        assert (candidates(image, padding) == ours).flatten(3).all(3).any()


def test_places_and_mirrorings_are_uniform(images):
    batch = images[:1].expand(20000, 3, 32, 32)[:, :, :9, :9].contiguous()
    result = random_crop_flip(batch, generator(), 1)
    hits = (candidates(batch[0], 1)[None] == result[:, None, None, None]).flatten(4).all(4).float().mean(0)
    assert hits.shape == (2, 3, 3)
    assert torch.allclose(hits, torch.full_like(hits, 1 / 18), atol=0.006)


def test_deterministic_given_the_generator(images):
    first = random_crop_flip(images, generator(1))
    assert torch.equal(first, random_crop_flip(images, generator(1)))
    assert not torch.equal(first, random_crop_flip(images, generator(2)))
    shared = generator(1)
    assert torch.equal(first, random_crop_flip(images, shared))
    assert not torch.equal(first, random_crop_flip(images, shared))


def test_memory_format_does_not_matter(images):
    channels_last = images.to(memory_format=torch.channels_last)
    assert torch.equal(random_crop_flip(channels_last, generator()), random_crop_flip(images, generator()))


def test_empty_batch(images):
    assert random_crop_flip(images[:0], generator()).shape == (0, 3, 32, 32)


MEAN, STD = (0.5, 0.25, 0.1), (0.2, 0.3, 0.4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_normalize(images, dtype):
    result = normalize(images, MEAN, STD, dtype)
    mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (MEAN, STD))
    expected = (images.double() / 255 - mean) / std
    assert result.dtype == dtype
    tolerance = {torch.float32: 2e-6, torch.float64: 1e-12, torch.bfloat16: 0.02}[dtype]
    assert (result.double() - expected).abs().max() < tolerance


def test_normalize_keeps_channels_last(images):
    result = normalize(images.to(memory_format=torch.channels_last), MEAN, STD)
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(result, normalize(images, MEAN, STD))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: random_crop_flip(x.float(), generator()), r"`images` is torch.float32 \(64, 3, 32, 32\)"),
        (lambda x: random_crop_flip(x[0], generator()), r"it must be uint8 \[N, C, H, W\]"),
        (lambda x: random_crop_flip(x, generator(), -1), r"`padding` \(=-1\)"),
        (lambda x: normalize(x.float(), MEAN, STD), "`images` is torch.float32"),
        (lambda x: normalize(x, MEAN[:2], STD), "`mean` has 2 and `std` 3 numbers; the images have 3 channels"),
        (lambda x: normalize(x, MEAN, (1, 1, 0)), r"`std` \(=\(1, 1, 0\)\) must be positive"),
    ],
)
def test_wrong_arguments(images, call, words):
    with pytest.raises(ValueError, match=words):
        call(images)


def test_no_image_is_mirrored_without_flip():
    images = torch.randint(0, 256, (64, 1, 5, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    kept = random_crop_flip(images, torch.Generator().manual_seed(0), 0, flip=False)
    assert torch.equal(kept, images)
    mirrored = random_crop_flip(images, torch.Generator().manual_seed(0), 0)
    turned = (mirrored == images.flip(3)).flatten(1).all(1)
    assert 20 < int(turned.sum()) < 44


def test_shifts_reflect_and_are_shared_by_an_eighth_of_a_batch(images):
    moved = random_shift_flip(images, generator(), 2, flip=False)
    padded = torch.nn.functional.pad(images.float(), (2, 2, 2, 2), mode="reflect").to(torch.uint8)
    places = set()
    for part in range(8):
        at = slice(8 * part, 8 * part + 8)
        found = [
            (down, right)
            for down in range(5)
            for right in range(5)
            if torch.equal(moved[at], padded[at, :, down : down + 32, right : right + 32])
        ]
        assert len(found) == 1
        places |= set(found)
    assert len(places) > 3


def test_shift_of_odd_batches_and_given_sides(images):
    flip = torch.arange(13) % 3 == 0
    plain = random_shift_flip(images[:13], generator(), 0, flip=False)
    assert torch.equal(plain, images[:13])
    turned = random_shift_flip(images[:13], generator(), 0, flip=flip)
    assert torch.equal(turned[flip], images[:13].flip(3)[flip])
    assert torch.equal(turned[~flip], images[:13][~flip])
    assert torch.equal(random_crop_flip(images[:13], generator(), 0, flip=flip), turned)
    assert random_shift_flip(images[:0], generator()).shape == (0, 3, 32, 32)
    one = random_shift_flip(images[:1].to(memory_format=torch.channels_last), generator(3))
    assert torch.equal(one, random_shift_flip(images[:1], generator(3)))


def test_shift_of_wrong_arguments(images):
    with pytest.raises(ValueError, match=r"`padding` \(=32\) must be smaller than the images, 32x32"):
        random_shift_flip(images, generator(), 32)
    with pytest.raises(ValueError, match=r"`images` is torch.float32"):
        random_shift_flip(images.float(), generator())
