"""Training sets by name, and training on image files."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from seedcnn.data.image_set import limited, stratified_indices
from seedcnn.data.sets.icons50 import hold_out_style, load_icons50
from seedcnn.errors import ConfigError, DataError
from seedcnn.processes import Processes
from seedcnn.train import FolderData, TrainConfig, load_training_data
from seedcnn.train.data import open_batches
from tests.train.runs import changed, coloured, run, same

WNIDS = ["n01440764", "n01443537"]
CPU = torch.device("cpu")


@pytest.fixture
def imagenet(tmp_path, save_picture):
    """Two classes of six images."""
    for rank, wnid in enumerate(WNIDS):
        for number in range(6):
            save_picture(tmp_path / "train" / wnid / f"{wnid}_{number}.JPEG", (50 + number, 60), 10 * rank + number)
    return tmp_path


@pytest.fixture
def files(imagenet):
    """The two classes in crops of 32."""
    found = load_training_data(TrainConfig("resnet18", data="imagenet"), imagenet, verify=False)
    assert isinstance(found, FolderData)
    assert len(found.labels) == 12
    assert found.size == (3, 224, 224)
    large = load_training_data(TrainConfig("resnet18", data="imagenet", input_size=288), imagenet, verify=False)
    assert large.size == (3, 288, 288)
    return FolderData(found.folder, size=(3, 32, 32))


def test_cifar10(cifar10):
    config = changed(data="cifar10", fraction=0.01, data_seed=3)
    found = load_training_data(config)
    picked = stratified_indices(cifar10.train_labels, 0.01, seed=3)
    assert len(picked) == 500
    np.testing.assert_array_equal(found.images, cifar10.train_images[picked])
    np.testing.assert_array_equal(found.labels, cifar10.train_labels[picked])
    assert (found.mean, found.std) == (cifar10.mean, cifar10.std)


def test_icons_without_what_is_held_out(tmp_path, save_picture):
    for rank, label in enumerate(("airplane", "bird")):
        for style in ("apple", "google", "lg"):
            for rendition in (1, 2):
                save_picture(tmp_path / label / f"{style}_{rendition}_{label}.png", (40, 40), rank * 10 + rendition)
    found = load_training_data(changed(data="icons50", hold_out="apple"), tmp_path, verify=False)
    whole = load_icons50(tmp_path, verify=False)
    np.testing.assert_array_equal(found.images, hold_out_style(whole, "apple").train.images)
    assert len(found.images) == 8
    assert (found.mean, found.std) == ((0.0,) * 3, (1.0,) * 3)
    half = load_training_data(changed(data="icons50", hold_out="apple", fraction=0.5), tmp_path, verify=False)
    np.testing.assert_array_equal(half.images, limited(hold_out_style(whole, "apple").train, 0.5).images)
    traditional = load_training_data(changed(data="icons50", hold_out="traditional"), tmp_path, verify=False)
    assert len(traditional.images) == 6
    with pytest.raises(ConfigError, match="has no test part of its own: set hold_out"):
        load_training_data(changed(data="icons50"), tmp_path, verify=False)
    with pytest.raises(ConfigError, match="hold-out 'htc'"):
        load_training_data(changed(data="icons50", hold_out="htc"), tmp_path, verify=False)


def test_what_is_not_there(tmp_path):
    for name in ("cifar100", "gtsrb", "icons50", "imagenet"):
        with pytest.raises(ConfigError, match=f"data '{name}' needs the directory it lies in"):
            load_training_data(changed(data=name))
        with pytest.raises(DataError):
            load_training_data(changed(data=name, hold_out="apple" if name == "icons50" else ""), tmp_path)
    with pytest.raises(ConfigError, match="takes no directory"):
        load_training_data(changed(data="icons50-rebuilt", hold_out="apple"), tmp_path)


def test_training_on_files(tmp_path, files):
    config = TrainConfig(
        "resnet8_cifar",
        {"widths": (4, 4, 8), "patch": 8},
        data="imagenet",
        rand_augment="rand-m9-mstd0.5",
        random_erasing=0.5,
        epochs=2,
        batch_size=4,
    )
    first = run(tmp_path / "a.ckpt", config, data=files, workers=0)[1]
    assert [row["batches"] for row in first.history] == [3, 3]
    again = run(tmp_path / "b.ckpt", config, data=files, workers=0)[1]
    assert same(first.model, again.model)
    plain = run(tmp_path / "c.ckpt", changed(data="imagenet", batch_size=4), data=files, workers=0)[1]
    assert plain.history[-1]["loss"] != first.history[-1]["loss"]


@pytest.mark.parametrize("kind", ["memory", "files"])
def test_batches_depend_on_seed_epoch_and_process_alone(files, kind):
    config = changed(batch_size=2, data="imagenet" if kind == "files" else "cifar10")
    data = files if kind == "files" else coloured(12)
    every = {}
    for rank in range(2):
        batches = open_batches(config, data, Processes(CPU, rank, 2), 0)
        assert batches.steps == 3
        whole = list(batches.epoch(1, 0, 3))
        for ours, theirs in zip(batches.epoch(1, 2, 3), whole[2:], strict=True):
            assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
        images, labels, indices = whole[0]
        assert images.dtype == torch.float32
        assert images.shape == (2, 3, 32, 32)
        assert images.is_contiguous(memory_format=torch.channels_last)
        np.testing.assert_array_equal(labels.numpy(), data.labels[indices.numpy()])
        other = list(batches.epoch(2, 0, 3))
        assert not all(torch.equal(a[2], b[2]) for a, b in zip(whole, other, strict=True))
        every[rank] = torch.cat([indices for _, _, indices in whole])
    assert sorted(torch.cat(list(every.values())).tolist()) == list(range(12))


def test_no_picture(imagenet):
    with pytest.raises(ConfigError, match="there are no training images"):
        open_batches(changed(batch_size=8), coloured(0), Processes(CPU), 0)
    with pytest.raises(ConfigError, match=r"data 'imagenet': `fraction` \(=0.05\) leaves none of the 6 images"):
        load_training_data(changed(data="imagenet", fraction=0.05), imagenet, verify=False)


def test_more_pictures_than_there_are():
    with pytest.raises(ConfigError, match=r"batch_size \(=8\) of 2 processes exceeds the 12 training images"):
        open_batches(changed(batch_size=8), coloured(12), Processes(CPU, 0, 2), 0)


def test_files_without_augmentation_are_the_same_in_every_epoch(files):
    config = changed(batch_size=12, data="imagenet", augment="none")
    batches = open_batches(config, files, Processes(CPU), 0)
    pictures = []
    for epoch in range(2):
        (images, _, indices) = next(iter(batches.epoch(epoch, 0, 1)))
        pictures.append(images[indices.argsort()])
    assert torch.equal(*pictures)
