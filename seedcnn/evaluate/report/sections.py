"""The sections that every report has, as data for the template."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from PIL import Image

from seedcnn.evaluate.report.blocks import NOT_MEASURED, Cell, Column, Line, Plot, Section, Table, minus
from seedcnn.evaluate.report.plots import bar_plot
from seedcnn.evaluate.report.rows import Measured, ModelRow, Sample, format_bytes

__all__ = ["Answer", "SampleImage", "bars_section", "headline", "samples_section"]

_PIXELS = 96  # an image whose longer side is at most this is enlarged pixel by pixel


def _ratio(value: float, base: float) -> str:
    if not base:
        return "no ratio to 0" if value else "equal"
    return f"{value / base:.3g} \N{MULTIPLICATION SIGN}"


def _points(value: float, base: float) -> str:
    return f"{_ratio(value, base)}, {minus(value - base)} points"


def _plain(value: int | None) -> Measured | None:
    return None if value is None else Measured(value)


@dataclass(frozen=True)
class _Figure:
    """One line of the headline table: its value for a model, and how to print and compare it."""

    name: str
    unit: str
    get: Callable[[ModelRow], Measured | None]
    show: Callable[[float], str]
    compare: Callable[[float, float], str]


def _count(value: float) -> str:
    return f"{value:,.0f}"


_FIGURES = (
    _Figure("Accuracy", "top-1, %", lambda model: model.accuracy, "{:.2f}".format, _points),
    _Figure("Top-5 accuracy", "%", lambda model: model.top5, "{:.2f}".format, _points),
    _Figure("Corrupted accuracy", "top-1, %", lambda model: model.corrupted, "{:.2f}".format, _points),
    _Figure("Learnable parameters", "", lambda model: _plain(model.parameters), _count, _ratio),
    _Figure("MACs", "per image", lambda model: _plain(model.macs), _count, _ratio),
    _Figure("NLF evaluations", "per image", lambda model: _plain(model.nlf_evaluations), _count, _ratio),
    _Figure("Bundle", "bytes on the wire", lambda model: _plain(model.bundle_bytes), _count, _ratio),
    _Figure("Device latency", "ms per image", lambda model: model.latency_ms, "{:.3f}".format, _ratio),
)


def _known(measured: Measured | None) -> str:
    if measured is None:
        return ""
    return ", ".join(
        ([f"n = {measured.n:,}"] if measured.n is not None else []) + [measured.note] * bool(measured.note)
    )


def _cell(figure: _Figure, model: ModelRow, first: ModelRow, *, known: bool) -> Cell:
    measured, base = figure.get(model), figure.get(first)
    if measured is None:
        return NOT_MEASURED
    spread = "" if measured.spread is None else f" ± {figure.show(measured.spread)}"
    small = []
    if model is not first and base is not None:
        small.append(figure.compare(measured.value, base.value))
    small += [told] if known and (told := _known(measured)) else []
    return Cell(f"{figure.show(measured.value)}{spread}", small)


def _row(figure: _Figure, rows: Sequence[ModelRow]) -> Line:
    """One line; what the numbers were measured on is said once, below its name, if it is the same for all models."""
    known = {_known(measured) for model in rows if (measured := figure.get(model)) is not None}
    shared = known.copy().pop() if len(known) == 1 else ""
    small = "; ".join(filter(None, (figure.unit, shared)))
    return Line(figure.name, small, [_cell(figure, model, rows[0], known=not shared) for model in rows])


def headline(rows: Sequence[ModelRow]) -> Section:
    """The table of all figures, with one column for each model; a figure that no model has is left out."""
    first = rows[0]
    figures = [figure for figure in _FIGURES if any(figure.get(model) is not None for model in rows)]
    columns = [Column(model.name, "reference" if model is first and len(rows) > 1 else "") for model in rows]
    about = f"Small print: the ratio to {first.name}, and what the number was measured on."
    if len(rows) == 1:
        about = "Small print: what the number was measured on."
    return Section(about, Table("Measure", columns, [[_row(figure, rows) for figure in figures]]))


def bars_section(rows: Sequence[ModelRow]) -> list[Plot]:
    """Bundle bytes and device latency as bars."""
    sizes = {model.name: model.bundle_bytes for model in rows if model.bundle_bytes is not None}
    times = {model.name: model.latency_ms for model in rows if model.latency_ms is not None}
    series = {model.name: index for index, model in enumerate(rows)}
    plots = []
    if sizes:
        texts = {name: format_bytes(size) for name, size in sizes.items()}
        plots.append(Plot("Bundle size", Markup(bar_plot("b0", "Bundle size", sizes, texts, {}, series))))
    if times:
        values = {name: time.value for name, time in times.items()}
        spreads = {name: time.spread for name, time in times.items() if time.spread is not None}
        texts = {name: f"{time.value:.3f} ms" for name, time in times.items()}
        svg = bar_plot("b1", "Device latency", values, texts, spreads, series)
        plots.append(Plot("Device latency per image", Markup(svg)))
    return plots


@dataclass(frozen=True)
class Answer:
    """A model's answer to an image, whether it is right, and how sure the model is."""

    model: str
    said: str
    right: bool
    sure: str = ""


@dataclass(frozen=True)
class SampleImage:
    """A sample as the page shows it, with its pixels in ``source``, a data URI.

    A small image is ``enlarged`` pixel by pixel; a large one is scaled down smoothly.
    """

    source: str
    width: int
    height: int
    enlarged: bool
    label: str
    caption: str
    answers: Sequence[Answer]


def _source(image: npt.NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def samples_section(samples: Sequence[Sample]) -> list[SampleImage]:
    """Images with every model's answer."""
    images = []
    for sample in samples:
        height, width = sample.image.shape[:2]
        answers = [
            Answer(model, said, said == sample.label, sample.sure.get(model, ""))
            for model, said in sample.predictions.items()
        ]
        enlarged = max(height, width) <= _PIXELS
        image = SampleImage(_source(sample.image), width, height, enlarged, sample.label, sample.caption, answers)
        images.append(image)
    return images
