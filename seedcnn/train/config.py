"""The config of a training run: one frozen dataclass, made by a recipe function."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import timm
from torch import nn

from seedcnn import typed
from seedcnn.convert import ConversionConfig, convert_
from seedcnn.errors import ConfigError
from seedcnn.models import create_model, list_models
from seedcnn.models.timm_registry import GNL_MODELS
from seedcnn.sampling.schedules import SamplingConfig
from seedcnn.train._model_options import checked_options
from seedcnn.train._override import override
from seedcnn.train._rules import check
from seedcnn.train.distill import DistillConfig

__all__ = ["TrainConfig", "build_model", "override"]


@dataclass(frozen=True)
class TrainConfig:
    """A whole training run, apart from where the data are and on how many processes it runs.

    A value is converted to its field's type, or refused (:mod:`seedcnn.typed`).

    Args:
        model: name for :func:`seedcnn.models.create_model`, or of a network of timm.
        model_options: keyword arguments of the network; an argument with a known type is checked.
        convert: what the model is converted to, or None for the network as it is.
        overrides: pattern of layer names -> another config for these layers, or None to leave them, as in
            :func:`seedcnn.convert.convert_`.
        epochs: passes over the training images, including those of ``cooldown_epochs``.
        batch_size: images in a step of one process.
        drop_last: whether to drop the incomplete last batch of an epoch.
        lr: peak learning rate.
        optimizer: timm optimizer name ("sgd" is SGD with Nesterov momentum).
        opt_eps: the epsilon of an optimizer that has one; 0 for its own default.
        momentum, weight_decay: arguments of the optimizer; norms and biases are not decayed.
        schedule: timm scheduler name ("cosine", "multistep", "step", "poly", "constant", ...), stepped after every
            update.
        warmup_epochs: linear warm-up from ``warmup_lr``; may be fractional.
        warmup_lr, min_lr: learning rates at which the warm-up starts and the schedule ends.
        cooldown_epochs: how many of the epochs follow the schedule, at ``min_lr``; "cosine", "tanh", "poly", "wsd" and
            "rsqrt".
        lr_noise: the shares of the schedule between which the learning rate is multiplied by 1 + noise, e.g.
            (0.4, 0.9), or (0.4,) to its end; timm's normal noise within 0.67, drawn once an epoch.
        label_smoothing: smoothing of the labels in the cross entropy.
        augment: random crop with padding 4 and horizontal flip; for "imagenet" timm's random resized crop, flip and
            colour jitter.
        channels_last: memory format of model and images.
        init_from: checkpoint whose weights the run starts from (fine-tuning), or "".
        seed: for the initial weights, the layers' seeds, the order of the images and the augmentation.
        data: "cifar10", "cifar100", "gtsrb", "icons50", "icons50-rebuilt" or "imagenet".
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
    epochs: int = 30
    batch_size: int = 128
    drop_last: bool = True
    lr: float = 0.1
    optimizer: str = "sgd"
    opt_eps: float = 0.0
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: str = "cosine"
    warmup_epochs: float = 1.0
    warmup_lr: float = 1e-4
    min_lr: float = 0.0
    cooldown_epochs: int = 0
    lr_noise: tuple[float, ...] = ()
    label_smoothing: float = 0.0
    augment: bool = True
    channels_last: bool = True
    init_from: str = ""
    seed: int = 0
    data: str = "cifar10"
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
        object.__setattr__(self, "model_options", checked_options(self.model, self.model_options))
        check(self)
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
        config: TrainConfig = typed.convert(cls, typed.unstamped(value, "a training config"), "")
        return config


def _timm_network(config: TrainConfig) -> nn.Module:
    options = dict(config.model_options)
    if config.model in GNL_MODELS:
        options.setdefault("seed", config.seed)
    return timm.create_model(config.model, drop_path_rate=config.drop_path, **options)


def build_model(config: TrainConfig) -> nn.Module:
    """Build the network of a config, with fresh weights and converted.

    Raises:
        ConfigError: if there is no such network (near names are listed), or ``drop_path`` has no effect on it.
    """
    if config.model not in list_models() and timm.is_model(config.model):
        model = _timm_network(config)
    elif config.drop_path:
        raise ConfigError(f"drop_path (={config.drop_path}) goes with the networks of timm, not with {config.model!r}")
    else:
        model = create_model(config.model, **config.model_options)
    if config.convert is not None:
        convert_(model, config.convert, seed=config.seed, overrides=config.overrides)
    return model
