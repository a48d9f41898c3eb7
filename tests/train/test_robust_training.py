"""Random maps, noise and low-pass filters in a run: what a config says, what batches hold, what a checkpoint keeps."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from seedcnn.convert import low_passed, lowpass_
from seedcnn.data import load_folder, normalize, random_crop_flip, random_shift_flip
from seedcnn.data.augmentation import augmix, gaussian_noise, prime, trivial_augment
from seedcnn.data.pictures.folder import ImageFolder
from seedcnn.errors import ConfigError, ConversionError, TrainingError
from seedcnn.processes import Processes, open_processes
from seedcnn.sampling import SamplingConfig
from seedcnn.train import (
    DistillConfig,
    FolderData,
    TrainConfig,
    build_model,
    load_checkpoint,
    load_model,
    override,
    save_checkpoint,
)
from seedcnn.train._run import Run
from seedcnn.train.data import open_batches
from seedcnn.train.own import fine_tuned, own_rule
from seedcnn.train.randomness import epoch_generator
from tests.train.runs import EVERYTHING, changed, coloured, run, same

ROBUST = changed(augment="crop+prime", noise=0.1, lowpass="stem+strides", convert=None)
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("augment", "parts"),
    [
        ("none", ()),
        ("crop", ("crop",)),
        ("prime", ("prime",)),
        ("shift2+prime", ("shift2", "prime")),
        ("crop+augmix", ("crop", "augmix")),
        ("shift2+trivial", ("shift2", "trivial")),
    ],
)
def test_parts(augment, parts):
    config = changed(augment=augment)
    assert config.augment_parts == parts
    assert config.augments == bool(parts)
    assert TrainConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"augment": "crop+prim"}, r"augment \(='prim'\) is unknown; did you mean prime"),
        ({"augment": ""}, r"augment \(=''\) is unknown"),
        ({"augment": "crop+none"}, r"augment \(='crop\+none'\) must be written as 'crop'"),
        ({"augment": "prime+crop"}, r"augment \(='prime\+crop'\) must be written as 'crop\+prime'"),
        ({"augment": "prime+prime"}, r"augment \(='prime\+prime'\) holds prime and prime; it can hold one of"),
        ({"augment": "crop+shift2"}, r"holds crop and shift2; it can hold one of crop, shift2"),
        ({"augment": "crop+prime+augmix"}, "holds prime and augmix; it can hold one of prime, augmix, trivial"),
        ({"noise": -0.1}, r"noise \(=-0\.1\) must be in \[0, 1\]"),
        ({"noise": 25.0}, r"noise \(=25\.0\) must be in \[0, 1\]"),
        ({"lowpass": "stems"}, r"lowpass \(='stems'\) is unknown; did you mean stem"),
        ({"data": "imagenet", "noise": 0.1}, r"noise \(=0\.1\) goes with images in memory, not with the files"),
        ({"data": "imagenet", "augment": "crop+prime"}, r"augment \(='crop\+prime'\) goes with images in memory"),
        ({"noise": 0.1, "augment": "none", "distill": DistillConfig("t", cache=True)}, r"contradicts noise=0\.1"),
    ],
)
def test_what_is_refused(fields, words):
    with pytest.raises(ConfigError, match=words):
        changed(**fields)


@pytest.mark.parametrize(("given", "place"), [(True, "stem"), (False, "none"), ("strides", "strides")])
def test_lowpass_may_be_a_truth_value(given, place):
    assert changed(lowpass=given).lowpass == place
    assert override(changed(), [f"lowpass={str(given).lower()}"]).lowpass == place


def test_what_was_seen_in_training():
    noise = ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise")
    assert changed().seen_corruptions == ()
    assert changed(augment="crop+prime").seen_corruptions == ()
    assert sorted(changed(noise=0.1).seen_corruptions) == sorted(noise)
    assert changed(augment="trivial").seen_corruptions == ("brightness", "contrast", "saturate")
    assert len(changed(noise=0.1, augment="crop+trivial").seen_corruptions) == 7


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize(
    ("augment", "maps"),
    [("crop+prime", prime), ("shift2+augmix", augmix), ("trivial", trivial_augment), ("none", None), ("crop", None)],
)
def test_batches_are_cut_then_mapped_then_noisy(augment, maps, world):
    config, data = changed(augment=augment, noise=0.2), coloured()
    for rank in range(world):
        batches = open_batches(config, data, Processes(CPU, rank, world), 0)
        found = list(batches.epoch(3, 0, 2))
        generator = epoch_generator(config.seed, 3)
        if rank:
            torch.randperm(len(data.images), generator=generator)
            generator = epoch_generator(config.seed, 3, rank)
        else:
            torch.randperm(len(data.images), generator=generator)
        for images, _, picked in found:
            wanted = torch.from_numpy(data.images[picked.numpy()].transpose(0, 3, 1, 2).copy())
            if augment.startswith("shift2"):
                wanted = random_shift_flip(wanted, generator, 2, flip=True)
            elif augment != "none":
                wanted = random_crop_flip(wanted, generator, 4 if "crop" in augment else 0)
            wanted = wanted if maps is None else maps(wanted, generator)
            wanted = gaussian_noise(wanted, generator, 0.2)
            assert torch.equal(images, normalize(wanted, data.mean, data.std))


def test_files_are_refused():
    folder = ImageFolder.__new__(ImageFolder)
    data = FolderData.__new__(FolderData)
    object.__setattr__(folder, "labels", np.zeros(64, np.int64))
    object.__setattr__(data, "folder", folder)
    for fields in ({"noise": 0.1}, {"augment": "prime"}, {"augment": "shift2"}, {"flip": "alternating"}):
        with pytest.raises(ConfigError, match=r"goes with images in memory, not with files"):
            open_batches(changed(**fields), data, Processes(CPU), 0)


def test_grey_pictures_of_another_size(tmp_path):
    data = coloured()
    grey = dataclasses.replace(data, images=data.images[:, :24, :20, :1], mean=(0.5,), std=(0.25,))
    batches = open_batches(changed(augment="shift2+prime", noise=0.1), grey, Processes(CPU), 0)
    images, _, _ = next(batches.epoch(0, 0, 1))
    assert images.shape == (16, 1, 24, 20)


@pytest.mark.parametrize("augment", ["crop+prime", "crop+augmix", "trivial"])
def test_a_run_resumes_within_an_epoch_with_the_same_bits(tmp_path, augment):
    config = dataclasses.replace(EVERYTHING, epochs=1, augment=augment, noise=0.1, lowpass="stem+strides")
    whole = run(tmp_path / "whole.ckpt", config)[1]

    def interrupt(network):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken.ckpt", config, save_steps=1, validate=interrupt)
    assert load_checkpoint(tmp_path / "broken.ckpt").step > 0
    again = run(tmp_path / "broken.ckpt", config, resume=True)[1]
    assert same(again.model, whole.model)
    assert same(again.ema, whole.ema)


def test_a_checkpoint_opens_with_its_filters_and_has_the_keys_of_a_network_without(tmp_path):
    network, state = run(tmp_path / "a.ckpt", dataclasses.replace(ROBUST, epochs=1, ema=0.5))
    opened, saved = load_model(tmp_path / "a.ckpt")
    assert saved.config.lowpass == "stem+strides"
    assert low_passed(opened) == low_passed(network) == low_passed(build_model(ROBUST))
    assert len(low_passed(opened)) == 5
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(opened(x), network.eval()(x))
    plain = build_model(dataclasses.replace(ROBUST, lowpass="none"))
    assert plain.state_dict().keys() == state.model.keys()
    plain.load_state_dict(saved.weights)
    assert (plain.eval()(x) - opened(x)).abs().max() > 1e-3


@pytest.mark.parametrize(
    "fields",
    [
        {"mixup": 0.4, "cutmix": 0.4},
        {"precision": "bf16", "grad_accumulation": 2},
        {"optimizer": "muon+sgd", "schedule": "linear", "whiten_stem": True, "flip": "alternating"},
        {"sampling": SamplingConfig((0.5, 1.0, 0.5)), "random_erasing": 0.5},
        {"batch_size": 7, "drop_last": False},
        {"deterministic": True, "channels_last": False},
    ],
    ids=str,
)
def test_beside_other_options(tmp_path, fields):
    config = dataclasses.replace(ROBUST, epochs=2, **fields)
    first, again = (run(tmp_path / f"{name}.ckpt", config)[1] for name in "ab")
    assert same(first.model, again.model)
    assert all(np.isfinite(row["loss"]) for row in first.history)


@pytest.mark.parametrize("kind", ["logits", "stagewise"])
def test_distillation_into_a_network_with_filters(tmp_path, kind):
    teacher = build_model(changed(convert=None, seed=7)).eval()
    config = dataclasses.replace(ROBUST, epochs=1, distill=DistillConfig(kind=kind))
    state = run(tmp_path / "a.ckpt", config, teacher=teacher)[1]
    assert np.isfinite(state.history[0]["loss"])
    assert len(low_passed(load_model(tmp_path / "a.ckpt")[0])) == 5


def test_a_given_network_must_have_the_filters_of_its_config(tmp_path):
    plain = build_model(dataclasses.replace(ROBUST, lowpass="none"))
    with pytest.raises(ConfigError, match="low-pass filters before no layer, its config puts them before conv1, st"):
        run(tmp_path / "a.ckpt", ROBUST, model=plain)
    filtered = build_model(ROBUST)
    with pytest.raises(ConfigError, match=r"before conv1, .*, its config puts them before no layer"):
        run(tmp_path / "a.ckpt", dataclasses.replace(ROBUST, lowpass="none"), model=filtered)
    lowpass_(plain, "stem+strides")
    run(tmp_path / "a.ckpt", dataclasses.replace(ROBUST, epochs=1), model=plain)
    assert len(low_passed(load_model(tmp_path / "a.ckpt")[0])) == 5


def test_fine_tuning_keeps_the_filters(tmp_path, save_picture):
    for number, name in enumerate("abab" * 6):
        save_picture(tmp_path / "pictures" / name / f"{number}.png", (32, 32), number)
    pictures = load_folder(tmp_path / "pictures", preprocessing=own_rule("resnet8_cifar", (3, 32, 32)))
    config = fine_tuned(ROBUST, pictures, tmp_path / "a.ckpt")
    assert config.lowpass == "stem+strides"


def test_weights_of_a_network_with_other_filters_are_told(tmp_path):
    run(tmp_path / "a.ckpt", dataclasses.replace(ROBUST, epochs=1))
    other = dataclasses.replace(ROBUST, epochs=1, lowpass="none", init_from=str(tmp_path / "a.ckpt"))
    assert any(
        "was trained with lowpass=stem+strides, and goes on with lowpass=none" in note for note in notes_of(other)
    )
    assert not notes_of(dataclasses.replace(other, lowpass="stem+strides"))


def notes_of(config):
    with open_processes("cpu") as processes:
        task = Run(config, coloured(), processes, model=None, teacher=None, workers=0)
        return [note for note in task.notes if "lowpass" in note]


def test_a_network_without_a_place_is_refused(tmp_path):
    file = tmp_path / "plain.py"
    file.write_text(
        "from torch import nn\n\n\ndef Plain():\n    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())\n"
    )
    assert len(low_passed(build_model(TrainConfig("air_cifar", {"widths": (4, 4, 4)}, lowpass="strides")))) == 3
    with pytest.raises(ConversionError, match="has no convolution and no max pooling that strides"):
        build_model(TrainConfig(f"{file}:Plain", lowpass="strides"))


def test_the_checkpoint_of_another_place_is_not_resumed(tmp_path):
    _, state = run(tmp_path / "a.ckpt", dataclasses.replace(ROBUST, epochs=1))
    save_checkpoint(tmp_path / "b.ckpt", state)
    with pytest.raises(TrainingError, match="lowpass is stem\\+strides there and stem here"):
        run(tmp_path / "b.ckpt", dataclasses.replace(ROBUST, epochs=1, lowpass="stem"), resume=True)
