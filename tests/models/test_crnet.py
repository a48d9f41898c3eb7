"""CRnet: all 96 figures of the dissertation's Tables 4-1 to 4-8, their parts, and the arguments."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from seedcnn.errors import ConfigError
from seedcnn.evaluate.costs import cost
from seedcnn.layers import ConditionalReductionConv2d
from seedcnn.models import create_model
from seedcnn.models.crnet import CRBlock, CRNetCB, CRNetCIB

TABLES = json.loads(Path(__file__).with_name("crnet_tables.json").read_text())
ROWS = [dict(zip(TABLES["columns"], row, strict=True)) for row in TABLES["rows"]]
OPTIONS = ("strategy", "expansion", "groups", "alpha")


def build(row):
    return create_model(row["network"], row["classes"], **{name: row[name] for name in OPTIONS})


def learnable(module):
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def norm_weights(model):
    """The part of the tables' FLOPs that is not multiply-accumulates: the weights of each BatchNorm, once."""
    return sum(m.num_features for m in model.modules() if isinstance(m, nn.BatchNorm2d))


def test_the_tables_are_whole():
    assert len(ROWS) == 48
    assert {(row["network"], row["classes"]) for row in ROWS} == {
        (network, classes) for network in ("crnet_cb", "crnet_cib") for classes in (10, 100)
    }


def rows_as_cases():
    """Every strategy with ten classes and the usual options; the others are slow."""
    cases = []
    for row in ROWS:
        usual = (row["expansion"], row["groups"], row["alpha"]) == (4, 2, 0.5)
        quick = usual and row["classes"] == 10
        name = "-".join(str(value) for value in list(row.values())[:6])
        cases.append(pytest.param(row, id=name, marks=[] if quick else [pytest.mark.slow]))
    return cases


@pytest.mark.parametrize("row", rows_as_cases())
def test_every_printed_figure(row):
    model = build(row)
    assert learnable(model) == row["params"]
    assert f"{row['params'] / 1e6:.2f}" == row["params_printed"]
    found = cost(model, convention="torchsummaryx").macs
    assert found == row["flops"] == row["macs"] + norm_weights(model)
    assert f"{row['flops'] / 1e6:.2f}" == row["flops_printed"]


def parts_of(model):
    if isinstance(model, CRNetCB):
        blocks = [block for stage in model.stages for block in stage]
        return [model.stem, *blocks, model.fc]
    return [model.stem, *model.blocks, model.tail, model.head, model.fc]


CB = [(464, 442384), (2592, 2293936), *[(1648, 1491040)] * 2, (13472, 4039040), *[(5344, 1269952)] * 9]
CB += [(49472, 3855104), *[(18880, 1159552)] * 2, (2570, 2560)]
CIB = [(464, 442384), *[(1472, 1343568)] * 3, *[(3600, 1345616)] * 2, (6128, 2625872), *[(4992, 1196192)] * 3]
CIB += [*[(13344, 1204384)] * 2, (57120, 2493088), *[(18176, 1122624), (51264, 1155392)] * 2]
CIB += [(16896, 1048832), (16448, 16384), (650, 640)]


@pytest.mark.parametrize(("name", "strategy", "expected"), [("crnet_cb", "gc-c1dw", CB), ("crnet_cib", "c1dw-gc", CIB)])
def test_every_part(name, strategy, expected):
    model = create_model(name, strategy=strategy).eval()
    sizes: dict[int, tuple[int, ...]] = {}
    parts = parts_of(model)
    for index, part in enumerate(parts):
        part.register_forward_pre_hook(lambda _, args, index=index: sizes.__setitem__(index, tuple(args[0].shape[1:])))
    with torch.no_grad():
        model(torch.zeros(1, 3, 32, 32))
    for module in parts:
        module._forward_pre_hooks.clear()
    counted = [cost(part, sizes[index]).macs + norm_weights(part) for index, part in enumerate(parts[:-1])]
    found = [(learnable(part), macs) for part, macs in zip(parts, [*counted, model.fc.weight.numel()], strict=True)]
    assert found == expected


@pytest.mark.parametrize(("name", "strategy"), [("crnet_cb", "gc-c1dw"), ("crnet_cib", "c1dw-gc")])
def test_the_cr_rule_is_the_strategy_with_the_best_accuracy(name, strategy):
    with torch.device("meta"):
        modes = [
            [m.mode for m in create_model(name, strategy=choice).modules() if isinstance(m, ConditionalReductionConv2d)]
            for choice in ("auto", strategy)
        ]
    assert modes[0] == modes[1]
    assert len(modes[0]) == 32


@pytest.mark.parametrize("name", ["crnet_cb", "crnet_cib"])
def test_it_trains_at_other_sizes_and_widths(name):
    model = create_model(name, num_classes=7, width=0.5, expansion=2)
    out = model(torch.rand(2, 3, 24, 24))
    out.square().sum().backward()
    assert out.shape == (2, 7)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "depths", "blocks"),
    [("crnet_cb", (1, 1, 2, 1), 5), ("crnet_cib", (2, 2, 2), 6), ("crnet_cib", (1, 3, 1), 5)],
)
def test_fewer_blocks_on_smaller_maps(name, depths, blocks):
    model = create_model(name, depths=depths, patch=2)
    found = [module for module in model.modules() if isinstance(module, CRBlock)]
    assert len(found) == blocks
    assert sum(block.cr1.in_channels != block.cr2.out_channels for block in found) >= 2
    assert model.stem(torch.rand(1, 3, 32, 32)).shape == (1, 16, 16, 16)
    model(torch.rand(2, 3, 32, 32)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_fewer_blocks_of_cib_are_the_first_and_the_last_of_a_stage():
    def kinds(model):
        return [(not isinstance(block.se, nn.Identity), block.shortcut is not None) for block in model.blocks]

    whole, small = kinds(create_model("crnet_cib")), kinds(create_model("crnet_cib", depths=(2, 2, 2)))
    assert small == [whole[index] for index in (0, 4, 5, 10, 11, 15)]
    assert kinds(create_model("crnet_cib", depths=(5, 6, 5))) == whole
    with pytest.raises(ValueError, match=r"`depths` \(=\(2, 7, 2\)\) must be at most \(5, 6, 5\)"):
        create_model("crnet_cib", depths=(2, 7, 2))


@pytest.mark.parametrize("build", [CRNetCB, CRNetCIB])
def test_wrong_arguments(build):
    with pytest.raises(ValueError, match=r"depths.*\(1, 1\).*entries"):
        build(depths=(1, 1))
    with pytest.raises(ValueError, match=r"patch.*0.*positive"):
        build(patch=0)
    with pytest.raises(ValueError, match=r"strategy.*'gc'.*gc-c1dw"):
        build(strategy="gc")
    with pytest.raises(ValueError, match=r"widths.*\(16, 32\).*entries"):
        build(widths=(16, 32))
    with pytest.raises(ValueError, match=r"expansion.*0.*positive"):
        build(expansion=0)
    with pytest.raises(ValueError, match=r"groups.*3"):
        build(groups=3)
    with pytest.raises(ValueError, match=r"alpha.*1.5"):
        build(alpha=1.5)


def test_the_name():
    with pytest.raises(ConfigError, match="crnet_cb"):
        create_model("crnet")
