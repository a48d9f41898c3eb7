"""One grammar for trained networks: checkpoints, and names with weights from elsewhere, evaluated and packed."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from seedcnn.bundle import Preprocessing, open_bundle, read_bundle
from seedcnn.data.sets.own import load_folder, load_pictures
from seedcnn.data.transforms import normalize
from seedcnn.device.runtime import Model
from seedcnn.errors import ConfigError, DataError
from seedcnn.models.own import own_network
from seedcnn.networks import evaluate, open_architecture, open_weights, pack_checkpoint
from seedcnn.train import TrainConfig, own_config, train
from tests.cli.calls import in_process
from tests.own.photos import CLASSES, write_photos
from tests.own.test_road import NETWORK

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("networks")
    write_photos(place / "photos", 16)
    (place / "net.py").write_text(NETWORK)
    return place


@pytest.fixture(scope="module")
def checkpoint(place):
    data = load_folder(place / "photos", preprocessing=Preprocessing.crop(32))
    config = own_config(f"{place / 'net.py'}:Net", data)
    train(replace(config, epochs=6), data, place / "a.ckpt")
    return place / "a.ckpt"


@pytest.fixture(scope="module", params=[3, 1], ids=["colour", "grey"])
def looped(place, request):
    """Weights of a plain loop of torch, the arguments that open them, and their accuracy by that loop."""
    channels, side = request.param, (16, 20)
    rule = Preprocessing.squash(side, channels=channels, mean=MEAN[:channels], std=STD[:channels])
    own = load_folder(place / "photos", preprocessing=rule)
    torch.manual_seed(0)
    network = own_network(f"{place / 'net.py'}:Net", {"num_classes": 4, "channels": channels})
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)

    def inputs(images):
        return normalize(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), rule.mean, rule.std)

    x, y = inputs(own.train.images), torch.from_numpy(own.train.labels)
    for _ in range(40):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()
    network.eval()
    with torch.no_grad():
        right = network(inputs(own.val.images)).argmax(1).numpy() == own.val.labels
    path = place / f"w{channels}.pth"
    torch.save({"state_dict": network.state_dict()}, path)
    numbers = ("--mean", ",".join(["0.5"] * channels), "--std", ",".join(["0.25"] * channels))
    options = ("--weights", path, "--input", f"{channels}x16x20", "--resize", "squash", *numbers)
    options += ("--set", f"model_options.channels={channels}", "--data", place / "photos")
    return options, 100 * float(right.mean())


def test_weights_of_a_torch_loop_reach_a_device_as_they_were_measured(place, looped, tmp_path):
    options, accuracy = looped
    assert accuracy > 50  # chance is 25 %
    name = f"{place / 'net.py'}:Net"
    done = in_process("evaluate", name, *options, "--corruptions", "none", "--json")
    assert f'"clean": {accuracy}' in done.stdout
    assert "each side scaled by itself, bilinear" in done.stderr
    bundle = tmp_path / "w.bundle"
    done = in_process("pack", name, *options, "--out", bundle, "--family", "f", "--release", 1)
    assert f"accuracy {accuracy:.2f} -> " in done.stdout
    packed = float(re.search(r"-> (\d+\.\d+) %", done.stdout)[1])
    manifest = open_bundle(bundle).manifest
    assert (manifest.model, manifest.labels) == ("Net", CLASSES)
    assert manifest.measured.top1 == pytest.approx(packed, abs=0.005)
    files = sorted((place / "photos" / "val").rglob("*.*"))
    said = Model.load(bundle).predict_files(files)
    right = [each.label == path.parent.name for each, path in zip(said, files, strict=True)]
    assert 100 * np.mean(right) == pytest.approx(packed, abs=0.005)


def test_what_weights_from_elsewhere_need(place, looped):
    options, _ = looped
    name, some = f"{place / 'net.py'}:Net", list(options)
    known = ("evaluate", name, "--corruptions", "none")

    def without(option):
        at = some.index(option)
        return [*some[:at], *some[at + 2 :]]

    for missing, words in (
        ("--data", "needs --data: the file does not say what its classes are"),
        ("--mean", "--mean and --std go together"),
        ("--input", "--input is needed"),
        ("--weights", "has no effect without --weights"),
    ):
        assert words in in_process(*known, *without(missing), expect=1).stderr
    both = [each for each in without("--mean") if each not in ("--std", some[some.index("--std") + 1])]
    assert "give --mean and --std as it was trained" in in_process(*known, *both, expect=1).stderr
    refused = in_process("evaluate", "resnet8_cifar", *options, "--corruptions", "none", expect=1)
    assert "resnet8_cifar has no option 'channels'" in refused.stderr
    for command in (("evaluate", "--corruptions", "none"), ("pack", "--out", "x", "--family", "f", "--release", "1")):
        refused = in_process(command[0], place / "w3.pth", *options, *command[1:], expect=1)
        assert "is a file with weights of its own" in refused.stderr or "belong to one network" in refused.stderr


def test_a_network_without_weights_is_named(place):
    own = f"{place / 'net.py'}:Net"
    pack = ("--out", place / "x", "--family", "f", "--release", 1)
    for name in ("resnet8_cifar", "mobilenetv3_small_050", own):
        for arguments in (("evaluate", name, "--corruptions", "none"), ("pack", name, *pack)):
            said = in_process(*arguments, expect=1).stderr
            assert f"{name} is a network without trained weights: give a checkpoint of it, or its --weights" in said
    assert "there is no checkpoint absent.ckpt" in in_process("pack", "absent.ckpt", *pack, expect=1).stderr


def test_files_that_know_better_are_no_weights(place, checkpoint, tmp_path):
    packed = pack_checkpoint(checkpoint, family="f", release=1, step=0.01)
    (tmp_path / "1.bundle").write_bytes(packed.data)
    options = ("--data", place / "photos", "--input", 32, "--mean", "0,0,0", "--std", "1,1,1")
    for file, words in (
        (checkpoint, "is a checkpoint, which keeps its labels"),
        (tmp_path / "1.bundle", "is a bundle"),
    ):
        said = in_process("evaluate", f"{place / 'net.py'}:Net", "--weights", file, *options, expect=1).stderr
        assert words in said
        assert "give it instead of" in said


def test_pictures_that_are_measured_are_no_calibration(place, checkpoint, looped, tmp_path):
    options, _ = looped
    at = options.index("--data")
    alone = (*options[:at], "--data", place / "photos" / "val")
    name, out = f"{place / 'net.py'}:Net", ("--out", tmp_path / "x.bundle", "--family", "f", "--release", 1)
    assert "--family is needed" in in_process("pack", name, *alone, *out[:2], *out[4:], expect=1).stderr
    assert "so nothing is left to calibrate on" in in_process("pack", name, *alone, *out, expect=1).stderr
    said = in_process("pack", name, *alone, *out, "--step", 0.002).stderr
    assert "all of it is measured, also what the network was trained on, if it is there" in said
    done = in_process("pack", checkpoint, "--data", place / "photos" / "val", *out)
    assert "on 64 calibration images and their shifted copies" in " ".join(done.stdout.split())  # of photos/train
    bundle = ("evaluate", tmp_path / "x.bundle", "--corruptions", "none", "--data")
    shutil.copytree(place / "photos" / "val", tmp_path / "alone" / "val")
    whole = in_process(*bundle, place / "photos").stdout
    assert in_process(*bundle, place / "photos" / "val").stdout == whole
    assert in_process(*bundle, tmp_path / "alone").stdout == whole


def test_options_and_names_without_effect(place, checkpoint):
    still = ("--corruptions", "none", "--data", place / "photos")
    said = in_process("evaluate", checkpoint, *still, "--mean", "0,0,0", "--std", "1,1,1", expect=1).stderr
    assert "--mean 0,0,0 has no effect without an ONNX file or --weights" in said
    assert "there is no file nope" in in_process("evaluate", "nope", *still, expect=1).stderr
    said = in_process("evaluate", place / "net.py", *still, expect=1).stderr
    assert "net.py is neither a bundle" in said
    said = in_process("evaluate", checkpoint, "--corruptions", "none", "--data", "no/such", expect=1).stderr
    assert "unknown data 'no/such'; there is no directory of that name" in said
    with pytest.raises(TypeError, match="`model` is a Sequential; it must be the path of a checkpoint"):
        evaluate(torch.nn.Sequential())


def test_a_head_of_another_size_is_refused(place, looped, tmp_path):
    network = own_network(f"{place / 'net.py'}:Net", {"num_classes": 7})
    torch.save(network.state_dict(), tmp_path / "w.pth")
    with pytest.raises(ConfigError, match=r"head.1.weight \(7, 64\) instead of \(4, 64\)"):
        open_weights(
            f"{place / 'net.py'}:Net", tmp_path / "w.pth", str(place / "photos"), size=(3, 32, 32), mean=MEAN, std=STD
        )


def test_a_config_for_pictures_needs_their_rule_alone(place, tmp_path):
    data = load_folder(place / "photos", preprocessing=Preprocessing.crop(16))
    config = TrainConfig(
        f"{place / 'net.py'}:Net", {"width": 8}, preprocessing=data.preprocessing, epochs=1, batch_size=16
    )
    assert config.data == "folder"
    assert TrainConfig("resnet8_cifar").data == "cifar10"
    _, saved = train(config, data, tmp_path / "a.ckpt")
    assert saved.config.model_options == {"width": 8, "num_classes": 4}
    assert evaluate(tmp_path / "a.ckpt", data.val).classes == CLASSES
    with pytest.raises(ConfigError, match=r"the config is for the data 'cifar10', not for .*photos"):
        train(TrainConfig("resnet8_cifar"), data, tmp_path / "b.ckpt")


def test_a_checkpoint_is_evaluated_and_packed_in_one_call(place, checkpoint, tmp_path):
    found = evaluate(checkpoint)
    printed = in_process("evaluate", checkpoint, "--corruptions", "none", "--json").stdout
    assert f'"clean": {found.top1}' in printed
    saved = open_architecture(str(checkpoint))
    assert saved[1] == (3, 32, 32)
    images = load_pictures(place / "photos", Preprocessing.crop(32), CLASSES)
    said: list[str] = []
    again = evaluate(checkpoint, batch_size=5, progress=said.append)
    assert evaluate(checkpoint, images).top1 == again.top1 == found.top1
    assert said == [f"decoding 16 files of {place / 'photos'}"]
    packed = pack_checkpoint(checkpoint, family="f", release=1)
    assert packed.tried
    (tmp_path / "1.bundle").write_bytes(packed.data)
    assert (
        evaluate(tmp_path / "1.bundle", images).top1
        == packed.after.top1
        == read_bundle(packed.data).manifest.measured.top1
    )
    said: list[str] = []
    options = {"data": str(place / "photos" / "val"), "min_release": 1, "progress": said.append}
    next_ = pack_checkpoint(checkpoint, family="f", release=2, parent=tmp_path / "1.bundle", **options)
    assert next_.delta
    manifest = read_bundle(next_.data).manifest
    assert (manifest.min_release, manifest.measured.data) == (1, "val")
    assert f"decoding 16 files of {place / 'photos' / 'val'}" in said
    with pytest.raises(ConfigError, match="does not say where its data are"):
        evaluate(tmp_path / "1.bundle")
    with pytest.raises(DataError, match="has images of 3 x 16 x 16; the network takes 3 x 32 x 32"):
        evaluate(checkpoint, load_pictures(place / "photos", Preprocessing.crop(16), CLASSES))


def test_cost_and_bench_take_checkpoints_and_files(place, checkpoint):
    of_file = in_process("cost", f"{place / 'net.py'}:Net", "--input", 32, "--json").stdout
    of_checkpoint = in_process("cost", checkpoint, "--json").stdout
    assert '"input": "3x32x32"' in of_checkpoint
    macs = [re.search(r'"macs": (\d+)', text)[1] for text in (of_file, of_checkpoint)]
    assert int(macs[0]) - int(macs[1]) == 6 * 64  # ten classes and four


def test_names_of_timm_and_unknown_ones(place):
    data = load_folder(place / "photos", preprocessing=Preprocessing.crop(16))
    assert own_config("timm:mobilenetv3_small_050", data).model == "mobilenetv3_small_050"
    with pytest.raises(ConfigError, match="there is no recipe, network or checkpoint 'resnet8_cifr'; did you mean"):
        own_config("resnet8_cifr", data)


def test_inspect_knows_checkpoints_and_weights(place, checkpoint, looped):
    said = in_process("inspect", checkpoint).stdout
    assert "net.py:Net, as it is; 6 of 6 epochs" in said
    assert "4 labels: across fine, across wide" in said
    assert "short side to 36, then the middle, bilinear" in said
    assert "best validation accuracy" not in said
    assert "body.0.weight" in in_process("inspect", checkpoint, "--tensors").stdout
    done = in_process("inspect", place / "w3.pth", "--tensors")
    assert "weights from elsewhere" in done.stdout
    assert "the weights are its entry 'state_dict'" in done.stderr
    (place / "none.pth").write_bytes(b"no weights at all, but some bytes")
    assert "none.pth is no bundle (" in in_process("inspect", place / "none.pth", expect=1).stderr
    torch.save(torch.nn.Linear(2, 2), place / "whole.pth")
    assert "holds no weights that can be read safely" in in_process("inspect", place / "whole.pth", expect=1).stderr
