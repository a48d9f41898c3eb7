"""The config of a training run: one frozen dataclass, made by a recipe function."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import timm

from seedcnn import typed
from seedcnn.bundle import Preprocessing
from seedcnn.convert import ConversionConfig
from seedcnn.data import DATA_SETS
from seedcnn.data.sets.named import FOLDER
from seedcnn.data.sets.own import VAL_SHARE
from seedcnn.errors import ConfigError, did_you_mean
from seedcnn.models import list_models
from seedcnn.sampling import SamplingConfig
from seedcnn.train._model_options import checked_options
from seedcnn.train._override import override
from seedcnn.train.distill_config import DistillConfig

__all__ = ["GEOMETRY", "MUON_SGD", "TrainConfig", "differences", "override"]

_PRECISIONS = ("fp32", "bf16", "fp16")
_STRATEGIES = ("ddp", "dp")
_NOT_NEGATIVE = (
    *("momentum", "weight_decay", "opt_eps", "warmup_lr", "min_lr", "clip_grad", "lr_base_batch"),
    *("mixup", "cutmix", "input_size"),
)
MUON_SGD = "muon+sgd"
GEOMETRY = ("crop", "shift2")  # of ``augment``: where an image is cut out
_FLIPS = ("random", "alternating", "none")
_ALTERATIONS = ("augment", "random_erasing", "mixup", "cutmix")  # what makes an image another one in each epoch
_ENDLESS = ("constant", "step", "multistep")  # schedules that never come to min_lr
_DECAYING = ("step", "multistep", "plateau", "poly")  # schedules that use decay_rate
_DECAY_RATE = 0.1  # the default
_ABSENT = "not set"


@dataclass(frozen=True)
class TrainConfig:
    """A whole training run, apart from where the data are and on how many processes it runs.

    A value is converted to its field's type, or refused (:mod:`seedcnn.typed`).

    Args:
        model: name for :func:`seedcnn.models.create_model`, or of a network of timm, or FILE.py:CALLABLE or
            package.module:CALLABLE of a network of one's own.
        model_options: keyword arguments of the network; an argument with a known type is checked.
        convert: what the model is converted to, or None for the network as it is.
        overrides: pattern of layer names -> another config for these layers, or None to leave them, as in
            :func:`seedcnn.convert.convert_`.
        plan: qualified name of a convolution -> config it is converted to, of a plan (``seedcnn.plan.Plan.overrides``);
            all others stay. Instead of ``convert``.
        epochs: passes over the training images, including those of ``cooldown_epochs``.
        batch_size: images in a step of one process.
        drop_last: whether to drop the incomplete last batch of an epoch.
        lr: peak learning rate.
        optimizer: timm optimizer name ("sgd" is SGD with Nesterov momentum), or "muon+sgd": Muon for dense
            convolutions, SGD for the rest (:mod:`seedcnn.train.muon`).
        opt_eps: the epsilon of an optimizer that has one; 0 for its own default.
        momentum, weight_decay: arguments of the optimizer; norms and biases are not decayed.
        muon_lr, muon_momentum: of the dense convolutions with "muon+sgd"; ``lr`` and ``momentum`` are those of SGD.
        schedule: timm scheduler name ("cosine", "multistep", "step", "poly", "constant", ...), or "linear" for a
            straight line from ``lr`` to ``min_lr``; stepped after every update.
        warmup_epochs: linear warm-up from ``warmup_lr``; may be fractional.
        warmup_lr, min_lr: learning rates at which the warm-up starts and the schedule ends.
        cooldown_epochs: how many of the epochs follow the schedule, at ``min_lr``; "cosine", "tanh", "poly", "wsd" and
            "rsqrt".
        lr_noise: the shares of the schedule between which the learning rate is multiplied by 1 + noise, e.g.
            (0.4, 0.9), or (0.4,) to its end; timm's normal noise within 0.67, drawn once an epoch.
        label_smoothing: smoothing of the labels in the cross entropy.
        augment: how an image is changed, or "none". "crop": random crop with black padding of 4 pixels (an eighth of
            the height for pictures of one's own); for "imagenet" timm's random resized crop and colour jitter.
            "shift2": reflecting padding of 2 pixels, and one shift for an eighth of a batch; images in memory only.
        flip: as part of ``augment``: "random" mirrors half of the images, "alternating" each image in every second
            epoch (images in memory only), "none" where left and right mean something.
        whiten_stem: start the first convolution with filters that whiten the patches of the training images, and keep
            them (:func:`seedcnn.train.whitening.whiten_stem_`); images in memory only.
        channels_last: memory format of model and images.
        init_from: checkpoint, or file of weights (:func:`seedcnn.models.weights.load_weights`), whose weights the run
            starts from (fine-tuning), or "".
        pretrained: start from timm's published weights; they are looked for when a run starts, never when a checkpoint
            is opened.
        seed: for the initial weights, the layers' seeds, the order of the images and the augmentation.
        data: "cifar10", "cifar100", "gtsrb", "icons50", "icons50-rebuilt", "imagenet", or "folder" for pictures of
            one's own; "" is "folder" with ``preprocessing``, else "cifar10".
        preprocessing: the rule by which pictures of one's own become inputs; None for the rule of the data set.
        val: share of one's own pictures to measure on, where they have no parts.
        hold_out: for Icons-50: what the network does not see, as in :func:`seedcnn.data.sets.named.load_test`.
        fraction: share of the training images to use, with the classes in their proportions.
        data_seed: seed of that choice.
        input_size: height and width of the images of "imagenet"; 0 for 224.
        rand_augment: timm's text for RandAugment, e.g. "rand-m9-mstd0.5"; "imagenet" only.
        random_erasing: probability that noise replaces a rectangle of an image.
        mixup, cutmix: alpha of timm's Mixup; 0 for none.
        drop_path: stochastic depth rate; timm's networks only.
        lr_base_batch: the linear-scaling rule: ``lr`` is for this many images an update, over all processes and
            accumulated batches; 0 takes ``lr`` as it is.
        decay_epochs: when "multistep" lowers the learning rate: before the first update of these epochs, counted from
            0; for "step" one number, the interval. They may be fractional.
        decay_rate: the factor of that; for "poly" the power.
        decay_norms: apply weight decay to norms and biases, too.
        grad_accumulation: batches whose mean gradient makes one update.
        clip_grad: largest L2 norm of the gradient; 0 for no limit.
        ema: decay of the moving average of the weights; 0 for none.
        precision: "fp32", "bf16" (autocast) or "fp16" (autocast with a gradient scaler).
        compile: train through torch.compile.
        deterministic: use only operations that give the same bits every time; torch refuses those that cannot.
        sync_bn: norms use the statistics of all processes (CUDA).
        strategy: on several GPUs: "ddp", a process each (torchrun), or "dp", one process (``nn.DataParallel``).
        sampling: reduced sampling, or None for every batch of every epoch.
        distill: distillation from a teacher, or None.

    Raises:
        ConfigError: naming the field, its value and the rule.
    """

    model: str
    model_options: dict[str, Any] = field(default_factory=dict)
    convert: ConversionConfig | None = None
    overrides: dict[str, ConversionConfig | None] = field(default_factory=dict)
    plan: dict[str, ConversionConfig] = field(default_factory=dict)
    epochs: int = 30
    batch_size: int = 128
    drop_last: bool = True
    lr: float = 0.1
    optimizer: str = "sgd"
    opt_eps: float = 0.0
    momentum: float = 0.9
    muon_lr: float = 0.08
    muon_momentum: float = 0.8
    weight_decay: float = 5e-4
    schedule: str = "cosine"
    warmup_epochs: float = 1.0
    warmup_lr: float = 1e-4
    min_lr: float = 0.0
    cooldown_epochs: int = 0
    lr_noise: tuple[float, ...] = ()
    label_smoothing: float = 0.0
    augment: str = "crop"
    flip: str = "random"
    whiten_stem: bool = False
    channels_last: bool = True
    init_from: str = ""
    pretrained: bool = False
    seed: int = 0
    data: str = ""
    preprocessing: Preprocessing | None = None
    val: float = VAL_SHARE
    hold_out: str = ""
    fraction: float = 1.0
    data_seed: int = 0
    input_size: int = 0
    rand_augment: str = ""
    random_erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    drop_path: float = 0.0
    lr_base_batch: int = 0
    decay_epochs: tuple[float, ...] = ()
    decay_rate: float = 0.1
    decay_norms: bool = False
    grad_accumulation: int = 1
    clip_grad: float = 0.0
    ema: float = 0.0
    precision: str = "fp32"
    compile: bool = False
    deterministic: bool = False
    sync_bn: bool = False
    strategy: str = "ddp"
    sampling: SamplingConfig | None = None
    distill: DistillConfig | None = None

    def __post_init__(self) -> None:
        typed.settle(self)
        if not self.data:
            object.__setattr__(self, "data", "cifar10" if self.preprocessing is None else FOLDER)
        object.__setattr__(self, "model_options", checked_options(self.model, self.model_options))
        _check(self)
        typed.to_plain(self)  # refuse now what the first checkpoint could not hold

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON: the format and the fields; a conversion has its method's name among its own."""
        return typed.stamped(typed.to_plain(self))

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> TrainConfig:
        """The inverse of :meth:`to_dict`, also after JSON; a field that is missing has its default.

        Raises:
            ConfigError: if the data are of another format, a field or method does not exist, or a value is wrong.
        """
        config: TrainConfig = typed.convert(cls, _today(typed.unstamped(value, "a training config")), "")
        return config

    @property
    def augments(self) -> bool:
        """Whether ``augment`` changes images."""
        return self.augment != "none"


def _today(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a config in which ``augment`` and ``flip`` may still be truth values."""
    names = {"augment": {True: "crop", False: "none"}, "flip": {True: "random", False: "none"}}
    return {
        name: names[name][value] if name in names and isinstance(value, bool) else value
        for name, value in fields.items()
    }


def differences(first: TrainConfig, second: TrainConfig) -> dict[str, tuple[Any, Any]]:
    """The fields in which two configs differ, those of nested configs by path, with both values as plain data."""
    ours, theirs = _flat(first.to_dict()), _flat(second.to_dict())
    return {
        name: (ours.get(name, _ABSENT), theirs.get(name, _ABSENT))
        for name in (ours | theirs)
        if ours.get(name, _ABSENT) != theirs.get(name, _ABSENT)
    }


def _flat(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in data.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) and value else {f"{prefix}{name}": value}
    return flat


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
    for name in ("label_smoothing", "drop_path", "ema", "muon_momentum"):
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
            f"cooldown_epochs (={config.cooldown_epochs}) contradicts schedule {config.schedule!r}, which has no end"
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


def _check_augmentation(config: TrainConfig) -> None:
    _one_of("augment", config.augment, ("none", *GEOMETRY))
    _one_of("flip", config.flip, _FLIPS)
    if config.flip != "random" and not config.augments:
        raise ConfigError(f"flip (={config.flip!r}) has no effect with augment='none'")
    if config.whiten_stem and (config.pretrained or config.init_from):
        start = "pretrained" if config.pretrained else f"init_from (={config.init_from!r})"
        raise ConfigError(f"whiten_stem contradicts {start}: the first convolution would lose its weights")
    in_memory = {"augment": config.augment == "shift2", "flip": config.flip == "alternating", "whiten_stem": True}
    for name, only in in_memory.items():
        value = getattr(config, name)
        if config.data == "imagenet" and only and value:
            raise ConfigError(f"{name} (={value!r}) goes with images in memory, not with the files of imagenet")


def _check_optimizer(config: TrainConfig) -> None:
    muon = config.optimizer.lower() == MUON_SGD
    defaults = {each.name: each.default for each in fields(TrainConfig)}
    for name in ("muon_lr", "muon_momentum"):
        if not muon and (value := getattr(config, name)) != defaults[name]:
            raise ConfigError(f"{name} (={value}) goes with optimizer {MUON_SGD!r}, not with {config.optimizer!r}")
    if not config.muon_lr > 0:
        raise ConfigError(f"muon_lr (={config.muon_lr}) must be positive")
    if muon and config.opt_eps:
        raise ConfigError(f"opt_eps (={config.opt_eps}): the optimizer {MUON_SGD!r} has no epsilon")


def _check_together(config: TrainConfig) -> None:
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


def _check(config: TrainConfig) -> None:
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
    _check_together(config)
