"""Augmentation against corruptions: random maps like PRIME's, noise, and AugMix and TrivialAugment as controls.

All take uint8 images [N, C, H, W] and a generator on the CPU, and return uint8 images of the same shape on the same
device. The same state of the generator gives the same images: to the bit on one device, and up to a level of 255 where
another device rounds differently.
"""

from __future__ import annotations

from seedcnn.data.augmentation.added_noise import gaussian_noise
from seedcnn.data.augmentation.policies import augmix, trivial_augment
from seedcnn.data.augmentation.random_maps import prime

__all__ = ["augmix", "gaussian_noise", "prime", "trivial_augment"]
