"""The report of an evaluation, with its rows, samples and settings made from the results."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from seedcnn.data.corruptions import corrupt
from seedcnn.evaluate.costs import cost
from seedcnn.evaluate.evaluated import Evaluated, Opened
from seedcnn.evaluate.report.answers import worst_samples
from seedcnn.evaluate.report.pages import write_report
from seedcnn.evaluate.report.rows import Measured, ModelRow, Sample
from seedcnn.evaluate.robustness_runs import SeededRobustness
from seedcnn.runtime.pictures import luma

__all__ = ["report_evaluation"]

_SAMPLES = 8
_SEVERITY = 3


def _corrupted(result: SeededRobustness | None) -> Measured | None:
    mean = None if result is None else result.summary()["mean_over_corruptions"]
    if result is None or mean is None:
        return None
    table = result.tables[0]
    n = f"images x {len(table.accuracies)} corruptions x {len(table.severities)} severities"
    return Measured(mean.mean, table.n, table.standard_error, f"{n}, standard error over images")


def _rows(found: Evaluated, models: Mapping[str, Opened]) -> list[ModelRow]:
    height, width, channels = found.data.test.images.shape[1:]
    rows = []
    for name, clean in found.clean.items():
        module = models[name].module
        counted = None if module is None else cost(module, (channels, height, width))
        rows.append(
            ModelRow(
                name,
                Measured(clean.top1, clean.n, clean.standard_error, "standard error"),
                _corrupted(found.corrupted.get(name)),
                None if counted is None else counted.params,
                None if counted is None else counted.macs,
                None if counted is None else counted.nlf_evals,
                bundle_bytes=models[name].file_bytes,
                top5=None if clean.top5 is None else Measured(clean.top5, clean.n),
                seeded=None if counted is None else counted.fixed > 0,
            )
        )
    return rows


def _samples(found: Evaluated, models: Mapping[str, Opened], frost_dir: Path | None) -> list[Sample]:
    """Images from all over the set, each under another of the corruptions that were measured."""
    test, samples = found.data.test, []
    result = next(iter(found.corrupted.values()), None)
    names = [] if result is None else list(result.tables[0].accuracies)
    count = min(_SAMPLES, len(test))
    for number, index in enumerate(np.linspace(0, len(test) - 1, count).astype(int).tolist()):
        where = np.array([index])
        image, caption = test.images[where], "as it is"
        if result is not None:
            table, name = result.tables[0], names[number * len(names) // count]
            severity = _SEVERITY if _SEVERITY in table.severities else table.severities[0]
            caption = f"{name.replace('_', ' ')}, severity {severity}"
            if found.data.corrupted is not None:
                image = found.data.corrupted.pick(name, severity, where)
            else:
                given, seed, grey = found.data.constants, table.seed, image.shape[3] == 1
                image = np.repeat(image, 3, axis=3) if grey else image  # corruptions are of colour images
                image = corrupt(image, name, severity, constants=given, seed=seed, indices=where, frost_dir=frost_dir)
                image = luma(image) if grey else image
        said = {model: test.classes[int(opened.predict(image)[0].argmax())] for model, opened in models.items()}
        samples.append(Sample(np.asarray(image[0]), test.classes[int(test.labels[index])], caption, said))
    return samples


def _versions() -> dict[str, str]:
    found = {"Python": platform.python_version()}
    for package in ("seedcnn", "torch", "timm", "numpy", "pillow", "onnxruntime"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _settings(found: Evaluated, models: Mapping[str, Opened], command: str) -> dict[str, str]:
    data = found.data
    count, height, width = data.test.images.shape[:3]
    settings = {
        "Test images": f"{data.title}, {count:,} of {height} x {width}",
        "Read from": data.test.source,
        "Held out": ", ".join(data.held_out) or "nothing",
        "Left out, not decodable": str(len(data.test.skipped)),
        "Normalisation of checkpoints": f"mean {data.mean}, standard deviation {data.std}",
        **{f"Model {name}": f"{opened.kind}, {opened.digest}" for name, opened in models.items()},
        **({"Command": command} if command else {}),
        **_versions(),
    }
    if found.corrupted:
        table = next(iter(found.corrupted.values())).tables[0]
        which = f"the first {table.n:,}" if table.n < count else f"all {table.n:,}"
        made = f"{table.constants} constants" if data.corrupted is None else f"from {data.corrupted.source}"
        settings["Corrupted images"] = f"{which} of the test images, {made}"
    return settings


def report_evaluation(
    path: str | os.PathLike[str],
    found: Evaluated,
    models: Mapping[str, Opened],
    *,
    frost_dir: Path | None = None,
    command: str = "",
) -> Path:
    """Write the HTML report of an evaluation, see :func:`seedcnn.evaluate.report.write_report`.

    Args:
        path: the HTML file; its directory must exist.
        found: the results.
        models: the models by the names in ``found``; they classify the sample images again.
        frost_dir: as in the request.
        command: the command line, for the settings; "" leaves it out.

    Raises:
        OSError: if the file cannot be written.
    """
    return write_report(
        path,
        title=f"Evaluation on {found.data.title}",
        rows=_rows(found, models),
        robustness=found.corrupted,
        samples=_samples(found, models, frost_dir),
        settings=_settings(found, models, command),
        notes=[f"{each.name} was left out: {each.reason}" for each in found.data.test.skipped[:20]],
        styles=found.styles,
        papers=found.papers,
        answers=found.answers,
        worst=worst_samples(found.answers, found.data.test),
    )
