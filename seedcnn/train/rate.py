"""Training on the grid: weights are rounded in every forward pass, and the loss pays for their bits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seedcnn.bundle import grid_of_step
from seedcnn.errors import ConfigError

__all__ = ["LatentGrid", "bits_of", "on_the_grid", "sensitivity_steps"]

_SCALE_LR = 0.05  # Adam's rate for the logarithms of the Laplace scales
_SMALLEST, _LARGEST = 0.02, 200.0  # Laplace scales, in steps
_LEAST = 1e-3  # of the median Fisher information, so that no step is endless


def on_the_grid(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that travel as integers: those with two axes longer than 1, as in convolutions."""
    return {name: p for name, p in model.named_parameters() if sum(size > 1 for size in p.shape) >= 2}


def sensitivity_steps(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], loss: float, *, seed: int = 0
) -> dict[str, float]:
    """Steps of all weights by which rounding costs the same for each, and ``loss`` together.

    Rounding a weight w to a step d adds d^2 / 24 times its Fisher information to the cross entropy, to second order. At
    equal bits in all, the costs of all weights should be equal, so d is proportional to the inverse root of the mean
    information of a tensor. One backward pass gives the information of a batch: with labels drawn from the network's
    own answers and losses with random signs, cross terms vanish on average.

    Args:
        model: changed by nothing.
        batches: normalised images [N, C, H, W] and labels, which are not used.
        loss: growth of the cross entropy, in nats.
        seed: of labels and signs.

    Returns:
        Name of the parameter -> a step that is exact in a bundle.
    """
    weights = on_the_grid(model)
    generator = torch.Generator().manual_seed(seed)
    learns = {name: p.requires_grad for name, p in weights.items()}
    mode, squares, seen = model.training, {name: torch.zeros((), dtype=torch.float64) for name in weights}, 0
    model.eval()
    try:
        for p in weights.values():
            p.requires_grad_(True)
        for images, _ in batches:
            logits = model(images)
            drawn = torch.multinomial(logits.detach().softmax(1).cpu(), 1, generator=generator)[:, 0]
            signs = torch.randint(0, 2, (len(images),), generator=generator) * 2 - 1
            losses = F.cross_entropy(logits, drawn.to(logits.device), reduction="none")
            found = torch.autograd.grad(
                (losses * signs.to(losses)).sum(), list(weights.values()), allow_unused=True, materialize_grads=True
            )
            for name, gradient in zip(weights, found, strict=True):
                squares[name] += gradient.double().square().mean().cpu()
            seen += len(images)
    finally:
        for name, p in weights.items():
            p.requires_grad_(learns[name])
        model.train(mode)
    information = {name: float(square) / seen for name, square in squares.items()}
    least = _LEAST * sorted(information.values())[len(information) // 2]
    if not least > 0:
        raise ConfigError("rate: the answers do not depend on the weights, so no step follows from them")
    total = sum(p.numel() for p in weights.values())
    fine = math.sqrt(24 * loss / total)
    return {name: grid_of_step(fine / math.sqrt(max(each, least))).step for name, each in information.items()}


def bits_of(places: Tensor, log_scale: Tensor) -> Tensor:
    """Bits of numbers under a Laplace distribution, each counted over the unit interval around it.

    Args:
        places: in steps of the grid.
        log_scale: scalar, the logarithm of the distribution's scale in steps.
    """
    scale = log_scale.exp()
    size = places.abs()
    outside = -(size - 0.5).clamp_min(0) / scale + torch.log(-torch.expm1(-1 / scale)) - math.log(2)
    inside = 1 - 0.5 * (torch.exp(-(0.5 - size).clamp_min(0) / scale) + torch.exp(-(0.5 + size) / scale))
    nats = torch.where(size >= 0.5, outside, inside.clamp_min(1e-12).log())
    return nats / -math.log(2)


class LatentGrid:
    """The weights of a network as latent numbers, which are rounded for a forward pass and restored for an update.

    Rounding hands its gradient on unchanged. The bits are those of the latent numbers with uniform noise instead of
    rounding, under a Laplace distribution for each tensor whose scale is learned.

    Args:
        model: its parameters hold the latent numbers, except between :meth:`round_` and :meth:`restore_`.
        steps: step of each weight's grid.
        weight: price of a bit, see :class:`seedcnn.train.rate_config.RateConfig`.
        start: integers that bits are counted from, by name; None for zero.
        seed: of the noise, which is the same in all processes.
    """

    def __init__(
        self,
        model: nn.Module,
        steps: Mapping[str, float],
        weight: float,
        *,
        start: Mapping[str, Tensor] | None = None,
        seed: int = 0,
    ) -> None:
        self.weights = on_the_grid(model)
        self.steps, self.weight, self.start, self.seed = dict(steps), weight, start or {}, seed
        device = next(model.parameters()).device
        self.log_scales = nn.Parameter(torch.zeros(len(self.weights), device=device))
        self._latent: dict[str, Tensor] = {}
        self._updates, self.bits = 0, 0.0
        self.fit_scales()

    @torch.no_grad()
    def fit_scales(self) -> None:
        """Set each scale to the mean size of its numbers, the maximum of the likelihood."""
        for place, (name, p) in enumerate(self.weights.items()):
            mean = (p.detach() / self.steps[name] - self._start(name, p)).abs().mean()
            self.log_scales[place] = mean.clamp(_SMALLEST * 5, _LARGEST).log()

    def _start(self, name: str, like: Tensor) -> Tensor | float:
        return self.start[name].to(like) if name in self.start else 0.0

    def groups(self, lr: float) -> list[dict[str, Any]]:
        """Parameter groups of Adam: the weights at ``lr`` steps of their grids, and the scales."""
        learning = [(name, p) for name, p in self.weights.items() if p.requires_grad]
        found: list[dict[str, Any]] = [{"params": [p], "lr": lr * self.steps[name]} for name, p in learning]
        return [*found, {"params": [self.log_scales], "lr": _SCALE_LR}]

    @torch.no_grad()
    def round_(self) -> None:
        """Round all weights in place, until :meth:`restore_`."""
        if self._latent:
            return
        for name, p in self.weights.items():
            self._latent[name] = p.detach().clone()
            p.copy_(self.rounded(name, p))

    def rounded(self, name: str, values: Tensor) -> Tensor:
        """The nearest numbers on the grid of a weight."""
        step = self.steps[name]
        return (values / step).round_().mul_(step)

    @torch.no_grad()
    def restore_(self) -> None:
        """Put the latent numbers back."""
        for name, latent in self._latent.items():
            self.weights[name].copy_(latent)
        self._latent = {}

    def add_gradients(self) -> None:
        """Add the gradient of the price to those of the weights and the scales."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + self._updates) % 2**63)
        self._updates += 1
        total = sum(p.numel() for p in self.weights.values())
        with torch.enable_grad():
            bits = torch.zeros((), device=self.log_scales.device)
            moved = {}
            for place, (name, p) in enumerate(self.weights.items()):
                noise = torch.rand(p.shape, generator=generator).to(p) - 0.5
                moved[name] = (p.detach() / self.steps[name]).requires_grad_(True)
                scale = self.log_scales[place].clamp(math.log(_SMALLEST), math.log(_LARGEST))
                bits = bits + bits_of(moved[name] - self._start(name, p) + noise, scale).sum()
            self.bits = float(bits.detach()) / total
            found = torch.autograd.grad(bits * (self.weight / total), [*moved.values(), self.log_scales])
        for (name, p), gradient in zip(self.weights.items(), found, strict=False):
            if p.requires_grad:
                change = gradient / self.steps[name]
                p.grad = change if p.grad is None else p.grad + change
        # At price 0 the scales still follow the numbers.
        self.log_scales.grad = found[-1] / self.weight if self.weight else None

    def state(self) -> dict[str, Tensor]:
        """All that a checkpoint keeps beside the latent numbers."""
        return {"log_scales": self.log_scales.detach(), "updates": torch.tensor(self._updates)}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore :meth:`state`."""
        with torch.no_grad():
            self.log_scales.copy_(state["log_scales"])
        self._updates = int(state["updates"])
