"""Train and measure the rows of a table. Finished runs are kept, so that an interrupted reproduction can continue."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from seedcnn.data import DATA_SETS, NamedTest, load_test
from seedcnn.errors import ConfigError, DataError, TrainingError, did_you_mean
from seedcnn.evaluate import accuracy, cost, robustness, torch_predictor
from seedcnn.files import write_file
from seedcnn.literals import parse_json
from seedcnn.messages import Say, steps
from seedcnn.processes import Processes, alone
from seedcnn.recipe_index import list_recipe_files
from seedcnn.reproduce.scales import SCALES, scaled
from seedcnn.train import (
    FolderData,
    TrainConfig,
    TrainData,
    TrainProgress,
    find_recipe,
    load_checkpoint,
    load_training_data,
    train,
)
from seedcnn.train.checkpoint import model_of
from seedcnn.train.recipes import expected

__all__ = ["Figure", "Row", "list_tables", "reproduce"]

GROUPS = ("Noise", "Blur", "Weather", "Digital")
MEASURED = ("top1", "top5", *GROUPS, "mean", "params_M", "train_seconds")
"""The printed quantities that are measured here; others in a recipe file (MACs, times on other machines) are not."""


@dataclass(frozen=True)
class Figure:
    """A printed value and ours.

    Attributes:
        printed: the value of the paper; None if it prints none.
        values: our values, one per seed; empty if every run failed.
    """

    printed: float | None
    values: tuple[float, ...]

    @property
    def mean(self) -> float | None:
        """Mean over the seeds; None if every run failed."""
        return statistics.mean(self.values) if self.values else None

    @property
    def std(self) -> float | None:
        """Standard deviation over the seeds; None for fewer than two."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def difference(self) -> float | None:
        """Our mean minus the printed value; None if one is missing."""
        return None if self.mean is None or self.printed is None else self.mean - self.printed


@dataclass(frozen=True)
class Row:
    """A row of the table: its recipe, its figures, and the reasons of failed runs."""

    recipe: str
    figures: Mapping[str, Figure]
    failed: tuple[str, ...] = ()


def list_tables() -> tuple[str, ...]:
    """The recipe files that are tables of a paper."""
    return tuple(name for name, file in list_recipe_files().items() if file.table)


def _check_table(table: str) -> dict[str, dict[str, float]]:
    known = list_tables()
    if table not in known:
        hint = did_you_mean(table, known)
        raise ConfigError(f"unknown table {table!r}; {hint}tables: {', '.join(known)}")
    return expected(table)


@dataclass(frozen=True)
class _Run:
    """The settings that all runs of a table share, and what failed of the trainings that were dealt out."""

    scale: str
    out: Path
    data: Mapping[str, Path]
    frost_dir: Path | None
    say: Say
    processes: Processes = field(default_factory=Processes)
    dealt: dict[tuple[str, int], str] = field(default_factory=dict)

    @property
    def deals(self) -> bool:
        """Whether each training is the work of one of several processes, as in a reduced scale."""
        return self.processes.world > 1 and SCALES[self.scale].small

    def config(self, recipe: str, seed: int) -> TrainConfig:
        found = scaled(replace(find_recipe(recipe), seed=seed), SCALES[self.scale])
        if found.distill is None or not found.distill.teacher:
            return found
        path, _ = self.trained(_teacher(found.distill.teacher, recipe), seed)
        return replace(found, distill=replace(found.distill, teacher=str(path)))

    def trained(self, recipe: str, seed: int) -> tuple[Path, TrainConfig]:
        """The checkpoint of a run and its config; trains it if it does not exist."""
        config = self.config(recipe, seed)
        path = self.path(recipe, seed, "ckpt")
        pictures = self.pictures(config)
        shown = None if self.processes.first else TrainProgress("", config.epochs, 1, quiet=True)
        together = alone() if self.deals else self.processes
        name = f"{recipe} seed {seed}"
        train(config, pictures, path, name=name, resume=True, progress=shown, processes=together)
        return path, config

    def path(self, recipe: str, seed: int, suffix: str) -> Path:
        return self.out / f"{recipe.replace(':', '.')}-{seed}.{suffix}"

    def pictures(self, config: TrainConfig) -> TrainData | FolderData:
        return load_training_data(config, self.data.get(config.data), progress=self.say)

    def deal(self, runs: Sequence[tuple[str, int]]) -> None:
        """Train runs, each in a process that is free; teachers come first, each one once."""
        taught = [(find_recipe(recipe).distill, recipe, seed) for recipe, seed in runs]
        teachers = [(_teacher(each.teacher, recipe), seed) for each, recipe, seed in taught if each and each.teacher]
        if teachers:
            self.deal(list(dict.fromkeys(teachers)))

        def work(piece: int) -> str:
            recipe, seed = runs[piece]
            try:
                self.trained(recipe, seed)
            except TrainingError as error:
                return str(error)
            return ""

        with steps(self.say, "training", len(runs)) as advance:
            failures = self.processes.share([1] * len(runs), work, lambda amount, _: advance(amount))
        self.dealt.update({run: why for run, why in zip(runs, failures, strict=True) if why})

    def measured(self, recipe: str, seed: int, wanted: Sequence[str]) -> dict[str, float]:
        """The figures of one run. Raises TrainingError if it diverged."""
        if (recipe, seed) in self.dealt:
            raise TrainingError(self.dealt[recipe, seed])
        if not self.deals:
            self.trained(recipe, seed)
        path, processes = self.path(recipe, seed, "ckpt"), self.processes
        checkpoint = processes.from_first(lambda: load_checkpoint(path))
        test = processes.in_turn(lambda: self.test(checkpoint.config))
        model, pictures = model_of(checkpoint, path), test.test
        predict = torch_predictor(model, test.mean, test.std)
        scale = SCALES[self.scale]
        images, labels = pictures.images[: scale.clean], pictures.labels[: scale.clean]
        with steps(self.say, f"clean images, {recipe}", len(images)) as advance:
            clean = accuracy(predict, images, labels, advance=advance, processes=processes)
        found = {
            "top1": clean.top1,
            "params_M": cost(model, (3, *pictures.images.shape[1:3])).params / 1e6,
            "train_seconds": sum(epoch["seconds"] for epoch in checkpoint.history),
        }
        if clean.top5 is not None:
            found["top5"] = clean.top5
        if set(wanted) & set(GROUPS):
            table = robustness(
                predict,
                pictures.images,
                pictures.labels,
                max_images=scale.pictures,
                frost_dir=self.frost_dir,
                progress=self.say,
                processes=processes,
            )
            found |= {**table.group_means, "mean": table.mean_over_groups}
        return found

    def test(self, config: TrainConfig) -> NamedTest:
        where = self.data.get(config.data)
        named = config.data if where is None else f"{config.data}:{where}"
        return load_test(named, hold_out=config.hold_out, progress=self.say)


def _teacher(path: str, recipe: str) -> str:
    """The recipe of a teacher whose checkpoint is named runs/FILE_FUNCTION.ckpt, for any recipe file."""
    stem = Path(path).stem
    for file in sorted(list_recipe_files(), key=len, reverse=True):
        if stem.startswith(f"{file}_"):
            return f"{file}:{stem.removeprefix(f'{file}_')}"
    raise ConfigError(
        f"{recipe} learns from {path}, which belongs to no recipe (runs/FILE_FUNCTION.ckpt); train the teacher yourself"
    )


def _kept(path: Path, digest: str) -> dict[str, Any] | None:
    """The result of an earlier run with the same config, if there is one."""
    try:
        found = parse_json(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}; remove it to run the row again") from error
    if not isinstance(found, dict) or found.get("config") != digest:
        raise DataError(f"{path} belongs to another config of that row; choose another --out, or remove it")
    return found


def _finished(run: _Run, recipe: str, seed: int, wanted: Sequence[str]) -> tuple[str, dict[str, Any] | None]:
    """The digest of a run's settings, and its result if an earlier reproduction has left one."""
    settings = [scaled(find_recipe(recipe), SCALES[run.scale]).to_dict(), run.scale, list(wanted)]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    return digest, run.processes.from_first(lambda: _kept(run.path(recipe, seed, "json"), digest))


def _one(run: _Run, recipe: str, seed: int, wanted: Sequence[str]) -> dict[str, Any]:
    """Figures or a failure, from the file of an earlier run or from a new run."""
    digest, kept = _finished(run, recipe, seed, wanted)
    if kept is not None:
        return kept
    found: dict[str, Any] = {"config": digest}
    try:
        found["figures"] = run.measured(recipe, seed, wanted)
    except TrainingError as error:
        found["failed"] = str(error)
    content = (json.dumps(found, indent=1) + "\n").encode()
    run.processes.from_first(lambda: write_file(run.path(recipe, seed, "json"), content))
    return found


def _deal_new(run: _Run, rows: Sequence[tuple[str, int, Sequence[str]]]) -> None:
    """Deal out the trainings of the runs that have no result yet."""
    new = [(recipe, seed) for recipe, seed, wanted in rows if _finished(run, recipe, seed, wanted)[1] is None]
    configs = {config.data: config for config in (find_recipe(recipe) for recipe, _ in new)}
    for config in configs.values():  # so that one process of a machine downloads for all
        run.processes.in_turn(partial(run.pictures, config))
    run.deal(new)


def _refusal(config: TrainConfig, run: _Run) -> str:
    """The reason why a row cannot be run with these settings; "" if it can."""
    try:
        scaled(config, SCALES[run.scale])
    except ConfigError as error:
        return str(error)
    if DATA_SETS[config.data].directory == "needed" and config.data not in run.data:
        return f"it needs the directory of {config.data}: --data {config.data}=DIRECTORY"
    return ""


def _check_data(data: Mapping[str, Path]) -> None:
    for name in data:
        if name not in DATA_SETS:
            hint = did_you_mean(name, DATA_SETS)
            raise ConfigError(f"unknown data {name!r}; {hint}known: {', '.join(DATA_SETS)}")


def _means(part: str, name: str, names: Container[str]) -> bool:
    return part == name if part in names else part in name


def reproduce(
    table: str,
    *,
    scale: str = "cpu",
    seeds: Sequence[int] = (0,),
    rows: Sequence[str] = (),
    data: Mapping[str, Path] | None = None,
    out: Path = Path("runs/reproduce"),
    frost_dir: Path | None = None,
    progress: Say | None = None,
    processes: Processes | None = None,
) -> Iterator[Row]:
    """Train and measure a table, and yield each row as soon as all its seeds are done.

    A row that lacks its data, or has no form at this scale, comes without figures but with the reason.

    Several processes share the images to measure on. At a reduced scale each training is the work of one of them, and
    all trainings come first; ``out`` must then be on a disk that all see. At full scale they train each network
    together, and so with larger batches than one process.

    Args:
        table: name of a recipe file, see :func:`list_tables`.
        scale: a key of :data:`SCALES`.
        seeds: the seeds of the runs.
        rows: names of recipes; a text that is not the name of a recipe selects all recipes that contain it; () for all.
        data: name of a data set -> its directory; sets that are downloaded need none.
        out: directory for checkpoints and results; finished runs in it are not repeated.
        frost_dir: directory of the frost images.
        progress: called with one sentence per step; a :class:`seedcnn.progress.Progress` shows the measuring, too.
        processes: which all call this function with the same arguments; None for this process alone.

    Raises:
        ConfigError: if a table, scale, row or data set does not exist (near names are listed), there are no seeds, or
            no row can be run.
        DataError: if data are missing, or ``out`` has results of another config.
    """
    printed = _check_table(table)
    if scale not in SCALES:
        raise ConfigError(f"unknown scale {scale!r}; it must be one of {', '.join(SCALES)}")
    if not seeds:
        raise ConfigError("there are no seeds; at least one is needed")
    _check_data(data or {})
    names = [name for name in printed if not rows or any(_means(part, name, printed) for part in rows)]
    if not names:
        raise ConfigError(f"{table} has no row with {' or '.join(rows)} in its name; rows: {', '.join(printed)}")
    where = out / table / scale
    run = _Run(scale, where, data or {}, frost_dir, progress or (lambda _: None), processes or alone())
    refused = {name: _refusal(find_recipe(f"{table}:{name}"), run) for name in names}
    if all(refused.values()):
        raise ConfigError(f"no row of {table} can be run at scale {scale}; {names[0]}: {refused[names[0]]}")
    where.mkdir(parents=True, exist_ok=True)
    yield from _rows(run, table, {name: printed[name] for name in names}, refused, seeds)


def _rows(
    run: _Run, table: str, printed: Mapping[str, Mapping[str, float]], refused: Mapping[str, str], seeds: Sequence[int]
) -> Iterator[Row]:
    """Run the rows with their printed values; those that are refused come with the reason."""
    wanted_of = {name: [key for key in MEASURED if key in values] or ["top1"] for name, values in printed.items()}
    if run.deals:
        able = [name for name in printed if not refused[name]]
        _deal_new(run, [(f"{table}:{name}", seed, wanted_of[name]) for name in able for seed in seeds])
    for name, wanted in wanted_of.items():
        if refused[name]:
            yield Row(f"{table}:{name}", {}, (refused[name],))
            continue
        done = [_one(run, f"{table}:{name}", seed, wanted) for seed in seeds]
        good = [each["figures"] for each in done if "figures" in each]
        figures = {
            key: Figure(printed[name].get(key), tuple(each[key] for each in good if key in each)) for key in wanted
        }
        yield Row(f"{table}:{name}", figures, tuple(each["failed"] for each in done if "failed" in each))
