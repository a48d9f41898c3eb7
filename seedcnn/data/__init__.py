"""Data sets by name, image files, corruptions and transforms.

Image sets, corruptions and transforms work on numpy and torch arrays, a batch at a time; image files are decoded one by
one, in threads or worker processes. The loaders of single data sets, such as ``load_cifar10``, are in
``seedcnn.data.sets``.
"""

from __future__ import annotations

from seedcnn.data.corruptions import CORRUPTIONS, corrupt
from seedcnn.data.dense.detection_set import DetectionSet
from seedcnn.data.dense.loading import load_detection, load_segmentation
from seedcnn.data.dense.segmentation_set import SegmentationSet
from seedcnn.data.image_set import ImageSet, TrainTest, limited
from seedcnn.data.pictures.folder import CenterCrop, FullFrame, ImageFolder
from seedcnn.data.sets.named import DATA_SETS, NamedTest, NamedTrain, load_test, load_train
from seedcnn.data.sets.own import load_folder
from seedcnn.data.transforms import normalize, random_crop_flip, random_shift_flip

__all__ = [
    "CORRUPTIONS",
    "DATA_SETS",
    "CenterCrop",
    "DetectionSet",
    "FullFrame",
    "ImageFolder",
    "ImageSet",
    "NamedTest",
    "NamedTrain",
    "SegmentationSet",
    "TrainTest",
    "corrupt",
    "limited",
    "load_detection",
    "load_folder",
    "load_segmentation",
    "load_test",
    "load_train",
    "normalize",
    "random_crop_flip",
    "random_shift_flip",
]
