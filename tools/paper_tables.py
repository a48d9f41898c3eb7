"""Write docs/tables.md: every parameter and MAC count that the papers print, ours, and the difference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seedcnn.convert import ConversionConfig, GroupNLConfig, config_for, convert_
from seedcnn.convert.filters import FilterFn
from seedcnn.evaluate.costs import cost
from seedcnn.models import create_model

ROOT = Path(__file__).parents[1]
NUMBERS = ROOT / "tests" / "models" / "numbers.json"
CRNET = ROOT / "tests" / "models" / "crnet_tables.json"
PAGE = ROOT / "docs" / "tables.md"

# The conversion for each method name of the tables. "stride1" leaves stem, strided convolutions and shortcuts as they
# are, as MonoCNN's public code does for every method; the GroupNL tables need "paper".
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "mono_e2-4-8-16": ("mono", {"seed_filters": 32, "scope": "stride1"}),
    "mono_single+1x1": ("mono", {"seed_filters": 1, "pointwise": True, "scope": "stride1"}),
    "ghost_r2_d3": ("ghost", {"norm": False, "relu": False}),
    "sinefm_r2_t5": ("sinefm", {}),
    "groupnl_r2_g4": ("groupnl-paper", {}),
    "groupnl_r2_g4_sparse": ("groupnl-paper", {"sparse": True}),
    "lbcnn": ("lbc", {"scope": "stride1"}),
    "pnn": ("pnn", {"scope": "stride1"}),
    "shift": ("shift", {"scope": "stride1"}),
    "ghost_mono_r4_1x1": ("ghost", {"ratio": 4, "cheap": "pointwise", "scope": "stride1"}),
    "ghost_mono_r2_1x1": ("ghost", {"ratio": 2, "cheap": "pointwise", "scope": "stride1"}),
}
# MonoCNN Table 1 -> the names above; its VGG11 row of GhostNet matches ratio 2, not the ratio 4 of the text.
TABLE_1 = {"LBCNN": "lbcnn", "PNN": "pnn", "ShiftNet": "shift", "MonoCNN": "mono_single+1x1"}


def rows(path: Path, part: str) -> list[dict[str, Any]]:
    """Return the rows of one table of a file as dicts."""
    data = json.loads(path.read_text())
    columns = data["columns" if part == "rows" else f"{part}_columns"]
    return [dict(zip(columns, row, strict=True)) for row in data[part]]


def _same_width(module: nn.Module, name: str) -> bool:  # noqa: ARG001
    return isinstance(module, nn.Conv2d) and module.in_channels == module.out_channels


def config_of(network: str, method: str) -> tuple[ConversionConfig | None, FilterFn | None]:
    """Return the config, and a filter if the scope is not enough; None for the vanilla network."""
    if method in ("CNN", "vanilla"):
        return None, None
    if method.startswith("groupnl r="):
        _, ratio, groups, form = method.split()
        return GroupNLConfig.paper(
            reduction_ratio=int(ratio[2:]), sparse=form == "sparse", nlf_groups=int(groups[2:])
        ), None
    if method == "GhostNet":
        method = "ghost_mono_r2_1x1" if network == "vgg11_cifar" else "ghost_mono_r4_1x1"
    name, options = CONFIGS[TABLE_1.get(method, method)]
    return config_for(name, **options), _same_width if name == "mono" and network == "vgg11_cifar" else None


def build(network: str, method: str, **options: Any) -> nn.Module:
    """Build a network of the tables, converted by the table's method."""
    model = create_model(network, **options)
    config, filter_fn = config_of(network, method)
    if config is not None:
        convert_(model, config, filter_fn=filter_fn)
    return model


def as_printed(count: int, like: str) -> str:
    """Print a count in millions with as many decimals as ``like``."""
    return f"{count / 1e6:.{len(like.partition('.')[2])}f}"


def _cells(printed: str | None, count: int) -> list[str]:
    """Return paper, ours, exact and difference, with a mark if ours differs from the printed figure."""
    if printed is None:
        return ["", "", f"{count:,}", ""]
    got = as_printed(count, printed)
    difference = f"{count / 1e6 - float(printed):+.4f}"
    return [printed, got if got == printed else f"**{got}**", f"{count:,}", difference]


def _table(header: list[str], body: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


_FIGURE = ["paper, M", "ours, M", "exact", "difference, M"]


def printed_figures(source: str) -> tuple[str, int, int]:
    """Return a table of numbers.json as Markdown, the number of figures, and the number of equal figures."""
    body, total, equal = [], 0, 0
    for row in rows(NUMBERS, "printed"):
        if row["source"] != source:
            continue
        model = build(row["network"], row["method"])
        params = sum(p.numel() for p in model.parameters() if p.requires_grad)
        line = [row["network"].removesuffix("_cifar"), row["method"], *_cells(row["params_printed"], params)]
        pairs = [(row["params_printed"], params)]
        if row["macs_printed"] is not None:
            macs = cost(model, convention="torchprofile").macs
            line += _cells(row["macs_printed"], macs)
            pairs.append((row["macs_printed"], macs))
        total += len(pairs)
        equal += sum(as_printed(count, printed) == printed for printed, count in pairs)
        body.append(line)
    header = ["network", "method", *(f"parameters: {part}" for part in _FIGURE)]
    if len(body[0]) > len(header):
        header += [f"MACs: {part}" for part in _FIGURE]
    return _table(header, body), total, equal


def crnet_figures() -> tuple[str, int, int]:
    """Return the dissertation's tables as Markdown, the number of figures, and the number of equal figures."""
    body, total, equal = [], 0, 0
    names = ("strategy", "expansion", "groups", "alpha")
    for row in rows(CRNET, "rows"):
        model = create_model(row["network"], row["classes"], **{name: row[name] for name in names})
        found = cost(model, convention="torchsummaryx")
        pairs = [(row["params_printed"], found.params), (row["flops_printed"], found.macs)]
        total += 2
        equal += sum(as_printed(count, printed) == printed for printed, count in pairs)
        cells = [str(row[name]) for name in ("network", "classes", *names)]
        body.append([*cells, *(cell for pair in pairs for cell in _cells(*pair))])
    header = ["network", "classes", *names, *(f"parameters: {part}" for part in _FIGURE)]
    return _table([*header, *(f"MACs: {part}" for part in _FIGURE)], body), total, equal


def method_counts() -> str:
    """Count every method on every CIFAR network, without printed figures for comparison."""
    body = []
    for row in rows(NUMBERS, "methods"):
        found = cost(build(row["network"], row["method"]))
        profiled = cost(build(row["network"], row["method"]), convention="torchprofile")
        numbers = (found.params, found.macs, found.nlf_evals, profiled.macs)
        body.append([row["network"].removesuffix("_cifar"), row["method"], *(f"{n:,}" for n in numbers)])
    return _table(["network", "method", "parameters", "MACs", "NLF evaluations", "MACs as torchprofile counts"], body)


def page() -> str:
    """The whole of docs/tables.md."""
    parts = [
        "# Figures of the papers, and ours\n",
        "Written by `tools/paper_tables.py` (`make docs-tables`); do not edit. The tables list every printed parameter",
        "and MAC count of a network of this library beside our count, in millions. **Bold**: our count differs. The",
        "input is 3x32x32, with 10 classes unless stated otherwise. MACs in the papers' tables follow the papers' own",
        "tools (torchprofile for GroupNL, torchsummaryX for CRnet), which also count norms, pooling and",
        "multiplications. Everywhere else in this project MACs are those of convolutions and linear layers.\n",
    ]
    titles = {"GroupNL T3": "GroupNL, Table 3", "GroupNL T4": "GroupNL, Table 4", "MonoCNN T1": "MonoCNN, Table 1"}
    for source, title in titles.items():
        table, total, equal = printed_figures(source)
        parts.append(f"## {title}: {equal} of {total} figures equal\n\n{table}\n")
    table, total, equal = crnet_figures()
    parts.append(f"## CRnet (dissertation, Tables 4-1 to 4-8): {equal} of {total} figures equal\n\n{table}\n")
    parts.append(f"## Every method, without printed figures\n\n{method_counts()}\n")
    return "\n".join(parts)


def main() -> None:
    torch.set_num_threads(1)
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
