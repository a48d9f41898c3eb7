"""The page about methods of one's own is carried out, from the file to the device."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from seedcnn.bundle import read_bundle
from seedcnn.cli.app import app
from seedcnn.convert import convert_, load_plugin
from seedcnn.convert.plugins import _LOADED
from seedcnn.device.main import _parser
from seedcnn.errors import PluginError
from seedcnn.export import fold
from seedcnn.layers.families import FAMILIES
from seedcnn.models import create_model
from seedcnn.server.static import serve
from seedcnn.train import load_model

TEXT = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text()
SOURCE, SEEDED = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
COMMANDS, SEEDED_COMMANDS = (
    [shlex.split(line) for line in block.splitlines() if line]
    for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A directory with both files and an image; nothing stays registered."""
    monkeypatch.chdir(tmp_path)
    Path("rotated.py").write_text(SOURCE)
    Path("gained.py").write_text(SEEDED)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)).save("cat.png")
    families, loaded = dict(FAMILIES), dict(_LOADED)
    yield tmp_path
    for register, before in ((FAMILIES, families), (_LOADED, loaded)):
        register.clear()
        register.update(before)


def test_the_file_is_a_good_example():
    assert len([line for line in SOURCE.splitlines() if line]) <= 34


def test_from_the_file_to_the_device(folder, cifar10, capsys):
    said = {}
    url = ""
    servers = []
    try:
        for program, *words in COMMANDS:
            if words[:2] == ["repo", "serve"]:
                servers.append(serve(words[2]))
                url = servers[0].__enter__().url
            elif program == "seedcnn-device":
                arguments = _parser().parse_args([url if word.startswith("http://") else word for word in words])
                arguments.run(arguments)
                said[arguments.command] = capsys.readouterr().out
            else:
                assert program == "seedcnn"
                result = CliRunner().invoke(app, words, catch_exceptions=False)
                assert result.exit_code == 0, result.output
                said[words[0]] = result.output
    finally:
        for server in servers:
            server.__exit__(None, None, None)
    assert "rotated" in said["cost"]
    assert "release 1" in said["update"]
    assert re.search(r"airplane|automobile|bird|cat|deer|dog|frog|horse|ship|truck", said["predict"])
    model, _ = load_model("rotated.ckpt")
    kinds = {type(module).__name__ for module in model.modules()}
    assert "RotatedConv2d" in kinds
    bundle = read_bundle(Path("rotated.bundle").read_bytes())
    shapes = {entry.name: entry.shape for entry in bundle.manifest.tensors}
    assert shapes["stages.0.0.conv1.weight"] == (16, 32, 3, 3)


def test_a_checkpoint_of_a_plugin_asks_for_it(folder, cifar10):
    words = next(words for _, *words in COMMANDS if words[0] == "train")
    words = [word.replace("fraction=0.05", "fraction=0.004") for word in words]
    assert CliRunner().invoke(app, words, catch_exceptions=False).exit_code == 0
    kept = dict(_LOADED), FAMILIES.pop("rotated")
    _LOADED.clear()
    words = r"^rotated\.ckpt needs the plugin rotated\.py, which registers rotated: --plugin rotated\.py$"
    with pytest.raises(PluginError, match=words):
        load_model("rotated.ckpt")
    for command in (
        ["evaluate", "rotated.ckpt"],
        ["plan", "resnet8_cifar", "--budget-macs=1e6", "--checkpoint=rotated.ckpt"],
    ):
        with pytest.raises(PluginError, match=words):
            CliRunner().invoke(app, command, catch_exceptions=False)
    Path("other.py").write_text(SOURCE + "# changed\n")
    load_plugin("other.py")
    with pytest.raises(PluginError, match=r"trained with another version of the plugin rotated\.py"):
        load_model("rotated.ckpt")
    _LOADED.clear()
    _LOADED.update(kept[0])
    FAMILIES["rotated"] = kept[1]
    assert load_model("rotated.ckpt")[1].epoch == 1


def test_the_folded_layer_is_the_same_function(folder):
    load_plugin("rotated.py")
    model = create_model("resnet8_cifar", widths=(8, 8, 16), patch=4)
    convert_(model, FAMILIES["rotated"].config(turns=3))
    x = torch.randn(4, 3, 32, 32)
    model.train()(x).sum().backward()
    model.eval()
    torch.testing.assert_close(fold(model)(x), model(x), atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_the_seeded_layer_from_the_file_to_the_bundle(folder, cifar10):
    said = {}
    for program, *words in SEEDED_COMMANDS:
        assert program == "seedcnn"
        result = CliRunner().invoke(app, words, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        said[words[0]] = result.output
    assert "gained:high=2" in said["cost"]
    model, _ = load_model("gained.ckpt")
    layers = [module for module in model.modules() if type(module).__name__ == "GainedConv2d"]
    assert layers
    assert all(layer.gains.min() >= 0.5 and layer.gains.max() < 1.5 for layer in layers)
    assert len({layer.seed for layer in layers}) == len(layers)
    seeded = [entry for entry in read_bundle(Path("gained.bundle").read_bytes()).manifest.tensors if entry.seeded]
    assert [entry.name.rpartition(".")[2] for entry in seeded] == ["gains"] * len(layers)
    assert "gained" in said["inspect"]


def test_the_seeded_layer_takes_other_types(folder):
    load_plugin("gained.py")
    model = create_model("resnet8_cifar", widths=(8, 8, 16), patch=4)
    convert_(model, FAMILIES["gained"].config(low=0, high=2), seed=3)
    x = torch.randn(4, 3, 32, 32)
    wanted = model.eval()(x)
    torch.testing.assert_close(fold(model)(x), wanted, atol=1e-5, rtol=1e-5)
    model.double()
    layer = next(module for module in model.modules() if type(module).__name__ == "GainedConv2d")
    assert layer.weight.dtype == torch.float64
    assert layer.gains.dtype == torch.float32
    torch.testing.assert_close(model(x.double()).float(), wanted, atol=1e-5, rtol=1e-5)
