"""A plugin that fails: one sentence with its file, the line and the function, whatever it raises and whenever."""

from __future__ import annotations

import pytest

from seedcnn.convert.plugins import _LOADED
from seedcnn.layers.families import FAMILIES
from tests.cli.calls import in_process

LAYER = """
import sys
from dataclasses import dataclass

from seedcnn.convert import ConversionConfig, register
from seedcnn.layers import Fixed, SeededConv2d
from seedcnn.rng import FixedPoint


class BadConv2d(SeededConv2d):
    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, bias=False,
                 padding_mode="zeros", *, seed=0, device=None, dtype=None):
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, padding_mode, seed=seed)
        self.weight = self.make_weight(out_channels, in_channels, device, dtype)
        self.draw_fixed(self.weight.device)
        pass  # in __init__

    def fixed(self):
        return {"gains": Fixed(0, FixedPoint.from_range(0, 1), (self.out_channels,))}

    def forward(self, x):
        pass  # in forward
        return self.convolve(x, self.weight)


@dataclass(frozen=True)
class BadConfig(ConversionConfig):
    pass


register("bad", BadConfig, BadConv2d)
"""


@pytest.fixture
def said(tmp_path, monkeypatch):
    """Write a plugin and return what ``seedcnn cost`` says to it; nothing stays registered."""
    monkeypatch.chdir(tmp_path)
    before = dict(FAMILIES), dict(_LOADED)

    def call(text, *more, name="bad.py"):
        (tmp_path / name).write_text(text)
        done = in_process("cost", "resnet8_cifar", "--plugin", name, "--method", "bad", *more, expect=1)
        assert done.stderr.count("\n") == 1
        return done.stderr

    yield call
    for register, kept in zip((FAMILIES, _LOADED), before, strict=True):
        register.clear()
        register.update(kept)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("pass  # in __init__", 'sys.exit("no")', "it ends the process"),
        ("pass  # in __init__", "{}['gain']", "KeyError: 'gain'"),
        ("pass  # in __init__", "1 / 0", "ZeroDivisionError: division by zero"),
        ("pass  # in __init__", "raise ValueError('`in_channels` is odd')", "`in_channels` is odd"),
        ("pass  # in forward", "sys.exit()", "it ends the process"),
        ("pass  # in forward", "{}['gain']", "KeyError: 'gain'"),
        ("pass  # in forward", "x = x[:, :1]", "resnet8_cifar, bad: ResNetCifar cannot take"),
        ("pass  # in forward", "self.nothing", "AttributeError: 'BadConv2d' object has no attribute 'nothing'"),
        ('{"gains": Fixed(0, FixedPoint.from_range(0, 1), (self.out_channels,))}', "{}['gain']", "KeyError: 'gain'"),
    ],
)
def test_a_layer_that_fails(said, old, new, words):
    text = LAYER.replace(old, new)
    line = next(number for number, each in enumerate(text.splitlines(), 1) if new in each)
    line += "x = x[:, :1]" in new  # the convolution behind it fails
    method = "__init__" if "__init__" in old else "forward" if "forward" in old else "fixed"
    sentence = said(text)
    assert words in sentence
    assert f"plugin bad.py, line {line}, in BadConv2d.{method}" in sentence


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("self.weight", "BadConv2d.fixed() must return a dict of names and Fixed; it returns a Parameter"),
        (
            '{"a": self.weight}',
            "BadConv2d.fixed() must return a dict of names and Fixed; it returns a dict with a Param",
        ),
    ],
)
def test_fixed_numbers_of_the_wrong_kind(said, value, words):
    sentence = said(LAYER.replace('{"gains": Fixed(0, FixedPoint.from_range(0, 1), (self.out_channels,))}', value))
    assert words in sentence
    assert "stages.0.0.conv1" in sentence
    assert "(plugin bad.py, line 15, in BadConv2d.__init__)" in sentence


def test_a_method_that_makes_no_layer(said):
    sentence = said(LAYER.replace('"bad", BadConfig, BadConv2d', '"bad", BadConfig, lambda *_: None'))
    assert "method 'bad' makes a NoneType; it must make an nn.Module" in sentence


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import sys\nsys.exit(0)", "plugin bad.py, line 2: it ends the process (SystemExit), which a plugin must not"),
        ("\n\nx = nothing", "plugin bad.py, line 3: NameError: name 'nothing' is not defined"),
        ("x = 1\ndef", "plugin bad.py, line 2: SyntaxError: invalid syntax"),
        ("def f():\n    raise KeyError('a')\nf()", "plugin bad.py, line 2, in f: KeyError: 'a'"),
        ("x = 1", "plugin bad.py: it registers no method; it must call seedcnn.convert.register"),
    ],
)
def test_a_file_that_fails(said, text, words):
    assert words in said(text)


def test_a_method_that_two_files_register(said, tmp_path):
    (tmp_path / "good.py").write_text(LAYER)
    sentence = said(LAYER, "--plugin", "good.py")
    last = len(LAYER.splitlines())
    assert f"plugin good.py, line {last}: method 'bad' is already registered, with BadConfig of {tmp_path}" in sentence
    assert sentence.endswith("bad.py\n")


def test_a_plugin_without_a_name():
    done = in_process("cost", "resnet8_cifar", "--plugin", "", expect=1)
    assert done.stderr == "seedcnn: --plugin is empty; it must name a Python file\n"
