"""How much of a table's protocol is run: all of it, a documented reduction for two cores, or a trial of the chain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from seedcnn.convert import ConversionConfig, MonoConfig
from seedcnn.errors import ConfigError
from seedcnn.train import TrainConfig

__all__ = ["SCALES", "Scale", "scaled"]

_SMALL = {"widths": (32, 64, 128), "patch": 2}
_MONO_FILTERS = 16  # fan-outs of 2, 4 and 8 over 32, 64 and 128 channels, as 32 filters give 2 to 16 over 64 to 512


@dataclass(frozen=True)
class Scale:
    """A reduction.

    Attributes:
        about: what it changes, in a sentence.
        epochs: at most so many; None keeps the recipe's.
        fraction: of the training pictures, over what the recipe takes itself.
        pictures: test pictures that are corrupted; None for all.
        clean: test pictures that are not; None for all.
        small: train the small network of the family instead.
    """

    about: str
    epochs: int | None = None
    fraction: float = 1.0
    pictures: int | None = None
    clean: int | None = None
    small: bool = False


SCALES: Mapping[str, Scale] = {
    "full": Scale("the recipe to the letter"),
    "cpu": Scale(
        "ResNets become ResNet-8 of 32, 64 and 128 channels on 16 x 16 maps, at most 8 epochs, 2,000 pictures are "
        "corrupted: for the order of the rows, not for their values",
        epochs=8,
        pictures=2000,
        small=True,
    ),
    "smoke": Scale(
        "as cpu, with one epoch over a fiftieth of the pictures, 500 test pictures and 20 corrupted ones: it shows "
        "that the chain runs",
        epochs=1,
        fraction=0.02,
        pictures=20,
        clean=500,
        small=True,
    ),
}


def _small(config: TrainConfig) -> TrainConfig:
    if config.data == "imagenet":
        raise ConfigError(
            f"{config.model} on ImageNet has no small scale: a smaller network on fewer pictures says nothing of it; "
            "run it with --scale full"
        )
    if not config.model.startswith("resnet"):
        return config
    options = {name: value for name, value in config.model_options.items() if name == "num_classes"}
    convert: ConversionConfig | None = config.convert
    if isinstance(convert, MonoConfig) and convert.exp_factor is None and convert.seed_filters > 1:
        convert = replace(convert, seed_filters=_MONO_FILTERS)
    return replace(config, model="resnet8_cifar", model_options={**options, **_SMALL}, convert=convert)


def scaled(config: TrainConfig, scale: Scale) -> TrainConfig:
    """The config of a recipe at a scale.

    Epochs of the schedule (warm-up, steps) shrink with the epochs.

    Raises:
        ConfigError: if it cannot be made small.
    """
    if scale.small:
        config = _small(config)
    if scale.epochs is not None and scale.epochs < config.epochs:
        share = scale.epochs / config.epochs
        steps = tuple(dict.fromkeys(max(1, round(epoch * share)) for epoch in config.decay_epochs))
        steps = tuple(epoch for epoch in steps if epoch < scale.epochs)
        schedule = "constant" if config.schedule == "multistep" and not steps else config.schedule
        config = replace(
            config,
            epochs=scale.epochs,
            warmup_epochs=config.warmup_epochs * share,
            decay_epochs=() if schedule == "constant" else steps,
            schedule=schedule,
        )
    return replace(config, fraction=config.fraction * scale.fraction)
