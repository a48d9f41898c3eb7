"""The tables that ``seedcnn evaluate`` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from seedcnn.evaluate import Evaluated
    from seedcnn.evaluate.robustness_runs import SeededRobustness, Summary
    from seedcnn.evaluate.styles import StyleTable

__all__ = ["print_tables"]

_WIDTH = 120  # where the output is a file or a pipe


def _told(summary: Summary) -> str:
    spread = "" if summary.std is None else f" ± {summary.std:.2f}"
    interval = "" if summary.interval is None else " [{:.2f}, {:.2f}]".format(*summary.interval)
    return f"{summary.mean:.2f}{spread}{interval}"


def _columns(first: str, names: Sequence[str]) -> Table:
    from rich.table import Table

    table = Table(first)
    for name in names:
        table.add_column(name, overflow="fold")
    return table


def _corruption_rows(table: Table, corrupted: Mapping[str, SeededRobustness]) -> str:
    """Add the rows, and return the remarks to print below the table."""
    from seedcnn.data.corruptions import CORRUPTIONS
    from seedcnn.evaluate.robustness_runs import FIGURES

    results = list(corrupted.values())
    first, seeds = results[0].tables[0], len(results[0].tables)
    times = f"n = {first.n} x {len(first.severities)}" + (f" x {seeds} seeds" if seeds > 1 else "")
    for kind in first.accuracies:
        table.add_row(f"{kind} ({times})", *(f"{result.corruption_mean(kind):.2f}" for result in results))
    summaries = [result.summary() for result in results]
    for figure, title in FIGURES.items():
        found = [summary for row in summaries if (summary := row[figure]) is not None]
        if found:
            part = f" ({len(first.accuracies)} measured)" if len(first.accuracies) < len(CORRUPTIONS) else ""
            told = title + (part if figure.startswith("mean_over") else "")
            table.add_row(told, *map(_told, found))
    about = "In brackets: 95 % of a bootstrap over images. "
    about += f"Averages: ± standard deviation over {seeds} seeds of the corruptions. " if seeds > 1 else ""
    if all(row["mce_15"] is None for row in summaries):
        return about + "No mCE: it needs the standard 15 corruptions."
    if first.constants == "cifar":
        return about + "mCE divides by AlexNet's errors on ImageNet-C: here it is a weighting, not comparable."
    return about + "mCE divides by AlexNet's errors on ImageNet-C."


def _style_rows(table: Table, styles: Mapping[str, StyleTable]) -> None:
    tables = list(styles.values())
    for style, found in tables[0].accuracies.items():
        held = ", held out" if style in tables[0].held_out else ""
        cells = [f"{each.accuracies[style].top1:.2f} ± {each.accuracies[style].standard_error:.2f}" for each in tables]
        table.add_row(f"{style} (n = {found.n}{held})", *cells)
    if len(tables[0].held_out) > 1:
        means = [f"{each.mean_held_out:.2f} ± {each.standard_error:.2f}" for each in tables]
        table.add_row(f"mean over {len(tables[0].held_out)} held-out styles", *means)


def _paper_table(found: Evaluated) -> Table:
    from rich.table import Table

    from seedcnn.evaluate.beside import beside

    table = Table("paper", "model", "quantity", "printed, %", "measured, %", "difference")
    for model, rows in found.papers.items():
        for row in rows:
            for key, printed in row.values.items():
                measured = found.corrupted.get(model), found.styles.get(model)
                ours = list(beside(row, key, found.clean[model].top1, *measured))
                spread = f" ± {row.spread[key]:.2f}" if key in row.spread else ""
                cells = [(word, f"{value:.2f}", f"{value - printed:+.2f}") for word, value in ours] or [("", "-", "")]
                for word, value, difference in cells:
                    quantity = f"{row.dataset} {key} {word}".strip()
                    source = f"{row.paper}, {row.table}"
                    table.add_row(source, model, quantity, f"{printed:.2f}{spread}", value, difference)
    return table


def print_tables(found: Evaluated) -> None:
    """Print everything as tables on standard output."""
    from seedcnn.terminal import console as open_console

    table = _columns("accuracy in %", list(found.clean))
    n = next(iter(found.clean.values())).n
    each = found.clean.values()
    table.add_row(f"clean, top-1 (n = {n})", *(f"{c.top1:.2f} ± {c.standard_error:.2f}" for c in each))
    table.add_row(f"clean, top-5 (n = {n})", *("-" if c.top5 is None else f"{c.top5:.2f}" for c in each))
    if found.styles:
        _style_rows(table, found.styles)
    about = "Clean accuracy: ± standard error. "
    if found.corrupted:
        about += _corruption_rows(table, found.corrupted)
    console = open_console(width=_WIDTH)
    console.print(table)
    console.print(about, soft_wrap=True, highlight=False)
    if any(found.papers.values()):
        console.print(_paper_table(found))
        notes = {row.note: row for rows in found.papers.values() for row in rows if row.note}
        for note, row in notes.items():
            console.print(f"{row.paper}, {row.table}: {note}", soft_wrap=True, highlight=False)
