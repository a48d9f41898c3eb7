"""The sections of the report as HTML; every text that comes from outside is escaped here."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import numpy.typing as npt
from PIL import Image

from seedcnn.data.corruptions import CORRUPTIONS
from seedcnn.evaluate._report_plots import SERIES, bar_plot, severity_plot
from seedcnn.evaluate._report_rows import Measured, ModelRow, Sample, format_bytes
from seedcnn.evaluate.robustness import RobustnessTable

__all__ = [
    "bars_section",
    "headline",
    "notes_section",
    "samples_section",
    "settings_section",
    "severity_section",
]


def _ratio(value: float, base: float) -> str:
    if not base:
        return "no ratio to 0" if value else "equal"
    return f"{value / base:.3g} \N{MULTIPLICATION SIGN}"


def _points(value: float, base: float) -> str:
    sign = "\N{MINUS SIGN}" if round(value - base, 2) < 0 else "+"
    return f"{_ratio(value, base)}, {sign}{abs(value - base):.2f} points"


def _plain(value: int | None) -> Measured | None:
    return None if value is None else Measured(value)


@dataclass(frozen=True)
class _Line:
    """One line of the headline table."""

    name: str
    unit: str
    get: Callable[[ModelRow], Measured | None]
    show: Callable[[float], str]
    compare: Callable[[float, float], str]


def _count(value: float) -> str:
    return f"{value:,.0f}"


_LINES = (
    _Line("Accuracy", "top-1, %", lambda row: row.accuracy, "{:.2f}".format, _points),
    _Line("Corrupted accuracy", "top-1, %", lambda row: row.corrupted, "{:.2f}".format, _points),
    _Line("Learnable parameters", "", lambda row: _plain(row.parameters), _count, _ratio),
    _Line("MACs", "per picture", lambda row: _plain(row.macs), _count, _ratio),
    _Line("NLF evaluations", "per picture", lambda row: _plain(row.nlf_evaluations), _count, _ratio),
    _Line("Bundle", "bytes on the wire", lambda row: _plain(row.bundle_bytes), _count, _ratio),
    _Line("Device latency", "ms per picture", lambda row: row.latency_ms, "{:.3f}".format, _ratio),
)


def _cell(line: _Line, row: ModelRow, first: ModelRow) -> str:
    measured, base = line.get(row), line.get(first)
    if measured is None:
        return '<td><span class="none">not measured</span></td>'
    spread = "" if measured.spread is None else f" ± {line.show(measured.spread)}"
    small = []
    if row is not first and base is not None:
        small.append(line.compare(measured.value, base.value))
    known = [f"n = {measured.n:,}"] if measured.n is not None else []
    known += [measured.note] if measured.note else []
    small += [", ".join(known)] if known else []
    told = "".join(f"<small>{escape(text)}</small>" for text in small)
    return f'<td><span class="main">{line.show(measured.value)}{spread}</span>{told}</td>'


def _box(label: str, table: str) -> str:
    # Focusable, so that the keyboard can scroll it.
    return f'<div class="box" role="region" tabindex="0" aria-label="{escape(label)}">{table}</div>'


def headline(rows: Sequence[ModelRow]) -> str:
    """The table of all figures: one column a model, ratios to the first."""
    names = [f"{escape(row.name)}{'' if index else '<small>reference</small>'}" for index, row in enumerate(rows)]
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    body = []
    for line in _LINES:
        unit = f"<small>{line.unit}</small>" if line.unit else ""
        cells = "".join(_cell(line, row, rows[0]) for row in rows)
        body.append(f'<tr><th scope="row">{line.name}{unit}</th>{cells}</tr>')
    table = f'<table><thead><tr><th scope="col">Measure</th>{head}</tr></thead><tbody>{"".join(body)}</tbody></table>'
    about = f"Small print: ratio to {escape(rows[0].name)}, and what the number was measured on."
    return f'<h2>At a glance</h2><p class="about">{about}</p>{_box("Models side by side", table)}'


# As the lines and markers of the plots.
_DASHES = ("none", "8 2.5", "2.5 2.5", "8 2.5 2.5 2.5", "none", "5 2")
_SHAPES = (
    '<circle cx="17" cy="6" r="4"/>',
    '<path d="M13 2h8v8h-8z"/>',
    '<path d="M17 1.5l5 9h-10z"/>',
    '<path d="M17 1l5 5-5 5-5-5z"/>',
    '<path d="M17 10.5l5-9h-10z"/>',
    '<path d="M15 1h4v3h3v4h-3v3h-4V8h-3V4h3z"/>',
)


def _key(names: Sequence[str]) -> str:
    items = []
    for index, name in enumerate(names):
        colour = f"var(--series-{index % SERIES + 1})"
        dashes = _DASHES[index % len(_DASHES)]
        line = f'<path d="M0 6h34" stroke="{colour}" stroke-width="2" stroke-dasharray="{dashes}"/>'
        shape = f'<g fill="{colour}">{_SHAPES[index % len(_SHAPES)]}</g>'
        items.append(f'<li><svg viewBox="0 0 34 12" aria-hidden="true">{line}{shape}</svg>{escape(name)}</li>')
    return f'<ul class="key">{"".join(items)}</ul>'


def _words(name: str) -> str:
    return name.replace("_", " ")


def severity_section(rows: Sequence[ModelRow], robustness: Mapping[str, RobustnessTable]) -> str:
    """Accuracy by severity: one plot a corruption, one line a model, and the numbers behind them."""
    first = robustness[rows[0].name]
    clean = {row.name: row.accuracy.value for row in rows}
    everything = [*clean.values(), *(v for t in robustness.values() for line in t.accuracies.values() for v in line)]
    limits = (max(0.0, 10 * math.floor(min(everything) / 10)), min(100.0, 10 * math.ceil(max(everything) / 10)))
    if limits[0] == limits[1]:
        limits = (max(0.0, limits[0] - 10), limits[1])
    figures = []
    for number, corruption in enumerate(first.accuracies):
        lines = {row.name: robustness[row.name].accuracies[corruption] for row in rows}
        plot = severity_plot(f"s{number}", _words(corruption), first.severities, lines, limits, clean)
        caption = f"{escape(_words(corruption))} <small>{CORRUPTIONS[corruption].group}</small>"
        figures.append(f"<figure><figcaption>{caption}</figcaption>{plot}</figure>")
    about = (
        f"Top-1 accuracy in percent by severity, {first.n:,} pictures each, {escape(first.constants)} constants, "
        f"seed {first.seed}. The first point is the clean accuracy of the table above."
    )
    return (
        f'<h2>Accuracy by severity</h2><p class="about">{about}</p>{_key([row.name for row in rows])}'
        f'<div class="plots">{"".join(figures)}</div>'
        f"<details><summary>The numbers behind the plots</summary>{_robustness_table(rows, robustness)}</details>"
    )


def _robustness_table(rows: Sequence[ModelRow], robustness: Mapping[str, RobustnessTable]) -> str:
    tables = [robustness[row.name] for row in rows]
    head = "".join(f'<th scope="col">{escape(row.name)}</th>' for row in rows)

    def line(name: str, small: str, values: Sequence[float], kind: str = "") -> str:
        cells = "".join(f"<td>{value:.2f}</td>" for value in values)
        return f'<tr{kind}><th scope="row">{escape(name)}<small>{small}</small></th>{cells}</tr>'

    body = []
    for corruption in tables[0].accuracies:
        for index, severity in enumerate(tables[0].severities):
            values = [table.accuracies[corruption][index] for table in tables]
            body.append(line(_words(corruption), f"severity {severity}", values))
        means = [table.corruption_means[corruption] for table in tables]
        body.append(line(_words(corruption), "mean over severities", means, ' class="averages"'))
    groups = tables[0].group_means
    body += [line(group, "group mean", [table.group_means[group] for table in tables]) for group in groups]
    body.append(line("Mean", "over corruptions", [t.mean_over_corruptions for t in tables], ' class="averages"'))
    body.append(line("Mean", "over groups", [table.mean_over_groups for table in tables]))
    table = f'<table><thead><tr><th scope="col">Condition</th>{head}</tr></thead><tbody>{"".join(body)}</tbody></table>'
    return _box("Accuracy by corruption and severity", table)


def bars_section(rows: Sequence[ModelRow]) -> str:
    """Bundle bytes and device latency as bars."""
    sizes = {row.name: row.bundle_bytes for row in rows if row.bundle_bytes is not None}
    times = {row.name: row.latency_ms for row in rows if row.latency_ms is not None}
    figures = []
    if sizes:
        texts = {name: format_bytes(size) for name, size in sizes.items()}
        figures.append(("Bundle size", bar_plot("b0", "Bundle size", sizes, texts, {})))
    if times:
        values = {name: time.value for name, time in times.items()}
        spreads = {name: time.spread for name, time in times.items() if time.spread is not None}
        texts = {name: f"{time.value:.3f} ms" for name, time in times.items()}
        figures.append(("Device latency per picture", bar_plot("b1", "Device latency", values, texts, spreads)))
    if not figures:
        return ""
    drawn = "".join(f"<figure><figcaption>{name}</figcaption>{plot}</figure>" for name, plot in figures)
    return f'<h2>Bytes and latency</h2><div class="plots bars">{drawn}</div>'


def _picture(image: npt.NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image, "RGB").save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def samples_section(samples: Sequence[Sample]) -> str:
    """Corrupted pictures with every model's answer, right and wrong told apart by more than colour."""
    if not samples:
        return ""
    figures = []
    for sample in samples:
        items = []
        for model, said in sample.predictions.items():
            kind, mark = ("right", "✓") if said == sample.label else ("wrong", "✗")
            items.append(
                f'<li class="{kind}"><span class="mark" aria-hidden="true">{mark}</span>'
                f'<span class="said">{escape(said)}</span><span class="unseen"> ({kind})</span> '
                f'<span class="model">{escape(model)}</span></li>'
            )
        alt = escape(f"{sample.label}, {sample.caption}")
        figures.append(
            f'<figure><img src="{_picture(sample.image)}" alt="{alt}"><figcaption><b>{escape(sample.label)}</b>'
            f"{escape(sample.caption)}<ul>{''.join(items)}</ul></figcaption></figure>"
        )
    about = "What the models see, the true class in bold, and what each answers: ✓ right, ✗ wrong."
    return f'<h2>Corrupted pictures</h2><p class="about">{about}</p><div class="samples">{"".join(figures)}</div>'


def settings_section(settings: Mapping[str, str]) -> str:
    """Settings and versions as a list."""
    if not settings:
        return ""
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in settings.items())
    return f"<h2>Settings and versions</h2><dl>{items}</dl>"


def notes_section(notes: Sequence[str]) -> str:
    """Plain sentences."""
    if not notes:
        return ""
    return f'<h2>Notes</h2><ul class="notes">{"".join(f"<li>{escape(note)}</li>" for note in notes)}</ul>'
