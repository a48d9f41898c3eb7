"""A recipe, a network by its name, or a checkpoint that goes on: what ``seedcnn train`` trains, and on which data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seedcnn.cli._arguments import input_size, refuse_without_effect
from seedcnn.errors import ConfigError
from seedcnn.messages import Say

if TYPE_CHECKING:
    from torch import nn

    from seedcnn.bundle import Preprocessing
    from seedcnn.evaluate.accuracies import Accuracy
    from seedcnn.train import Checkpoint, FolderData, TrainConfig, TrainData

__all__ = ["Prepared", "TrainRequest"]

# Fields that say how the pictures were read, which is done when --set takes effect.
_NOT_SET = {
    "model": "the network is what `train` names",
    "data": "the pictures are those of --data",
    "val": "the share to measure on is that of --val",
    "preprocessing": "the rule is that of --input and --resize",
}


@dataclass(frozen=True, eq=False)
class Prepared:
    """A run that can start: its config and data, how to measure it (None: not here), and where its data are."""

    config: TrainConfig
    data: TrainData | FolderData
    measure: Callable[[nn.Module], Accuracy] | None
    where: str


@dataclass(frozen=True)
class TrainRequest:
    """The arguments of ``seedcnn train`` that say what is trained, as typed; None where an option was not given."""

    target: str
    set_: tuple[str, ...] = ()
    data: Path | None = None
    input_: str | None = None
    resize: str | None = None
    val: float | None = None
    pretrained: bool = False
    weights: Path | None = None
    flip: bool = True
    strict: bool = False
    plan: Path | None = None
    workers: int | None = None
    validate: bool | None = None

    def prepare(self, say: Say) -> Prepared:
        """Find the network, load the data and make the config.

        Args:
            say: called with one sentence for each thing that the user should know.

        Raises:
            ConfigError, DataError, TrainingError: naming the argument, its value and the rule.
        """
        recipe = self._recipe()
        if recipe is not None:
            return self._of_recipe(recipe, say)
        try:
            return self._of_network(say)
        except ValueError as error:  # of the rule for pictures, or the share
            raise ConfigError(str(error)) from None

    def _recipe(self) -> TrainConfig | None:
        """The config of a recipe; None if the target is no recipe."""
        from seedcnn.models.own import call_of, file_of, is_own
        from seedcnn.train import TrainConfig, find_recipe

        if Path(self.target).is_file() or ":" not in self.target.removeprefix("timm:"):
            return None
        where = self.target.rpartition(":")[0]
        if file_of(self.target) is None and "." not in where:
            return None if self.target.startswith("timm:") else find_recipe(self.target)
        if not is_own(self.target):
            return find_recipe(self.target)
        call = call_of(self.target)
        if isinstance(call, type) or self._takes_options(call):
            return None
        found = call()
        return found if isinstance(found, TrainConfig) else None

    @staticmethod
    def _takes_options(call: Callable[..., object]) -> bool:
        import inspect

        return any(p.default is p.empty for p in inspect.signature(call).parameters.values())

    def _of_recipe(self, config: TrainConfig, say: Say) -> Prepared:
        from seedcnn.data.sets.named import DATA_SETS, load_test
        from seedcnn.train import check_model, load_training_data, override

        given = {"--input": self.input_, "--resize": self.resize, "--val": self.val, "--weights": self.weights}
        given |= {"--pretrained": self.pretrained or None, "--no-flip": None if self.flip else True}
        given |= {"--strict": self.strict or None}
        refuse_without_effect(given, f"on the recipe {self.target}, which says so itself: change it with --set")
        config = self._planned(override(config, self.set_), None)
        if config.data not in DATA_SETS:
            raise ConfigError(
                f"{self.target} is a recipe for the data {config.data!r}: train its network by name instead"
            )
        self._check_measuring(config.data, DATA_SETS[config.data].files)
        check_model(config)
        where = config.data if self.data is None else f"{config.data}:{self.data}"
        training_data = load_training_data(config, self.data, progress=say)
        if DATA_SETS[config.data].files:
            return Prepared(config, training_data, None, where)
        test = load_test(where, hold_out=config.hold_out)
        measure = _measure(test.preprocessing, test.test.images, test.test.labels)
        return Prepared(config, training_data, measure, where)

    def _of_network(self, say: Say) -> Prepared:
        from seedcnn.data.sets.named import FOLDER
        from seedcnn.data.sets.own import VAL_SHARE, load_folder
        from seedcnn.networks import is_checkpoint
        from seedcnn.train import TrainConfig, load_checkpoint, override
        from seedcnn.train.own import check_network, fine_tuned, own_config, own_data

        self._check_measuring("pictures of your own", False)
        for text in self.set_:
            field = text.partition("=")[0].partition(".")[0].strip()
            if field in _NOT_SET:
                raise ConfigError(f"--set {text}: with pictures of your own {_NOT_SET[field]}")
        checkpoint = Path(self.target) if is_checkpoint(self.target) else None
        saved = None if checkpoint is None else load_checkpoint(checkpoint)
        model = check_network(self.target) if saved is None else saved.config.model
        place = self._place("" if saved is None else saved.source)
        known = None if saved is None else saved.preprocessing
        rule = self._rule(model, known)
        share = self.val if self.val is not None else VAL_SHARE if saved is None else saved.config.val
        changes = [*self._changes(saved is not None), *self.set_]
        on_grid = self._goes_on_on_its_grid(saved)
        # Refuse a wrong option before the pictures are decoded, which takes long.
        plain = TrainConfig(model, data=FOLDER, preprocessing=rule, pretrained=self.pretrained)
        if saved is not None:
            kept: dict[str, Any] = {
                "augment": saved.config.augment,
                "flip": saved.config.flip,
                "noise": saved.config.noise,
            }
            plain = replace(plain, init_from=str(checkpoint), **kept, **on_grid)
        override(plain, changes)
        given = self.val if saved is None or self.val is not None else share
        data = load_folder(place, preprocessing=rule, val=given, strict=self.strict, progress=say)
        for line in data.about:
            say(line)
        if saved is None or checkpoint is None:
            config = own_config(model, data, val=share, pretrained=self.pretrained)
        else:
            config = fine_tuned(saved.config, data, checkpoint, planned=self.plan is not None)
            config = replace(config, **on_grid)
        config = override(config, changes)
        config = self._planned(config, data.preprocessing.shape)
        measure = _measure(data.preprocessing, data.val.images, data.val.labels)
        say(data.preprocessing.in_words())
        if saved is not None:
            noise = f", noise={config.noise:g}" if config.noise else ""
            say(
                f"goes on from {checkpoint} with augment={config.augment}, flip={config.flip}{noise}, "
                f"optimizer={config.optimizer}, schedule={config.schedule}, lr={config.lr:g}; --set changes them"
            )
        return Prepared(config, own_data(data), measure, str(place))

    def _goes_on_on_its_grid(self, saved: Checkpoint | None) -> dict[str, Any]:
        """The fields with which a network that was trained on a grid goes on, if --set names the rate's."""
        if saved is None or saved.config.rate is None or not any(each.startswith("rate.") for each in self.set_):
            return {}
        return {"rate": saved.config.rate, "optimizer": saved.config.optimizer}

    def _place(self, source: str) -> Path:
        """Where the pictures are: --data, or those that a checkpoint was trained on."""
        from seedcnn.data.sets.named import FOLDER

        kind, _, where = source.partition(":")
        if self.data is None and kind != FOLDER:
            raise ConfigError(
                f"train {self.target} needs --data: a directory with a folder of pictures for each class, or a CSV file"
            )
        return Path(where) if self.data is None else self.data

    def _check_measuring(self, data: str, files: bool) -> None:
        if not files:
            refuse_without_effect({"--workers": self.workers}, f"on {data}, which is decoded once")
        elif self.validate:
            raise ConfigError(f"--validate is for sets in memory, not for {data}: measure it with `seedcnn evaluate`")

    def _planned(self, config: TrainConfig, shape: tuple[int, int, int] | None) -> TrainConfig:
        """The config with the layers of --plan, which was made for inputs of this shape."""
        from seedcnn.plan import read_plan

        if self.plan is None:
            return config
        found = read_plan(self.plan)
        if shape is not None and shape != found.input_size:
            planned, taken = ("x".join(map(str, each)) for each in (found.input_size, shape))
            raise ConfigError(f"--plan {self.plan} is for inputs of {planned}; the network takes {taken}")
        if config.convert is not None or (config.plan and config.plan != found.overrides):
            raise ConfigError(
                f"--plan {self.plan}: {self.target} is converted already; a plan starts from a plain network"
            )
        return replace(config, plan=found.overrides)

    def _rule(self, model: str, known: Preprocessing | None) -> Preprocessing:
        """The rule for the pictures: a checkpoint's own, or the network's with what the user says."""
        from seedcnn.train.own import own_rule

        if known is not None:
            given = {"--input": self.input_, "--resize": self.resize}
            refuse_without_effect(given, f"on {self.target}, whose checkpoint keeps its rule for pictures")
            return known
        size = input_size(self.input_)
        return own_rule(model, size, **({} if self.resize is None else {"resize": self.resize}))

    def _changes(self, goes_on: bool) -> list[str]:
        """Options of the command as assignments, which --set may not contradict."""
        if goes_on:
            given = {"--pretrained": self.pretrained or None, "--weights": self.weights}
            refuse_without_effect(given, f"on the checkpoint {self.target}, whose weights are the start")
        changes = [] if self.weights is None else [f"init_from={self.weights}"]
        return changes if self.flip else [*changes, "flip=none"]


def _measure(rule: Preprocessing, images: object, labels: object) -> Callable[[nn.Module], Accuracy]:
    from seedcnn.evaluate.accuracies import accuracy, torch_predictor

    return lambda network: accuracy(torch_predictor(network, rule.mean, rule.std), images, labels)  # type: ignore[arg-type]
