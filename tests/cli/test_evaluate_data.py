"""``seedcnn evaluate`` beyond CIFAR-10's generated corruptions: other data, networks of timm, papers, the report."""

from __future__ import annotations

import json

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from seedcnn.cli.app import app
from seedcnn.convert import GroupNLConfig
from seedcnn.errors import ConfigError, DataError
from seedcnn.evaluate.papers import paper_rows
from seedcnn.train import Checkpoint, TrainConfig, build_model, save_checkpoint

CLASSES = ("airplane", "bird", "boat")
STYLES = ("apple", "google", "lg")


def run(*arguments):
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def found(*arguments):
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refusal(*arguments):
    result = run(*arguments)
    assert result.exit_code == 1
    assert isinstance(result.exception, ConfigError | DataError), repr(result.exception)
    return str(result.exception)


@pytest.fixture(scope="module")
def icons(tmp_path_factory, save_picture):
    """Three classes by three vendors, two pictures each."""
    root = tmp_path_factory.mktemp("icons")
    for rank, label in enumerate(CLASSES):
        for style in STYLES:
            for rendition in (1, 2):
                save_picture(root / label / f"{style}_{rendition}_{label}.png", (32, 32), seed=rank * 10 + rendition)
    return root


@pytest.fixture(scope="module")
def save_picture():
    from PIL import Image

    def save(path, size, *, seed):
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)

    return save


def checkpoint(path, **options):
    config = TrainConfig(epochs=1, **options)
    torch.manual_seed(0)
    model = build_model(config).eval()
    save_checkpoint(path, Checkpoint(config, 1, model.state_dict()))
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("small") / "small.ckpt"
    return checkpoint(path, model="resnet8_cifar", model_options={"widths": (8, 8, 16), "patch": 4, "num_classes": 3})


def test_styles_of_icons(icons, small, tmp_path):
    data = ("--data", f"icons50:{icons}", "--no-verify")
    rows = found(small, *data, "--corruptions", "none", "--hold-out", "apple,lg")
    row = rows[str(small)]
    assert row["n"] == 12
    assert "corrupted" not in row
    assert list(row["styles"]["accuracies"]) == ["apple", "lg"]
    tops = [each["top1"] for each in row["styles"]["accuracies"].values()]
    assert row["styles"]["mean_held_out"] == pytest.approx(np.mean(tops))
    assert row["clean"] == pytest.approx(np.mean(tops))  # both styles have six pictures
    printed = run(small, *data, "--corruptions", "contrast", "--hold-out", "apple,lg").stdout
    assert "apple (n = 6, held out)" in printed
    assert "mean over 2 held-out styles" in printed
    assert "contrast (n = 12 x 5)" in printed
    whole = found(small, *data, "--corruptions", "none")[str(small)]
    assert list(whole["styles"]["accuracies"]) == list(STYLES)
    assert whole["styles"]["mean_held_out"] is None
    page = tmp_path / "r.html"
    result = run(small, *data, "--hold-out", "apple", "--corruptions", "contrast,pixelate", "--report", page)
    assert result.exit_code == 0, result.output
    text = page.read_text()
    assert text.count("data:image/png;base64,") == 6 + text.split("Worst answers")[1].split("<h2>")[0].count("<img")
    for words in ("icons50, 6 of 32 x 32", "held out", "contrast, severity 3", "pixelate, severity 3", "Learnable par"):
        assert words in text
    assert f"{row['styles']['accuracies']['apple']['top1']:.2f}" in text


def test_damaged_pictures_are_listed(icons, small, tmp_path):
    bad = icons / "bird" / "lg_3_bird.png"
    bad.write_bytes(b"no picture")
    try:
        data = ("--data", f"icons50:{icons}", "--no-verify", "--corruptions", "none")
        assert "1 of 19 images" in refusal(small, *data)
        result = run(small, *data, "--skip-damaged", "--report", tmp_path / "r.html")
        assert result.exit_code == 0, result.output
        assert "left out: bird/lg_3_bird.png: is not a picture of a known format" in result.stderr
        assert "lg_3_bird.png was left out" in (tmp_path / "r.html").read_text()
    finally:
        bad.unlink()


def test_networks_of_timm(tmp_path, save_picture):
    for rank, wnid in enumerate(("n01440764", "n01443537", "n02123045")):
        save_picture(tmp_path / "val" / wnid / f"ILSVRC2012_val_{rank:08d}.JPEG", (260, 260), seed=rank)
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=3).eval()
    weights = tmp_path / "w.safetensors"
    save_file(model.state_dict(), weights)
    name = f"timm:test_resnet={weights}"
    data = ("--data", f"imagenet:{tmp_path}", "--no-verify")
    row = found(name, *data, "--corruptions", "contrast,brightness")[name]
    assert row["n"] == 3
    assert row["corrupted"]["tables"][0]["constants"] == "imagenet"
    from seedcnn.data.sets.named import load_test
    from seedcnn.evaluate import accuracy, torch_predictor

    test = load_test(data[1], verify=False).test
    predict = torch_predictor(model, model.pretrained_cfg["mean"], model.pretrained_cfg["std"])
    assert row["clean"] == pytest.approx(accuracy(predict, test.images, test.labels).top1)
    assert "did you mean test_resnet" in refusal("timm:test_resnets", *data)
    assert "there is no file nowhere.pth" in refusal("timm:test_resnet=nowhere.pth", *data)
    assert "cannot be loaded" in refusal(f"timm:test_efficientnet={weights}", *data)


def test_published_pictures(tmp_path, cifar10, small_ten):
    array = np.lib.format.open_memmap(tmp_path / "fog.npy", mode="w+", dtype=np.uint8, shape=(50000, 32, 32, 3))
    for severity in range(5):
        array[severity * 10000 : severity * 10000 + 20] = cifar10.test_images[:20]  # no corruption at all
    np.save(tmp_path / "labels.npy", np.tile(cifar10.test_labels, 5).astype(np.uint8))
    some = ("--corrupted", tmp_path, "--corruptions", "fog", "--images", 20)
    (row,) = found(small_ten, *some).values()
    (table,) = row["corrupted"]["tables"]
    assert table["constants"] == "published files"
    assert table["accuracies"]["fog"] == [table["clean"]] * 5
    assert "published images take a single seed" in refusal(small_ten, *some, "--seeds", 2)
    assert "holds no 'snow'" in refusal(small_ten, "--corrupted", tmp_path, "--corruptions", "snow", "--images", 20)


@pytest.fixture(scope="module")
def small_ten(tmp_path_factory):
    path = tmp_path_factory.mktemp("ten") / "ten.ckpt"
    return checkpoint(path, model="resnet8_cifar", model_options={"widths": (8, 8, 16), "patch": 4})


def test_the_papers_rows_stand_beside_the_same_network(tmp_path, save_picture):
    for label in range(43):
        save_picture(tmp_path / f"Final_Training/Images/{label:05d}/00000.ppm", (30, 30), seed=label)
    rows = ["Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"]
    for number in range(4):
        save_picture(tmp_path / f"Final_Test/Images/{number:05d}.ppm", (30, 30), seed=number)
        rows.append(f"{number:05d}.ppm;30;30;5;5;25;25;{number}")
    (tmp_path / "Final_Test/Images/GT-final_test.csv").write_text("\n".join(rows) + "\n")
    path = checkpoint(
        tmp_path / "r18.ckpt", model="resnet18_cifar", model_options={"num_classes": 43}, convert=GroupNLConfig.paper()
    )
    data = ("--data", f"gtsrb:{tmp_path}", "--no-verify", "--corruptions", "none")
    (row,) = found(path, *data).values()
    (expected,) = paper_rows("gtsrb", "resnet18_cifar", "groupnl")
    assert [paper["values"] for paper in row["papers"]] == [dict(expected.values)]
    printed = run(path, *data).stdout
    assert f"{expected.paper}, {expected.table}" in printed
    difference = row["clean"] - expected.values["top1"]
    assert f"{difference:+.2f}" in printed


def test_a_network_of_other_widths_is_not_the_papers(small_ten):
    (row,) = found(small_ten, "--corruptions", "none").values()
    assert row["papers"] == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data", "cifar11"], "unknown data 'cifar11'; did you mean cifar10"),
        (["--hold-out", "apple"], "goes with the data icons50"),
        (["--corruptions", "none", "--record", "r.json"], "--record r.json: it keeps corrupted accuracies"),
        (["--corruptions", "none", "--csv", "t.csv"], "--csv t.csv: it keeps corrupted accuracies"),
        (["--report", "nowhere/r.html"], "there is no directory nowhere"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes(arguments, words):
    assert words in refusal("a.onnx", *arguments)


def test_a_model_of_other_classes(icons, small_ten):
    words = refusal(small_ten, "--data", f"icons50:{icons}", "--no-verify", "--corruptions", "none")
    assert "the model answers 10 classes; the data have 3" in words
