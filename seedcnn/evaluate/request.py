"""An evaluation as a request: the test set, the corruptions, the seeds. ``seedcnn evaluate`` fills one in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from seedcnn.arrays import F32
from seedcnn.data.corruptions import CORRUPTIONS
from seedcnn.data.sets.named import NamedTest, load_test
from seedcnn.data.sets.own import TrainedOn
from seedcnn.errors import BundleError, ConfigError, DataError, is_shared, shared
from seedcnn.evaluate._measuring import check_same
from seedcnn.evaluate.accuracies import Predict, check_labels
from seedcnn.evaluate.answers import Answers, ask
from seedcnn.evaluate.evaluated import Evaluated, Opened, short_names
from seedcnn.evaluate.papers import DATASETS, PaperRow, paper_rows
from seedcnn.evaluate.robustness_runs import SeededRobustness, robustness_seeds
from seedcnn.evaluate.styles import StyleTable, style_table
from seedcnn.messages import Say, steps
from seedcnn.processes import Processes
from seedcnn.runtime.pictures import luma

__all__ = ["EvaluateRequest"]


@dataclass(frozen=True)
class EvaluateRequest:
    """The test set and the corruptions to measure models on.

    Args:
        data: NAME or NAME:DIRECTORY of a data set; its test part is used, see
            :func:`seedcnn.data.sets.named.load_test`.
        hold_out: for Icons-50, the styles to test on, or the way the set is split, see there.
        corrupted: directory of the published corrupted images; None generates them.
        images: corrupt no more than this number of test images: the first ones of CIFAR; None corrupts all. Other sets
            are reduced to a fixed random choice of this size, on which clean accuracy is measured, too.
        corruptions: names of corruptions; () measures clean accuracy only.
        frost_dir: directory of the frost pictures; None takes them from the cache or downloads them.
        seeds: draw the random corruptions this number of times, with seeds 0, 1, ...
        verify: refuse an incomplete data set.
        skip_damaged: leave out and list images that cannot be decoded, instead of refusing the set.
        decoded: for ImageNet, a file that keeps the decoded images.
        record: a file that keeps every answer under corruption, from which an interrupted run goes on.

    Raises:
        ConfigError: if a value is out of range or unknown, or two contradict each other.
    """

    data: str = "cifar10"
    hold_out: str = ""
    corrupted: Path | None = None
    images: int | None = None
    corruptions: tuple[str, ...] = tuple(CORRUPTIONS)
    frost_dir: Path | None = None
    seeds: int = 1
    verify: bool = True
    skip_damaged: bool = False
    decoded: Path | None = None
    record: Path | None = None

    def __post_init__(self) -> None:
        for field, number in (("images", self.images), ("seeds", self.seeds)):
            if number is not None and number < 1:
                raise ConfigError(f"`{field}` {number}: it must be at least 1")
        for name in self.corruptions:
            if name not in CORRUPTIONS:
                raise ConfigError(f"`corruptions` {name}: it must be one of {', '.join(CORRUPTIONS)}, or all, or none")
        if len(set(self.corruptions)) != len(self.corruptions):
            raise ConfigError(f"`corruptions` {','.join(self.corruptions)}: none may be named twice")
        if self.record is not None and not self.corruptions:
            raise ConfigError(f"`record` {self.record}: it keeps corrupted accuracies, but `corruptions` is empty")
        if self.corrupted is not None and (self.seeds > 1 or not self.corruptions):
            raise ConfigError(
                f"`corrupted` {self.corrupted}: published images take a single seed and at least one corruption"
            )

    def load(self, progress: Say | None = None, *, trained_on: TrainedOn | None = None) -> NamedTest:
        """Load the test set.

        Args:
            progress: called with one sentence for each step.
            trained_on: of the models, for sets of files, see :func:`seedcnn.data.sets.named.load_test`.

        Raises:
            ConfigError, DataError: as :func:`seedcnn.data.sets.named.load_test`.
        """
        return load_test(
            self.data,
            hold_out=self.hold_out,
            limit=self.images,
            corrupted=self.corrupted,
            verify=self.verify,
            on_error="skip" if self.skip_damaged else "raise",
            decoded=self.decoded,
            progress=progress,
            trained_on=trained_on,
        )

    def measure(
        self,
        models: Mapping[str, Opened],
        test: NamedTest,
        progress: Say | None = None,
        processes: Processes | None = None,
    ) -> Evaluated:
        """Measure models side by side on a test set: clean, corrupted, and by style where the images have styles.

        Args:
            models: models by name.
            test: from :meth:`load`.
            progress: a :class:`seedcnn.progress.Progress` shows what is measured and the time left.
            processes: which share the work, see :func:`seedcnn.processes.open_processes`. All call this method with
                the same arguments and get the same result; the first one writes the record. None for this one alone.

        Raises:
            DataError: if a model's logits do not fit the classes of the set or hold NaN (the message names the model),
                if a corruption cannot be generated, or if the record is damaged or was made under other conditions.
            ProcessError: if a process is lost, or has other images or models.
        """
        processes, images = processes or Processes(), test.test.images
        digests = {name: model.digest for name, model in models.items()}
        check_same(processes, images, check_labels(images, test.test.labels), digests, progress)
        clean = _answers(models, test, progress, processes)
        corrupted = self._corrupted(models, test, progress, processes) if self.corruptions else {}
        return Evaluated(test, clean, corrupted, _styles(clean, test), _papers(models, test, bool(self.corruptions)))

    def _corrupted(
        self, models: Mapping[str, Opened], test: NamedTest, progress: Say | None, processes: Processes
    ) -> dict[str, SeededRobustness]:
        images, predictors = test.test.images, {name: model.predict for name, model in models.items()}
        if images.shape[3] == 1:  # corruptions are of colour pictures, which become grey afterwards
            images = np.repeat(images, 3, axis=3)
            predictors = {name: _of_grey(predict) for name, predict in predictors.items()}
        found = robustness_seeds(
            predictors,
            images,
            test.test.labels,
            seeds=range(self.seeds),
            corruptions=self.corruptions,
            constants=test.constants,
            max_images=self.images,
            frost_dir=self.frost_dir,
            corrupted=test.corrupted,
            progress=progress,
            record=self.record,
            digests={name: model.digest for name, model in models.items()},
            processes=processes,
        )
        return {name: result.marked(models[name].seen) for name, result in found.items()}


def _of_grey(predict: Predict) -> Predict:
    def answer(images: npt.NDArray[np.uint8]) -> F32:
        return predict(luma(images))

    return answer


def _answers(
    models: Mapping[str, Opened], data: NamedTest, progress: Say | None, processes: Processes
) -> dict[str, Answers]:
    found, shorter = {}, short_names(list(models))
    for name, model in models.items():
        with steps(progress, f"clean images, {shorter[name]}", len(data.test)) as advance:
            try:
                found[name] = ask(model.predict, data.test, advance=advance, processes=processes)
            except (DataError, BundleError) as error:
                raise _named(name, error) from error
    return found


def _named(name: str, error: DataError | BundleError) -> DataError:
    named = DataError(f"{name}: {error}")
    if is_shared(error):
        shared(named)
    return named


def _styles(answers: Mapping[str, Answers], data: NamedTest) -> dict[str, StyleTable]:
    """Accuracy by style, where the images have styles."""
    styles = data.test.styles
    if styles is None:
        return {}
    held = [style for style in data.held_out if style in styles]  # some hold-outs are parts of paths, not styles
    return {name: style_table(each.logits, each.labels, styles, held_out=held) for name, each in answers.items()}


def _papers(models: Mapping[str, Opened], data: NamedTest, corrupted: bool) -> dict[str, list[PaperRow]]:
    """The papers' rows of the same network and method on the same images."""
    sets = [data.name] if data.name in DATASETS and (data.name != "icons50" or data.held_out) else []
    sets += ["cifar10-c"] if data.name == "cifar10" and corrupted else []
    return {
        name: [row for each in sets for row in paper_rows(each, *model.published)]
        for name, model in models.items()
        if model.published is not None
    }
