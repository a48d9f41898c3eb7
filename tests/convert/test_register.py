"""Methods from outside: registered by a file of the user's own, or by an installed package."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from seedcnn.bundle import read_bundle
from seedcnn.convert import METHODS, PRESETS, ConversionConfig, GhostConfig, config_for, convert_, load_plugin, register
from seedcnn.convert.plugins import GROUP
from seedcnn.errors import ConfigError, ConversionError
from seedcnn.evaluate import cost
from seedcnn.export import BundleInfo, fold, to_bundle, to_onnx
from seedcnn.layers import Fixed, SeededConv2d
from seedcnn.layers.families import FAMILIES
from seedcnn.models import create_model
from seedcnn.pack import preprocessing_of
from seedcnn.rng import FixedPoint
from seedcnn.runtime.session import open_session

INFO = BundleInfo("tiny", "tests", 1, preprocessing_of((0.5,) * 3, (0.25,) * 3), list("abcdefghij"))
PLUGIN = """
from dataclasses import dataclass

from seedcnn.convert import ConversionConfig, register
from seedcnn.layers import DepthwiseSeparableConv2d


@dataclass(frozen=True)
class {name}Config(ConversionConfig):
    relu: bool = True


register("{name}", {name}Config, DepthwiseSeparableConv2d)
"""


class NoisyConv2d(SeededConv2d):
    """A dense convolution whose output channels are scaled by fixed numbers; it says nothing of its inference form."""

    def __init__(
        self, in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, bias=False, padding_mode="zeros",
        *, high=2.0, seed=0, device=None, dtype=None,
    ):  # fmt: skip
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, padding_mode, seed=seed)
        self.bounds = FixedPoint.from_range(1, high)
        self.weight = self.make_weight(out_channels, in_channels, device, dtype)
        self.bias = self.make_bias(out_channels, 9, device, dtype) if bias else None
        self.draw_fixed(self.weight.device)

    def fixed(self):
        return {"gains": Fixed(0, self.bounds, (self.out_channels,))}

    def forward(self, x):
        return self.convolve(x, self.weight, self.bias) * self.gains[:, None, None]


@dataclass(frozen=True)
class NoisyConfig(ConversionConfig):
    high: float = 2.0


@pytest.fixture
def registry():
    """Whatever a test registers is gone after it."""
    before = dict(FAMILIES)
    yield
    FAMILIES.clear()
    FAMILIES.update(before)


def test_a_registered_method_is_known_by_name(registry):
    register("noisy", NoisyConfig, NoisyConv2d, {"noisy-wide": lambda: NoisyConfig(high=4.0)})
    assert METHODS["noisy"] is NoisyConfig
    assert config_for("noisy", high=3.0) == NoisyConfig(high=3.0)
    assert PRESETS["noisy-wide"]() == NoisyConfig(high=4.0)


def test_a_seeded_layer_without_a_form_of_its_own_travels_as_a_seed(registry):
    register("noisy", NoisyConfig, NoisyConv2d)
    model = create_model("resnet8_cifar", widths=(8, 8, 16), patch=4)
    convert_(model, NoisyConfig(high=3.0), seed=7)
    assert cost(model).fixed == sum(m.out_channels for m in model.modules() if isinstance(m, NoisyConv2d)) > 0
    x = torch.randn(4, 3, 32, 32)
    model.train()(x).sum().backward()
    model.eval()
    bundle = read_bundle(to_bundle(to_onnx(fold(model)), INFO, step=None))
    seeded = [entry.name for entry in bundle.manifest.tensors if entry.seeded]
    assert len(seeded) == 8
    assert all(name.endswith("gains") for name in seeded)
    session = open_session(bundle.graph(), bundle.tensors())
    (logits,) = session.run(["logits"], {"image": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), model(x).detach(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "config", "presets", "words"),
    [
        ("ghost", NoisyConfig, None, "'ghost' is already registered, with GhostConfig"),
        ("noisy", GhostConfig, None, "GhostConfig is already registered"),
        ("Noisy", NoisyConfig, None, "'Noisy': a name consists of lower-case letters, digits and hyphens"),
        ("noisy", NoisyConfig, {"groupnl-paper": NoisyConfig}, "'groupnl-paper' is already registered"),
        ("noisy", ConversionConfig, None, "must be a class derived from ConversionConfig"),
        ("noisy", nn.Conv2d, None, "must be a class derived from ConversionConfig"),
    ],
)
def test_what_cannot_be_registered(registry, name, config, presets, words):
    before = dict(FAMILIES)
    with pytest.raises(ConfigError, match=words):
        register(name, config, NoisyConv2d, presets)
    assert before == FAMILIES


def test_a_layer_that_does_not_take_the_arguments_is_named(registry):
    register("noisy", NoisyConfig, lambda config, conv, width, seed: NoisyConv2d(3))
    with pytest.raises(ConversionError, match=r"stages\.0\.0\.conv1 .*missing 2 required positional arguments"):
        convert_(create_model("resnet8_cifar"), NoisyConfig())


def test_a_plugin_runs_once_and_is_refused_when_it_has_changed(registry, tmp_path):
    file = tmp_path / "own.py"
    file.write_text(PLUGIN.format(name="own1"))
    found = load_plugin(file)
    assert (found.name, found.methods) == ("own.py", ("own1",))
    assert load_plugin(str(file)) is found
    file.write_text(PLUGIN.format(name="own1") + "\n")
    with pytest.raises(ConfigError, match=r"own\.py has changed since it was loaded"):
        load_plugin(file)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1", "registers no method; it must call seedcnn.convert.register"),
        (PLUGIN.format(name="own2") + "\nraise RuntimeError('half-way')", r"own\.py, line 15: RuntimeError: half-way"),
        (PLUGIN.format(name="ghost"), "'ghost' is already registered"),
        ("def", r"own\.py, line 1: SyntaxError"),
    ],
)
def test_a_plugin_that_fails_leaves_nothing_registered(registry, tmp_path, text, words):
    before = dict(FAMILIES)
    (tmp_path / "own.py").write_text(text)
    with pytest.raises(ConfigError, match=words):
        load_plugin(tmp_path / "own.py")
    assert before == FAMILIES


def test_files_that_are_no_plugins(tmp_path):
    with pytest.raises(ConfigError, match=r"missing\.py cannot be read: No such file"):
        load_plugin(tmp_path / "missing.py")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_plugin(tmp_path)
    (tmp_path / "own.txt").write_text(PLUGIN.format(name="own3"))
    with pytest.raises(ConfigError, match=r"own\.txt is not a Python file"):
        load_plugin(tmp_path / "own.txt")


@pytest.mark.parametrize("fails", [False, True])
def test_an_installed_package_brings_its_methods(tmp_path, fails):
    (tmp_path / "own_methods.py").write_text(PLUGIN.format(name="packaged") + ("\n1 / 0" if fails else ""))
    info = tmp_path / "own_methods-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-methods\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\npackaged = own_methods\n")
    code = f"""
import json, sys
sys.path.insert(0, {str(tmp_path)!r})
from seedcnn.convert import config_of_text
from seedcnn.errors import ConfigError
try:
    print(json.dumps(repr(config_of_text("packaged:relu=False"))))
except ConfigError as error:
    print(json.dumps(str(error)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said = json.loads(done.stdout)
    if fails:
        assert said == "the method 'packaged' of own_methods cannot be loaded: ZeroDivisionError: division by zero"
    else:
        assert said == "packagedConfig(scope='paper', relu=False)"
