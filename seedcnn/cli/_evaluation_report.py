"""The HTML report of ``seedcnn evaluate``."""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from seedcnn.errors import DataError

if TYPE_CHECKING:
    from seedcnn.cli._evaluated import Opened
    from seedcnn.cli._evaluation_tables import Evaluated
    from seedcnn.evaluate.report import ModelRow, Sample

__all__ = ["report"]

_PICTURES = 8
_SEVERITY = 3


def _rows(found: Evaluated, models: Mapping[str, Opened]) -> list[ModelRow]:
    from seedcnn.evaluate.costs import cost
    from seedcnn.evaluate.report import Measured, ModelRow

    height, width = found.data.test.images.shape[1:3]
    rows = []
    for name, clean in found.clean.items():
        corrupted = None
        if name in found.corrupted:
            result = found.corrupted[name]
            mean = result.summary()["mean_over_corruptions"]
            table = result.tables[0]
            if mean is not None:
                n = f"pictures x {len(table.accuracies)} corruptions x {len(table.severities)} severities"
                corrupted = Measured(mean.mean, table.n, table.standard_error, f"{n}, standard error over pictures")
        module = models[name].module
        counted = None if module is None else cost(module, (3, height, width))
        rows.append(
            ModelRow(
                name,
                Measured(clean.top1, clean.n, clean.standard_error, "standard error"),
                corrupted,
                None if counted is None else counted.params,
                None if counted is None else counted.macs,
                None if counted is None else counted.nlf_evals,
                bundle_bytes=models[name].file_bytes,
                top5=None if clean.top5 is None else Measured(clean.top5, clean.n),
            )
        )
    return rows


def _samples(found: Evaluated, models: Mapping[str, Opened], frost_dir: Path | None) -> list[Sample]:
    """Pictures spread over the set, each under another of the corruptions that were measured."""
    from seedcnn.data.corruptions import corrupt
    from seedcnn.evaluate.report import Sample

    test, samples = found.data.test, []
    result = next(iter(found.corrupted.values()), None)
    names = [] if result is None else list(result.tables[0].accuracies)
    count = min(_PICTURES, len(test))
    for number, index in enumerate(np.linspace(0, len(test) - 1, count).astype(int).tolist()):
        where = np.array([index])
        picture, caption = test.images[where], "as it is"
        if result is not None:
            table, name = result.tables[0], names[number * len(names) // count]
            severity = _SEVERITY if _SEVERITY in table.severities else table.severities[0]
            caption = f"{name.replace('_', ' ')}, severity {severity}"
            if found.data.corrupted is not None:
                picture = found.data.corrupted.pick(name, severity, where)
            else:
                given, seed = found.data.constants, table.seed
                picture = corrupt(
                    picture, name, severity, constants=given, seed=seed, indices=where, frost_dir=frost_dir
                )
        said = {model: test.classes[int(opened.predict(picture)[0].argmax())] for model, opened in models.items()}
        samples.append(Sample(np.asarray(picture[0]), test.classes[int(test.labels[index])], caption, said))
    return samples


def _versions() -> dict[str, str]:
    found = {"Python": platform.python_version()}
    for package in ("seedcnn", "torch", "timm", "numpy", "pillow", "onnxruntime"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def report(path: Path, found: Evaluated, models: Mapping[str, Opened], frost_dir: Path | None) -> None:
    """Write it.

    Raises:
        DataError: if it cannot be written.
    """
    from seedcnn.evaluate.report import write_report

    data = found.data
    count, height, width = data.test.images.shape[:3]
    settings = {
        "Test pictures": f"{data.name}, {count:,} of {height} x {width}",
        "Read from": data.test.source,
        "Held out": ", ".join(data.held_out) or "nothing",
        "Left out, not decodable": str(len(data.test.skipped)),
        "Normalisation of checkpoints": f"mean {data.mean}, standard deviation {data.std}",
        **{f"Model {name}": f"{opened.kind}, {opened.digest}" for name, opened in models.items()},
        "Command": shlex.join(["seedcnn", *sys.argv[1:]]),
        **_versions(),
    }
    if found.corrupted:
        table = next(iter(found.corrupted.values())).tables[0]
        settings["Corrupted pictures"] = (
            f"the first {table.n:,}, {table.constants}" if data.corrupted is None else data.corrupted.source
        )
    try:
        write_report(
            path,
            title=f"Evaluation on {data.name}",
            rows=_rows(found, models),
            robustness=found.corrupted,
            samples=_samples(found, models, frost_dir),
            settings=settings,
            notes=[f"{each.name} was left out: {each.reason}" for each in data.test.skipped[:20]],
            styles=found.styles,
            papers=found.papers,
        )
    except OSError as error:
        raise DataError(f"--report {path} cannot be written: {error}") from error
