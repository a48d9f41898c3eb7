"""The config of a training run: one frozen dataclass, made by a recipe function."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from seedcnn import typed
from seedcnn.bundle import Preprocessing
from seedcnn.convert import ConversionConfig
from seedcnn.data import CORRUPTIONS
from seedcnn.data.sets.named import FOLDER
from seedcnn.data.sets.own import VAL_SHARE
from seedcnn.sampling import SamplingConfig
from seedcnn.train._model_options import checked_options
from seedcnn.train._override import differences, override
from seedcnn.train._rules import MUON_SGD, check
from seedcnn.train.distill_config import DistillConfig
from seedcnn.train.rate_config import RateConfig

__all__ = ["MUON_SGD", "TrainConfig", "differences", "override"]


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
            After it, joined by "+", or alone, for images in memory: "prime" (random filters, colour curves and affine
            maps), "augmix" or "trivial", of :mod:`seedcnn.data.augmentation`, e.g. "shift2+prime".
        noise: largest standard deviation, on the 0..1 scale, of the normal noise that half of the images get last; 0
            for none; images in memory only. Noise is a test corruption: tables of robustness mark it.
        flip: as part of ``augment``: "random" mirrors half of the images, "alternating" each image in every second
            epoch (images in memory only), "none" where left and right mean something.
        whiten_stem: start the first convolution with filters that whiten the patches of the training images, and keep
            them (:func:`seedcnn.train.whitening.whiten_stem_`); images in memory only.
        lowpass: fixed low-pass filters of the network: "none", "stem", "strides" or "stem+strides"
            (:func:`seedcnn.convert.lowpass_`); True is "stem".
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
        update: what learns: "all", "norms", "head" (the layer that makes the logits) or "norms+head"; the rest stays as
            ``init_from`` or ``pretrained`` has it, norms that do not learn with their running statistics. The steps of
            a checkpoint that was trained on a grid stay with "norms"; a head goes on with ``rate.steps="start"``.
        rate: training on the grid with a price on bits, or None; needs optimizer "adam", whose ``lr`` is that of all
            that is no weight.

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
    noise: float = 0.0
    whiten_stem: bool = False
    lowpass: str = "none"
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
    update: str = "all"
    rate: RateConfig | None = None

    def __post_init__(self) -> None:
        if (place := _PLACES.get(str(self.lowpass).lower())) is not None:
            object.__setattr__(self, "lowpass", place)
        typed.settle(self)
        if not self.data:
            object.__setattr__(self, "data", "cifar10" if self.preprocessing is None else FOLDER)
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
        config: TrainConfig = typed.convert(cls, _today(typed.unstamped(value, "a training config")), "")
        return config

    @property
    def augments(self) -> bool:
        """Whether ``augment`` changes images."""
        return self.augment != "none"

    @property
    def augment_parts(self) -> tuple[str, ...]:
        """The parts of ``augment``; () for "none"."""
        return tuple(self.augment.split("+")) if self.augments else ()

    @property
    def seen_corruptions(self) -> tuple[str, ...]:
        """The test corruptions (:data:`seedcnn.data.CORRUPTIONS`) of a kind that the training images had.

        All of noise after ``noise``; brightness, contrast and saturation after TrivialAugment and RandAugment.
        """
        seen = [name for name, each in CORRUPTIONS.items() if self.noise and each.group == "Noise"]
        if "trivial" in self.augment_parts or self.rand_augment:
            seen += ["brightness", "contrast", "saturate"]
        return tuple(seen)


_PLACES = {"true": "stem", "yes": "stem", "on": "stem", "false": "none", "no": "none", "off": "none"}


def _today(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a config in which ``augment`` and ``flip`` may still be truth values."""
    names = {"augment": {True: "crop", False: "none"}, "flip": {True: "random", False: "none"}}
    return {
        name: names[name][value] if name in names and isinstance(value, bool) else value
        for name, value in fields.items()
    }
