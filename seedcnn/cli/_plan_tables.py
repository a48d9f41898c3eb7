"""The tables of ``seedcnn plan``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from seedcnn.terminal import console as open_console

if TYPE_CHECKING:
    from rich.console import Console

    from seedcnn.plan import Comparison, Plan

__all__ = ["print_plan"]

_WIDTH = 120  # of a file or a pipe


def print_plan(name: str, found: Plan, compared: Comparison) -> None:
    """Print each layer with its form, the whole networks side by side, and a verdict on the budget."""
    console = open_console(width=_WIDTH)
    size = "x".join(map(str, found.input_size))
    table = Table(title=f"{name}, {size}: {found.budget}")
    table.add_column("layer", overflow="fold")
    table.add_column("convolution")
    table.add_column("form", overflow="fold")
    for column in ("ms", "bytes", "MACs", "sensitivity"):
        table.add_column(column, justify="right", no_wrap=True)
    for layer in found.layers:
        before, after = layer.before, layer.after
        changed = layer.config is not None

        def cell(old: float | None, new: float | None, form: str, changed: bool = changed) -> str:
            if old is None or new is None:
                return "-"
            return f"{old:{form}} > {new:{form}}" if changed else f"{old:{form}}"

        times = cell(before.latency_ms, after.latency_ms, ".3f")
        counts = (cell(old, new, ",") for old, new in ((before.bytes, after.bytes), (before.macs, after.macs)))
        loss = f"{layer.sensitivity:.4f}" if changed else ""
        table.add_row(layer.name, layer.layer, layer.form, times, *counts, loss, style="" if changed else "dim")
    console.print(table)
    for other, reason in found.left.items():
        console.print(f"{other}: stays, {reason}", style="dim", highlight=False, soft_wrap=True)
    _print_networks(console, found, compared)


def _print_networks(console: Console, found: Plan, compared: Comparison) -> None:
    measured = next((one.latency for one in compared.networks if one.latency is not None), None)
    title = "counted" if measured is None else f"counted and timed in {found.runtime}, median of {measured.n}"
    table = Table(title=f"whole networks, {title}")
    table.add_column("network", overflow="fold")
    for column in ("MACs", "parameters", "fp32 bytes", "ms", "quartiles"):
        table.add_column(column, justify="right", no_wrap=True)
    rows = [("predicted", found.predicted, None), *((one.name, one.costs, one.latency) for one in compared.networks)]
    for name, costs, time in rows:
        shown = costs.latency_ms if time is None else time.median_ms
        size = "-" if name == "predicted" and found.step is not None else f"{costs.bytes:,}"
        quartiles = "" if time is None else f"[{time.q1_ms:.3f}, {time.q3_ms:.3f}]"
        latency = "-" if shown is None else f"{shown:.3f}"
        table.add_row(name, f"{costs.macs:,}", f"{costs.params:,}", size, latency, quartiles)
    console.print(table)
    coding = "float32" if found.step is None else f"estimated on a grid of step {found.step:g}"
    forms = ", ".join(f"{form} in {count} layers" for form, count in found.forms.items())
    lines = [f"Forms: {forms}.", f"Sensitivity: {found.how}; {found.seconds['sensitivity']:.1f} s."]
    if found.loss is not None:
        lines.append(f"The network as it is has a cross-entropy of {found.loss:.4f} on these images.")
    lines.append(f"Bytes: the folded tensors, {coding}; a bundle's graph and manifest add to that.")
    for line in (*lines, *compared.verdict):
        console.print(line, highlight=False, soft_wrap=True)
