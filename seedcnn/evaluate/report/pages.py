"""One self-contained HTML file that shows what was measured: no script, no external resource, every text escaped."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined, Template

from seedcnn.evaluate.answers import Answers
from seedcnn.evaluate.papers import PaperRow
from seedcnn.evaluate.report.answers import answer_sections
from seedcnn.evaluate.report.choice import advice
from seedcnn.evaluate.report.compare import papers_section, styles_section
from seedcnn.evaluate.report.robustness import averages_section, heat_section, severity_section
from seedcnn.evaluate.report.rows import Measured, ModelRow, Sample, format_bytes
from seedcnn.evaluate.report.sections import bars_section, headline, samples_section
from seedcnn.evaluate.robustness_runs import RobustnessTable, SeededRobustness
from seedcnn.evaluate.styles import StyleTable
from seedcnn.files import write_file

__all__ = ["Measured", "ModelRow", "Sample", "format_bytes", "write_report"]


def _check_names(names: Sequence[str], robustness: Mapping, styles: Mapping, papers: Mapping, answers: Mapping) -> None:
    if not names or len(set(names)) != len(names):
        raise ValueError(f"`rows` has the names {list(names)}; there must be at least one, none of them twice")
    if robustness and set(robustness) != set(names):
        raise ValueError(
            f"`robustness` has the models {sorted(robustness)}; it must have those of `rows`: {sorted(names)}"
        )
    for what, given in (("styles", styles), ("papers", papers), ("answers", answers)):
        if not set(given) <= set(names):
            raise ValueError(f"`{what}` has the models {sorted(given)}; each must be one of `rows`: {sorted(names)}")


def _check_samples(samples: Sequence[Sample], names: Sequence[str]) -> None:
    for index, sample in enumerate(samples):
        image = sample.image
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3) or not image.size:
            raise ValueError(
                f"`samples[{index}].image` is {image.dtype} {image.shape}; it must be uint8 [H, W, 3] or "
                "[H, W, 1], H and W >= 1"
            )
        if not set(sample.predictions) <= set(names):
            raise ValueError(
                f"`samples[{index}]` has predictions of {sorted(sample.predictions)}; models: {sorted(names)}"
            )


def _seeded(robustness: Mapping[str, RobustnessTable | SeededRobustness]) -> dict[str, SeededRobustness]:
    found = {
        name: SeededRobustness((table,)) if isinstance(table, RobustnessTable) else table
        for name, table in robustness.items()
    }
    alike = {
        tuple((tuple(each.accuracies), each.severities, each.n, each.constants, each.seed) for each in result.tables)
        for result in found.values()
    }
    if len(alike) > 1:
        raise ValueError(
            "`robustness` has tables of different corruptions, severities, n, constants or seeds; they must be the same"
        )
    return found


def _robustness_sections(rows: Sequence[ModelRow], results: Mapping[str, SeededRobustness]) -> dict[str, Any]:
    """The sections on corruption by their names in the template; empty ones without results."""
    if not results:
        return {"averages": None, "heat": None, "severity": None}
    names = [row.name for row in rows]
    return {
        "averages": averages_section(names, results),
        "heat": heat_section(names, results),
        "severity": severity_section(rows, results),
    }


def _template() -> Template:
    source = files("seedcnn.evaluate.report").joinpath("report.html.j2").read_text(encoding="utf-8")
    strict = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    return strict.from_string(source)


def write_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    rows: Sequence[ModelRow],
    robustness: Mapping[str, RobustnessTable | SeededRobustness],
    samples: Sequence[Sample],
    settings: Mapping[str, str],
    notes: Sequence[str],
    styles: Mapping[str, StyleTable] | None = None,
    papers: Mapping[str, Sequence[PaperRow]] | None = None,
    answers: Mapping[str, Answers] | None = None,
    worst: Sequence[Sample] = (),
    training: float = 0.0,
) -> Path:
    """Write the report; the same input gives the same bytes (with the same matplotlib and Pillow).

    Args:
        path, title: the HTML file, whose directory must exist, and the heading of the page.
        rows: the models side by side; ratios are to the first, which should be the vanilla network.
        robustness: for each name of ``rows`` its table, or its tables of several seeds, all with the same corruptions,
            severities, n, constants and seeds; may be empty.
        samples: corrupted images with predictions, in reading order, of any size; may be empty.
        settings: settings and versions, by name.
        notes: plain sentences, one for each item.
        styles: accuracies by style, for the models that have them.
        answers, worst: to the clean images, for accuracy by class and confusion; the images answered worst.
        papers: for each model, the papers' rows to compare it with, which must be of the same data. "top1" is compared
            with ``ModelRow.accuracy``; group means and "mean" with ``robustness``, if all corruptions of the group, or
            all 19, were measured at all severities; a style with that style, if it was held out.
        training: standard deviation of the accuracy between trainings, in points, for the choice of a model.

    Returns:
        The path written.

    Raises:
        ValueError: if names are missing, unknown or repeated, tables do not match, or an image is not as above.
        OSError: if the file cannot be written.
    """
    names = [row.name for row in rows]
    styles, papers = styles or {}, papers or {}
    _check_names(names, robustness, styles, papers, answers or {})
    _check_samples([*samples, *worst], names)
    results = _seeded(robustness)
    page = _template().render(
        title=title,
        advice=advice(rows, answers, training=training),
        headline=headline(rows),
        **_robustness_sections(rows, results),
        styles=styles_section(names, styles) if styles else None,
        papers=papers_section(rows, papers, results, styles),
        bars=bars_section(rows),
        **answer_sections(answers),
        samples=samples_section(samples),
        worst=samples_section(worst),
        notes=notes,
        settings=settings,
    )
    write_file(Path(path), page.encode())
    return Path(path)
