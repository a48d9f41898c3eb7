"""What is wrong ends with code 1 and one sentence that names it; what is odd but right works."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from seedcnn.device.main import main as device
from seedcnn.models import create_model
from seedcnn.server.static import serve
from seedcnn.train import load_checkpoint
from tests.cli.calls import in_process
from tests.own.photos import CLASSES, write_photos
from tests.runtime.test_pictures import png

ONE_EPOCH = ("--set", "epochs=1", "--device", "cpu")
ODD = "two\nlines\x1b[31mred"
SHOWN = r"two\nlines\x1b[31mred"
NETWORK = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 8, 3, 2), nn.Linear(8, num_classes)

    def logits(self, x):
        return self.head(self.body(x).relu().mean((2, 3)))

    def forward(self, x):
        y = self.logits(x)
        {}
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Pictures in train and val, and a network of one epoch."""
    place = tmp_path_factory.mktemp("bad")
    photos = write_photos(place / "photos", 6)
    in_process("train", "resnet8_cifar", "--data", photos, "--input", 16, *ONE_EPOCH, "--out", place / "a.ckpt")
    return place


@pytest.fixture
def photos(whole, tmp_path):
    return shutil.copytree(whole / "photos", tmp_path / "photos")


def refused(*arguments):
    """Run what must end with one sentence, which is returned."""
    done = in_process(*arguments, expect=1)
    (line,) = [text for text in done.stderr.splitlines() if text.startswith("seedcnn: ")]
    assert done.stderr.endswith(f"{line}\n")
    assert "\x1b" not in done.stderr + done.stdout
    return line


def train(photos, tmp_path, *more):
    arguments = ("resnet8_cifar", "--data", photos, "--input", 16, *ONE_EPOCH, "--out", tmp_path / "x.ckpt", *more)
    return in_process("train", *arguments).stderr


def train_refused(photos, tmp_path, *more, network="resnet8_cifar", size=("--input", 16)):
    before = sorted(tmp_path.rglob("*"))
    line = refused("train", network, "--data", photos, *size, *ONE_EPOCH, "--out", tmp_path / "x.ckpt", *more)
    assert sorted(path for path in tmp_path.rglob("*") if path.name != "__pycache__") == before
    return line


@pytest.mark.parametrize(
    ("ends", "sentence"),
    [
        ("return y, y", "returns a tuple of 2 for two images; it must return one tensor of logits"),
        ("pass", "returns nothing (None) for two images"),
        ("return {'out': y}", "returns a dict for two images"),
        ("return y.sum()", "returns a tensor float32 [] for two images"),
        ("return self.body(x)", "returns a tensor float32 [2, 8, 7, 7] for two images"),
        ("return y.long()", "returns a tensor int64 [2, 4] for two images"),
        ("return y[:, :3]", "Net has 3 outputs, but the pictures have 4 classes (across fine, "),
        ("return self.logits(x[:, :1])", "the network cannot take images of 16x16: Given groups=1"),
        ("assert len(x) == 1, 'one at a time'", "cannot take images of 16x16: AssertionError: one at a time"),
        ("raise RuntimeError('\\x1b[31mred\\ntwo')", "cannot take images of 16x16: red two"),
        ("return 1 / 0", "cannot take images of 16x16: ZeroDivisionError: division by zero"),
        ("return (y, y) if self.training else y", "in training the network returns a tuple of 2; it must return one"),
        (
            "x.zero_(); return y",
            "net.py:Net has no gradient: one of the variables needed for gradient computation has been",
        ),
        ("return y.detach()", "the logits of the network do not depend on its parameters"),
        ("return y / (not self.training or {}[7])", "net.py, line 15, in Net.forward: KeyError: 7"),
    ],
)
def test_networks_that_return_no_logits_for_the_classes(whole, tmp_path, ends, sentence):
    (tmp_path / "net.py").write_text(NETWORK.replace("{}", ends))
    line = train_refused(whole / "photos", tmp_path, network=f"{tmp_path / 'net.py'}:Net")
    assert sentence in line


def test_networks_of_other_sizes_classes_and_without_parameters(whole, tmp_path):
    fixed = "def net(): return nn.Sequential(nn.Conv2d({}, 7, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
    frozen = "def frozen(num_classes): return net().requires_grad_(False)\n"
    for name, channels in (("colour", 3), ("grey", 1)):
        (tmp_path / f"{name}.py").write_text("from torch import nn\n" + fixed.format(channels) + frozen)
    colour, grey = f"{tmp_path / 'colour.py'}:net", f"{tmp_path / 'grey.py'}:net"
    line = train_refused(whole / "photos", tmp_path, network=colour)
    assert "colour.py:net has 7 outputs, but the pictures have 4 classes" in line
    assert "must take `num_classes`" in line
    assert "to have 1 channels, but got 3" in train_refused(whole / "photos", tmp_path, network=grey)
    frozen = f"{tmp_path / 'colour.py'}:frozen"
    assert "has no parameters to train" in train_refused(whole / "photos", tmp_path, network=frozen)
    assert "cannot take images of 1x1" in train_refused(whole / "photos", tmp_path, network=colour, size=("--input", 1))
    line = train_refused(whole / "photos", tmp_path, network="vit_tiny_patch16_224", size=("--input", 96))
    assert "the network cannot take images of 96x96: AssertionError: Input height (96) doesn't match" in line


@pytest.mark.parametrize(
    ("network", "option", "sentence"),
    [
        ("resnet8_cifar", "model=resnet20_cifar", "the network is what `train` names"),
        ("resnet8_cifar", "val=0.7", "the share to measure on is that of --val"),
        ("resnet8_cifar", "preprocessing.height=7", "the rule is that of --input and --resize"),
        ("resnet8_cifar", "data=cifar10", "the pictures are those of --data"),
        ("resnet8_cifar", "drop_path=0.1", "drop_path (=0.1) goes with the networks of timm"),
        ("resnet8_cifar", "model_options.num_classes=9", "has 9 outputs, but the pictures have 4 classes"),
        ("mobilenetv3_small_050", "model_options.widths=[8,8]", "mobilenetv3_small_050 cannot be built with"),
        ("mobilenetv3_small_050", "model_options.features_only=true", "the network returns a list of 5"),
        ("mobilenetv3_small_050", "model_options.num_classes=0", "has 1024 outputs, but the pictures have 4"),
    ],
)
def test_options_of_one_kind_of_network_on_another(whole, tmp_path, network, option, sentence):
    assert sentence in train_refused(whole / "photos", tmp_path, "--set", option, network=network)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("made", "made is a network already; name a class or function that returns one"),
        ("ends", "net.py, line 4, in ends: SystemExit: 0"),
        ("fails", "net.py, line 6, in fails: ValueError: no weights here"),
        ("needs", "net.py:needs fails with (num_classes=4): TypeError: needs() missing 1 required"),
    ],
)
def test_callables_that_make_no_network(whole, tmp_path, monkeypatch, name, sentence):
    lines = ("from torch import nn", "made = nn.Flatten()", "def ends(*, num_classes=3):", "    raise SystemExit(0)")
    lines += ("def fails():", "    raise ValueError('no weights\\nhere')", "def needs(depth, num_classes): pass")
    (tmp_path / "net.py").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    assert sentence in train_refused(whole / "photos", tmp_path, network=f"net.py:{name}")
    if name == "needs":  # no recipe either, which is called without arguments
        assert "train net.py:needs needs --data" in refused("train", "net.py:needs", "--out", tmp_path / "x.ckpt")


def test_a_recipe_with_another_network_is_refused_before_its_data_are_sought(tmp_path):
    arguments = ("demo:vanilla", "--set", "model=mobilenetv3_small_050", "--out", tmp_path / "x.ckpt")
    line = refused("train", *arguments)
    assert "mobilenetv3_small_050 cannot be built with model_options widths=" in line
    assert not list(tmp_path.iterdir())


def test_weights_of_another_network_are_named_five_of_each(whole, tmp_path):
    state = create_model("resnet8_cifar", num_classes=4).state_dict()
    names = list(state)
    for name in names[:7]:
        state[f"other.{name}"] = state.pop(name)
    for name in names[7:14]:
        state[name] = torch.ones(2, 2, 2)
    torch.save(state, tmp_path / "w.pth")
    line = train_refused(whole / "photos", tmp_path, "--weights", tmp_path / "w.pth")
    for kind in ("missing", "unexpected", "of another shape"):
        listed = line.partition(f"7 {kind}: ")[2].partition(";")[0]
        assert listed.endswith(", ...")
        assert listed.count("weight") + listed.count("bias") + listed.count("running") + listed.count("num_") == 5, kind


def test_files_without_weights_are_named(whole, tmp_path):
    state = create_model("resnet8_cifar", num_classes=4).state_dict()
    (tmp_path / "empty.pth").write_bytes(b"")
    torch.save(torch.ones(3), tmp_path / "tensor.pth")
    torch.save({name: value.to(torch.int8) for name, value in state.items()}, tmp_path / "int8.pth")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    picture = next((whole / "photos" / "train" / CLASSES[0]).glob("*.png"))
    for name, sentence in (
        (tmp_path / "empty.pth", "empty.pth is not a file of weights: it ends too early"),
        (tmp_path / "tensor.pth", "tensor.pth holds a Tensor; it must hold a state_dict"),
        (tmp_path / "int8.pth", "47 that are no floating point numbers: conv1.weight int8, "),
        (tmp_path / "module.pth", "holds no weights that can be read safely"),
        (picture, "holds no weights that can be read safely"),
        (whole / "photos", "photos is a directory, not a checkpoint"),
    ):
        assert sentence in train_refused(whole / "photos", tmp_path, "--weights", name)


def test_names_are_one_line_whatever_they_hold(photos, tmp_path):
    for part in ("train", "val"):
        (photos / part / CLASSES[0]).rename(photos / part / ODD)
        (photos / part / CLASSES[1]).rename(photos / part / ("x" * 250))
    (photos / "val" / ODD / "bad\nname.png").write_bytes(b"no picture")
    said = train(photos, tmp_path)
    assert f"{SHOWN} 6 + 2" in said
    assert r"left out 1: val/two\nlines\x1b[31mred/bad\nname.png (is not a picture" in said
    assert load_checkpoint(tmp_path / "x.ckpt").labels[2:] == (ODD, "x" * 250)
    line = train_refused(photos, tmp_path / "photos", "--strict")
    assert r"bad\nname.png" in line
    (photos / "val" / "new\n").mkdir()
    assert r"val/new\n holds no file" in train_refused(photos, tmp_path / "photos")
    shutil.copy(next((photos / "val" / ODD).glob("*.jpg")), photos / "val" / "new\n")
    assert r"has the class new\n in val, but not in train" in train_refused(photos, tmp_path / "photos")


def test_a_class_whose_name_no_bundle_can_hold_is_refused_before_training(photos, tmp_path):
    for part in (b"train", b"val"):
        os.rename(os.fsencode(photos / os.fsdecode(part) / CLASSES[0]), os.fsencode(photos) + b"/" + part + b"/Gr\xfcn")
    line = train_refused(photos, tmp_path)
    assert r"has the class folder Gr\udcfcn: a class must have a name in UTF-8" in line


def listed(photos, path, *more):
    """Write a list of the pictures and more lines."""
    lines = ["path,label,part"]
    for part in ("train", "val"):
        lines += [f'"{file}","{file.parent.name}",{part}' for file in sorted((photos / part).rglob("*.*"))]
    path.write_text("\n".join([*lines, *more]))
    return path


def test_lists_with_odd_lines(photos, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    long, label = "z" * 300, "y" * 300
    odd = (f"{long}.png,{CLASSES[0]},train", f"{tmp_path / 'pipe'},{CLASSES[0]},train", f"gone.png,{CLASSES[0]},val")
    new = [
        f'"{file}",{label},{part}' for part in ("train", "val") for file in (photos / part / CLASSES[1]).glob("*.j*")
    ]
    said = train(listed(photos, tmp_path / "list.csv", *odd, *new), tmp_path)
    assert f"left out 3: {long}.png (File name too long); {tmp_path / 'pipe'} (it is a pipe, not a file); gone" in said
    assert load_checkpoint(tmp_path / "x.ckpt").labels[-1] == label
    number = len((tmp_path / "list.csv").read_text().splitlines()) - len(odd + tuple(new)) + 1
    line = train_refused(listed(photos, tmp_path / "list.csv", f"a\0b.png,{CLASSES[0]},val"), tmp_path)
    assert f"line {number} of {tmp_path / 'list.csv'} has path 'a\\x00b.png'" in line
    (tmp_path / "list.csv").write_text("path,label\n")
    assert "has no classes; a classifier needs two" in train_refused(tmp_path / "list.csv", tmp_path)
    text = listed(photos, tmp_path / "list.csv").read_text().replace(",val", ",train")
    (tmp_path / "list.csv").write_text(text)
    assert train_refused(tmp_path / "list.csv", tmp_path).endswith("list.csv has no picture to measure on")


def test_where_nothing_can_be_measured_the_reasons_are_named(photos, tmp_path):
    for path in (photos / "val").rglob("*.*"):
        path.write_bytes(b"no picture")
    line = train_refused(photos, tmp_path)
    assert "photos has no picture to measure on; left out: val/across fine/0-000.png (is not a picture" in line


def test_links_that_leave_the_folder_are_left_out_wherever_they_are(photos, tmp_path):
    (tmp_path / "link").symlink_to(photos)
    fine = photos / "val" / CLASSES[1]
    (fine / "circle.png").symlink_to("circle.png")
    (fine / "dangling.png").symlink_to("none.png")
    said = train(tmp_path / "link", tmp_path)
    assert "left out 2: val/across wide/circle.png (it is a link that leads in a circle); val/across wide/dang" in said
    shutil.move(photos / "train" / CLASSES[0], tmp_path / "elsewhere")
    (photos / "train" / CLASSES[0]).symlink_to(tmp_path / "elsewhere")
    line = train_refused(photos, tmp_path)
    assert (
        "no picture to train on of the class across fine; left out: train/across fine/0-000.png (it is a link" in line
    )


def test_odd_pictures_work_and_large_ones_are_refused_before_they_are_decoded(photos, tmp_path):
    place = photos / "val" / CLASSES[0]
    for path in place.iterdir():
        path.unlink()
    noise = np.random.default_rng(0).integers(0, 256, (40, 20, 20), np.uint8)
    Image.new("RGB", (5000, 1), "red").save(place / "wide.png")
    Image.new("RGB", (1, 5000), "red").save(place / "high.png")
    Image.fromarray(noise[0]).save(place / "icc.png", icc_profile=b"broken")
    Image.fromarray(noise[0]).save(place / "exif.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x05")
    (place / "large.png").write_bytes(png(10_000, 6_000))
    films = [Image.fromarray(each) for each in noise]
    films[0].save(place / "film.gif", save_all=True, append_images=films[1:])
    refusals = (
        "val/across fine/film.gif (has 40 frames; a picture has one); "
        "val/across fine/large.png (has 10000 x 6000 pixels; at most 50000000 are allowed)"
    )
    for resize in ("squash", "pad"):
        said = train(photos, tmp_path, "--resize", resize)
        assert "across fine 6 + 4, " in said
        assert f"left out 2: {refusals}\n" in said
    options = ("resnet8_cifar", "--data", photos, "--input", 8, *ONE_EPOCH, "--out", tmp_path / "x.ckpt")
    assert "across fine 6 + 4, " in in_process("train", *options).stderr
    # A short side of 18 pixels would make the other one longer than the format allows.
    assert "high.png (has 1 x 5000 pixels: with 18 on the short side the other would have 90000; at" in train(
        photos, tmp_path
    )
    assert f"2 of 36 files of {photos} cannot be used: {refusals}" in train_refused(
        photos, tmp_path, "--strict", "--resize", "pad"
    )


def pack(checkpoint, out, *more):
    return ("pack", checkpoint, "--step", 0.002, "--family", "own", "--release", 1, "--out", out, *more)


def measured(*arguments):
    done = in_process("evaluate", *arguments, "--corruptions", "none")
    return next(line for line in done.stdout.splitlines() if "top-1" in line), done.stderr


def test_a_checkpoint_whose_pictures_are_gone_or_moved(photos, tmp_path):
    train(photos, tmp_path)
    checkpoint, bundle = tmp_path / "x.ckpt", tmp_path / "x.bundle"
    before, _ = measured(checkpoint)
    assert "all of it" not in measured(checkpoint, "--data", photos / "val")[1]
    assert "all of it is measured" in measured(checkpoint, "--data", photos / "train")[1]
    photos.rename(tmp_path / "moved")
    plan = ("plan", checkpoint, "--budget-bytes", 60_000, "--pictures", 16, "--out", tmp_path / "plan.json")
    for command in (("evaluate", checkpoint, "--corruptions", "none"), pack(checkpoint, bundle), plan):
        assert refused(*command).endswith(f"there is no directory or CSV file {photos}; name the pictures with --data")
    assert not bundle.exists()
    now, said = measured(checkpoint, "--data", tmp_path / "moved")
    assert now == before
    assert "all of it" not in said
    in_process(*pack(checkpoint, bundle, "--data", tmp_path / "moved"))
    assert bundle.exists()


def test_the_share_that_was_held_back_is_found_by_any_name_and_said_to_be_lost_after_a_move(tmp_path):
    photos = write_photos(tmp_path / "photos", 10, parts=False)
    train(photos, tmp_path, "--val", 0.4)
    checkpoint = tmp_path / "x.ckpt"
    before, _ = measured(checkpoint)
    assert "(n = 40)" not in before
    (tmp_path / "link").symlink_to(photos)
    for name in (tmp_path / "link", f"{photos}/../photos"):
        assert measured(checkpoint, "--data", name)[0] == before
    photos.rename(tmp_path / "moved")
    now, said = measured(checkpoint, "--data", tmp_path / "moved")
    assert "(n = 40)" in now
    assert f"all of it is measured, also what the network was trained on in {photos}, if it is there" in said


def test_a_device_answers_all_it_can_and_names_the_rest(whole, photos, tmp_path, capsys):
    fleet, home, bundle = tmp_path / "fleet", ["--home", str(tmp_path / "home")], tmp_path / "x.bundle"
    in_process(*pack(whole / "a.ckpt", bundle))
    in_process("repo", "init", fleet)
    in_process("repo", "add-family", fleet, "own")
    in_process("repo", "publish", fleet, bundle)
    with serve(fleet) as server:
        assert device([*home, "init", "--root", str(fleet / "root.json"), "--url", server.url, "--family", "own"]) == 0
        assert device([*home, "update"]) == 0
    asked = photos / "val" / CLASSES[0]
    good = len(list(asked.iterdir()))
    (asked / "bad\nname\x1b[31m.png").write_bytes(b"no picture")
    (asked / "circle.png").symlink_to("circle.png")
    os.mkfifo(asked / "pipe.png")
    shutil.copy(next(asked.glob("*.jpg")), asked / "odd\nname.jpg")
    capsys.readouterr()
    paths = [str(asked / ("n" * 300)), str(asked), str(asked / "none.png")]
    assert device([*home, "predict", *paths]) == 1
    answer = capsys.readouterr()
    assert len(answer.out.splitlines()) == good + 1
    assert r"odd\nname.jpg: " in answer.out
    assert "\x1b" not in answer.out + answer.err
    lines = answer.err.splitlines()
    assert [line.rpartition("/")[2] for line in lines[:-1]] == [
        "n" * 300 + " cannot be read: File name too long",
        r"bad\nname\x1b[31m.png is not a picture of a known format (PNG, JPEG, BMP, WEBP, PPM, GIF, TIFF)",
        "circle.png cannot be read: Too many levels of symbolic links",
        "pipe.png is a pipe, not a file",
        "none.png does not exist",
    ]
    assert lines[-1] == f"seedcnn-device: 5 of {good + 6} pictures have no answer"


def test_a_class_of_one_picture_works_unless_that_one_is_held_back(photos, tmp_path):
    for name in CLASSES:
        for part in ("train", "val"):
            for path in sorted((photos / part / name).iterdir())[1:]:
                path.unlink()
    assert "by class: across fine 1 + 1, across wide 1 + 1, down fine 1 + 1, down wide 1 + 1" in train(photos, tmp_path)
    line = train_refused(photos / "train", tmp_path / "photos", "--val", 0.999)
    assert f"{photos / 'train'} has no picture to train on of the class across fine, " in line


def test_a_wrong_command_line_ends_with_code_2(whole, tmp_path):
    for options in (("--val", 2), ("--keep", "many"), ("--bogus",)):
        done = in_process("train", "resnet8_cifar", "--data", whole / "photos", *options, expect=2)
        assert str(options[0]) in done.stderr
        assert "Traceback" not in done.stderr
