"""Folders through timm's transforms: the same images as from timm's own pipeline, and names of damaged files."""

from __future__ import annotations

import inspect
import io
import itertools
import os
import random

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import ImageDataset, create_loader, create_transform
from torch import nn

from seedcnn.data.pictures import loaders
from seedcnn.data.pictures.loaders import evaluation_options, folder_loader
from seedcnn.data.sets.imagenet import list_imagenet
from seedcnn.errors import DataError

WNIDS = ["n01440764", "n01443537", "n02123045"]
SMALL = (3, 48, 48)
TWO = min(2, len(os.sched_getaffinity(0)))  # torch warns about more workers than cores


@pytest.fixture
def root(tmp_path, save_picture):
    """Eleven JPEG images of several sizes, one of them grey, and a PNG with a palette."""
    for rank, (wnid, count) in enumerate(zip(WNIDS, (5, 4, 2), strict=True)):
        for i in range(count):
            save_picture(
                tmp_path / "train" / wnid / f"{wnid}_{i}.JPEG", (60 + 7 * i, 75 - 5 * rank), seed=10 * rank + i
            )
    grey = tmp_path / "train" / WNIDS[0] / f"{WNIDS[0]}_0.JPEG"
    with Image.open(grey) as image:
        plain = image.convert("L")
    plain.save(grey)
    save_picture(tmp_path / "train" / WNIDS[2] / "z.png", (64, 64))
    return tmp_path


@pytest.fixture
def folder(root):
    return list_imagenet(root, "train", classes=None)


class Reader:
    """A reader for timm's data set: opened files and labels."""

    def __init__(self, folder):
        self.folder = folder

    def __len__(self):
        return len(self.folder)

    def __getitem__(self, index):
        path = self.folder.root / self.folder.names[index]
        return io.BytesIO(path.read_bytes()), int(self.folder.labels[index])


def everything(loader):
    pictures, labels = zip(*loader, strict=True)
    return torch.cat(pictures), torch.cat(labels)


@pytest.mark.parametrize("workers", [0, TWO])
@pytest.mark.parametrize(
    "options",
    [
        {"crop_pct": 0.9, "interpolation": "bilinear"},
        {"crop_pct": 0.875, "crop_mode": "squash", "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)},
        {"crop_mode": "border", "interpolation": "bicubic", "crop_border_pixels": 3},
    ],
)
def test_evaluation_pictures_are_those_of_timm(folder, workers, options):
    options = {"interpolation": "bicubic", **options, "input_size": SMALL}
    loader = folder_loader(folder, training=False, batch_size=5, workers=workers, **options)
    theirs = create_loader(
        ImageDataset("", reader=Reader(folder)), batch_size=5, num_workers=0, device=torch.device("cpu"), **options
    )
    ours, labels = everything(loader)
    assert ours.shape == (12, *SMALL)
    assert ours.dtype == torch.float32
    assert labels.tolist() == folder.labels.tolist()
    assert torch.equal(ours, everything(theirs)[0])
    # Again without the prefetcher, which normalises with another order of operations.
    plain = create_transform(is_training=False, **options)
    with Image.open(folder.root / folder.names[3]) as image:
        torch.testing.assert_close(ours[3], plain(image.convert("RGB")), atol=2e-5, rtol=0)
    assert len(loader) == 3
    assert [len(part) for part, _ in loader] == [5, 5, 2]


def test_a_model_says_how_it_is_evaluated(folder):
    model = timm.create_model("resnet18")
    options = evaluation_options(model)
    assert options["input_size"] == (3, 288, 288)
    assert options["crop_pct"] == 1.0
    assert evaluation_options(model, test_size=False)["input_size"] == (3, 224, 224)
    assert evaluation_options(timm.create_model("mobilenetv2_100"))["interpolation"] == "bicubic"
    loader = folder_loader(folder, training=False, batch_size=2, workers=0, **options)
    pictures, _ = next(iter(loader))
    assert pictures.shape == (2, 3, 288, 288)
    with pytest.raises(ValueError, match=r"`model` is a Linear without `pretrained_cfg`; it must be a timm model"):
        evaluation_options(nn.Linear(2, 2))


def damage(root):
    good = (root / "train" / WNIDS[1] / f"{WNIDS[1]}_1.JPEG").read_bytes()
    (root / "train" / WNIDS[1] / f"{WNIDS[1]}_1.JPEG").write_bytes(good[: len(good) // 2])
    (root / "train" / WNIDS[1] / f"{WNIDS[1]}_2.JPEG").write_bytes(b"")


@pytest.mark.parametrize("workers", sorted({0, 1, TWO}))
@pytest.mark.parametrize("training", [False, True])
def test_a_damaged_file_is_named_also_by_a_worker(folder, root, workers, training):
    damage(root)
    loader = folder_loader(folder, training=training, batch_size=12, input_size=SMALL, workers=workers)
    for _ in range(2):
        with pytest.raises(DataError) as caught:
            list(loader)
        text = str(caught.value)
        assert f"2 of 12 images under {root / 'train'} cannot be decoded" in text
        assert f"{WNIDS[1]}/{WNIDS[1]}_1.JPEG (cannot be decoded: " in text
        assert f"{WNIDS[1]}/{WNIDS[1]}_2.JPEG (is not a picture of a known format" in text
        assert "Traceback" not in text
        assert "\n" not in text


@pytest.mark.parametrize("workers", [0, TWO])
def test_what_comes_before_the_damaged_file_is_whole(folder, root, workers):
    damage(root)
    seen = []
    with pytest.raises(DataError, match="2 of 3 images"):
        seen += (y.tolist() for _, y in folder_loader(folder, training=False, batch_size=3, workers=workers))
    # timm's prefetcher holds one batch back.
    assert seen == [[0, 0, 0]]
    whole = folder.take([0, 1, 9, 10])
    assert everything(folder_loader(whole, training=False, batch_size=3, workers=workers))[1].tolist() == [0, 0, 2, 2]


def training_loader(folder, **more):
    options = {"batch_size": 4, "input_size": SMALL, "workers": 0, "seed": 3, "auto_augment": "rand-m9-mstd0.5"}
    return folder_loader(folder, training=True, **{**options, **more})


def pixels_by_index(folder, loader):
    """The images of an epoch by their index in the folder."""
    order = loader.indices.tolist()
    pictures, labels = everything(loader)
    assert labels.tolist() == folder.labels[order[: len(labels)]].tolist()
    return dict(zip(order, pictures, strict=False))


def test_augmentation_depends_on_seed_epoch_and_picture_alone(folder):
    loader = training_loader(folder)
    loader.set_epoch(2)
    first = pixels_by_index(folder, loader)
    assert sorted(first) == list(range(12))
    for more in ({"workers": TWO}, {"batch_size": 3}, {"batch_size": 6, "workers": 1}):
        other = training_loader(folder, **more)
        random.seed(0)  # whatever the state of the global generators
        list(other)  # an earlier epoch
        other.set_epoch(2)
        again = pixels_by_index(folder, other)
        assert list(again) == list(first)
        assert all(torch.equal(again[index], first[index]) for index in first)
    for loader in (training_loader(folder, seed=4), training_loader(folder)):
        other = pixels_by_index(folder, loader)
        assert list(other) != list(first)
        assert sum(not torch.equal(other[index], first[index]) for index in first) >= 11


def test_reading_leaves_the_global_generators_alone(folder):
    torch.manual_seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    list(training_loader(folder))
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    assert after[:2] == before[:2]
    assert torch.equal(after[2], before[2])


def test_training_pictures_are_augmented_and_erased(folder):
    plain = {"auto_augment": None, "color_jitter": None, "scale": (1.0, 1.0), "ratio": (1.0, 1.0)}
    still = training_loader(folder, hflip=0.0, **plain)
    flipped = training_loader(folder, hflip=1.0, **plain)
    for (ours, _), (mirrored, _) in zip(still, flipped, strict=True):
        assert torch.equal(ours.flip(3), mirrored)
    erased = training_loader(folder, hflip=0.0, re_prob=1.0, re_mode="const", **plain)
    for (ours, _), (holes, _) in zip(still, erased, strict=True):
        gone = (holes == 0).all(dim=1).flatten(1).float().mean(dim=1)
        assert (gone > 0.01).all()
        kept = holes != 0
        assert torch.equal(holes[kept], ours[kept])


def test_processes_share_an_epoch(folder):
    def orders(training, world_size):
        made = [
            folder_loader(folder, training=training, batch_size=1, workers=0, rank=rank, world_size=world_size)
            for rank in range(world_size)
        ]
        return [loader.indices.tolist() for loader in made], [len(loader) for loader in made]

    parts, lengths = orders(False, 5)
    assert lengths == [3, 3, 2, 2, 2]
    assert sorted(itertools.chain(*parts)) == list(range(12))
    parts, lengths = orders(True, 5)
    assert lengths == [3] * 5
    assert set(itertools.chain(*parts)) == set(range(12))
    (whole,), _ = orders(True, 1)
    assert parts == [(whole + whole[:3])[rank::5] for rank in range(5)]


@pytest.mark.parametrize("training", [False, True])
def test_a_loader_says_which_images_come(folder, training):
    options = {"training": training, "batch_size": 4, "input_size": SMALL, "workers": 0, "rank": 1, "world_size": 2}
    loader = folder_loader(folder, drop_last=False, **options)
    drawn = []
    for epoch in range(2):
        loader.set_epoch(epoch)
        drawn.append(loader.indices.tolist())
        labels = torch.cat([labels for _, labels in loader])
        np.testing.assert_array_equal(labels.numpy(), folder.labels[loader.indices])
    assert (drawn[0] == drawn[1]) is not training


def test_training_drops_the_incomplete_batch(folder):
    loader = training_loader(folder, batch_size=5)
    assert len(loader) == 2
    assert [len(labels) for _, labels in loader] == [5, 5]
    whole = training_loader(folder, batch_size=5, drop_last=False)
    assert len(whole) == 3
    assert [len(labels) for _, labels in whole] == [5, 5, 2]
    with pytest.raises(DataError, match=r"train has 12 images for this process; a training batch needs 13"):
        training_loader(folder, batch_size=13)
    with pytest.raises(DataError, match="has 0 images for this process; an evaluation needs 1"):
        folder_loader(folder.take([]), training=False, batch_size=5)


def test_the_options_are_those_of_timm():
    known = inspect.signature(create_transform).parameters
    assert {*loaders._TRAINING, *loaders._EVALUATION, *loaders._ERASING} <= set(known)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 0}, r"`batch_size` \(=0\) must be at least 1"),
        ({"input_size": (1, 48, 48)}, r"`input_size` \(=\(1, 48, 48\)\) must be \(3, height, width\)"),
        ({"std": (0.1, 0.2)}, r"`std` \(=\(0.1, 0.2\)\) must have 3 numbers"),
        ({"std": (0.1, 0.2, 0.0)}, "and `std` positive ones"),
        ({"interpolation": "cubic"}, r"`interpolation` \(='cubic'\) must be bicubic"),
        ({"interpolation": "random"}, r"`interpolation` \(='random'\)"),
        ({"crop_pct": 0.0}, r"`crop_pct` \(=0.0\) must be positive"),
        ({"crop_mode": "middle"}, r"`crop_mode` \(='middle'\) must be one of center, squash, border"),
        ({"crop_pc": 1.0}, r"`crop_pc` is not a transform option of an evaluation; did you mean crop_pct"),
        ({"hflip": 0.5}, r"`hflip` is not a transform option of an evaluation"),
        ({"training": True, "crop_pct": 0.9}, r"`crop_pct` is not a transform option of training"),
        ({"training": True, "auto_augment": "rand-x9"}, r"timm cannot make a transform from .*rand-x9"),
        ({"training": True, "re_mode": "black"}, r"`re_mode` \(='black'\) must be one of const, rand, pixel"),
        ({"workers": -1}, r"`workers` \(=-1\) must not be negative"),
        ({"seed": -1}, r"`seed` \(=-1\) must be in \[0, 2\*\*64\)"),
        ({"rank": 2, "world_size": 2}, r"`rank` \(=2\) must be in 0 to `world_size` - 1 \(=1\)"),
    ],
)
def test_wrong_arguments(folder, options, words):
    with pytest.raises(ValueError, match=words):
        folder_loader(folder, **{"training": False, "batch_size": 4, **options})
    with pytest.raises(ValueError, match=r"`epoch` \(=-1\) must not be negative"):
        training_loader(folder).set_epoch(-1)
