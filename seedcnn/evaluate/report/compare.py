"""The sections of the report on accuracy by style, and on the papers' printed numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from seedcnn.data.corruptions import GROUPS
from seedcnn.evaluate.beside import beside
from seedcnn.evaluate.papers import PaperRow
from seedcnn.evaluate.report.blocks import NOT_MEASURED, Cell, Column, Line, Section, Table, minus
from seedcnn.evaluate.report.rows import ModelRow
from seedcnn.evaluate.robustness_runs import SeededRobustness
from seedcnn.evaluate.styles import StyleTable

__all__ = ["Papers", "papers_section", "styles_section"]

_HELD_OUT = "held out"


@dataclass(frozen=True)
class Papers:
    """The section on the papers: a sentence or two about it, a table for each data set, and notes."""

    about: str
    tables: Mapping[str, Table]
    notes: Sequence[str]


def _style_cell(found: StyleTable | None, style: str, *, n: bool, mark: bool) -> Cell:
    if found is None or style not in found.accuracies:
        return NOT_MEASURED
    accuracy = found.accuracies[style]
    small = [f"n = {accuracy.n:,}"] if n else []
    small += [_HELD_OUT] if mark and style in found.held_out else []
    return Cell(f"{accuracy.top1:.2f} ± {accuracy.standard_error:.2f}", small)


def _style_row(style: str, names: Sequence[str], styles: Mapping[str, StyleTable]) -> Line:
    """One line; what all models share is said once, below the style's name."""
    known = [each for each in styles.values() if style in each.accuracies]
    counts = {each.accuracies[style].n for each in known}
    held = {style in each.held_out for each in known}
    small = ", ".join(
        ([f"n = {counts.copy().pop():,}"] if len(counts) == 1 else []) + ([_HELD_OUT] if held == {True} else [])
    )
    cells = [_style_cell(styles.get(name), style, n=len(counts) > 1, mark=len(held) > 1) for name in names]
    return Line(style, small, cells, mark="held" if held == {True} else "")


def _mean_cell(found: StyleTable | None, *, which: bool) -> Cell:
    mean = None if found is None else found.mean_held_out
    if found is None or mean is None:
        return NOT_MEASURED
    return Cell(f"{mean:.2f} ± {found.standard_error:.2f}", [f"of {', '.join(found.held_out)}"] if which else [])


def styles_section(names: Sequence[str], styles: Mapping[str, StyleTable]) -> Section:
    """Accuracy by style with held-out styles marked, and the mean over those."""
    order = dict.fromkeys(style for name in names if name in styles for style in styles[name].accuracies)
    held = [style for style in order if any(style in each.held_out for each in styles.values())]
    lines = [_style_row(style, names, styles) for style in [*held, *(style for style in order if style not in held)]]
    bodies = [lines]
    if held:
        alike = len({frozenset(each.held_out) for each in styles.values()}) == 1
        told = f"over the {len(held)} held out" if alike else "over held-out styles"
        cells = [_mean_cell(styles.get(name), which=not alike) for name in names]
        bodies.append([Line("Mean", told, cells, mark="group")])
    about = "Top-1 accuracy in percent ± standard error."
    if held:
        about += (
            " Held-out styles were not trained on. In their mean each style counts once, however many images it has."
        )
    return Section(about, Table("Style", [Column(name) for name in names], bodies, "figures"))


def _paper_cell(paper: PaperRow, key: str, ours: Sequence[tuple[str, float]]) -> Cell:
    if key not in paper.values:
        return Cell("not printed", absent=True)
    printed = paper.values[key]
    spread = f" ± {paper.spread[key]:.2f}" if key in paper.spread else ""
    small = []
    for word, value in ours:
        small.append(f"ours {value:.2f}, {minus(value - printed)}{f' ({word})' if word else ''}")
    return Cell(f"{printed:.2f}{spread}", small or ["ours not measured"])


def papers_section(
    rows: Sequence[ModelRow],
    papers: Mapping[str, Sequence[PaperRow]],
    results: Mapping[str, SeededRobustness],
    styles: Mapping[str, StyleTable],
) -> Papers | None:
    """The papers' rows: their printed number, ours where it is the same quantity, and the difference."""
    listed = [(model, paper) for model in rows for paper in papers.get(model.name, ())]
    if not listed:
        return None
    tables = {}
    for dataset in dict.fromkeys(paper.dataset for _, paper in listed):
        here = [(model, paper) for model, paper in listed if paper.dataset == dataset]
        keys = list(dict.fromkeys(key for _, paper in here for key in paper.values))
        lines = []
        for model, paper in here:
            found = {
                key: list(beside(paper, key, model.accuracy.value, results.get(model.name), styles.get(model.name)))
                for key in keys
            }
            source = f"{paper.paper}, {paper.table}: {paper.model}, {paper.method}"
            lines.append(Line(model.name, source, [_paper_cell(paper, key, found[key]) for key in keys]))
        tables[dataset] = Table("Model", [Column(key) for key in keys], [lines], "figures papers")
    about = "Top-1 accuracy in percent as the papers print it; below it ours, and the difference, ours minus printed."
    if any("mean" in paper.values and set(GROUPS) & set(paper.values) for _, paper in listed):
        about += " The papers' mean is over groups or over corruptions, so both of ours are shown."
    return Papers(about, tables, _notes(paper for _, paper in listed))


def _notes(papers: Iterable[PaperRow]) -> list[str]:
    """Each note once, with the tables and methods it is about."""
    notes: dict[str, dict[str, dict[str, None]]] = {}
    for paper in papers:
        if paper.note:
            notes.setdefault(paper.note, {}).setdefault(f"{paper.paper}, {paper.table}", {})[paper.method] = None
    items = []
    for note, tables in notes.items():
        about = "; ".join(f"{table} ({', '.join(methods)})" for table, methods in tables.items())
        items.append(f"{about}: {note}")
    return items
