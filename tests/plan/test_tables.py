"""The tables of ``seedcnn plan`` in terminals of several widths."""

from __future__ import annotations

import pytest

from seedcnn.cli._plan_tables import print_plan
from seedcnn.latency import Latency
from seedcnn.plan import FORMS, Budget, Compared, Comparison, Costs, LayerPlan, Plan

BEFORE, AFTER = Costs(115_605_504, 590_336, 2_361_344, 12.345), Costs(58_254_336, 298_752, 1_195_008, 6.789)
NAMES = {
    "layer4.0.downsample.0": "ghost-linear-r2",
    "encoder.stages.3.blocks.11.attention.projection": "keep",
    "stages.2.0.conv1": "abs-r2-groups4",
}


def shown(width, capsys):
    """Lines of the table of layers, and of the table of networks with the words below."""
    layers = tuple(
        LayerPlan(name, "3x3 512->2048 /2 @112x112", form, FORMS.get(form), BEFORE, AFTER, 0.6854, 17)
        for name, form in NAMES.items()
    )
    left = {"head.convolution": "depthwise already, so that there is nothing to save in it"}
    plan = Plan(Budget("latency", 42.5), (3, 224, 224), "onnxruntime", layers, left, BEFORE, AFTER, "a stand-in")
    plan.seconds["sensitivity"] = 0.5
    time = Latency(82.2, 64.374, 99.061, 30)
    names = ("vanilla", "plan", "narrowed to 64/112/224/448 (1.01 of the plan's MACs)")
    networks = Comparison(tuple(Compared(name, BEFORE, time) for name in names), ("It meets the budget.",))
    print_plan("resnet50", plan, networks, width)
    lines = capsys.readouterr().out.splitlines()
    middle = next(number for number, line in enumerate(lines) if "whole networks" in line)
    return lines[:middle], lines[middle:]


@pytest.mark.parametrize("width", [80, 100, 160])
def test_tables_break_at_words(width, capsys):
    layers, networks = shown(width, capsys)
    tables = [*layers[:-1], *networks[:14]]
    assert max(map(len, tables)) <= width
    words = {word for line in layers for word in line.split()}
    assert {*NAMES.values(), "layer4.0.downsample.0", "512->2048", "@112x112", "0.6854", "sensitivity"} <= words
    assert {"12.345", "6.789", "2,361,344", "1,195,008", "115,605,504", "58,254,336"} <= words
    start = next(number for number, line in enumerate(layers) if line.startswith("encoder."))
    parts = [line.split()[0] for line in layers[start : start + 3]]
    parts = parts[: next(number for number, part in enumerate(parts) if not part.endswith(".")) + 1]
    assert "".join(parts) == "encoder.stages.3.blocks.11.attention.projection"
    words = {word for line in networks for word in line.split()}
    assert {"64/112/224/448", "(1.01", "MACs)", "590,336", "82.200", "[64.374,", "99.061]", "predicted"} <= words
    assert "Forms: ghost-linear-r2 in 1 layer, keep in 1 layer, abs-r2-groups4 in 1 layer." in networks


def test_a_wide_terminal_has_a_line_for_each_layer(capsys):
    layers, _ = shown(190, capsys)
    line = next(line for line in layers if "layer4.0.downsample.0" in line)
    assert all(word in line for word in ("512->2048", "ghost-linear-r2", "12.345 > 6.789", "0.6854"))
    assert any("encoder.stages.3.blocks.11.attention.projection" in line for line in layers)
