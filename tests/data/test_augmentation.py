"""Augmentation against corruptions: what it changes, what it leaves, and that the generator alone decides."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from seedcnn.data.augmentation import augmix, gaussian_noise, prime, trivial_augment

Augmentation = Callable[[Tensor, torch.Generator], Tensor]
ALL: list[Augmentation] = [prime, gaussian_noise, augmix, trivial_augment]
SIZES = [(3, 32, 32), (1, 28, 28), (3, 9, 17), (1, 1, 1)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int, channels: int = 3, height: int = 32, width: int = 32) -> Tensor:
    return torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8, generator=generator(99))


@pytest.mark.parametrize("augment", ALL)
@pytest.mark.parametrize("size", SIZES)
def test_the_generator_alone_decides(augment: Augmentation, size: tuple[int, int, int]) -> None:
    images = pictures(24, *size)
    kept = images.clone()
    first, second = generator(1), generator(1)
    found = augment(images, first)
    torch.manual_seed(5)  # the global generator has no part in it
    assert torch.equal(found, augment(images, second))
    assert torch.equal(first.get_state(), second.get_state())
    assert found.shape == images.shape
    assert found.dtype == torch.uint8
    assert found.is_contiguous()
    assert torch.equal(images, kept)
    assert not torch.equal(found, images)
    assert not torch.equal(found, augment(images, generator(2)))


@pytest.mark.parametrize("augment", ALL)
def test_no_global_state_changes(augment: Augmentation) -> None:
    before = torch.get_rng_state()
    augment(pictures(4), generator())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("augment", ALL)
def test_channels_last_images_give_the_same(augment: Augmentation) -> None:
    images = pictures(8)
    last = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(augment(images, generator()), augment(last, generator()))


@pytest.mark.parametrize("augment", ALL)
def test_no_image_is_no_image(augment: Augmentation) -> None:
    assert augment(pictures(0), generator()).shape == (0, 3, 32, 32)


@pytest.mark.parametrize("augment", ALL)
def test_wrong_images_and_generators_are_refused(augment: Augmentation) -> None:
    with pytest.raises(ValueError, match=r"`images` is torch.float32 \(2, 3, 32, 32\); it must be uint8"):
        augment(pictures(2).float(), generator())
    with pytest.raises(ValueError, match=r"`images` is torch.uint8 \(3, 32, 32\)"):
        augment(pictures(2)[0], generator())
    with pytest.raises(ValueError, match=r"`images` is torch.uint8 \(2, 3, 0, 32\)"):
        augment(pictures(2)[:, :, :0], generator())
    with pytest.raises(TypeError, match="`images` is a ndarray"):
        augment(pictures(2).numpy(), generator())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="`generator` is a int"):
        augment(pictures(2), 3)  # type: ignore[arg-type]


@pytest.mark.parametrize("augment", [augmix, trivial_augment])
def test_policies_refuse_two_channels(augment: Augmentation) -> None:
    with pytest.raises(ValueError, match="`images` has 2 channels"):
        augment(pictures(2, 2), generator())


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_share_of_images_that_prime_and_noise_change(share: float) -> None:
    images = pictures(400, 3, 8, 8)
    for found in (prime(images, generator(), share=share), gaussian_noise(images, generator(), 0.5, share)):
        changed = float((found != images).flatten(1).any(1).float().mean())
        # PRIME's maps are off in both chains with probability (1/2)^6
        assert share * 0.85 - 0.05 <= changed <= share * 1.15


def test_prime_stays_near_the_image_and_keeps_a_flat_one_flat() -> None:
    images = pictures(64, 3, 16, 16) // 4 + 96
    distance = (prime(images, generator()).float() - images.float()).abs().mean()
    assert 2 < distance < 40
    flat = torch.arange(4, dtype=torch.uint8).mul(60)[:, None, None, None].expand(-1, 1, 12, 12).repeat(8, 1, 1, 1)
    found = prime(flat, generator())
    assert torch.equal(found.amax((2, 3)), found.amin((2, 3)))  # curves, filters of sum 1 and motion keep it flat
    assert not torch.equal(found, flat)


def test_more_chains_change_more_images() -> None:
    images = pictures(300, 1, 6, 6)
    same = [int((prime(images, generator(), chains=chains) == images).flatten(1).all(1).sum()) for chains in (1, 2, 3)]
    assert same[0] > same[1] > same[2] or same[1] == same[2] == 0
    assert 15 < same[0] < 70  # 300 / 8, and a few whose strength is next to nothing


@pytest.mark.parametrize("chains", [0, -1, True, 2.0])
def test_chains_must_be_a_positive_integer(chains: int) -> None:
    with pytest.raises(ValueError, match=r"`chains` \(=.*\) must be a positive integer"):
        prime(pictures(2), generator(), chains=chains)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), True, "1"])
def test_shares_and_strengths_lie_between_0_and_1(value: float) -> None:
    with pytest.raises(ValueError, match=r"`share` \(=.*\) must be a number in \[0, 1\]"):
        prime(pictures(2), generator(), share=value)
    with pytest.raises(ValueError, match=r"`share` \(=.*\) must be a number in \[0, 1\]"):
        gaussian_noise(pictures(2), generator(), share=value)
    with pytest.raises(ValueError, match=r"`largest` \(=.*\) must be a number in \[0, 1\]"):
        gaussian_noise(pictures(2), generator(), largest=value)


def test_noise_has_the_strength_that_was_asked_for() -> None:
    grey = torch.full((2000, 1, 8, 8), 128, dtype=torch.uint8)
    change = gaussian_noise(grey, generator(), 0.1, 1.0).float() - 128
    deviations = change.flatten(1).std(1)
    assert abs(float(change.mean())) < 0.2
    assert float(deviations.mean()) == pytest.approx(255 * 0.05, rel=0.05)  # uniform in [0, 25.5]
    assert float(deviations.max()) < 25.5 * 1.35
    assert torch.equal(gaussian_noise(grey, generator(), 0.0, 1.0), grey)


@pytest.mark.parametrize("augment", ALL)
def test_single_images_change_now_and_then(augment: Augmentation) -> None:
    image = pictures(1, 3, 8, 8)
    changed = sum(not torch.equal(augment(image, generator(seed)), image) for seed in range(40))
    assert 8 < changed <= 40
