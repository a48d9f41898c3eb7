"""The training loop."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from seedcnn.data.sets.own import OwnPictures
from seedcnn.errors import ConfigError
from seedcnn.processes import Processes, open_processes
from seedcnn.sampling import describe
from seedcnn.train._counts import Counts, NotFiniteError
from seedcnn.train._log import open_tensorboard, write_csv, write_tensorboard
from seedcnn.train._run import Run
from seedcnn.train.checkpoint import (
    Checkpoint,
    beside,
    check_saving,
    keep_checkpoint,
    load_checkpoint,
    save_checkpoint,
    table_of,
)
from seedcnn.train.config import TrainConfig
from seedcnn.train.data import FolderData, TrainData
from seedcnn.train.own import for_pictures
from seedcnn.train.progress import TrainProgress
from seedcnn.train.randomness import deterministic

__all__ = ["Validate", "train"]

Validate = Callable[[nn.Module], float]
"""From the network in eval mode to its accuracy, in percent, on images that are not used for training."""


@dataclass(frozen=True)
class _Files:
    """The files of a run; only the first process writes them."""

    path: Path
    keep: int
    save_steps: int
    tensorboard: Any
    processes: Processes

    def epoch(self, state: Checkpoint, best: bool) -> None:
        self.processes.from_first(lambda: self._write(state, best))

    def _write(self, state: Checkpoint, best: bool) -> None:
        keep_checkpoint(self.path, state, keep=self.keep, best=best)
        write_csv(table_of(self.path), state.history)
        if self.tensorboard is not None:
            write_tensorboard(self.tensorboard, state.epoch, state.history[-1])

    def middle(self, state: Checkpoint) -> None:
        self.processes.from_first(lambda: save_checkpoint(self.path, state))

    def stopped(self, state: Checkpoint) -> Path:
        path = beside(self.path, "stopped")
        self.processes.from_first(lambda: save_checkpoint(path, state))
        return path


def train(
    config: TrainConfig,
    data: TrainData | FolderData | OwnPictures,
    checkpoint_path: str | Path,
    *,
    model: nn.Module | None = None,
    name: str = "train",
    resume: bool = False,
    progress: TrainProgress | None = None,
    teacher: nn.Module | None = None,
    validate: Validate | None = None,
    keep: int = 1,
    save_steps: int = 0,
    until: int | None = None,
    workers: int = 2,
    device: str = "auto",
    tensorboard: str | Path | None = None,
    processes: Processes | None = None,
) -> tuple[nn.Module, Checkpoint]:
    """Train a network; every epoch writes a checkpoint, and a CSV of all epochs beside it.

    With ``resume`` the run continues an existing checkpoint of the same config, and ends with the same weights as an
    unbroken run with the same machine, number of threads and number of processes. Under torchrun all processes train
    one network; after a restart by torchrun the run resumes, whatever ``resume`` is.

    Args:
        data: the training images; of :func:`seedcnn.data.load_folder` the training part.
        model: a prepared network of the config's architecture to start from, instead of a fresh one.
        name: name of the run in its progress.
        progress: display of the progress; None for standard error.
        teacher: the teacher of ``config.distill``, instead of the checkpoint that the config names.
        validate: called after every epoch; the best epoch is kept as NAME.best.ckpt.
        keep: number of epochs to keep checkpoints of; from 2 on as NAME.epoch0007.ckpt, beside the latest.
        save_steps: also write the checkpoint after this number of updates; 0 to write it only after epochs.
        until: stop after this epoch, counted from 1, as if interrupted there; ``resume`` continues the run.
        workers: number of processes that decode image files.
        device: "cpu", "cuda", or "auto" for CUDA if it is available.
        tensorboard: directory of its events.
        processes: which train the network, on their devices; None for all that torchrun started.

    Returns:
        The network in eval mode on the CPU (the average of its weights if there is one), and the last checkpoint.

    Raises:
        ConfigError: if the config names something that does not exist, or the data are smaller than a batch.
        TrainingError: if the loss is not finite (NAME.stopped.ckpt has the state before it, the last checkpoint
            remains), a checkpoint does not match the run, or it cannot be written.
        MissingExtraError: if ``tensorboard`` is given and TensorBoard is not installed.
    """
    last = _last_epoch(config, keep, save_steps, until)
    with ExitStack() as stack:
        processes = processes or stack.enter_context(open_processes(device))
        stack.enter_context(deterministic(config.deterministic))
        files = _Files(Path(checkpoint_path), keep, save_steps, _writer(stack, tensorboard, processes), processes)
        run = Run(*for_pictures(config, data), processes, model=model, teacher=teacher, workers=workers)
        stack.callback(run.close)
        state = _start(run, files, resume)
        with _display(progress, name, run) as shown:
            state = _epochs(run, state, last, files, shown, validate, len(run.data.labels))
        return run.network.eval().cpu(), state


def _display(progress: TrainProgress | None, name: str, run: Run) -> TrainProgress:
    """The display of the progress, which only the first process shows."""
    first = run.processes.first
    return progress if progress and first else TrainProgress(name, run.config.epochs, run.steps, quiet=not first)


def _last_epoch(config: TrainConfig, keep: int, save_steps: int, until: int | None) -> int:
    """The epoch after which to stop, after the checks of these options of :func:`train`."""
    if keep < 1 or save_steps < 0:
        raise ConfigError(f"keep (={keep}) must be at least 1 and save_steps (={save_steps}) not negative")
    last = config.epochs if until is None else until
    if not 1 <= last <= config.epochs:
        raise ConfigError(f"until (={until}) must be an epoch of the config, 1 to {config.epochs}")
    return last


def _writer(stack: ExitStack, directory: str | Path | None, processes: Processes) -> Any:
    """A TensorBoard writer of the first process, which closes with ``stack``; None if there is no directory for it."""
    if directory is None or not processes.first:
        return None
    writer = open_tensorboard(directory)
    stack.callback(writer.close)
    return writer


def _start(run: Run, files: _Files, resume: bool) -> Checkpoint:
    """The state to continue from: that of the checkpoint, or a fresh one."""
    processes, path = run.processes, files.path
    again = resume or processes.restarted
    state = run.checkpoint(0, [])
    processes.from_first(lambda: check_saving(path, state))
    saved = processes.from_first(lambda: load_checkpoint(path) if again and path.is_file() else None)
    if saved is not None:
        run.restore(saved, path)
        return saved
    if processes.launched and processes.from_first(path.is_file):  # machines may not share a disk
        files.middle(state)  # otherwise a restarted group would continue the checkpoint of an older run
    return state


def _epochs(
    run: Run,
    state: Checkpoint,
    last: int,
    files: _Files,
    shown: TrainProgress,
    validate: Validate | None,
    pictures: int,
) -> Checkpoint:
    """Train from ``state`` up to and including epoch ``last``."""
    config, processes = run.config, run.processes
    shown.begin(sum(run.counts), sum(run.counts[: state.epoch]) + state.step)
    for note in run.notes:
        shown.say(note)
    if config.sampling is not None:
        plan = describe(
            config.sampling,
            config.epochs,
            pictures,
            config.batch_size,
            drop_last=config.drop_last,
            world_size=processes.world,
        )
        shown.say(str(plan))
    for epoch in range(state.epoch, last):
        history, best, first = state.history, state.best, state.step
        counts = Counts(**{name: value for name, value in state.partial.items() if name != "pictures"})
        try:
            for step in run.epoch(epoch, first, counts, shown):
                if files.save_steps and step < run.counts[epoch] and run.updates(step) % files.save_steps == 0:
                    files.middle(replace(run.checkpoint(epoch, history, step, counts), best=best))
        except NotFiniteError as error:
            before = run.checkpoint(epoch, history, error.step, counts)
            before.partial["pictures"] = error.pictures
            path = files.stopped(replace(before, best=best))
            raise NotFiniteError(
                f"{error}; the state before it is in {path}, the last checkpoint remains", error.step, error.pictures
            ) from None
        row = counts.row() | {"lr": run.update.lr, "batches": run.counts[epoch]}
        better = False
        if validate is not None:
            with shown.stage("validation"):
                row["validation"] = processes.from_first(lambda: validate(run.network.eval()))
            better = best is None or row["validation"] > best
        best = row["validation"] if better else best
        state = replace(run.checkpoint(epoch + 1, [*history, row]), best=best)
        files.epoch(state, better)
        shown.epoch(epoch, row)
    if config.sampling is not None and last == config.epochs:
        shown.say(_measured(run, state.history))
    return state


def _measured(run: Run, history: list[dict[str, float]]) -> str:
    """The measured time of reduced sampling, and the predicted one."""
    seconds = [row["seconds"] for row in history]
    predicted = sum(run.counts) / (run.steps * len(run.counts))
    full = [value for value, count in zip(seconds, run.counts, strict=True) if count == run.steps]
    if not full:
        return (
            f"reduced sampling: {sum(seconds):.1f} s for {sum(run.counts)} batches; no epoch was full, so there is no "
            f"time to compare it with (predicted time ratio {predicted:.4f})"
        )
    measured = sum(seconds) / (len(seconds) * statistics.median(full))
    return f"reduced sampling: time ratio predicted {predicted:.4f}, measured {measured:.4f} ({len(full)} full epochs)"
