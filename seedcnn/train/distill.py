"""Distillation: a trained network, the teacher, contributes to the loss of the network in training, the student.

There are two kinds. "logits" are soft labels at a temperature (Hinton et al., 2015). "stagewise" is MonoCNN's training
(Section 3.3, Fig. 3), which also pulls the maps at the end of each stage towards those of the teacher.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from timm.utils import unwrap_model
from torch import Tensor, nn
from torch.nn import functional as F

from seedcnn.errors import ConfigError
from seedcnn.train._distill_parts import LogitCache, logit_loss, soft_loss, stage_loss, wide
from seedcnn.train._stages import Tap, listen, probe, stage_names, tap_stages
from seedcnn.train.checkpoint import load_model
from seedcnn.train.distill_config import WEIGHTS, DistillConfig

__all__ = [
    "Distiller",
    "load_teacher",
    "logit_loss",
    "soft_loss",
    "stage_loss",
    "stage_names",
]


def load_teacher(config: DistillConfig) -> nn.Module:
    """Load the network of the config's checkpoint, in eval mode on the CPU.

    Raises:
        ConfigError: if the config names no checkpoint.
        TrainingError: if the checkpoint is missing, damaged, or does not fit its own config.
    """
    if not config.teacher:
        raise ConfigError("distill.teacher names no checkpoint; set it, or pass the teacher in code")
    return load_model(config.teacher)[0]


class Distiller(nn.Module):
    """A student and its loss with a teacher; the training loop calls it instead of the network.

    The teacher is in eval mode and outside of the autograd graph. It is not a submodule: ``parameters()``,
    ``state_dict()`` and DDP do not include it, but ``to`` moves it. Both networks get the same images, so the teacher
    must expect the same normalisation. If the maps of a stage differ in channels, a learnable 1x1 convolution
    (``projections``, without bias) maps those of the student to the teacher's; the papers have none, because their
    teachers are as wide as the students. Wrap a distiller in DDP, not in ``DataParallel``, whose copies would share the
    taps.

    With ``config.cache`` each image passes through the teacher once per run and process, and its logits stay on the
    CPU. A resumed run fills the cache again from other batches, so logits may differ in the last bit.

    Args:
        config: the config of the distillation.
        student: the network to train; the taps of its stages are hooks on its modules.
        teacher: a trained network with the same number of classes; it is put in eval mode.
        criterion: loss of (logits, targets) with the labels; cross entropy if None.
        input_size: (channels, H, W) of the images, for comparing shapes before training.
        augmented: whether an image can differ from epoch to epoch; a cache needs False.

    Raises:
        ConfigError: if stages are not found or wrongly named, their numbers or sizes or the classes differ, or a cache
            is combined with augmented images.
        TrainingError: if the output of a module that ends a stage is not maps.
        ValueError: if student and teacher are the same network.
    """

    def __init__(
        self,
        config: DistillConfig,
        student: nn.Module,
        teacher: nn.Module,
        *,
        criterion: Callable[[Tensor, Tensor], Tensor] | None = None,
        input_size: tuple[int, int, int] = (3, 32, 32),
        augmented: bool = True,
    ) -> None:
        super().__init__()
        if unwrap_model(student) is unwrap_model(teacher):
            raise ValueError("`teacher` must be another network than `student`")
        if config.cache and augmented:
            raise ConfigError(
                "distill.cache needs images that are the same in every epoch; switch off the cache, or augmentation, "
                "mixup, cutmix and random erasing"
            )
        self.config, self.student = config, student
        self._teacher = (teacher.eval(),)  # in a tuple, so that it is not a submodule
        self._criterion = criterion or F.cross_entropy
        self._cache = LogitCache() if config.cache else None
        self._weights = WEIGHTS[config.weights]
        self._taps: list[Tap] = []
        self._teacher_taps: list[Tap] = []
        if config.kind == "stagewise":
            skip = self._weights.skip
            theirs = config.teacher_stages or config.stages or stage_names(teacher)[skip:]
            self._taps = tap_stages(student, config.stages or stage_names(student)[skip:])
            self._teacher_taps = tap_stages(teacher, theirs)
        self.projections = nn.ModuleList(self._fit(input_size))

    def _fit(self, size: tuple[int, int, int]) -> list[nn.Module]:
        """Compare both networks; return one module per stage that brings the student's maps to the teacher's shape."""
        (ours, *maps), (theirs, *teacher_maps) = (
            probe(self.student, self._taps, size),
            probe(self.teacher, self._teacher_taps, size),
        )
        if ours != theirs:
            raise ConfigError(f"the outputs of student {ours} and teacher {theirs} must have the same classes")
        if len(maps) != len(teacher_maps):
            listed = [[tap.name for tap in taps] for taps in (self._taps, self._teacher_taps)]
            raise ConfigError(f"student and teacher need equally many stages; they have {listed[0]} and {listed[1]}")
        first = next(self.student.parameters())
        modules: list[nn.Module] = []
        for tap, other, (c, *hw), (c_teacher, *hw_teacher) in zip(
            self._taps, self._teacher_taps, maps, teacher_maps, strict=True
        ):
            if hw != hw_teacher:
                raise ConfigError(
                    f"the maps of stage {tap.name!r} are {hw[0]}x{hw[1]}, those of the teacher's {other.name!r} "
                    f"{hw_teacher[0]}x{hw_teacher[1]}; they must have the same size"
                )
            place: dict[str, Any] = {"device": first.device, "dtype": first.dtype}
            modules.append(nn.Identity() if c == c_teacher else nn.Conv2d(c, c_teacher, 1, bias=False, **place))
        return modules

    def close(self) -> None:
        """Remove the taps from both networks; the distiller cannot be used afterwards."""
        for tap in (*self._taps, *self._teacher_taps):
            tap.close()

    @property
    def teacher(self) -> nn.Module:
        """The teacher, in eval mode."""
        return self._teacher[0]

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Distiller:
        self.teacher._apply(fn)
        return super()._apply(fn, recurse)

    def train(self, mode: bool = True) -> Distiller:
        """Set the student's mode; the teacher stays in eval mode."""
        self.teacher.eval()
        return super().train(mode)

    def forward(self, images: Tensor, targets: Tensor, indices: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The loss, a scalar in at least float32, and the logits [N, classes] of the student.

        Args:
            images: [N, C, H, W], normalised.
            targets: labels [N], or other targets that the criterion takes.
            indices: int64 [N], the indices of the images in the data set; only a cache needs them.

        Raises:
            ValueError: if the distiller has a cache and ``indices`` are missing or wrong.
        """
        teacher_logits, teacher_maps = self._ask(images, indices)  # first: a cache breaks a compiled graph in two
        logits, maps = listen(self.student, self._taps, images)
        hard = self._criterion(wide(logits), targets)
        if self.config.kind == "logits":
            return logit_loss(wide(logits), teacher_logits, hard, self.config.temperature, self.config.alpha), logits
        fitted = [wide(fit(x)) for fit, x in zip(self.projections, maps, strict=True)]
        weights = self._weights
        loss = (
            weights.hard * hard
            + weights.soft * soft_loss(wide(logits), teacher_logits)
            + weights.stage * stage_loss(fitted, teacher_maps, weights.mean)
        )
        return loss, logits

    @torch.no_grad()
    def _ask(self, images: Tensor, indices: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """Logits and maps of the teacher, without an autograd graph."""
        if self._cache is None:
            logits, maps = listen(self.teacher, self._teacher_taps, images)
            return wide(logits), [wide(x) for x in maps]
        if indices is None or indices.shape != images.shape[:1] or indices.dtype != torch.int64 or indices.min() < 0:
            told = "None" if indices is None else f"{indices.dtype} {tuple(indices.shape)}"
            raise ValueError(f"`indices` ({told}) must be int64 and not negative, one for each of {len(images)} images")
        known = self._cache.get(
            indices.cpu(), lambda missing: wide(self.teacher(images[missing.to(images.device)])).detach()
        )
        return known.to(images.device), []
