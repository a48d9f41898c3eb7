"""The tables that ``seedcnn evaluate`` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from seedcnn.terminal import console as open_console
from seedcnn.terminal import prose

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from seedcnn.evaluate import Answers, Evaluated
    from seedcnn.evaluate.robustness_runs import SeededRobustness, Summary
    from seedcnn.evaluate.styles import StyleTable

__all__ = ["print_tables"]

_LISTED, _WORST = 20, 20
_WIDTH = 120  # where the output is a file or a pipe


def _told(summary: Summary) -> str:
    spread = "" if summary.std is None else f" ± {summary.std:.2f}"
    interval = "" if summary.interval is None else " [{:.2f}, {:.2f}]".format(*summary.interval)
    return f"{summary.mean:.2f}{spread}{interval}"


def _columns(first: str, names: Sequence[str]) -> Table:
    from rich.table import Table

    table = Table()
    for name in (first, *names):
        table.add_column(name, overflow="fold")
    return table


def _corruption_rows(table: Table, corrupted: Mapping[str, SeededRobustness]) -> str:
    """Add the rows, and return the remarks to print below the table."""
    from seedcnn.data.corruptions import CORRUPTIONS
    from seedcnn.evaluate.robustness_runs import FIGURES, footnote

    results = list(corrupted.values())
    first, seeds = results[0].tables[0], len(results[0].tables)
    times = f"n = {first.n} x {len(first.severities)}" + (f" x {seeds} seeds" if seeds > 1 else "")
    for kind in first.accuracies:
        table.add_row(f"{kind} ({times})", *(result.told_mean(kind) for result in results))
    summaries = [result.summary() for result in results]
    for figure, title in FIGURES.items():
        found = [summary for row in summaries if (summary := row[figure]) is not None]
        if found:
            part = f" ({len(first.accuracies)} measured)" if len(first.accuracies) < len(CORRUPTIONS) else ""
            told = title + (part if figure.startswith("mean_over") else "")
            table.add_row(told, *map(_told, found))
    seen = footnote([result.seen for result in results])
    about = (f"{seen} " if seen else "") + "In brackets: 95 % of a bootstrap over images. "
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


def _confusion_table(found: Answers, width: int) -> Table:
    """Classes by answer if they fit the width, otherwise the pairs that occur most often."""
    from rich.table import Table

    from seedcnn.evaluate.answers import READABLE

    count = len(found.classes)
    cell = max(len(str(count)), len(str(found.confusion.max()))) + 3
    if count > READABLE or max(map(len, found.classes)) + 8 + cell * count > width:
        table = Table("true class", "answer", "images")
        for pair in found.confused(_LISTED):
            table.add_row(pair.label, pair.answer, str(pair.count))
        return table
    table = Table("true class, number", *(str(label + 1) for label in range(count)))
    for label, (name, row) in enumerate(zip(found.classes, found.confusion.tolist(), strict=True)):
        table.add_row(f"{name}, {label + 1}", *(str(each) if each else "" for each in row))
    return table


def _class_table(answers: Mapping[str, Answers]) -> Table:
    """Accuracy by class, of many classes the worst ones of the first model."""
    table = _columns("by class", list(answers))
    for label in next(iter(answers.values())).hardest():
        rows = [each.by_class[label] for each in answers.values()]
        cells = ["no image" if row.top1 is None else f"{row.top1:.1f} ± {row.standard_error:.1f}" for row in rows]
        table.add_row(f"{rows[0].name} (n = {rows[0].n})", *cells)
    return table


def _print_details(console: Console, answers: Mapping[str, Answers]) -> None:
    """Print accuracy by class, the classes confused, and the worst answers."""
    from rich.table import Table

    console.print(_class_table(answers))
    first = next(iter(answers.values()))
    if (shown := len(first.hardest())) < len(first.classes):
        prose(console, f"the {shown} classes of {len(first.classes)} that the first model answers worst")
    for name, found in answers.items():
        worst = found.worst(_WORST)
        if not worst:
            prose(console, f"{name}: no wrong answer")
            continue
        prose(console, f"{name}, images by true class and answer:")
        console.print(_confusion_table(found, console.width))
        table = Table("worst answers", "true class", "answer")
        for each in worst:
            sides = (f"{each.label}, {100 * each.of_label:.1f} %", f"{each.answer}, {100 * each.confidence:.1f} %")
            table.add_row(each.name or f"image {each.index}", *sides)
        console.print(table)


def print_tables(found: Evaluated, *, details: bool = False) -> None:
    """Print everything as tables on standard output.

    Args:
        details: also accuracy by class, the classes confused, and the worst answers.
    """
    table = _columns("accuracy in %", list(found.clean))
    n = next(iter(found.clean.values())).n
    each = found.clean.values()
    table.add_row(f"clean, top-1 (n = {n})", *(f"{c.top1:.2f} ± {c.standard_error:.2f}" for c in each))
    if any(c.top5 is not None for c in each):
        table.add_row(f"clean, top-5 (n = {n})", *("-" if c.top5 is None else f"{c.top5:.2f}" for c in each))
    if found.styles:
        _style_rows(table, found.styles)
    if found.differences:
        names = list(found.differences.values())
        cells = [f"{each.points:+.2f} ± {each.standard_error:.2f} ({each.won} - {each.lost})" for each in names]
        table.add_row("less the first, points (won - lost)", "-", *cells)
    about = "Clean accuracy: ± standard error. "
    if found.differences:
        about += "Differences: over the same images, of which this many only the one or the other answers correctly. "
    if found.corrupted:
        about += _corruption_rows(table, found.corrupted)
    console = open_console(width=_WIDTH)
    console.print(table)
    prose(console, about)
    if details:
        _print_details(console, found.answers)
    if any(found.papers.values()):
        console.print(_paper_table(found))
        notes = {row.note: row for rows in found.papers.values() for row in rows if row.note}
        for note, row in notes.items():
            prose(console, f"{row.paper}, {row.table}: {note}")
