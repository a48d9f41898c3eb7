"""The commands that answer pictures: ``seedcnn-device predict`` and ``evaluate``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seedcnn.errors import ImageError
from seedcnn.messages import shown

if TYPE_CHECKING:
    from seedcnn.device.live import LiveModel
    from seedcnn.device.runtime import Answer, Model

__all__ = ["evaluate", "predict"]


def _model(arguments: argparse.Namespace) -> Model:
    from seedcnn.device.adaptive import AdaptiveModel
    from seedcnn.device.agent import open_home
    from seedcnn.device.health import self_test
    from seedcnn.device.runtime import Model

    model = Model.load(open_home(arguments.home), threads=arguments.threads, runtime=arguments.runtime)
    if arguments.runtime is not None:
        # The update tested the model in init's runtime, not in this one.
        self_test(model.session, model.bundle)
    return AdaptiveModel.beside(model, open_home(arguments.home), threads=arguments.threads)


def predict(arguments: argparse.Namespace) -> None:
    """Print the answer to each picture.

    Raises:
        ImageError: if a picture has no answer; the others are printed.
    """
    from seedcnn.device.images import list_pictures

    with _counting(arguments) as model:
        _print_answers(model, list_pictures(arguments.pictures), as_json=arguments.json)


@contextmanager
def _counting(arguments: argparse.Namespace) -> Iterator[Model | LiveModel]:
    """Yield the active model; while it is on probation its answers are counted, unless it runs in another runtime."""
    from seedcnn.device.agent import open_home
    from seedcnn.device.live import LiveModel

    if arguments.runtime is None and open_home(arguments.home).has_trial():
        with LiveModel(arguments.home, threads=arguments.threads) as live:
            yield live
    else:
        yield _model(arguments)


def _print_answers(model: Model | LiveModel, paths: Iterable[Path], *, as_json: bool) -> None:
    results: list[dict[str, Any]] = []
    errors: list[str] = []
    for answer in _answers(model, paths):
        if answer.error:
            errors.append(answer.error)
            continue
        result = {"image": answer.path, "index": answer.index, "label": answer.label}
        results.append({**result, "probability": answer.probability})
        if not as_json:
            print(shown(f"{answer.path}: {answer.label} {answer.probability:.4f}"))
    if as_json:
        print(json.dumps(results))
    _report(errors, len(results) + len(errors))


def _answers(model: Model | LiveModel, paths: Iterable[Path]) -> Iterator[Answer]:
    """Answer pictures and NumPy batches, in order."""
    from seedcnn.device.images import load_batch
    from seedcnn.device.runtime import Answer

    for is_batch, group in groupby(paths, lambda path: path.suffix == ".npy"):
        if not is_batch:
            yield from model.predict_files(group)
            continue
        for path in group:
            try:
                found = model.predict(load_batch(path, model.bundle.manifest.preprocessing))
            except ImageError as error:
                yield Answer(str(path), error=str(error))
                continue
            rows = zip(found.indices.tolist(), found.labels, found.probabilities.tolist(), strict=True)
            yield from (Answer(f"{path}[{row}]", *answer) for row, answer in enumerate(rows))


def _report(errors: list[str], total: int) -> None:
    """Name the pictures without an answer on stderr, and fail if there are any."""
    if len(errors) == total == 1:
        raise ImageError(shown(errors[0]))
    for error in errors:
        print(f"seedcnn-device: {shown(error)}", file=sys.stderr)
    if errors:
        raise ImageError(f"{len(errors)} of {total} pictures have no answer")


def evaluate(arguments: argparse.Namespace) -> None:
    """Print the accuracy on pictures in class folders.

    Raises:
        ImageError: if a folder is no class of the model, or a picture has no answer.
    """
    from seedcnn.device.images import list_pictures

    model = _model(arguments)
    labels = model.bundle.manifest.labels
    known = shown(", ".join(labels))
    if not arguments.directory.is_dir():
        raise ImageError(f"{arguments.directory} is not a directory of class folders")
    folders = sorted(each.name for each in arguments.directory.iterdir() if each.is_dir() and each.name[0] != ".")
    if not folders:
        raise ImageError(f"{arguments.directory} holds no class folder; the model knows {known:.200}")
    if unknown := [name for name in folders if name not in labels]:
        named = f"{shown(', '.join(unknown)):.200} in {arguments.directory}"
        raise ImageError(f"the model does not know the class {named}; it knows {known:.200}")
    rows: list[tuple[str, int, int]] = []
    errors: list[str] = []
    for name in folders:
        answers = list(model.predict_files(list_pictures([arguments.directory / name])))
        errors += [answer.error for answer in answers if answer.error]
        right = sum(answer.label == name for answer in answers)
        rows.append((name, right, sum(not answer.error for answer in answers)))
    right, total = sum(row[1] for row in rows), sum(row[2] for row in rows)
    if not total:
        _report(errors, len(errors))
    top1 = 100 * right / total
    if arguments.json:
        by_class = {name: {"right": good, "pictures": count} for name, good, count in rows}
        print(json.dumps({"top1": top1, "right": right, "pictures": total, "by_class": by_class}))
    else:
        print(f"accuracy {top1:.2f} % ({right} of {total} pictures)")
        for name, good, count in rows:
            print(f"  {shown(name)}: {good} of {count}")
    _report(errors, total + len(errors))
