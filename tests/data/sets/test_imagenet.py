"""Small versions of ImageNet-1K and ImageNet-C in their folder layouts."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from seedcnn.data.pictures.folder import CenterCrop
from seedcnn.data.sets.imagenet import list_imagenet, list_imagenet_c
from seedcnn.errors import DataError

WNIDS = ["n01440764", "n01443537", "n02123045"]


@pytest.fixture
def root(tmp_path, save_picture):
    for split, count in (("train", 2), ("val", 1)):
        for rank, wnid in enumerate(WNIDS):
            for i in range(count):
                name = f"{wnid}_{i}.JPEG" if split == "train" else f"ILSVRC2012_val_{rank:08d}.JPEG"
                save_picture(tmp_path / split / wnid / name, (300, 280), seed=rank)
    return tmp_path


def test_both_parts(root):
    train, val = (list_imagenet(str(root), split, classes=None) for split in ("train", "val"))
    assert train.classes == val.classes == tuple(WNIDS)
    assert train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert val.names.tolist() == [f"{wnid}/ILSVRC2012_val_{rank:08d}.JPEG" for rank, wnid in enumerate(WNIDS)]
    (batch,) = val.batches(8, CenterCrop())
    assert batch.images.shape == (3, 224, 224, 3)
    with Image.open(root / "val" / val.names[1]) as image:
        np.testing.assert_array_equal(batch.images[1], CenterCrop()(image))
    assert list_imagenet(root, classes=3).names.tolist() == val.names.tolist()


def test_thousand_classes_are_asked_for(root):
    with pytest.raises(DataError, match=r"has 3 class folders; ImageNet-1K has 1000\. Found: n01440764"):
        list_imagenet(root)


def test_missing_layout(root, tmp_path):
    with pytest.raises(ValueError, match=r"`split` \(='test'\) must be 'train' or 'val'"):
        list_imagenet(root, "test")
    with pytest.raises(DataError, match=r"holds no ImageNet-1K \(val\)\. Expected: val/<wnid>/\*\.JPEG .*Found: n0"):
        list_imagenet(root / "train")
    flat = tmp_path / "flat" / "val"
    flat.mkdir(parents=True)
    (flat / "ILSVRC2012_val_00000001.JPEG").write_bytes(b"")
    with pytest.raises(DataError, match=r"images are directly in .*torchvision\.datasets\.ImageNet sorts"):
        list_imagenet(tmp_path / "flat")


@pytest.mark.parametrize("place", [".", "noise"])
def test_imagenet_c(tmp_path, save_picture, place):
    base = tmp_path / place
    for severity in (1, 5):
        for rank, wnid in enumerate(WNIDS):
            name = f"ILSVRC2012_val_{rank:08d}.JPEG"
            save_picture(base / f"gaussian_noise/{severity}/{wnid}/{name}", (224, 224), seed=severity)
    folder = list_imagenet_c(tmp_path, "gaussian_noise", 5, classes=None)
    assert folder.labels.tolist() == [0, 1, 2]
    assert folder.root == base / "gaussian_noise/5"
    assert folder.load(CenterCrop(224, None)).images.shape == (3, 224, 224, 3)
    with pytest.raises(DataError, match="has 3 class folders; ImageNet-C has 1000"):
        list_imagenet_c(tmp_path, "gaussian_noise", 5)
    with pytest.raises(DataError, match=r"gaussian_noise has no severity 3; expected .* Found: 1, 5"):
        list_imagenet_c(tmp_path, "gaussian_noise", 3, classes=None)
    with pytest.raises(DataError, match=r"holds no ImageNet-C with fog\. Expected: fog/<severity>/<wnid>"):
        list_imagenet_c(tmp_path, "fog", 1)


def test_wrong_arguments(tmp_path):
    with pytest.raises(ValueError, match=r"`severity` \(=6\)"):
        list_imagenet_c(tmp_path, "fog", 6)
    with pytest.raises(ValueError, match=r"`corruption` \(='\.\./fog'\) must be a name"):
        list_imagenet_c(tmp_path, "../fog", 1)
