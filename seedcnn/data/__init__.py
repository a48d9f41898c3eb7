"""Datasets, corruptions and transforms: numpy and torch arrays, batched, no per-picture Python."""

from __future__ import annotations

from seedcnn.data.cifar10 import Cifar10, load_cifar10
from seedcnn.data.corruptions import CORRUPTIONS, corrupt
from seedcnn.data.transforms import normalize, random_crop_flip

__all__ = ["CORRUPTIONS", "Cifar10", "corrupt", "load_cifar10", "normalize", "random_crop_flip"]
