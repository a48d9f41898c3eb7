"""One self-contained HTML file that shows what was measured: no script, no external resource, every text escaped."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

import numpy as np

from seedcnn.evaluate._report_rows import Measured, ModelRow, Sample, format_bytes
from seedcnn.evaluate._report_sections import (
    bars_section,
    headline,
    notes_section,
    samples_section,
    settings_section,
    severity_section,
)
from seedcnn.evaluate.robustness import RobustnessTable

__all__ = ["Measured", "ModelRow", "Sample", "format_bytes", "write_report"]


def _check(rows: Sequence[ModelRow], robustness: Mapping[str, RobustnessTable], samples: Sequence[Sample]) -> None:
    names = [row.name for row in rows]
    if not rows or len(set(names)) != len(names):
        raise ValueError(f"`rows` has the names {names}; there must be at least one, none twice")
    if robustness and set(robustness) != set(names):
        raise ValueError(
            f"`robustness` has the models {sorted(robustness)}; it must have those of `rows`: {sorted(names)}"
        )
    shapes = {(tuple(table.accuracies), table.severities, table.n) for table in robustness.values()}
    if len(shapes) > 1:
        raise ValueError("`robustness` has tables of different corruptions, severities or n; they must be the same")
    for index, sample in enumerate(samples):
        image = sample.image
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"`samples[{index}].image` is {image.dtype} {image.shape}; it must be uint8 [H, W, 3]")
        if not set(sample.predictions) <= set(names):
            raise ValueError(
                f"`samples[{index}]` has predictions of {sorted(sample.predictions)}; models: {sorted(names)}"
            )


def write_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    rows: Sequence[ModelRow],
    robustness: Mapping[str, RobustnessTable],
    samples: Sequence[Sample],
    settings: Mapping[str, str],
    notes: Sequence[str],
) -> Path:
    """Write the report. The same input gives the same bytes (with the same matplotlib and Pillow).

    Args:
        path: the HTML file; its directory must exist.
        title: heading of the page.
        rows: the models side by side; ratios are to the first one, which should be the vanilla network.
        robustness: a table per model name of ``rows``, all of the same corruptions, severities and n; or empty.
        samples: corrupted pictures with predictions, in reading order; may be empty.
        settings: settings and versions, by name.
        notes: plain sentences, one per item.

    Returns:
        The path written.

    Raises:
        ValueError: if names are missing or double, tables do not match, or a picture is not uint8 [H, W, 3].
        OSError: if the file cannot be written.
    """
    _check(rows, robustness, samples)
    sections = [
        headline(rows),
        severity_section(rows, robustness) if robustness else "",
        bars_section(rows),
        samples_section(samples),
        notes_section(notes),
        settings_section(settings),
    ]
    template = Template(files("seedcnn.evaluate").joinpath("report.html.template").read_text(encoding="utf-8"))
    body = "\n".join(f"<section>{section}</section>" for section in sections if section)
    target = Path(path)
    target.write_text(template.substitute(title=escape(title), body=body), encoding="utf-8")
    return target
