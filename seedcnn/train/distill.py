"""Distillation: a trained network, the teacher, shapes the loss of the one that is trained.

Two kinds. "logits": soft labels at a temperature (Hinton et al., 2015). "stagewise": MonoCNN's training (Section 3.3,
Fig. 3), where the maps at the end of each stage are drawn to the teacher's, too.
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
    """The network of the config's checkpoint, in eval mode on the CPU.

    Raises:
        ConfigError: if the config names no checkpoint.
        TrainingError: if the checkpoint is missing, damaged, or does not fit its own config.
    """
    if not config.teacher:
        raise ConfigError("distill.teacher names no checkpoint; set it, or give the teacher in code")

    return load_model(config.teacher)[0]


class Distiller(nn.Module):
    """A student and its loss with a teacher: what the training loop calls instead of the network.

    The teacher is in eval mode and takes part in no graph. It is no submodule: it is not in ``parameters()``,
    ``state_dict()`` or what DDP exchanges, but moves with ``to``. Both networks get the same images, so the teacher
    has to expect the same normalisation. Where the maps of a stage differ in channels, a learnable 1x1 convolution
    (``projections``, without bias; not in the papers, whose teachers are as wide as the students) takes the student's
    to the teacher's. Wrap a distiller in DDP, not in ``DataParallel``, whose copies would share the taps.

    With ``config.cache`` each image goes through the teacher once in a run of a process, and its logits are kept on
    the CPU. A resumed run fills the cache anew, in other batches, whose rounding may differ in the last bit.

    Args:
        config: the kind of distillation.
        student: the network that is trained; the taps of the stages are hooks on its modules.
        teacher: a trained network with as many classes; it is put in eval mode.
        criterion: loss of (logits, targets) with the labels; cross entropy if None.
        input_size: (channels, H, W) of the images, by which shapes are compared before training.
        augmented: whether an image can look different from epoch to epoch; a cache needs False.

    Raises:
        ConfigError: if stages are not found or not named rightly, their numbers, sizes or the classes differ, or a
            cache is asked for augmented images.
        TrainingError: if a module that ends a stage gives no maps.
        ValueError: if student and teacher are one network.
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
                "distill.cache is for images that are the same in every epoch; switch augmentation, mixup and random "
                "erasing off, or the cache"
            )
        self.config, self.student = config, student
        self._teacher = (teacher.eval(),)  # in a tuple, so that it is no submodule
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
        """Compare the two networks; one module for each stage takes the student's maps to the teacher's shape."""
        (ours, *maps), (theirs, *teacher_maps) = (
            probe(self.student, self._taps, size),
            probe(self.teacher, self._teacher_taps, size),
        )
        if ours != theirs:
            raise ConfigError(f"the student's output {ours} and the teacher's {theirs} must be the same classes")
        if len(maps) != len(teacher_maps):
            listed = [[tap.name for tap in taps] for taps in (self._taps, self._teacher_taps)]
            raise ConfigError(f"student and teacher need as many stages; they have {listed[0]} and {listed[1]}")
        first = next(self.student.parameters())
        modules: list[nn.Module] = []
        for tap, other, (c, *hw), (c_teacher, *hw_teacher) in zip(
            self._taps, self._teacher_taps, maps, teacher_maps, strict=True
        ):
            if hw != hw_teacher:
                raise ConfigError(
                    f"the maps of stage {tap.name!r} are {hw[0]}x{hw[1]}, those of the teacher's {other.name!r} "
                    f"{hw_teacher[0]}x{hw_teacher[1]}; they must be of one size"
                )
            place: dict[str, Any] = {"device": first.device, "dtype": first.dtype}
            modules.append(nn.Identity() if c == c_teacher else nn.Conv2d(c, c_teacher, 1, bias=False, **place))
        return modules

    def close(self) -> None:
        """Take the taps off both networks; the distiller is of no use any more."""
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
        """The loss, a scalar in float32 at least, and the student's logits [N, classes].

        Args:
            images: [N, C, H, W], normalised.
            targets: labels [N] or whatever else the criterion takes.
            indices: int64 [N], which images of the data set these are; needed by a cache alone.

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
        """The teacher's logits and maps, without a graph."""
        if self._cache is None:
            logits, maps = listen(self.teacher, self._teacher_taps, images)
            return wide(logits), [wide(x) for x in maps]
        if indices is None or indices.shape != images.shape[:1] or indices.dtype != torch.int64 or indices.min() < 0:
            told = "None" if indices is None else f"{indices.dtype} {tuple(indices.shape)}"
            raise ValueError(f"`indices` ({told}) must be int64, one of at least 0 for each of {len(images)} pictures")
        known = self._cache.get(
            indices.cpu(), lambda missing: wide(self.teacher(images[missing.to(images.device)])).detach()
        )
        return known.to(images.device), []
