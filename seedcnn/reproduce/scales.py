"""Scales of a reproduction: the full protocol, a documented reduction for two CPU cores, or a quick smoke test."""

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
    """The small network of a family: its arguments, and the other settings that shrink with it."""

    model: str
    options: Mapping[str, Any]
    mono_filters: int = 0  # keeps the proportions of the published fan-outs
    fraction: float = 1.0


# By the prefix of the model's name; sized so that 8 epochs of any row take two to six minutes on one core.
_FORMS: Mapping[str, _Form] = {
    "resnet": _Form("resnet8_cifar", {"widths": (32, 64, 128), "patch": 2}, mono_filters=16),
    "vgg11": _Form("vgg11_cifar", {"widths": (16, 32, 64, 128, 128)}, mono_filters=8),
    "crnet_cb": _Form("crnet_cb", {"depths": (1, 1, 2, 1), "patch": 2}),
    "crnet_cib": _Form("crnet_cib", {"depths": (2, 2, 2), "patch": 2}, fraction=0.5),
}


@dataclass(frozen=True)
class Scale:
    """A reduction of a recipe's protocol.

    Attributes:
        about: what it changes, in a sentence.
        epochs: maximal number of epochs; None keeps the recipe's number.
        fraction: share of the recipe's training images to use.
        pictures: number of test images to corrupt; None for all.
        clean: number of clean test images; None for all.
        small: train the small network of the family instead.
    """

    about: str
    epochs: int | None = None
    fraction: float = 1.0
    pictures: int | None = None
    clean: int | None = None
    small: bool = False


SCALES: Mapping[str, Scale] = {
    "full": Scale("the recipe without changes"),
    "cpu": Scale(
        "ResNets become a ResNet-8 with 32, 64 and 128 channels on 16 x 16 maps, VGG11 has a quarter of its channels, "
        "CRnet-CB has 5 of its 16 blocks on 16 x 16 maps, CRnet-CIB has 6 of 16 blocks on 16 x 16 maps and half of the "
        "images; GroupNL has at most as many groups g as the first layer has seeds; there are at most 8 epochs and "
        "2,000 corrupted images, all in float32 and in one process: it shows the order of the rows, not their values",
        epochs=8,
        pictures=2000,
        small=True,
    ),
    "smoke": Scale(
        "as cpu, with one epoch over a fiftieth of the images, 500 clean and 20 corrupted test images: it only shows "
        "that all steps run",
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
            f"{config.model} on ImageNet has no small scale, because a smaller network on fewer images says nothing "
            "about it; run it with --scale full"
        )
    found = next((form for prefix, form in _FORMS.items() if config.model.startswith(prefix)), None)
    if found is None:
        raise ConfigError(f"{config.model} has no small scale; only names with a prefix {', '.join(_FORMS)} have one")
    return replace(
        config,
        model=found.model,
        model_options={**config.model_options, **found.options},
        convert=_small_conversion(config.convert, found),
        fraction=config.fraction * found.fraction,
        precision="fp32",  # half precision is much slower on a CPU
        strategy="ddp",  # one process; "dp" refuses to run without GPUs
    )


def scaled(config: TrainConfig, scale: Scale) -> TrainConfig:
    """Reduce the config of a recipe to a scale.

    Epochs within the schedule (warm-up, steps) shrink with the number of epochs.

    Raises:
        ConfigError: if the model has no small form.
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
