"""The rules of a training config. It imports this file, so its type is not named here."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import timm

from seedcnn.convert.low_passing import PLACES
from seedcnn.data import DATA_SETS
from seedcnn.data.sets.named import FOLDER
from seedcnn.data.sets.own import VAL_SHARE
from seedcnn.errors import ConfigError, did_you_mean
from seedcnn.models import list_models
from seedcnn.train.freezing import UPDATES

__all__ = ["GEOMETRY", "MAPS", "MUON_SGD", "check", "in_memory_only"]

_PRECISIONS = ("fp32", "bf16", "fp16")
_STRATEGIES = ("ddp", "dp")
_NOT_NEGATIVE = (
    *("momentum", "weight_decay", "opt_eps", "warmup_lr", "min_lr", "clip_grad", "lr_base_batch"),
    *("mixup", "cutmix", "input_size"),
)
MUON_SGD = "muon+sgd"
GEOMETRY = ("crop", "shift2")  # of ``augment``: where an image is cut out
MAPS = ("prime", "augmix", "trivial")  # of ``augment``: what happens to it then
_FLIPS = ("random", "alternating", "none")
_ALTERATIONS = (
    "augment",
    "noise",
    "random_erasing",
    "mixup",
    "cutmix",
)  # what makes an image another one in each epoch
_ENDLESS = ("constant", "step", "multistep")  # schedules that never come to min_lr
_DECAYING = ("step", "multistep", "plateau", "poly")  # schedules that use decay_rate


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        hint = did_you_mean(value, known)
        raise ConfigError(f"{name} (={value!r}) is unknown; {hint}known: {', '.join(known)}")


def _check_numbers(config: Any) -> None:
    if config.epochs < 1 or config.batch_size < 1 or config.grad_accumulation < 1:
        raise ConfigError(
            f"epochs (={config.epochs}), batch_size (={config.batch_size}) and grad_accumulation "
            f"(={config.grad_accumulation}) must be positive"
        )
    if not config.lr > 0:
        raise ConfigError(f"lr (={config.lr}) must be positive")
    for name in ("seed", "data_seed"):
        if not 0 <= (seed := getattr(config, name)) < 2**63:
            raise ConfigError(f"{name} (={seed}) must be in [0, 2**63)")
    if not 0 < config.fraction <= 1:
        raise ConfigError(f"fraction (={config.fraction}) must be in (0, 1]")
    if not 0 <= config.random_erasing <= 1:
        raise ConfigError(f"random_erasing (={config.random_erasing}) must be in [0, 1]")
    for name in ("label_smoothing", "drop_path", "ema", "momentum", "muon_momentum"):
        if not 0 <= (share := getattr(config, name)) < 1:
            raise ConfigError(f"{name} (={share}) must be in [0, 1)")
    for name in _NOT_NEGATIVE:
        if not getattr(config, name) >= 0:
            raise ConfigError(f"{name} (={getattr(config, name)}) must not be negative")
    if not config.decay_rate > 0:
        raise ConfigError(f"decay_rate (={config.decay_rate}) must be positive")
    if config.data_seed and config.fraction == 1:
        raise ConfigError(f"data_seed (={config.data_seed}) has no effect with fraction 1.0: nothing is chosen")


def _check_schedule(config: Any) -> None:
    epochs = config.decay_epochs
    if not 0 <= config.cooldown_epochs < config.epochs:
        raise ConfigError(f"cooldown_epochs (={config.cooldown_epochs}) must be in [0, epochs (={config.epochs}))")
    if config.cooldown_epochs and config.schedule in _ENDLESS:
        raise ConfigError(
            f"cooldown_epochs (={config.cooldown_epochs}) contradicts schedule {config.schedule!r}, which has no end"
        )
    if config.min_lr and config.schedule in _ENDLESS:
        raise ConfigError(f"min_lr (={config.min_lr}) has no effect with schedule {config.schedule!r}: it has no end")
    if config.decay_rate != 0.1 and config.schedule not in _DECAYING:
        raise ConfigError(
            f"decay_rate (={config.decay_rate}) has no effect with schedule {config.schedule!r}; "
            f"{', '.join(_DECAYING)} use it"
        )
    scheduled = config.epochs - config.cooldown_epochs
    if not 0 <= config.warmup_epochs <= scheduled:
        raise ConfigError(
            f"warmup_epochs (={config.warmup_epochs}) must be in [0, epochs before the cool-down (={scheduled})]"
        )
    noise = config.lr_noise
    if len(noise) > 2 or list(noise) != sorted(set(noise)) or not all(0 <= share <= 1 for share in noise):
        raise ConfigError(f"lr_noise (={noise}) must be () or one or two ascending shares of the schedule, 0 to 1")
    if config.schedule not in ("multistep", "step") and epochs:
        raise ConfigError(f"decay_epochs (={epochs}) goes with schedule multistep or step, not {config.schedule!r}")
    if any(not epoch > 0 for epoch in epochs) or list(epochs) != sorted(set(epochs)):
        raise ConfigError(f"decay_epochs (={epochs}) must be positive and ascending")
    if config.schedule == "multistep" and not (epochs and epochs[-1] < config.epochs):
        raise ConfigError(f"decay_epochs (={epochs}) must name epochs before the last (={config.epochs}) for multistep")
    if config.schedule == "step" and len(epochs) > 1:
        raise ConfigError(f"decay_epochs (={epochs}) must be one interval for schedule step")


def _check_parts(augment: str) -> None:
    """Check that ``augment`` is "none", or at most one part of each kind, in order."""
    parts = augment.split("+")
    for part in parts if augment != "none" else ():
        _one_of("augment", part, ("none", *GEOMETRY, *MAPS))
    for kind in (GEOMETRY, MAPS):
        if len(found := [part for part in parts if part in kind]) > 1:
            raise ConfigError(
                f"augment (={augment!r}) holds {' and '.join(found)}; it can hold one of {', '.join(kind)}"
            )
    wanted = [part for part in (*GEOMETRY, *MAPS) if part in parts]
    if augment != "none" and parts != wanted:
        raise ConfigError(f"augment (={augment!r}) must be written as {'+'.join(wanted)!r}")


def _check_augmentation(config: Any) -> None:
    _check_parts(config.augment)
    _one_of("lowpass", config.lowpass, ("none", *PLACES))
    if not 0 <= config.noise <= 1:
        raise ConfigError(f"noise (={config.noise}) must be in [0, 1], a standard deviation on the 0..1 scale")
    _one_of("flip", config.flip, _FLIPS)
    if config.flip != "random" and not config.augments:
        raise ConfigError(f"flip (={config.flip!r}) has no effect with augment='none'")
    if config.whiten_stem and (config.pretrained or config.init_from):
        start = "pretrained" if config.pretrained else f"init_from (={config.init_from!r})"
        raise ConfigError(f"whiten_stem contradicts {start}: the first convolution would lose its weights")
    if config.data == "imagenet" and (told := in_memory_only(config)):
        raise ConfigError(f"{told} goes with images in memory, not with the files of imagenet")


def in_memory_only(config: Any) -> str | None:
    """Return the first option, with its value, that needs images in memory; None if there is none."""
    only = {"augment": config.augment not in ("none", "crop"), "flip": config.flip == "alternating"}
    for name in ("augment", "flip", "noise", "whiten_stem"):
        value = getattr(config, name)
        if only.get(name, bool(value)):
            return f"{name} (={value!r})"
    return None


def _check_optimizer(config: Any) -> None:
    muon = config.optimizer.lower() == MUON_SGD
    defaults = {each.name: each.default for each in fields(config)}
    for name in ("muon_lr", "muon_momentum"):
        if not muon and (value := getattr(config, name)) != defaults[name]:
            raise ConfigError(f"{name} (={value}) goes with optimizer {MUON_SGD!r}, not with {config.optimizer!r}")
    if not config.muon_lr > 0:
        raise ConfigError(f"muon_lr (={config.muon_lr}) must be positive")
    if muon and config.opt_eps:
        raise ConfigError(f"opt_eps (={config.opt_eps}): the optimizer {MUON_SGD!r} has no epsilon")


def _check_rate(config: Any) -> None:
    if config.rate is None:
        return
    if config.optimizer.lower() != "adam":
        raise ConfigError(f"rate needs optimizer 'adam', not {config.optimizer!r}: the weights move in steps of a grid")
    if config.rate.steps == "start" and not config.init_from:
        raise ConfigError("rate.steps (='start') needs init_from: the checkpoint whose steps and integers are taken")
    unfit = {
        "ema": config.ema,
        "precision": config.precision if config.precision == "fp16" else "",
        "strategy": config.strategy if config.strategy == "dp" else "",
        "sync_bn": config.sync_bn,
    }
    for name, value in unfit.items():
        if value:
            raise ConfigError(f"rate contradicts {name}={value!r}: weights are rounded in every forward pass")


def _check_update(config: Any) -> None:
    _one_of("update", config.update, UPDATES)
    if config.update == "all":
        return
    if config.rate is not None and config.rate.steps != "start":
        raise ConfigError(f"update (={config.update!r}) needs rate.steps 'start': other steps would change what stays")
    unfit = {"whiten_stem": config.whiten_stem, "plan": config.plan, "distill": config.distill}
    for name, value in unfit.items():
        if value:
            raise ConfigError(f"update (={config.update!r}) contradicts {name}, which changes what stays")


def _check_together(config: Any) -> None:
    if (config.data == FOLDER) != (config.preprocessing is not None):
        raise ConfigError(
            f"preprocessing goes with the data {FOLDER!r} and is needed there; the data are {config.data!r}"
        )
    if config.val != VAL_SHARE and config.data != FOLDER:
        raise ConfigError(f"val (={config.val}) goes with the data {FOLDER!r}, not with {config.data!r}")
    if not 0 < config.val < 1:
        raise ConfigError(f"val (={config.val}) must be in (0, 1)")
    _check_augmentation(config)
    if config.fraction < 1 and config.data == FOLDER:
        raise ConfigError(f"fraction (={config.fraction}) goes with named data sets, not with pictures of one's own")
    if config.pretrained and config.init_from:
        raise ConfigError(f"pretrained contradicts init_from (={config.init_from!r}): weights come from one of them")
    if config.pretrained and (config.model in list_models() or not timm.is_model(config.model)):
        raise ConfigError(f"pretrained goes with the networks of timm, not with {config.model!r}")
    if config.hold_out and not (config.data in DATA_SETS and DATA_SETS[config.data].hold_out):
        known = " and ".join(name for name, each in DATA_SETS.items() if each.hold_out)
        raise ConfigError(f"hold_out (={config.hold_out!r}) goes with the data {known} only, not with {config.data}")
    if config.input_size and config.data != "imagenet":
        raise ConfigError(
            f"input_size (={config.input_size}) goes with the data imagenet only: other sets have their own size"
        )
    if config.rand_augment and config.data != "imagenet":
        raise ConfigError(
            f"rand_augment (={config.rand_augment!r}) goes with the data imagenet only: it works on PIL images"
        )
    if config.rand_augment and not config.augments:
        raise ConfigError(f"rand_augment (={config.rand_augment!r}) contradicts augment='none'")
    if (config.mixup or config.cutmix) and config.batch_size % 2:
        raise ConfigError(f"batch_size (={config.batch_size}) must be even: mixup and cutmix mix images in pairs")
    if (config.mixup or config.cutmix) and not config.drop_last:
        raise ConfigError(
            "drop_last=False contradicts mixup and cutmix, which mix images in pairs, in the last batch, too"
        )
    if config.strategy == "dp" and config.sync_bn:
        raise ConfigError("sync_bn contradicts strategy 'dp': it works across processes, and dp has one")
    if config.strategy == "dp" and config.distill is not None:
        raise ConfigError("distill contradicts strategy 'dp': replicas of the network have no taps")
    changed = [name for name in _ALTERATIONS if getattr(config, name) not in (0, "none")]
    if config.distill is not None and config.distill.cache and changed:
        raise ConfigError(
            f"distill.cache needs images that are the same in every epoch; it contradicts "
            f"{changed[0]}={getattr(config, changed[0])!r}"
        )
    if config.sampling is not None:
        try:
            config.sampling.ratios(config.epochs)
        except ValueError as error:
            raise ConfigError(f"sampling does not fit epochs (={config.epochs}): {error}") from None


def check(config: Any) -> None:
    """Raise ``ConfigError`` for the first rule that is broken, naming the field, its value and the rule."""
    if config.overrides and config.convert is None:
        raise ConfigError(f"overrides (of {', '.join(config.overrides)}) need convert, the config of all other layers")
    if config.plan and config.convert is not None:
        raise ConfigError("plan contradicts convert: it names the config of each layer that is converted")
    _one_of("data", config.data, (*DATA_SETS, FOLDER))
    _one_of("precision", config.precision, _PRECISIONS)
    _one_of("strategy", config.strategy, _STRATEGIES)
    _check_numbers(config)
    _check_schedule(config)
    _check_optimizer(config)
    _check_rate(config)
    _check_update(config)
    _check_together(config)
