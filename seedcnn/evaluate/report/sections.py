"""The sections of the report that come with every model, as HTML with every text from outside escaped."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import numpy.typing as npt
from PIL import Image

from seedcnn.evaluate.report.html import NONE, box, cell, head, minus, row, table
from seedcnn.evaluate.report.plots import bar_plot
from seedcnn.evaluate.report.rows import Measured, ModelRow, Sample, format_bytes

__all__ = [
    "bars_section",
    "headline",
    "notes_section",
    "samples_section",
    "settings_section",
]


_PIXELS = 96  # the longest side of a picture that is shown pixel by pixel


def _ratio(value: float, base: float) -> str:
    if not base:
        return "no ratio to 0" if value else "equal"
    return f"{value / base:.3g} \N{MULTIPLICATION SIGN}"


def _points(value: float, base: float) -> str:
    return f"{_ratio(value, base)}, {minus(value - base)} points"


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
    _Line("Accuracy", "top-1, %", lambda model: model.accuracy, "{:.2f}".format, _points),
    _Line("Top-5 accuracy", "%", lambda model: model.top5, "{:.2f}".format, _points),
    _Line("Corrupted accuracy", "top-1, %", lambda model: model.corrupted, "{:.2f}".format, _points),
    _Line("Learnable parameters", "", lambda model: _plain(model.parameters), _count, _ratio),
    _Line("MACs", "per picture", lambda model: _plain(model.macs), _count, _ratio),
    _Line("NLF evaluations", "per picture", lambda model: _plain(model.nlf_evaluations), _count, _ratio),
    _Line("Bundle", "bytes on the wire", lambda model: _plain(model.bundle_bytes), _count, _ratio),
    _Line("Device latency", "ms per picture", lambda model: model.latency_ms, "{:.3f}".format, _ratio),
)


def _known(measured: Measured | None) -> str:
    if measured is None:
        return ""
    return ", ".join(
        ([f"n = {measured.n:,}"] if measured.n is not None else []) + [measured.note] * bool(measured.note)
    )


def _cell(line: _Line, model: ModelRow, first: ModelRow, *, known: bool) -> str:
    measured, base = line.get(model), line.get(first)
    if measured is None:
        return f"<td>{NONE}</td>"
    spread = "" if measured.spread is None else f" ± {line.show(measured.spread)}"
    small = []
    if model is not first and base is not None:
        small.append(line.compare(measured.value, base.value))
    small += [told] if known and (told := _known(measured)) else []
    return cell(f"{line.show(measured.value)}{spread}", small)


def _row(line: _Line, rows: Sequence[ModelRow]) -> str:
    """What the numbers of all models were measured on is told once, below the line's name."""
    known = {_known(measured) for model in rows if (measured := line.get(model)) is not None}
    shared = known.copy().pop() if len(known) == 1 else ""
    small = "; ".join(filter(None, (line.unit, shared)))
    return row(line.name, small, [_cell(line, model, rows[0], known=not shared) for model in rows])


def headline(rows: Sequence[ModelRow]) -> str:
    """The table of all figures: one column a model, ratios to the first. Lines that no model has are left out."""
    first = rows[0]
    lines = [line for line in _LINES if any(line.get(model) is not None for model in rows)]
    body = [_row(line, rows) for line in lines]
    names = [model.name for model in rows]
    small = ["reference", *[""] * (len(rows) - 1)] if len(rows) > 1 else []
    about = f"Small print: ratio to {escape(first.name)}, and what the number was measured on."
    if len(rows) == 1:
        about = "Small print: what the number was measured on."
    told = box("Models side by side", table(head("Measure", names, small), [body]))
    return f'<h2>At a glance</h2><p class="about">{about}</p>{told}'


def bars_section(rows: Sequence[ModelRow]) -> str:
    """Bundle bytes and device latency as bars."""
    sizes = {model.name: model.bundle_bytes for model in rows if model.bundle_bytes is not None}
    times = {model.name: model.latency_ms for model in rows if model.latency_ms is not None}
    series = {model.name: index for index, model in enumerate(rows)}
    figures = []
    if sizes:
        texts = {name: format_bytes(size) for name, size in sizes.items()}
        figures.append(("Bundle size", bar_plot("b0", "Bundle size", sizes, texts, {}, series)))
    if times:
        values = {name: time.value for name, time in times.items()}
        spreads = {name: time.spread for name, time in times.items() if time.spread is not None}
        texts = {name: f"{time.value:.3f} ms" for name, time in times.items()}
        figures.append(("Device latency per picture", bar_plot("b1", "Device latency", values, texts, spreads, series)))
    if not figures:
        return ""
    drawn = "".join(f"<figure><figcaption>{name}</figcaption>{plot}</figure>" for name, plot in figures)
    return f'<h2>Bytes and latency</h2><div class="plots bars">{drawn}</div>'


def _picture(image: npt.NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image, "RGB").save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _kind(image: npt.NDArray[np.uint8]) -> str:
    # A small picture is enlarged pixel by pixel, a large one is smoothed down.
    height, width = image.shape[:2]
    kind = 'class="pixels" ' if max(height, width) <= _PIXELS else ""
    return f'{kind}width="{width}" height="{height}"'


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
            f'<figure><img {_kind(sample.image)} src="{_picture(sample.image)}" alt="{alt}">'
            f"<figcaption><b>{escape(sample.label)}</b>{escape(sample.caption)}<ul>{''.join(items)}</ul></figcaption></figure>"
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
