"""The rules between the fields of a training config."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seedcnn.data.sets.named import DATA_SETS
from seedcnn.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from seedcnn.train.config import TrainConfig

__all__ = ["check"]

_PRECISIONS = ("fp32", "bf16", "fp16")
_STRATEGIES = ("ddp", "dp")
_NOT_NEGATIVE = (
    *("momentum", "weight_decay", "opt_eps", "warmup_lr", "min_lr", "clip_grad", "lr_base_batch"),
    *("mixup", "cutmix", "input_size"),
)
_AUGMENTATIONS = ("augment", "random_erasing", "mixup", "cutmix")
_ENDLESS = ("constant", "step", "multistep")  # schedules that never come to min_lr
_DECAYING = ("step", "multistep", "plateau", "poly")  # schedules that use decay_rate
_DECAY_RATE = 0.1  # the default


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        hint = did_you_mean(value, known)
        raise ConfigError(f"{name} (={value!r}) is unknown; {hint}known: {', '.join(known)}")


def _check_numbers(config: TrainConfig) -> None:
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
    for name in ("label_smoothing", "drop_path", "ema"):
        if not 0 <= (share := getattr(config, name)) < 1:
            raise ConfigError(f"{name} (={share}) must be in [0, 1)")
    for name in _NOT_NEGATIVE:
        if not getattr(config, name) >= 0:
            raise ConfigError(f"{name} (={getattr(config, name)}) must not be negative")
    if not config.decay_rate > 0:
        raise ConfigError(f"decay_rate (={config.decay_rate}) must be positive")
    if config.data_seed and config.fraction == 1:
        raise ConfigError(f"data_seed (={config.data_seed}) has no effect with fraction 1.0: nothing is chosen")


def _check_schedule(config: TrainConfig) -> None:
    epochs = config.decay_epochs
    if not 0 <= config.cooldown_epochs < config.epochs:
        raise ConfigError(f"cooldown_epochs (={config.cooldown_epochs}) must be in [0, epochs (={config.epochs}))")
    if config.cooldown_epochs and config.schedule in _ENDLESS:
        raise ConfigError(
            f"cooldown_epochs (={config.cooldown_epochs}) contradicts schedule {config.schedule!r}: it has no end"
        )
    if config.min_lr and config.schedule in _ENDLESS:
        raise ConfigError(f"min_lr (={config.min_lr}) has no effect with schedule {config.schedule!r}: it has no end")
    if config.decay_rate != _DECAY_RATE and config.schedule not in _DECAYING:
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


def _check_together(config: TrainConfig) -> None:
    if config.hold_out and not DATA_SETS[config.data].hold_out:
        raise ConfigError(f"hold_out (={config.hold_out!r}) goes with the data icons50 only, not with {config.data}")
    if config.input_size and config.data != "imagenet":
        raise ConfigError(
            f"input_size (={config.input_size}) goes with the data imagenet only: other sets have their own size"
        )
    if config.rand_augment and config.data != "imagenet":
        raise ConfigError(
            f"rand_augment (={config.rand_augment!r}) goes with the data imagenet only: it works on PIL images"
        )
    if config.rand_augment and not config.augment:
        raise ConfigError(f"rand_augment (={config.rand_augment!r}) contradicts augment=False")
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
    changed = [name for name in _AUGMENTATIONS if getattr(config, name)]
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


def check(config: TrainConfig) -> None:
    """Raise ``ConfigError`` for the first rule that is broken, naming the field, its value and the rule."""
    if config.overrides and config.convert is None:
        raise ConfigError(f"overrides (of {', '.join(config.overrides)}) need convert, the config of all other layers")
    _one_of("data", config.data, tuple(DATA_SETS))
    _one_of("precision", config.precision, _PRECISIONS)
    _one_of("strategy", config.strategy, _STRATEGIES)
    _check_numbers(config)
    _check_schedule(config)
    _check_together(config)
