"""The module that the training loop calls: from images, targets and indices to a loss and logits."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seedcnn.errors import ConfigError, MissingExtraError
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
    augmented = bool(config.augment or config.mixup or config.cutmix or config.random_erasing)
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


@torch.no_grad()
def outputs(model: nn.Module, size: tuple[int, int, int]) -> int:
    """Number of classes of a network, from the shape of its output.

    Raises:
        ConfigError: if the network cannot take images of this size.
    """
    first = next(model.parameters())
    mode = model.training
    try:
        logits = model.eval()(torch.zeros((2, *size), device=first.device, dtype=first.dtype))
    except (MissingExtraError, RuntimeError, ValueError) as error:
        raise ConfigError(f"the network cannot take images of {size[1]}x{size[2]}: {error}") from error
    finally:
        model.train(mode)
    return int(logits.shape[1])
