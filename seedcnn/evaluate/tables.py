"""The tables of a benchmark, for ``seedcnn bench`` and the scripts in benchmarks/."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from seedcnn.messages import counted
from seedcnn.terminal import console as open_console
from seedcnn.terminal import prose

if TYPE_CHECKING:
    from seedcnn.evaluate.benchmark import Measurement
    from seedcnn.evaluate.costs import Cost

__all__ = ["best", "cost_row", "print_bench"]

_WIDTH = 120  # where the output is a file or a pipe
_COUNTS = {
    "params": "parameters",
    "macs": "MACs",
    "nlf_evals": "NLF evaluations",
    "fp32_bytes": "fp32 bytes",
    "saved_bytes": "saved bytes",
}


def cost_row(found: Cost) -> dict[str, int]:
    """The part of a network's cost that a benchmark records."""
    return {name: getattr(found, name) for name in _COUNTS}


def best(found: Sequence[Measurement]) -> list[tuple[Measurement, float]]:
    """Each form in its fastest runtime, with its ratio to the first form in the first form's fastest runtime."""
    fastest: dict[str, Measurement] = {}
    for one in found:
        if one.form not in fastest or one.latency.median_ms < fastest[one.form].latency.median_ms:
            fastest[one.form] = one
    base = next(iter(fastest.values())).latency.median_ms
    return [(one, one.latency.median_ms / base) for one in fastest.values()]


def _table(title: str, *numbers: str) -> Table:
    table = Table(title=title)
    table.add_column("form", overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _cost_table(costs: Mapping[str, Mapping[str, int]]) -> Table:
    first = next(iter(costs.values()))
    shown = {name: title for name, title in _COUNTS.items() if any(row[name] for row in costs.values())}
    table = _table("cost (ratio in brackets)", *shown.values())
    for form, row in costs.items():
        table.add_row(
            form, *(f"{row[name]:,}" + (f" ({row[name] / first[name]:.2f})" if first[name] else "") for name in shown)
        )
    return table


def _times(title: str, found: Sequence[Measurement]) -> Table:
    loads = any(one.size for one in found)
    table = _table(title, "ms", "quartiles", "ratio", *(("load, ms", "fp32 MB") if loads else ()))
    for one in found:
        t = one.latency
        cells = [f"{t.median_ms:.3f}", f"[{t.q1_ms:.3f}, {t.q3_ms:.3f}]", f"{one.ratio:.3f}"]
        table.add_row(one.form, *cells, *((f"{one.load_ms:.0f}", f"{one.size / 1e6:.2f}") if loads else ()))
    return table


def _best_table(found: Sequence[Measurement]) -> Table:
    table = _table("each form in its fastest runtime", "runtime", "ms", "ratio")
    for one, ratio in best(found):
        table.add_row(one.form, one.runtime, f"{one.latency.median_ms:.3f}", f"{ratio:.3f}")
    return table


def print_bench(
    title: str,
    costs: Mapping[str, Mapping[str, int]],
    parts: Mapping[str, Sequence[Measurement]],
    about: Mapping[str, Any],
) -> None:
    """Print the measurements and their conditions.

    Args:
        title: name of the network.
        costs: :func:`cost_row` of each form.
        parts: measurements by their kind, "latency" or "training".
        about: :func:`seedcnn.evaluate.benchmark.conditions`.
    """
    console = open_console(width=_WIDTH)
    console.print(f"\n{title}", style="bold", highlight=False)
    console.print(_cost_table(costs))
    for part, found in parts.items():
        runtimes = list(dict.fromkeys(one.runtime for one in found))
        for runtime in runtimes:
            name = f"{part}, {runtime}, median of {found[0].latency.n}"
            console.print(_times(name, [one for one in found if one.runtime == runtime]))
        if len(runtimes) > 1:
            console.print(_best_table(found))
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    text = f"{about['machine']}; {versions}; {counted(about['threads'], 'thread')}; {about['process']}; {about['how']}."
    prose(console, text + " Saved bytes: activations kept for the backward pass of one image.")
