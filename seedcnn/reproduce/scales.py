"""How much of a table's protocol is run: all of it, a documented reduction for two cores, or a trial of the chain."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from seedcnn.convert import ConversionConfig, GroupNLConfig, MonoConfig
from seedcnn.errors import ConfigError
from seedcnn.train import TrainConfig

__all__ = ["SCALES", "Scale", "scaled"]


@dataclass(frozen=True)
class _Form:
    """The small network of a family: arguments, and what has to shrink with it."""

    model: str
    options: Mapping[str, Any]
    mono_filters: int = 0  # for fan-outs in the proportion of the published ones
    fraction: float = 1.0


# By the beginning of a model's name; sized so that 8 epochs of any row take two to six minutes on one core.
_FORMS: Mapping[str, _Form] = {
    "resnet": _Form("resnet8_cifar", {"widths": (32, 64, 128), "patch": 2}, mono_filters=16),
    "vgg11": _Form("vgg11_cifar", {"widths": (16, 32, 64, 128, 128)}, mono_filters=8),
    "crnet_cb": _Form("crnet_cb", {"depths": (1, 1, 2, 1), "patch": 2}),
    "crnet_cib": _Form("crnet_cib", {"depths": (2, 2, 2), "patch": 2}, fraction=0.5),
}


@dataclass(frozen=True)
class Scale:
    """A reduction.

    Attributes:
        about: what it changes, in a sentence.
        epochs: at most so many; None keeps the recipe's.
        fraction: of the training images, over what the recipe takes itself.
        images: test images that are corrupted; None for all.
        clean: test images that are not; None for all.
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
        "ResNets become ResNet-8 of 32, 64 and 128 channels on 16 x 16 maps, VGG11 has a quarter of its channels, "
        "CRnet-CB 5 of its 16 blocks on 16 x 16 maps, CRnet-CIB 6 of 16 on 16 x 16 maps and half of the images; "
        "GroupNL has at most as many groups g as the first layer has seeds; at most 8 epochs, 2,000 images are "
        "corrupted, all in float32 and one process: for the order of the rows, not for their values",
        epochs=8,
        pictures=2000,
        small=True,
    ),
    "smoke": Scale(
        "as cpu, with one epoch over a fiftieth of the images, 500 test images and 20 corrupted ones: it shows "
        "that the chain runs",
        epochs=1,
        fraction=0.02,
        pictures=20,
        clean=500,
        small=True,
    ),
}


def _small_conversion(convert: ConversionConfig | None, form: _Form) -> ConversionConfig | None:
    if isinstance(convert, MonoConfig) and convert.exp_factor is None and convert.seed_filters > 1:
        return replace(convert, seed_filters=form.mono_filters)
    if isinstance(convert, GroupNLConfig):
        seeds = min(form.options["widths"]) // convert.reduction_ratio
        return replace(convert, nlf_groups=math.gcd(convert.nlf_groups, seeds))
    return convert


def _small(config: TrainConfig) -> TrainConfig:
    if config.data == "imagenet":
        raise ConfigError(
            f"{config.model} on ImageNet has no small scale: a smaller network on fewer images says nothing of it; "
            "run it with --scale full"
        )
    found = next((form for prefix, form in _FORMS.items() if config.model.startswith(prefix)), None)
    if found is None:
        raise ConfigError(f"{config.model} has no small scale; those that have begin with {', '.join(_FORMS)}")
    return replace(
        config,
        model=found.model,
        model_options={**config.model_options, **found.options},
        convert=_small_conversion(config.convert, found),
        fraction=config.fraction * found.fraction,
        precision="fp32",  # half precision is far slower on a CPU
        strategy="ddp",  # one process; "dp" refuses to run without GPUs
    )


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
            cooldown_epochs=round(config.cooldown_epochs * share),
            decay_epochs=() if schedule == "constant" else steps,
            schedule=schedule,
        )
    return replace(config, fraction=config.fraction * scale.fraction)
