"""Plots of the report as matplotlib SVGs, with the same bytes for the same input.

They are drawn without pyplot, so no global state changes. Colours are placeholders that become CSS variables, so that a
plot follows the page's light or dark theme.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.markers import MarkerStyle
from matplotlib.path import Path

__all__ = ["MARKERS", "SERIES", "bar_plot", "key_symbol", "severity_plot"]

SERIES = 12  # colours in the page's style sheet
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", "p", ">", "d")
_DASHES: tuple[tuple[float, ...], ...] = ((), (5, 1.5), (1.5, 1.5), (5, 1.5, 1.5, 1.5), (3, 1))  # in line widths
_INK, _MUTED, _GRID = "#010101", "#020202", "#030303"
_PLACEHOLDERS = {_INK: "currentColor", _MUTED: "var(--muted)", _GRID: "var(--line)"} | {
    f"#0400{i:02x}": f"var(--series-{i + 1})" for i in range(SERIES)
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "seedcnn-report",
    "font.size": 9,
    "text.color": _INK,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _MUTED,
    "xtick.color": _GRID,
    "ytick.color": _GRID,
    "xtick.labelcolor": _MUTED,
    "ytick.labelcolor": _MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
}
_LONGEST_NAME = 44
_COMMANDS = {int(Path.MOVETO): "M", int(Path.LINETO): "L", int(Path.CURVE3): "Q", int(Path.CURVE4): "C"}


def _colour(index: int) -> str:
    return f"#0400{index % SERIES:02x}"


def _marker(index: int) -> str:
    return MARKERS[(index + index // SERIES) % len(MARKERS)]


def _dash(index: int) -> tuple[float, ...]:
    # Five dashes and twelve colours and markers make sixty lines that can be told apart.
    return _DASHES[index % len(_DASHES)]


def key_symbol(index: int) -> str:
    """The line and marker of one series as a small inline ``<svg>``, drawn as in the plots, for the legend."""
    shape = MarkerStyle(_marker(index))
    outline = shape.get_path().transformed(shape.get_transform())
    pieces = []
    for points, code in outline.iter_segments(curves=True):
        numbers = " ".join(f"{x:.3g},{-y:.3g}" for x, y in points.reshape(-1, 2))
        pieces.append("Z" if code == outline.CLOSEPOLY else f"{_COMMANDS[int(code)]}{numbers}")
    colour = f"var(--series-{index % SERIES + 1})"
    dashes = " ".join(f"{2 * length:g}" for length in _dash(index)) or "none"
    return (
        '<svg viewBox="0 0 34 12" aria-hidden="true">'
        f'<path d="M0 6h34" stroke="{colour}" stroke-width="2" stroke-dasharray="{dashes}"/>'
        f'<path transform="translate(17 6) scale(9)" fill="{colour}" d="{"".join(pieces)}"/></svg>'
    )


def _to_svg(figure: Figure, prefix: str, label: str) -> str:
    """Inline SVG without prolog, metadata or a size of its own, and with ids that are unique in the page."""
    buffer = io.StringIO()
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=no_metadata)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    head, body = svg.split(">", 1)
    view_box = re.search(r'viewBox="[^"]*"', head)
    if view_box is None:
        raise RuntimeError("matplotlib wrote an SVG without a viewBox")
    body = re.sub(r'\bid="', f'id="{prefix}-', body)
    body = body.replace("url(#", f"url(#{prefix}-").replace('xlink:href="#', f'href="#{prefix}-')
    for placeholder, variable in _PLACEHOLDERS.items():
        body = body.replace(placeholder, variable)
    body = re.sub(r"\n\s*", "\n", body).strip()
    return f'<svg {view_box[0]} role="img" aria-label="{escape(label)}">{body}'


def _axes(figure: Figure, rectangle: tuple[float, float, float, float]) -> Axes:
    axes = figure.add_axes(rectangle)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0)
    axes.set_axisbelow(True)
    return axes


def severity_plot(
    prefix: str,
    name: str,
    severities: Sequence[int],
    lines: Mapping[str, Sequence[float]],
    limits: tuple[float, float],
    clean: Mapping[str, float],
    *,
    large: bool = False,
) -> str:
    """Accuracy in percent by severity, with a line for each model; severity 0 is the clean image.

    Args:
        prefix: prefix of the ids in the SVG.
        name: name of the corruption, for the alternative text.
        severities: S severities.
        lines: S numbers by model, in the order of the series.
        limits: limits of the vertical axis.
        clean: accuracy on clean images by model.
        large: draw a larger plot, for many lines.

    Returns:
        An inline ``<svg>`` element.
    """
    order = sorted(range(len(severities)), key=lambda i: severities[i])
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(4.0, 3.1) if large else (2.9, 2.1))
        axes = _axes(figure, (0.09, 0.11, 0.89, 0.85) if large else (0.12, 0.17, 0.855, 0.78))
        for index, (model, values) in enumerate(lines.items()):
            axes.plot(
                [0, *(severities[i] for i in order)],
                [clean[model], *(values[i] for i in order)],
                color=_colour(index),
                linestyle=(0, _dash(index)) if _dash(index) else "-",
                marker=_marker(index),
                markersize=4.2,
                linewidth=1.3 if large else 1.6,
                clip_on=False,
            )
        axes.set_ylim(*limits)
        axes.set_xticks([0, *sorted(severities)], ["clean", *map(str, sorted(severities))])
        axes.tick_params(axis="x", pad=6)  # keeps clear of the lowest number of the other axis
        axes.set_xlim(-0.25, max(severities) + 0.2)
        axes.grid(axis="y", color=_GRID, linewidth=0.7)
        told = "; ".join(f"{model}: {', '.join(f'{values[i]:.1f}' for i in order)}" for model, values in lines.items())
        label = f"Accuracy in percent under {name} at severity {', '.join(str(severities[i]) for i in order)}. {told}"
        return _to_svg(figure, prefix, label)


def bar_plot(
    prefix: str,
    name: str,
    values: Mapping[str, float],
    texts: Mapping[str, str],
    spreads: Mapping[str, float],
    series: Mapping[str, int],
) -> str:
    """One horizontal bar for each model, with its name above and its value at its end.

    Args:
        prefix: prefix of the ids in the SVG.
        name: the quantity, for the alternative text.
        values: numbers by model, not negative.
        texts: the numbers as they are printed.
        spreads: half lengths of the error bars, for the models that have one.
        series: index of the colour by model, the same as in the other plots.

    Returns:
        An inline ``<svg>`` element.
    """
    with mpl.rc_context(_STYLE):
        count = len(values)
        figure = Figure(figsize=(4.4, 0.18 + 0.5 * count))
        axes = _axes(figure, (0.004, 0.02, 0.992, 0.96))
        axes.spines["bottom"].set_visible(False)
        longest = max(value + spreads.get(model, 0) for model, value in values.items()) or 1.0
        for index, (model, value) in enumerate(values.items()):
            spread = spreads.get(model)
            axes.barh(index, value, height=0.38, color=_colour(series[model]))
            if spread is not None:
                axes.errorbar(value, index, xerr=spread, color=_INK, linewidth=1, capsize=2.5)
            short = model if len(model) <= _LONGEST_NAME else f"{model[: _LONGEST_NAME - 1]}…"
            axes.text(0, index - 0.27, short, parse_math=False, va="bottom")
            end = value + (spread or 0) + longest * 0.02
            axes.text(end, index, texts[model], va="center", color=_MUTED, parse_math=False)
        axes.set_ylim(count - 0.7, -0.75)
        axes.set_xlim(0, longest * 1.36)
        axes.set_xticks([])
        axes.set_yticks([])
        told = "; ".join(f"{model}: {text}" for model, text in texts.items())
        return _to_svg(figure, prefix, f"{name}. {told}")
