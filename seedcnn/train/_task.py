"""The module that the training loop calls: from images, targets and indices to a loss and logits."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seedcnn.errors import ConfigError, SeedCNNError
from seedcnn.train.config import TrainConfig
from seedcnn.train.distill import Distiller, load_teacher

__all__ = ["Classifier", "data_parallel", "make_task", "outputs"]


class Classifier(nn.Module):
    """A network and its cross entropy.

    timm's ``ClassificationTask`` selects a loss by rules of its own; this one always uses ``F.cross_entropy``, and has
    the same call as :class:`Distiller`.
    """

    def __init__(self, model: nn.Module, label_smoothing: float) -> None:
        super().__init__()
        self.model, self.label_smoothing = model, label_smoothing

    def forward(self, images: Tensor, targets: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """The loss, a scalar, and the logits [N, classes]; targets are labels [N] or probabilities [N, classes]."""
        logits = self.model(images)
        if not isinstance(logits, Tensor):
            raise ConfigError(
                f"in training the network returns {_described(logits)}; it must return one tensor of logits"
            )
        return F.cross_entropy(logits, targets, label_smoothing=self.label_smoothing), logits


def make_task(
    config: TrainConfig, model: nn.Module, teacher: nn.Module | None, size: tuple[int, int, int]
) -> nn.Module:
    """Make the task of a config.

    Args:
        config: of the run.
        model: the network, on its device.
        teacher: for distillation, instead of the checkpoint that the config names.
        size: (3, H, W) of the images.

    Raises:
        ConfigError: if there is a teacher without distillation, or distillation without a teacher.
    """
    smoothing = 0.0 if config.mixup or config.cutmix else config.label_smoothing  # timm's Mixup smooths labels itself
    if config.distill is None:
        if teacher is not None:
            raise ConfigError("there is a teacher, but distill is None")
        return Classifier(model, smoothing)
    if teacher is None:
        teacher = load_teacher(config.distill)
    device = next(model.parameters()).device
    augmented = bool(config.augments or config.noise or config.mixup or config.cutmix or config.random_erasing)
    criterion = partial(F.cross_entropy, label_smoothing=smoothing)
    return Distiller(
        config.distill, model, teacher.to(device), criterion=criterion, input_size=size, augmented=augmented
    ).to(device)


def data_parallel(model: nn.Module, device: torch.device) -> nn.Module:
    """Wrap a network in ``nn.DataParallel`` over all GPUs of this machine, for comparison.

    Raises:
        ConfigError: if there are fewer than two GPUs.
    """
    if device.type != "cuda" or torch.cuda.device_count() < 2:
        raise ConfigError(f"strategy 'dp' needs several GPUs in one process; there are {torch.cuda.device_count()}")
    return nn.DataParallel(model)


def outputs(model: nn.Module, size: tuple[int, int, int]) -> int:
    """Number of classes of a network, from the shape of its output.

    Raises:
        ConfigError: if the network cannot take images of this size, does not return logits, or has nothing to train.
    """
    first = next((each for each in model.parameters() if each.requires_grad), None)
    if first is None:
        raise ConfigError("the network has no parameters to train; it must have one at least that requires a gradient")
    mode = model.training
    try:
        logits = model.eval()(torch.zeros((2, *size), device=first.device, dtype=first.dtype))
    except Exception as error:  # the network may be the user's, whose code may raise anything
        kind = "" if isinstance(error, (SeedCNNError, RuntimeError, ValueError)) else f"{type(error).__name__}: "
        why = " ".join(str(error).split()) or "no reason given"
        raise ConfigError(f"the network cannot take images of {size[1]}x{size[2]}: {kind}{why}") from error
    finally:
        model.train(mode)
    if not isinstance(logits, Tensor) or logits.shape[:1] != (2,) or logits.ndim != 2 or not logits.is_floating_point():
        raise ConfigError(
            f"the network returns {_described(logits)} for two images; it must return one tensor of logits, floating "
            "point [2, classes]"
        )
    if not logits.requires_grad:
        raise ConfigError("the logits of the network do not depend on its parameters: there is nothing to train")
    return int(logits.shape[1])


def _described(found: object) -> str:
    if isinstance(found, Tensor):
        return f"a tensor {str(found.dtype).removeprefix('torch.')} {list(found.shape)}"
    if isinstance(found, (tuple, list)):
        return f"a {type(found).__name__} of {len(found)}"
    return "nothing (None)" if found is None else f"a {type(found).__name__}"
