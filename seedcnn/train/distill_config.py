"""How a run learns from a teacher: the config, and the weights of the stagewise loss."""

from __future__ import annotations

import math
from dataclasses import dataclass

from seedcnn import typed
from seedcnn.errors import ConfigError

__all__ = ["WEIGHTS", "DistillConfig", "StageWeights"]

_TEMPERATURE, _ALPHA = 4.0, 0.9
_KINDS = ("logits", "stagewise")


@dataclass(frozen=True)
class StageWeights:
    """Weights of the stagewise loss.

    Args:
        hard: of the cross entropy with the labels.
        soft: of the cross entropy with the teacher's probabilities.
        stage: of the squared differences of the maps.
        mean: whether these are averaged over the stages; else added up.
        skip: first stages that are left out.
    """

    hard: float
    soft: float
    stage: float
    mean: bool
    skip: int


WEIGHTS: dict[str, StageWeights] = {
    "paper": StageWeights(hard=1.0, soft=1.0, stage=1.0, mean=True, skip=0),
    "public": StageWeights(hard=1.0, soft=0.4, stage=0.1, mean=False, skip=1),
}
"""Presets of the stagewise loss.

"paper": the three terms of MonoCNN's loss as printed, each with weight 1, over all stages. Not stated there, and
chosen: the squared l2 norm of a stage is averaged over images and map elements (the paper calls it "MSE loss"; a sum
over 65,536 elements would drown the cross entropies); the probabilities are at temperature 1; a stage ends with its
last maps, after the ReLU.

"public": what the authors' released code does: 0.4 for the soft labels, 0.1 for each of stages 2 to 4 of its residual
networks, added up. It also clips the gradient norm at 5, which is the training run's business, and it never puts its
teacher in eval mode, so that the teacher's norms use the batch's statistics; here the teacher is in eval mode always.
"""


@dataclass(frozen=True)
class DistillConfig:
    """How a run learns from a teacher.

    Args:
        teacher: path of the teacher's checkpoint, for :func:`load_teacher`; "" where the network is given in code.
        kind: "logits" or "stagewise".
        temperature, alpha: of "logits", see :func:`logit_loss`. The source leaves both open.
        weights: of "stagewise", a key of :data:`WEIGHTS`.
        stages, teacher_stages: of "stagewise", names of the modules that end the stages of the student and of the
            teacher; () to find them, and for the teacher to take the student's where these are named. All that are
            named are used, whatever ``weights`` leaves out.
        cache: keep the teacher's logits of each image; for "logits" without augmentation.

    Raises:
        ConfigError: naming the field, its value and the rule.
    """

    teacher: str = ""
    kind: str = "logits"
    temperature: float = _TEMPERATURE
    alpha: float = _ALPHA
    weights: str = "paper"
    stages: tuple[str, ...] = ()
    teacher_stages: tuple[str, ...] = ()
    cache: bool = False

    def __post_init__(self) -> None:
        typed.settle(self, "distill")
        for name, known in (("kind", _KINDS), ("weights", tuple(WEIGHTS))):
            if getattr(self, name) not in known:
                raise ConfigError(f"distill.{name} (={getattr(self, name)!r}) must be one of {', '.join(known)}")
        if not 0 < self.temperature < math.inf:
            raise ConfigError(f"distill.temperature (={self.temperature}) must be a positive number")
        if not 0 <= self.alpha <= 1:
            raise ConfigError(f"distill.alpha (={self.alpha}) must be in [0, 1]")
        if self.kind == "stagewise":
            if (self.temperature, self.alpha) != (_TEMPERATURE, _ALPHA):
                raise ConfigError("distill.temperature and distill.alpha are of kind 'logits', not of 'stagewise'")
            if self.cache:
                raise ConfigError("distill.cache keeps logits alone; kind 'stagewise' needs the teacher's maps, too")
        elif self.stages or self.teacher_stages or self.weights != "paper":
            raise ConfigError("distill.weights, stages and teacher_stages are of kind 'stagewise', not of 'logits'")
