"""The sections of the report on corrupted images: curves by severity, heat map, averages, and all the numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from seedcnn.data.corruptions import CORRUPTIONS, GROUPS
from seedcnn.evaluate.report.blocks import NOT_MEASURED, Cell, Column, Line, Plot, Section, Table, words
from seedcnn.evaluate.report.plots import key_symbol, severity_plot
from seedcnn.evaluate.report.rows import ModelRow
from seedcnn.evaluate.robustness_runs import FIGURES, MARK, SeededRobustness, Summary, footnote

__all__ = ["HEAT_STEPS", "Heat", "Severity", "averages_section", "heat_section", "severity_section"]

Results = Mapping[str, SeededRobustness]
HEAT_STEPS = 12  # colours in the page's style sheet
_CROWD = 6  # more lines than this need a larger plot


@dataclass(frozen=True)
class Heat:
    """The heat map: a sentence about it, the ends of its scale in percent, the number of its colours, and the table."""

    about: str
    low: int
    high: int
    table: Table
    steps: int = HEAT_STEPS


@dataclass(frozen=True)
class Severity:
    """Accuracy by severity: the key of the lines, the plots, and the table of the numbers behind them, with a note."""

    about: str
    key: Sequence[Plot]
    plots: Sequence[Plot]
    large: bool
    table: Table
    note: str


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _over_seeds(values: Sequence[float], random: bool = True) -> str:
    """Mean and standard deviation (n - 1); no deviation for a single value, or where nothing is random."""
    told = f"{_mean(values):.2f}"
    told_spread = len(values) > 1 and (random or len(set(values)) > 1)
    return f"{told} ± {np.std(values, ddof=1):.2f}" if told_spread else told


def _conditions(result: SeededRobustness) -> str:
    first, seeds = result.tables[0], [str(each.seed) for each in result.tables]
    drawn = f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds ({', '.join(seeds)})"
    return f"{first.n:,} images each, {first.constants} constants, {drawn}"


def _clean(rows: Sequence[ModelRow], results: Results) -> tuple[dict[str, float], str]:
    """The first point of each line and a sentence about it: accuracy on the same images, if every model has it."""
    same = {name: result.tables[0].clean for name, result in results.items()}
    known = {name: value for name, value in same.items() if value is not None}
    if len(known) == len(rows):
        return known, "The first point is the accuracy on the same images, uncorrupted."
    return {row.name: row.accuracy.value for row in rows}, "The first point is the accuracy of the first table."


def _curve(result: SeededRobustness, corruption: str) -> list[float]:
    """Mean over seeds, one number for each severity."""
    by_seed = [each.accuracies[corruption] for each in result.tables]
    return [_mean(column) for column in zip(*by_seed, strict=True)]


def severity_section(rows: Sequence[ModelRow], results: Results) -> Severity:
    """Accuracy by severity: a plot for each corruption, a line for each model, and the numbers behind them."""
    names = [row.name for row in rows]
    first = results[names[0]].tables[0]
    clean, sentence = _clean(rows, results)
    curves = {kind: {name: _curve(results[name], kind) for name in names} for kind in first.accuracies}
    everything = [*clean.values(), *(v for lines in curves.values() for line in lines.values() for v in line)]
    limits = (max(0.0, 10 * math.floor(min(everything) / 10)), min(100.0, 10 * math.ceil(max(everything) / 10)))
    if limits[0] == limits[1]:
        limits = (max(0.0, limits[0] - 10), limits[1])
    large = len(names) > _CROWD
    plots = []
    for number, (corruption, lines) in enumerate(curves.items()):
        name = words(corruption)
        svg = severity_plot(f"s{number}", name, first.severities, lines, limits, clean, large=large)
        plots.append(Plot(name, Markup(svg), CORRUPTIONS[corruption].group))
    seeds = len(results[names[0]].tables)
    drawn = "; the lines are the mean over seeds" if seeds > 1 else ""
    about = f"Top-1 accuracy in percent by severity, {_conditions(results[names[0]])}{drawn}. {sentence}"
    spread = f"Mean ± standard deviation over {seeds} seeds; none where nothing in a corruption is random."
    key = [Plot(name, Markup(key_symbol(index))) for index, name in enumerate(names)]
    note = " ".join(filter(None, (spread if drawn else "", footnote([results[name].seen for name in names]))))
    return Severity(about, key, plots, large, _numbers(names, results), note)


def _numbers(names: Sequence[str], results: Results) -> Table:
    found = [results[name].tables for name in names]
    first = found[0][0]

    def line(
        title: str, small: str, by_model: Sequence[Sequence[float]], random: bool = True, mark: str = "", kind: str = ""
    ) -> Line:
        stars = [MARK * (kind in results[name].seen) for name in names]
        cells = [Cell(_over_seeds(values, random) + star) for values, star in zip(by_model, stars, strict=True)]
        return Line(title, small, cells, mark=mark)

    bodies = []
    for corruption in first.accuracies:
        random, title, body = CORRUPTIONS[corruption].draw is not None, words(corruption), []
        for index, severity in enumerate(first.severities):
            values = [[each.accuracies[corruption][index] for each in tables] for tables in found]
            body.append(line(title, f"severity {severity}", values, random, kind=corruption))
        means = [[each.corruption_means[corruption] for each in tables] for tables in found]
        body.append(line(title, "mean over severities", means, random, "averages", corruption))
        bodies.append(body)
    body = []
    for group in first.group_means:
        body.append(line(group, "group mean", [[t.group_means[group] for t in tables] for tables in found]))
    corruptions = [[each.mean_over_corruptions for each in tables] for tables in found]
    groups = [[each.mean_over_groups for each in tables] for tables in found]
    body += [line("Mean", "over corruptions", corruptions), line("Mean", "over groups", groups)]
    return Table("Condition", [Column(name) for name in names], [*bodies, body], "numbers")


def heat_section(names: Sequence[str], results: Results) -> Heat:
    """Mean over severities and seeds by corruption and model, on a background that grows stronger with the number."""
    corruptions = list(results[names[0]].tables[0].accuracies)
    values = {name: {kind: results[name].corruption_mean(kind) for kind in corruptions} for name in names}
    every = [value for columns in values.values() for value in columns.values()]
    low, high = math.floor(min(every)), math.ceil(max(every))

    def heat(value: float, seen: bool = False) -> Cell:
        step = int((value - low) / (high - low) * HEAT_STEPS) if high > low else 0
        return Cell(f"{value:.1f}{MARK * seen}", mark=f"h{min(step, HEAT_STEPS - 1)}")

    bodies, means = [], []
    for group in GROUPS:
        members = [kind for kind in corruptions if CORRUPTIONS[kind].group == group]
        if members:
            mean = [_mean([values[name][kind] for kind in members]) for name in names]
            means.append(mean)
            lines = [
                Line(words(kind), "", [heat(values[name][kind], kind in results[name].seen) for name in names])
                for kind in members
            ]
            bodies.append([Line(group, f"mean of {len(members)}", [heat(v) for v in mean], "group"), *lines])
    over_groups = [_mean(column) for column in zip(*means, strict=True)]
    over_kinds = [_mean(list(values[name].values())) for name in names]
    last = [("over groups", over_groups), ("over corruptions", over_kinds)]
    bodies.append([Line("Mean", small, [heat(v) for v in line], "group") for small, line in last])
    seeds = len(results[names[0]].tables)
    about = f"Top-1 accuracy in percent, mean over severities{f' and {seeds} seeds' if seeds > 1 else ''}. "
    about += "The stronger the colour, the higher the number."
    if seen := footnote([results[name].seen for name in names]):
        about += f" {seen}"
    return Heat(about, low, high, Table("Corruption", [Column(name) for name in names], bodies, "heat"))


def _capital(text: str) -> str:
    # Not for mCE.
    return text if text[1].isupper() else text[0].upper() + text[1:]


def _summary_cell(summary: Summary | None) -> Cell:
    if summary is None:
        return NOT_MEASURED
    spread = "" if summary.std is None else f" ± {summary.std:.2f}"
    small = [] if summary.interval is None else ["[{:.2f}, {:.2f}]".format(*summary.interval)]
    return Cell(f"{summary.mean:.2f}{spread}", small)


def averages_section(names: Sequence[str], results: Results) -> Section:
    """Both averages, mean corruption error, mCE and relative mCE, with spread over seeds and interval over images."""
    first = results[names[0]]
    summaries = [results[name].summary() for name in names]
    measured = len(first.tables[0].accuracies)
    part = f"{measured} measured" if measured < len(CORRUPTIONS) else ""
    lines = []
    for figure, title in FIGURES.items():
        found = [each[figure] for each in summaries]
        if any(summary is not None for summary in found):
            what, _, of = title.partition(", ")
            small = ", ".join(filter(None, (of, part if figure.startswith("mean_over") else "")))
            lines.append(Line(_capital(what), small, [_summary_cell(summary) for summary in found]))
    about = f"{_conditions(first)}."
    if len(first.tables) > 1:
        about += f" ± standard deviation over {len(first.tables)} seeds of the corruptions."
    if any(summary is not None and summary.interval is not None for each in summaries for summary in each.values()):
        about += (
            " In brackets: 95 % of a bootstrap over images, which is for other images of the same kind; it covers "
            "neither another draw of the corruptions nor another training."
        )
    if any(each["mce_15"] is not None for each in summaries):
        about += (
            " mCE divides each corruption's error by AlexNet's on ImageNet-C; for other images it is a weighting, "
            "not comparable with published values. Errors: lower is better."
        )
    else:
        about += " No mCE: it needs the standard 15 corruptions at all five severities."
    return Section(about, Table("Average", [Column(name) for name in names], [lines], "figures"))
