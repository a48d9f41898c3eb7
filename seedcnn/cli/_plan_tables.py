"""The tables of ``seedcnn plan``."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING

from rich import box
from rich.measure import Measurement
from rich.table import Table

from seedcnn.messages import counted
from seedcnn.terminal import console as open_console
from seedcnn.terminal import prose

if TYPE_CHECKING:
    from rich.console import Console

    from seedcnn.plan import Comparison, Plan

__all__ = ["print_plan"]

_WIDTH = 160  # of a file or a pipe: a line for each layer
_NAMES = (32, 24, 21, 18, 14)  # characters of a name in narrow tables


def print_plan(name: str, found: Plan, compared: Comparison, width: int = _WIDTH) -> None:
    """Print each layer with its form, the whole networks side by side, and a verdict on the budget.

    Tables that are too wide for the terminal, or for ``width`` columns elsewhere, have fewer columns and more lines.
    """
    console = open_console(width=width)
    for of in (_layers, _networks):
        tables = [of(name, found, compared, narrow) for narrow in (0, *_NAMES)]
        console.print(next((table for table in tables if _width(console, table) <= console.width), tables[-1]))
        if of is _layers:
            for other, reason in found.left.items():
                prose(console, f"{other}: stays, {reason}", style="dim")
    _print_words(console, found, compared)


def _width(console: Console, table: Table) -> int:
    """Return the width below which rich breaks lines, and not only at words."""
    return Measurement.get(console, console.options.update(max_width=1000), table).maximum


def _table(title: str, narrow: int) -> Table:
    if not narrow:
        return Table(title=title)
    return Table(title=title, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)


def _change(old: float | None, new: float | None, form: str, changed: bool, narrow: int) -> str:
    """A number of a layer, and the one that takes its place."""
    if old is None or new is None:
        return "-"
    return f"{old:{form}}{chr(10) if narrow else ' '}> {new:{form}}" if changed else f"{old:{form}}"


def _at_dots(name: str, width: int) -> str:
    """A qualified name, in lines that end at its dots if it is longer than ``width``."""
    lines = [""]
    for part in name.split("."):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += f"{part}."
    return "\n".join(lines).removesuffix(".")


def _layers(name: str, found: Plan, _: Comparison, narrow: int) -> Table:
    size = "x".join(map(str, found.input_size))
    table = _table(f"{name}, {size}: {found.budget}", narrow)
    for column in ("layer",) if narrow else ("layer", "convolution"):
        table.add_column(column, overflow="fold")
    table.add_column("form,\nsensitivity" if narrow else "form", overflow="fold")
    for column in ("ms", "bytes", "MACs") if narrow else ("ms", "bytes", "MACs", "sensitivity"):
        table.add_column(column, justify="right", no_wrap=True)
    for layer in found.layers:
        before, after = layer.before, layer.after
        changed = layer.config is not None
        costs = [
            _change(old, new, form, changed, narrow)
            for old, new, form in (
                (before.latency_ms, after.latency_ms, ".3f"),
                (before.bytes, after.bytes, ","),
                (before.macs, after.macs, ","),
            )
        ]
        loss = f"{layer.sensitivity:.4f}" if changed else ""
        if narrow:
            what = "\n".join(wrap(layer.layer, narrow))
            cells = [f"{_at_dots(layer.name, narrow)}\n{what}", f"{layer.form}\n{loss}".rstrip(), *costs]
        else:
            cells = [layer.name, layer.layer, layer.form, *costs, loss]
        table.add_row(*cells, style="" if changed else "dim")
    return table


def _networks(_: str, found: Plan, compared: Comparison, narrow: int) -> Table:
    measured = next((one.latency for one in compared.networks if one.latency is not None), None)
    title = "counted" if measured is None else f"counted and timed in {found.runtime}, median of {measured.n}"
    table = _table(f"whole networks, {title}", narrow)
    table.add_column("network", overflow="fold")
    numbers = ["MACs", "parameters", "fp32 bytes", "ms", "quartiles"]
    for column in [*numbers[:3], "ms,\nquartiles"] if narrow else numbers:
        table.add_column(column, justify="right", no_wrap=True)
    rows = [("predicted", found.predicted, None), *((one.name, one.costs, one.latency) for one in compared.networks)]
    for name, costs, time in rows:
        shown = costs.latency_ms if time is None else time.median_ms
        size = "-" if name == "predicted" and found.step is not None else f"{costs.bytes:,}"
        quartiles = "" if time is None else f"[{time.q1_ms:.3f}, {time.q3_ms:.3f}]"
        latency = "-" if shown is None else f"{shown:.3f}"
        times = [f"{latency}\n{quartiles}".rstrip()] if narrow else [latency, quartiles]
        words = "\n".join(wrap(name, narrow)) if narrow else name
        table.add_row(words, f"{costs.macs:,}", f"{costs.params:,}", size, *times)
    return table


def _print_words(console: Console, found: Plan, compared: Comparison) -> None:
    coding = "float32" if found.step is None else f"estimated on a grid of step {found.step:g}"
    forms = ", ".join(f"{form} in {counted(count, 'layer')}" for form, count in found.forms.items())
    lines = [f"Forms: {forms}.", f"Sensitivity: {found.how}; {found.seconds['sensitivity']:.1f} s."]
    if found.loss is not None:
        lines.append(f"The network as it is has a cross-entropy of {found.loss:.4f} on these images.")
    lines.append(f"Bytes: the folded tensors, {coding}; a bundle's graph and manifest add to that.")
    for line in (*lines, *compared.verdict):
        prose(console, line)
