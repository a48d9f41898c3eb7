"""The whole road: a folder of pictures and a network of one's own, to a device that answers as it was measured."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch

from seedcnn.bundle import open_bundle
from seedcnn.device.main import main as device
from seedcnn.models.own import own_network
from seedcnn.server.static import serve
from seedcnn.train import load_checkpoint, load_model
from tests.cli.calls import in_process
from tests.own.photos import CLASSES, write_photos

NETWORK = """
from torch import nn

class Net(nn.Module):
    def __init__(self, channels=3, width=16, num_classes=10):
        super().__init__()
        def block(a, b, stride):
            return nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()
        self.body = nn.Sequential(*block(channels, width, 2), *block(width, width, 1), nn.AdaptiveAvgPool2d(2))
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(4 * width, num_classes))

    def forward(self, x):
        return self.head(self.body(x))
"""


def accuracy(text):
    """The first percentage with its number of images."""
    found = re.search(r"accuracy (\d+\.\d+) %|top-1 \(n = \d+\) │ (\d+\.\d+)", text)
    return float(found[1] or found[2])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("own")
    write_photos(place / "photos", 24)
    (place / "photos" / "val" / CLASSES[0] / "broken.jpg").write_bytes(b"no picture")
    (place / "net.py").write_text(NETWORK)
    return place


@pytest.fixture(scope="module", params=[(3, 32), (1, 24)], ids=["colour", "grey"])
def trained(place, request):
    """A checkpoint of the user's network in three channels or one, and what training printed."""
    channels, side = request.param
    out = place / f"net{channels}.ckpt"
    arguments = (f"{place / 'net.py'}:Net", "--data", place / "photos", "--input", f"{channels}x{side}x{side}")
    options = ("--set", f"model_options.channels={channels}", "--set", "epochs=8", "--no-flip")
    return out, in_process("train", *arguments, *options, "--out", out)


def test_the_chain_ends_as_it_began(place, trained, capsys):
    checkpoint, done = trained
    assert "96 pictures to train on, 24 to measure on; 4 classes" in done.stderr
    assert "left out 1: val/across fine/broken.jpg" in done.stderr
    saved = load_checkpoint(checkpoint)
    assert (saved.labels, saved.source) == (CLASSES, f"folder:{place / 'photos'}")
    assert saved.config.flip == "none"
    trained_to = accuracy(done.stdout)
    assert trained_to > 60  # chance is 25 %
    assert accuracy(in_process("evaluate", checkpoint, "--corruptions", "none").stdout) == trained_to

    stem = place / checkpoint.stem
    first = in_process("pack", checkpoint, "--out", f"{stem}-1.bundle", "--family", stem.name, "--release", 1)
    assert f"accuracy {trained_to:.2f} -> " in first.stdout
    bundle = open_bundle(f"{stem}-1.bundle")
    assert bundle.manifest.labels == CLASSES
    assert bundle.manifest.preprocessing == saved.preprocessing
    packed_to = float(re.search(r"-> (\d+\.\d+) %", first.stdout)[1])
    assert "must stay within 0.5" in first.stdout
    assert f"accuracy {packed_to:.2f} % of 24 images of photos" in in_process("inspect", f"{stem}-1.bundle").stdout
    measured = in_process("evaluate", f"{stem}-1.bundle", "--data", place / "photos", "--corruptions", "none")
    assert accuracy(measured.stdout) == packed_to

    fleet = place / f"fleet-{stem.name}"
    in_process("repo", "init", fleet)
    in_process("repo", "add-family", fleet, stem.name)
    in_process("repo", "publish", fleet, f"{stem}-1.bundle")
    home = ["--home", str(place / f"home-{stem.name}")]
    with serve(fleet) as server:
        start = ["--root", str(fleet / "root.json"), "--url", server.url, "--family", stem.name]
        assert device([*home, "init", *start]) == 0
        assert device([*home, "update"]) == 0
        capsys.readouterr()
        assert device([*home, "evaluate", str(place / "photos" / "val"), "--json"]) == 1
        answer = capsys.readouterr()
        assert "broken.jpg is not a picture" in answer.err
        found = json.loads(answer.out)
        assert (found["pictures"], round(found["top1"], 2)) == (24, packed_to)

        write_photos(place / "photos", 10, seed=1)
        more = in_process(
            "train", checkpoint, "--data", place / "photos", "--set", "epochs=2", "--out", f"{stem}-b.ckpt"
        )
        assert "136 pictures to train on" in more.stderr
        options = ("--release", 2, "--parent", f"{stem}-1.bundle", "--out", f"{stem}-2.bundle")
        second = in_process("pack", f"{stem}-b.ckpt", *options)
        packed_to = float(re.search(r"-> (\d+\.\d+) %", second.stdout)[1])
        in_process("repo", "publish", fleet, f"{stem}-2.bundle")
        assert device([*home, "update"]) == 0
        assert "by a delta" in capsys.readouterr().out
        assert device([*home, "evaluate", str(place / "photos" / "val"), "--json"]) == 1
        assert round(json.loads(capsys.readouterr().out)["top1"], 2) == packed_to
    for path in (place / "photos").rglob("1-*"):
        path.unlink()


def test_a_changed_file_is_refused_by_its_digests(place, trained):
    checkpoint, _ = trained
    load_model(checkpoint)
    (place / "net.py").write_text(NETWORK + "# changed\n")
    refused = in_process("evaluate", checkpoint, expect=1)
    (place / "net.py").write_text(NETWORK)
    digest = load_checkpoint(checkpoint).network_sha256[:12]
    assert f"the file's SHA-256 was {digest}... and is" in refused.stderr


def test_a_changed_file_is_refused_when_a_run_goes_on(place, trained, tmp_path):
    checkpoint, _ = trained
    channels, side = load_checkpoint(checkpoint).preprocessing.shape[:2]
    (place / "net.py").write_text(NETWORK.replace("nn.ReLU()", "nn.Tanh()"))
    data = ("--data", place / "photos", "--set", "epochs=1")
    further = in_process("train", checkpoint, *data, "--out", tmp_path / "b.ckpt", expect=1)
    size = ("--input", f"{channels}x{side}x{side}", "--set", f"model_options.channels={channels}", "--no-flip")
    same = (f"{place / 'net.py'}:Net", "--data", place / "photos", "--set", "epochs=8", *size)
    resumed = in_process("train", *same, "--resume", "--out", checkpoint, expect=1)
    (place / "net.py").write_text(NETWORK)
    for refused in (further, resumed):
        assert "the file's SHA-256 was" in refused.stderr
    in_process("train", *same, "--resume", "--out", checkpoint)  # it is finished


def test_a_run_is_not_resumed_on_other_pictures(place, trained, tmp_path):
    photos = write_photos(tmp_path / "photos", 8)
    options = ("resnet8_cifar", "--data", photos, "--input", 16, "--set", "epochs=2", "--out", tmp_path / "a.ckpt")
    in_process("train", *options)
    first, second = (photos / "train" / name for name in CLASSES[:2])
    moved = next(first.glob("*.jpg"))
    moved.rename(second / "moved.jpg")
    refused = in_process("train", *options, "--resume", expect=1)
    assert "trained on other pictures" in refused.stderr or "another config" in refused.stderr
    (second / "moved.jpg").rename(moved)
    in_process("train", *options, "--resume")


def test_grey_networks_are_measured_under_corruption(place, trained):
    checkpoint, _ = trained
    if load_checkpoint(checkpoint).preprocessing.height < 32:
        options = ("--data", place / "photos", "--input", "1x32x32", "--set", "model_options.channels=1")
        checkpoint = place / "grey32.ckpt"
        in_process("train", f"{place / 'net.py'}:Net", *options, "--set", "epochs=1", "--out", checkpoint)
    report = place / f"{checkpoint.stem}.html"
    options = ("--corruptions", "gaussian_noise,contrast", "--images", 10, "--json", "--report", report)
    said = in_process("evaluate", checkpoint, *options)
    (row,) = json.loads(said.stdout).values()
    assert row["corrupted"]["n"] == 10
    page = report.read_text()
    assert "Evaluation on photos" in page
    assert "What is taken for what" in page


def test_other_data_are_refused_by_both_class_lists(place, trained, cifar10):
    checkpoint, _ = trained
    for command in (("evaluate",), ("pack", "--family", "x", "--release", "1", "--out", place / "x.bundle")):
        refused = in_process(command[0], checkpoint, *command[1:], "--data", "cifar10", expect=1)
        assert "has 10 classes (airplane, automobile" in refused.stderr
        assert "was trained on 4 (across fine, across wide" in refused.stderr
    assert not (place / "x.bundle").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("resnet8_cifar",), "train resnet8_cifar needs --data"),
        (
            ("resnet8_cifra", "--data", "PHOTOS"),
            "network or checkpoint 'resnet8_cifra'; did you mean",
        ),
        (("PLACE/net.py:Nett", "--data", "PHOTOS"), "there is nothing to call by the name Nett"),
        (("PLACE/net.py:Net", "--data", "PHOTOS"), "--input is needed"),
        (("resnet8_cifar", "--data", "PHOTOS", "--input", "0x3"), "--input 0x3: it must be SIDE"),
        (("resnet8_cifar", "--data", "PHOTOS", "--input", "1x32x32"), "the network cannot take images of 32x32"),
        (("resnet8_cifar", "--data", "PHOTOS", "--resize", "stretch"), "must be one of crop, squash, pad, none"),
        (("resnet8_cifar", "--data", "PHOTOS", "--strict"), "broken.jpg"),
        (("resnet8_cifar", "--data", "PHOTOS", "--pretrained"), "pretrained goes with the networks of timm"),
        (("resnet8_cifar", "--data", "PHOTOS", "--weights", "no.pth"), "there is no"),
        (("demo:vanilla", "--input", "32"), "--input 32 has no effect on the recipe demo:vanilla"),
        (("demo:vanilla", "--no-flip"), "has no effect on the recipe demo:vanilla"),
        (("resnet8_cifar", "--data", "PLACE"), "class"),
        (("resnet8_cifar", "--data", "PLACE/none"), "there is no directory or CSV file"),
        (("resnet8_cifar", "--data", "PHOTOS", "--val", "0.5"), "has no effect on"),
        (("resnet8_cifar", "--data", "PHOTOS/train", "--val", "0"), "must be more than 0 and less than 1"),
        (("resnet8_cifar", "--data", "PHOTOS", "--input", "2x32x32"), "channels must be 1 or 3, not 2"),
        (("resnet8_cifar", "--data", "PHOTOS", "--input", "100000"), "height must be an integer in [1, 4096]"),
        (("resnet8_cifar", "--data", "PHOTOS", "--resize", "none"), "and no other"),
        (("PLACE/net.py", "--data", "PHOTOS"), "net.py:CALLABLE"),
    ],
)
def test_one_sentence_for_what_cannot_be_trained(place, tmp_path, arguments, sentence):
    texts = [text.replace("PHOTOS", str(place / "photos")).replace("PLACE", str(place)) for text in arguments]
    refused = in_process("train", *texts, "--out", tmp_path / "x.ckpt", expect=1)
    (line,) = [text for text in refused.stderr.splitlines() if text.startswith("seedcnn: ")]
    assert sentence in line
    assert not list(tmp_path.iterdir())


def test_a_run_goes_on_where_it_stopped(place, trained):
    checkpoint, _ = trained
    config = load_checkpoint(checkpoint).config
    channels = config.preprocessing.channels
    arguments = (f"{place / 'net.py'}:Net", "--data", place / "photos", "--input", f"{channels}x20x20")
    options = ("--set", f"model_options.channels={channels}", "--set", "epochs=1", "--out", place / "again.ckpt")
    in_process("train", *arguments, *options)
    weights = load_checkpoint(place / "again.ckpt").model
    in_process("train", *arguments, *options, "--resume")
    again = load_checkpoint(place / "again.ckpt").model
    assert all(np.array_equal(value, again[name]) for name, value in weights.items())


def test_a_plan_is_one_option_of_train(place, trained):
    checkpoint, _ = trained
    channels = load_checkpoint(checkpoint).preprocessing.channels
    plan, out = place / f"plan{channels}.json", place / f"planned{channels}.ckpt"
    budget = ("--budget-bytes", 9000, "--forms", "dws-linear", "--no-latency", "--pictures", 32, "--steps", 2)
    said = in_process("plan", checkpoint, *budget, "--multiple", 8, "--out", plan)
    assert "dws-linear in 1 layer" in said.stdout
    options = ("--plan", plan, "--set", "epochs=1", "--out", out)
    in_process("train", checkpoint, *options)
    model, saved = load_model(out)
    (name,) = saved.config.plan
    assert type(model.get_submodule(name)).__name__ == "DepthwiseSeparableConv2d"
    bundle = place / f"planned{channels}.bundle"
    done = in_process("pack", out, "--out", bundle, "--family", "planned", "--release", 1, "--step", 0.002)
    assert accuracy(in_process("evaluate", out, "--corruptions", "none").stdout) == pytest.approx(
        float(re.search(r"accuracy (\d+\.\d+) -> ", done.stdout)[1])
    )
    in_process("train", out, "--data", place / "photos", "--set", "epochs=1", "--out", place / "further.ckpt")
    assert load_checkpoint(place / "further.ckpt").config.plan == saved.config.plan
    refused = in_process("train", "resnet8_cifar", "--data", place / "photos", "--plan", plan, expect=1)
    assert ("is for inputs of" if channels == 1 else "has no convolution 'body.3'") in refused.stderr


def test_other_classes_of_the_same_number_get_a_fresh_head(place, trained, tmp_path):
    checkpoint, _ = trained
    write_photos(tmp_path / "photos", 8)
    for part in ("train", "val"):
        (tmp_path / "photos" / part / CLASSES[0]).rename(tmp_path / "photos" / part / "zebra")
    options = ("--data", tmp_path / "photos", "--set", "epochs=1", "--out", tmp_path / "b.ckpt")
    assert "is for other classes; it starts anew" in in_process("train", checkpoint, *options).stderr


def test_the_wrong_kind_of_file_is_named(place, trained, tmp_path):
    checkpoint, _ = trained
    bundle = tmp_path / "x.bundle"
    in_process("pack", checkpoint, "--out", bundle, "--family", "x", "--release", 1, "--step", 0.002)
    assert open_bundle(bundle).manifest.model == "Net"
    again = in_process("pack", bundle, "--out", tmp_path / "y.bundle", "--family", "x", "--release", 2, expect=1)
    assert "is a bundle, not a checkpoint" in again.stderr
    assert "does not know where its data are: give --data" in in_process("evaluate", bundle, expect=1).stderr
    in_process("pack", checkpoint, "--out", tmp_path / "z.bundle", "--family", "x", "--release", 2, "--parent", bundle)
    said = in_process("inspect", tmp_path / "z.bundle.delta", "--tensors").stdout
    assert "delta to release 2" in said
    assert f"to content   {open_bundle(tmp_path / 'z.bundle').manifest.content_sha256()}" in said
    assert "% of 24 images of photos when it was packed" in said
    (tmp_path / "cut.bundle").write_bytes(bundle.read_bytes()[:-9])
    assert "cut.bundle: " in in_process("inspect", tmp_path / "cut.bundle", expect=1).stderr
    step = ("--step", 0.002)
    for option in (("--calibration", "cifar10"), ("--calibration-pictures", 5), ("--delta-price", 3)):
        refused = in_process(
            "pack", checkpoint, "--out", bundle, "--family", "x", "--release", 1, *option, *step, expect=1
        )
        assert f"{option[0]} {option[1]}" in refused.stderr
        assert "has no effect with" in refused.stderr


def test_weights_of_a_torch_loop_are_the_start(place, tmp_path):
    network = own_network(f"{place / 'net.py'}:Net", {"num_classes": 4})
    wrapped = {f"module.{name}": value for name, value in network.state_dict().items()}
    torch.save({"state_dict": wrapped}, tmp_path / "w.pth")
    options = ("--input", "12x20", "--resize", "squash", "--weights", tmp_path / "w.pth", "--out", tmp_path / "a.ckpt")
    still = ("--set", "epochs=1", "--set", "lr=1e-12", "--set", "warmup_lr=1e-13", "--set", "weight_decay=0")
    said = in_process("train", f"{place / 'net.py'}:Net", "--data", place / "photos", *options, *still)
    saved = load_checkpoint(tmp_path / "a.ckpt")
    assert (saved.preprocessing.resize, saved.preprocessing.shape) == ("squash", (3, 12, 20))
    for name, value in network.named_parameters():
        torch.testing.assert_close(saved.model[name], value.detach(), rtol=0, atol=1e-6)
    assert "'module.', which is taken off" in said.stderr
