"""The losses of distillation, and a cache of logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["LogitCache", "logit_loss", "soft_loss", "stage_loss", "wide"]


def soft_loss(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Cross entropy of the student with the probabilities of the teacher, mean over images.

    Args:
        student, teacher: logits [N, classes]; only those of the student get gradients.
        temperature: divisor of both logits.
    """
    soft = F.softmax(teacher.detach() / temperature, dim=1)
    return F.cross_entropy(student / temperature, soft)


def logit_loss(student: Tensor, teacher: Tensor, hard: Tensor, temperature: float, alpha: float) -> Tensor:
    """(1 - alpha) * hard + alpha * T^2 * KL(teacher || student), both at temperature T, mean over images.

    The factor T^2 keeps the size of the gradient independent of T (Hinton et al., 2015, Section 2).

    Args:
        student, teacher: logits [N, classes]; only those of the student get gradients.
        hard: the loss with the labels, a scalar.
        temperature, alpha: T and alpha.
    """
    at_s = F.log_softmax(student / temperature, dim=1)
    at_t = F.log_softmax(teacher.detach() / temperature, dim=1)
    divergence = F.kl_div(at_s, at_t, reduction="batchmean", log_target=True)
    return (1 - alpha) * hard + alpha * temperature**2 * divergence


def stage_loss(student: Sequence[Tensor], teacher: Sequence[Tensor], mean: bool = True) -> Tensor:
    """Squared differences of maps, averaged over images and elements, then averaged or summed over stages.

    Args:
        student, teacher: one [N, C, H, W] per stage; only those of the student get gradients.
        mean: average over the stages instead of summing.

    Raises:
        ValueError: if there are no stages, their numbers differ, or the shapes of a stage differ.
    """
    if not student or len(student) != len(teacher):
        raise ValueError(
            f"`student` has {len(student)} stages and `teacher` {len(teacher)}; they need the same number, at least 1"
        )
    for index, (ours, theirs) in enumerate(zip(student, teacher, strict=True)):
        if ours.shape != theirs.shape:
            raise ValueError(
                f"stage {index}: maps {tuple(ours.shape)} and {tuple(theirs.shape)} must have the same shape"
            )
    losses = [F.mse_loss(ours, theirs.detach()) for ours, theirs in zip(student, teacher, strict=True)]
    total = torch.stack(losses).sum()
    return total / len(losses) if mean else total


def wide(x: Tensor) -> Tensor:
    """Convert half precision to float32, in which losses are computed."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


class LogitCache:
    """A cache of logits by image index, on the CPU."""

    def __init__(self) -> None:
        self.known = torch.zeros(0, dtype=torch.bool)
        self.logits = torch.zeros(0)

    @torch.compiler.disable
    def get(self, indices: Tensor, ask: Callable[[Tensor], Tensor]) -> Tensor:
        """Logits [N, classes] of ``indices`` [N]; ``ask(mask)`` computes those that are not cached."""
        if (size := int(indices.max()) + 1) > len(self.known):
            self.known = F.pad(self.known, (0, max(size, 2 * len(self.known)) - len(self.known)))
        if (missing := ~self.known[indices]).any():
            fresh = ask(missing).cpu()
            grown = self.logits.new_zeros(len(self.known), fresh.shape[1], dtype=fresh.dtype)
            if len(self.logits):
                grown[: len(self.logits)] = self.logits
            self.logits = grown if len(grown) > len(self.logits) else self.logits
            self.logits[indices[missing]] = fresh
            self.known[indices[missing]] = True
        return self.logits[indices]
