"""Datasets, corruptions and transforms: numpy and torch arrays, batched, no per-picture Python."""

from __future__ import annotations

from seedcnn.data.corruptions import CORRUPTIONS, corrupt
from seedcnn.data.image_set import ImageSet, TrainTest, Unreadable, channel_statistics, limited, stratified_indices
from seedcnn.data.pictures.folder import CenterCrop, FullFrame, ImageFolder
from seedcnn.data.sets.cifar10 import Cifar10, load_cifar10
from seedcnn.data.sets.cifar10_c import list_cifar10_c, load_cifar10_c
from seedcnn.data.sets.cifar100 import load_cifar100
from seedcnn.data.sets.gtsrb import list_gtsrb, load_gtsrb
from seedcnn.data.sets.icons50 import (
    hold_out_style,
    hold_out_subtypes,
    hold_out_traditional,
    list_icons50,
    load_icons50,
)
from seedcnn.data.sets.icons50_rebuilt import load_icons50_rebuilt
from seedcnn.data.sets.imagenet import list_imagenet, list_imagenet_c
from seedcnn.data.transforms import normalize, random_crop_flip

__all__ = [
    "CORRUPTIONS",
    "CenterCrop",
    "Cifar10",
    "FullFrame",
    "ImageFolder",
    "ImageSet",
    "TrainTest",
    "Unreadable",
    "channel_statistics",
    "corrupt",
    "hold_out_style",
    "hold_out_subtypes",
    "hold_out_traditional",
    "limited",
    "list_cifar10_c",
    "list_gtsrb",
    "list_icons50",
    "list_imagenet",
    "list_imagenet_c",
    "load_cifar10",
    "load_cifar10_c",
    "load_cifar100",
    "load_gtsrb",
    "load_icons50",
    "load_icons50_rebuilt",
    "normalize",
    "random_crop_flip",
    "stratified_indices",
]
