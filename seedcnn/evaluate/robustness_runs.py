"""Accuracy under common corruptions, generated on the fly without downloading or storing a corrupted data set."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TypedDict, Unpack

import numpy as np
import numpy.typing as npt

from seedcnn.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from seedcnn.data.sets.official import OfficialFiles
from seedcnn.evaluate._mce import FIGURES
from seedcnn.evaluate._measuring import Evaluation, check_same, measure
from seedcnn.evaluate._robustness_table import CSV_COLUMNS, MARK, RobustnessTable, SeededRobustness, Summary, footnote
from seedcnn.evaluate.accuracies import Predict, check_labels
from seedcnn.evaluate.record import EvaluationRecord, exclusive
from seedcnn.messages import Say
from seedcnn.processes import Processes

__all__ = [
    "CSV_COLUMNS",
    "FIGURES",
    "MARK",
    "RobustnessOptions",
    "RobustnessTable",
    "SeededRobustness",
    "Summary",
    "footnote",
    "robustness",
    "robustness_many",
    "robustness_seeds",
]


class RobustnessOptions(TypedDict, total=False):
    """The options of :func:`robustness_seeds`; see there."""

    corruptions: Sequence[str]
    severities: Sequence[int]
    constants: str
    batch_size: int
    max_images: int | None
    frost_dir: Path | None
    corrupted: OfficialFiles | None
    progress: Say | None
    record: Path | None
    digests: Mapping[str, str] | None
    processes: Processes | None


def _check_lists(
    corruptions: Sequence[str], severities: Sequence[int], seeds: Sequence[int], corrupted: OfficialFiles | None
) -> None:
    for what, values in (("corruptions", corruptions), ("severities", severities), ("seeds", seeds)):
        if isinstance(values, str) or not values or len(set(values)) != len(values):
            raise ValueError(f"`{what}` (={values!r}) must be a sequence of at least one value, none of them twice")
    for what, values, known in (("corruptions", corruptions, CORRUPTIONS), ("severities", severities, SEVERITIES)):
        for value in values:
            if value not in known:
                raise ValueError(f"`{what}` holds {value!r}; known: {', '.join(map(str, known))}")
    if corrupted is not None and len(seeds) > 1:
        raise ValueError(f"`seeds` (={list(seeds)}) must be a single one: published images are drawn already")


def _check_numbers(
    predictors: Mapping[str, Predict], images: npt.NDArray[np.uint8], batch_size: int, max_images: int | None
) -> None:
    if not predictors:
        raise ValueError("`predictors` is empty; at least one model is needed")
    if batch_size < 1:
        raise ValueError(f"`batch_size` (={batch_size}) must be at least 1")
    if max_images is not None and max_images < 1:
        raise ValueError(f"`max_images` (={max_images}) must be at least 1")
    if not len(images):
        raise ValueError("`images` is empty; at least one image is needed")


def robustness_seeds(
    predictors: Mapping[str, Predict],
    images: npt.NDArray[np.uint8],
    labels: npt.ArrayLike,
    *,
    seeds: Sequence[int] = (0,),
    corruptions: Sequence[str] = tuple(CORRUPTIONS),
    severities: Sequence[int] = SEVERITIES,
    constants: str = "cifar",
    batch_size: int = 500,
    max_images: int | None = None,
    frost_dir: Path | None = None,
    corrupted: OfficialFiles | None = None,
    progress: Say | None = None,
    record: Path | None = None,
    digests: Mapping[str, str] | None = None,
    processes: Processes | None = None,
) -> dict[str, SeededRobustness]:
    """Accuracy of several models on the same corrupted images; each batch is corrupted once, for all of them.

    Args:
        predictors: by model name, uint8 [n, H, W, 3] to logits [n, classes].
        images: uint8 [N, H, W, 3].
        labels: N integers.
        seeds: seeds of the random corruptions; an image's index in ``images`` addresses its draws.
        corruptions: keys of ``seedcnn.data.corruptions.CORRUPTIONS``.
        severities: numbers from 1 to 5.
        constants: "cifar" or "imagenet".
        batch_size: images corrupted and classified at a time; the result does not depend on it.
        max_images: use no more than this number of images, the first; None uses all.
        frost_dir: see :func:`seedcnn.data.corruptions.corrupt`.
        corrupted: the corrupted images as published; None generates them. With published images ``constants`` is
            ignored and there must be a single seed, as there is nothing to draw.
        progress: a :class:`seedcnn.progress.Progress` shows the corruption that is measured and the time left.
        record: file that keeps every answer, written after each corruption. Answers found in it are not measured again.
        digests: with ``record``, a text by model name that changes with the model, such as the SHA-256 of its file.
        processes: which share the work (:func:`seedcnn.processes.open_processes`): all call this function with the
            same arguments and get the same result; the first one writes the record. None for this process alone.

    Returns:
        One result for each model, with one table for each seed.

    Raises:
        ValueError: if an argument has a wrong type, shape or value.
        DataError: if logits hold NaN or a label is out of range (the message names the model, the corruption and the
            image), or if frost is asked for and its pictures are not available. Also if the record is damaged, cannot
            be written, is being written by another evaluation, or was made under other conditions: models, images,
            seeds, severities, constants or version of seedcnn (the message names those that differ).
        ProcessError: if a process is lost, or has other images.
    """
    _check_lists(corruptions, severities, seeds, corrupted)
    _check_numbers(predictors, images, batch_size, max_images)
    checked = check_labels(images, labels)[:max_images]
    place = (tuple(severities), constants, batch_size, frost_dir, corrupted, processes or Processes())
    at = Evaluation(predictors, images[:max_images], checked, *place)
    at.processes.in_turn(lambda: _try_out(at, corruptions, seeds))
    check_same(at.processes, at.images, checked, digests or {}, progress)
    with ExitStack() as stack:
        kept = at.processes.everywhere(lambda: _opened(stack, at, record, digests, seeds))
        return measure(at, corruptions, seeds, kept, progress)


def _try_out(at: Evaluation, corruptions: Sequence[str], seeds: Sequence[int]) -> None:
    """Find a wrong argument or missing frost pictures now, not after an hour."""
    for name, seed in itertools.product(corruptions if at.files is None else (), seeds):
        severity, given = at.severities[0], at.constants
        corrupt(at.images[:0], name, severity, constants=given, seed=seed, frost_dir=at.frost_dir)


def _opened(
    stack: ExitStack, at: Evaluation, path: Path | None, digests: Mapping[str, str] | None, seeds: Sequence[int]
) -> EvaluationRecord | None:
    """The record, locked until ``stack`` ends; None in all processes but the first, and without a path."""
    if path is None or not at.processes.first:
        return None
    stack.enter_context(exclusive(path))
    return at.record(path, digests, seeds)


def robustness_many(
    predictors: Mapping[str, Predict],
    images: npt.NDArray[np.uint8],
    labels: npt.ArrayLike,
    *,
    seed: int = 0,
    **options: Unpack[RobustnessOptions],
) -> dict[str, RobustnessTable]:
    """One table for each model, for one seed; arguments, options and errors as for :func:`robustness_seeds`."""
    found = robustness_seeds(predictors, images, labels, seeds=(seed,), **options)
    return {model: result.tables[0] for model, result in found.items()}


def robustness(
    predict: Predict,
    images: npt.NDArray[np.uint8],
    labels: npt.ArrayLike,
    *,
    seed: int = 0,
    **options: Unpack[RobustnessOptions],
) -> RobustnessTable:
    """The table of one model, called "model"; arguments, options and errors as for :func:`robustness_seeds`."""
    return robustness_many({"model": predict}, images, labels, seed=seed, **options)["model"]
