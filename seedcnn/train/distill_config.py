"""The config of distillation, and the weights of the stagewise loss."""

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
        hard: weight of the cross entropy with the labels.
        soft: weight of the cross entropy with the teacher's probabilities.
        stage: weight of the squared differences of the maps.
        mean: average these differences over the stages instead of summing them.
        skip: number of first stages to leave out.
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

"paper": the three terms of MonoCNN's loss as printed, each with weight 1, over all stages. The paper leaves open, and
this preset chooses: the squared l2 norm of a stage is averaged over images and map elements (the paper calls it "MSE
loss"; a sum over 65,536 elements would dominate the cross entropies); the probabilities are at temperature 1; a stage
ends with its last maps, after the ReLU.

"public": the weights of the authors' released code: 0.4 for the soft labels, and 0.1 for each of stages 2 to 4 of its
residual networks, summed. That code also clips the gradient norm at 5, which is up to the config of the run. It never
puts its teacher in eval mode, so the teacher's norms use the statistics of the batch; here the teacher is always in
eval mode.
"""


@dataclass(frozen=True)
class DistillConfig:
    """The distillation of a run.

    Args:
        teacher: path of the teacher's checkpoint, for :func:`seedcnn.train.distill.load_teacher`; "" if the network is
            passed in code.
        kind: "logits" or "stagewise".
        temperature, alpha: for "logits", see :func:`seedcnn.train.distill.logit_loss`. The source leaves both open.
        weights: for "stagewise", a key of :data:`WEIGHTS`.
        stages, teacher_stages: for "stagewise", names of the modules that end the stages of the student and of the
            teacher. () finds them; for the teacher, () uses the student's names if there are any. Named stages are all
            used, even those that ``weights`` would leave out.
        cache: cache the teacher's logits of each image; for "logits" without augmentation.

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
                raise ConfigError("distill.temperature and distill.alpha belong to kind 'logits', not to 'stagewise'")
            if self.cache:
                raise ConfigError("distill.cache keeps only logits; kind 'stagewise' also needs the teacher's maps")
        elif self.stages or self.teacher_stages or self.weights != "paper":
            raise ConfigError("distill.weights, stages and teacher_stages belong to kind 'stagewise', not to 'logits'")
