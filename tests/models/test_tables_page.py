"""docs/tables.md and docs/timm.md match the output of their tools."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from seedcnn.convert import ConversionReport
from seedcnn.errors import ConversionError
from tools import paper_tables, timm_table

DOCS = Path(__file__).parents[2] / "docs"
DATA = Path(__file__).parent
FAST, FEW = "resnet10t", ["mobilenetv3_small_050", "repvgg_a0"]


def cells(text):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]


def test_the_page_of_the_papers_has_every_figure_with_its_count():
    page = (DOCS / "tables.md").read_text(encoding="utf-8")
    lines = [" ".join(line) for line in cells(page)]
    numbers = json.loads((DATA / "numbers.json").read_text())
    for _, network, method, params, macs, exact_params, exact_macs in numbers["printed"]:
        wanted = [network.removesuffix("_cifar"), method, params, f"{exact_params:,}"]
        wanted += [macs, f"{exact_macs:,}"] if macs else []
        assert any(all(f" {item} " in f" {line} " for item in wanted) for line in lines), wanted
    for network, method, params, macs in numbers["methods"]:
        name = network.removesuffix("_cifar")
        assert any(line.startswith(f"{name} {method} {params:,} ") and line.endswith(f" {macs:,}") for line in lines)
    crnet = json.loads((DATA / "crnet_tables.json").read_text())["rows"]
    for network, classes, expansion, groups, alpha, strategy, params, flops, exact_params, exact_flops, _ in crnet:
        start = f"{network} {classes} {strategy} {expansion} {groups} {alpha} {params} {params} {exact_params:,} "
        assert any(line.startswith(start) and f" {flops} {flops} {exact_flops:,} " in line for line in lines), start
    totals = re.findall(r"(\d+) of (\d+) figures", page)
    assert totals == [("25", "28"), ("21", "24"), ("15", "18"), ("96", "96")]


def test_how_a_figure_is_printed():
    assert paper_tables.as_printed(47_434, "0.05") == "0.05"
    assert paper_tables.as_printed(1_159_690_240, "1159") == "1160"
    assert paper_tables._cells("5.6", 5_595_210) == ["5.6", "5.6", "5,595,210", "-0.0048"]
    assert paper_tables._cells("1.2", 1_036_362)[1] == "**1.0**"


def test_the_page_of_timm_has_every_network():
    page = (DOCS / "timm.md").read_text(encoding="utf-8")
    written = timm_table.page(timm_table.read_page())
    assert re.sub(r"timm \d\S+,", "timm,", written) == re.sub(r"timm \d\S+,", "timm,", page)
    rows = {row[0]: row for row in cells(page)[2:]}
    assert list(rows) == timm_table.MODELS
    assert len(rows) >= 30
    clean = sum(row[-1] == "" for row in rows.values())
    assert f"All of this worked for {clean} of {len(rows)}." in page
    assert clean >= 30


@pytest.mark.parametrize("name", [FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in FEW)])
@pytest.mark.filterwarnings("ignore")  # the exporter's
def test_a_few_networks_do_what_the_page_says(name):
    threads = torch.get_num_threads()
    row = timm_table.examine(name)
    torch.set_num_threads(threads)
    assert row.failures == ()
    assert row.params[1] < row.params[0]
    assert row.macs[1] < row.macs[0]
    assert timm_table.line_of(row) in (DOCS / "timm.md").read_text(encoding="utf-8").splitlines()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", [name for name in timm_table.MODELS if name not in (FAST, *FEW)])
@pytest.mark.filterwarnings("ignore")
def test_every_network_does_what_the_page_says(name):
    row = timm_table.examine(name)
    lines = (DOCS / "timm.md").read_text(encoding="utf-8").splitlines()
    recorded = next(line for line in lines if line.startswith(f"| {name} |"))
    assert (row.failures == ()) == recorded.endswith("|  |")
    assert f"| {row.replaced} | {row.left} (" in recorded


def test_widths_that_do_not_divide_are_left_and_said():
    model = torch.nn.Sequential(*[torch.nn.Conv2d(a, b, 3) for a, b in ((3, 12), (12, 16), (16, 18))])
    how, report = timm_table.convert(model)
    assert isinstance(report, ConversionReport)
    assert how == "paper, widths of 8n only"
    assert [item.name for item in report.replaced] == ["1"]
    with pytest.raises(ConversionError, match="no convolution matched"):
        timm_table.convert(torch.nn.Sequential(torch.nn.Linear(1, 1)))
