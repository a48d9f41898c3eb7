"""``seedcnn evaluate`` on real pictures: a checkpoint, a bundle and an ONNX file beside each other."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from seedcnn.cli._evaluated import _published
from seedcnn.cli._evaluation_tables import print_tables
from seedcnn.cli.app import app
from seedcnn.data.corruptions import corrupt
from seedcnn.data.sets.cifar10 import CLASSES, MEAN, STD
from seedcnn.errors import ConfigError, DataError
from seedcnn.evaluate import EvaluateRequest, Opened, predict_logits, torch_predictor
from seedcnn.evaluate.evaluated import short_names
from seedcnn.export import BundleInfo
from seedcnn.pack import pack, preprocessing_of
from seedcnn.train import Checkpoint, TrainConfig, build_model, load_model, save_checkpoint

NUMBERS = {"--mean": "0.5,0.5,0.5", "--std": "0.25,0.25,0.25"}
GIVEN = [word for pair in NUMBERS.items() for word in pair]
WEIGHT = np.random.default_rng(0).normal(size=(3, 10)).astype(np.float32)
SOME = ["--images", "30", "--corruptions", "gaussian_noise,contrast"]


@pytest.fixture(scope="module")
def files(tmp_path_factory, cifar10):
    """a.ckpt and a.bundle, the same untrained network, and a.onnx, which looks at the mean colour."""
    folder = tmp_path_factory.mktemp("models")
    config = TrainConfig(model="resnet8_cifar", model_options={"widths": (8, 8, 16), "patch": 4}, epochs=1)
    torch.manual_seed(0)
    model = build_model(config).eval()
    save_checkpoint(folder / "a.ckpt", Checkpoint(config, 1, model.state_dict()))
    info = BundleInfo("small", "tests", 1, preprocessing_of(MEAN, STD), CLASSES)
    packed = pack(model, info, cifar10.test_images[:20], cifar10.test_labels[:20], step=None)
    (folder / "a.bundle").write_bytes(packed.data)
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ("N", 3, 32, 32))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ("N", 10))
    graph = helper.make_graph(nodes, "colour", [x], [y], [numpy_helper.from_array(WEIGHT, "w")])
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), folder / "a.onnx")
    return folder


def run(*arguments):
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def refusal(*arguments):
    result = run(*arguments)
    assert result.exit_code == 1
    assert isinstance(result.exception, ConfigError | DataError), repr(result.exception)
    return str(result.exception)


def by_colour(images, mean=0.5, std=0.25):
    return (((images / 255 - mean) / std).mean((1, 2)) @ WEIGHT).astype(np.float32)


def test_noise_in_training_is_marked(files, tmp_path):
    config = TrainConfig("resnet8_cifar", {"widths": (8, 8, 16), "patch": 4}, epochs=1, noise=0.1, lowpass="stem")
    save_checkpoint(tmp_path / "noisy.ckpt", Checkpoint(config, 1, build_model(config).state_dict()))
    result = run(files / "a.ckpt", tmp_path / "noisy.ckpt", *SOME)
    assert result.exit_code == 0, result.output
    noise, contrast = (
        next(line for line in result.output.splitlines() if kind in line) for kind in ("gaussian_noise", "contrast")
    )
    assert noise.count("*") == 1
    assert "*" not in contrast
    assert "noise seen in training" in result.output


def test_a_network_with_filters_is_none_of_the_papers():
    assert _published(TrainConfig("resnet18_cifar")) == ("resnet18_cifar", "vanilla")
    assert _published(TrainConfig("resnet18_cifar", lowpass="stem")) is None


def test_flip_averaging_is_said_everywhere(files, cifar10, tmp_path):
    """In the table, the JSON, the CSV and the record, which does not go on without it."""
    record, csv = tmp_path / "r.json", tmp_path / "a.csv"
    arguments = (files / "a.ckpt", *SOME, "--record", record, "--csv", csv)
    result = run(*arguments, "--flip-average")
    assert result.exit_code == 0, result.output
    assert "a.ckpt, flip-averaged" in " ".join(result.stdout.split())
    assert "flip-averaged" in csv.read_text()
    assert "another" in refusal(*arguments) or "other" in refusal(*arguments)
    rows = json.loads(run(files / "a.ckpt", "--corruptions", "none", "--flip-average", "--json").stdout)
    (name,) = rows
    assert name.endswith("a.ckpt, flip-averaged")
    predict = torch_predictor(load_model(files / "a.ckpt")[0], MEAN, STD)
    images = cifar10.test_images
    logits = (predict_logits(predict, images) + predict_logits(predict, images[:, :, ::-1].copy())) / 2
    assert rows[name]["clean"] == pytest.approx(100 * np.mean(logits.argmax(1) == cifar10.test_labels), abs=0.05)
    assert rows[name]["papers"] == []


def test_three_kinds_of_file(files, cifar10):
    paths = [files / name for name in ("a.ckpt", "a.bundle", "a.onnx")]
    result = run(*paths, *SOME, *GIVEN, "--seeds", 2, "--json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert list(rows) == list(map(str, paths))
    network, bundle, colour = rows.values()
    assert network["clean"] == pytest.approx(bundle["clean"], abs=0.05)
    assert network["corrupted"]["n"] == 30
    logits = by_colour(cifar10.test_images)
    top5 = [label in row for label, row in zip(cifar10.test_labels, np.argsort(-logits)[:, :5], strict=True)]
    assert colour["clean"] == pytest.approx(100 * np.mean(logits.argmax(1) == cifar10.test_labels), abs=0.05)
    assert colour["clean_top5"] == pytest.approx(100 * np.mean(top5), abs=0.05)
    for seed, table in enumerate(colour["corrupted"]["tables"]):
        noisy = corrupt(cifar10.test_images[:30], "gaussian_noise", 2, seed=seed)
        right = by_colour(noisy).argmax(1) == cifar10.test_labels[:30]
        assert table["accuracies"]["gaussian_noise"][1] == pytest.approx(100 * right.mean())
    figure = colour["corrupted"]["figures"]["mean_over_corruptions"]
    assert figure["mean"] == pytest.approx(np.mean([t["mean_over_corruptions"] for t in colour["corrupted"]["tables"]]))
    assert figure["interval_95"][0] <= figure["mean"] <= figure["interval_95"][1]
    assert colour["corrupted"]["figures"]["mce_15"] is None


def test_the_normalisation_of_an_onnx_file(files, cifar10):
    assert "give --mean and --std" in refusal(files / "a.onnx", *SOME)
    result = run(files / "a.onnx", files / "a.bundle", *SOME, "--json")
    found = json.loads(result.stdout)[str(files / "a.onnx")]
    logits = by_colour(cifar10.test_images, np.array(MEAN), np.array(STD))
    assert found["clean"] == pytest.approx(100 * np.mean(logits.argmax(1) == cifar10.test_labels), abs=0.05)


def test_the_printed_table(files):
    names = "gaussian_noise,shot_noise,impulse_noise,defocus_blur,glass_blur,motion_blur,zoom_blur,snow,fog,brightness"
    names += ",contrast,elastic_transform,pixelate,jpeg_compression,frost"
    result = run(files / "a.onnx", *GIVEN, "--images", 12, "--corruptions", names)
    if isinstance(result.exception, DataError) and "frost" in str(result.exception):
        pytest.skip(f"the frost pictures could not be had: {result.exception}")
    assert result.exit_code == 0, result.output
    for words in (
        "clean, top-1 (n = 10000)",
        "clean, top-5",
        "pixelate (n = 12 x 5)",
        "mean over groups, % (15 measured)",
        "mean corruption error, standard 15",
        "│ mCE, standard 15, AlexNet = 100",
        "relative mCE, standard 15",
        "AlexNet's errors on ImageNet-C",
    ):
        assert words in result.stdout
    assert "all 19" not in result.stdout
    part = run(files / "a.onnx", *GIVEN, *SOME, "--seeds", 2).stdout
    assert "contrast (n = 30 x 5 x 2 seeds)" in part
    assert " ± " in next(line for line in part.splitlines() if "mean over corruptions" in line)
    assert "mCE," not in part
    assert "No mCE: it needs the standard 15 corruptions" in part


def test_a_record_and_a_csv_file(files, tmp_path):
    record, table = tmp_path / "r.json", tmp_path / "t.csv"
    first = run(files / "a.onnx", *GIVEN, *SOME, "--record", record, "--csv", table, "--json")
    assert first.exit_code == 0, first.output
    stored = record.read_bytes()
    again = run(files / "a.onnx", *GIVEN, *SOME, "--record", record, "--json")
    assert again.stdout == first.stdout
    assert record.read_bytes() == stored
    rows = list(csv.DictReader(io.StringIO(table.read_text())))
    assert len(rows) == 1 + 2 * 5 + 8
    accuracies = json.loads(first.stdout)[str(files / "a.onnx")]["corrupted"]["tables"][0]["accuracies"]
    found = [float(row["value"]) for row in rows if row["corruption"] == "contrast"]
    assert found == pytest.approx(accuracies["contrast"], abs=1e-4)
    other = [*GIVEN[:2], "--std", "0.2,0.2,0.2"]
    assert "made under other conditions (models" in refusal(files / "a.onnx", *other, *SOME, "--record", record)
    assert "seeds: [0] there, [0, 1] here" in refusal(files / "a.onnx", *GIVEN, *SOME, "--seeds", 2, "--record", record)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--mean", "0.5,0.5"], "--mean 0.5,0.5: it must be three numbers"),
        (["--std", "1,1,0", "--mean", "0,0,0"], "--std 1,1,0: it must be three positive numbers"),
        (["--mean", "0,0,0"], "go together"),
        (["--seeds", "0"], "--seeds 0: it must be at least 1"),
        (["--images", "0"], "--images 0: it must be at least 1"),
        (["--corruptions", "rain"], "--corruptions rain: it must be one of gaussian_noise"),
        (["--corruptions", "fog,fog"], "--corruptions fog,fog: none may be named twice"),
        (["--corruptions", ","], "--corruptions ',': it must name at least one corruption"),
        (["--csv", "nowhere/t.csv"], "there is no directory nowhere"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes(arguments, words):
    assert words in refusal("a.onnx", *arguments)


def test_wrong_files(files, tmp_path):
    assert "is named twice" in refusal(files / "a.onnx", files / "a.onnx", *GIVEN)
    assert "there is no file" in refusal(tmp_path / "none.onnx", *GIVEN)
    path = tmp_path / "five.onnx"
    model = onnx.load(files / "a.onnx")
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(WEIGHT[:, :5], "w"))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 5
    onnx.save(model, path)
    assert f"{path}: the model answers 5 classes; the data have 10" in refusal(path, *GIVEN, *SOME)
    model = onnx.load(files / "a.onnx")
    model.graph.node[0].op_type = "Pool"
    onnx.save(model, path)
    assert f"{path}: ONNX Runtime does not accept the graph" in refusal(path, *GIVEN, *SOME)
    model = onnx.load(files / "a.onnx")
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(WEIGHT[:2], "w"))
    onnx.save(model, path)
    assert f"{path}: ONNX Runtime does not" in refusal(path, *GIVEN, *SOME)


def test_tables_and_the_report_leave_out_the_directory_that_all_models_share(files, tmp_path):
    paths = [files / "a.ckpt", files / "a.bundle"]
    report = tmp_path / "r.html"
    result = run(*paths, "--images", 10, "--corruptions", "contrast", "--report", report)
    assert result.exit_code == 0, result.output
    header = next(line for line in result.stdout.splitlines() if "accuracy in %" in line)
    assert [cell.strip() for cell in header.strip("┃").split("┃")] == ["accuracy in %", "a.ckpt", "a.bundle"]
    assert str(files) not in report.read_text().partition("<pre")[0].partition("<h2")[0]
    assert f"evaluating {paths[0]}, {paths[1]}\n" in result.stderr


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["runs/a.ckpt"], ["a.ckpt"]),
        (["runs/a.ckpt", "runs/b.bundle"], ["a.ckpt", "b.bundle"]),
        (["runs/x/a.ckpt", "runs/y/a.ckpt"], ["x/a.ckpt", "y/a.ckpt"]),
        (["a.ckpt", "runs/a.ckpt"], ["a.ckpt", "runs/a.ckpt"]),
        (["runs/a.ckpt", "timm:resnet18", "timm:vit=runs/v.pth"], ["a.ckpt", "timm:resnet18", "timm:vit=runs/v.pth"]),
        (["/runs/a.ckpt", "runs/a.ckpt"], ["/runs/a.ckpt", "runs/a.ckpt"]),
        (["/r/timm:x", "timm:x"], ["/r/timm:x", "timm:x"]),
    ],
)
def test_short_names(names, short):
    assert list(short_names(names).values()) == short


def test_the_first_line_comes_before_torch():
    code = "import sys\nfrom seedcnn.cli._together import open_progress\nopen_progress('evaluating a.ckpt')\n"
    done = subprocess.run(
        [sys.executable, "-c", code + "assert 'torch' not in sys.modules"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "evaluating a.ckpt\n")


@pytest.mark.parametrize("width", [40, 80, 100])
def test_printed_lines_break_at_words(files, capsys, monkeypatch, width):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(width))
    request = EvaluateRequest(images=10, corruptions=("contrast", "glass_blur"))
    test = request.load()
    model = Opened(by_colour, "", "function")
    print_tables(request.measure({"a.ckpt": model, "b.bundle": model}, test))
    lines = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert max(map(len, lines)) <= width
    for words in ("corruption", "bootstrap", "Differences:"):
        assert any(words in line for line in lines)
