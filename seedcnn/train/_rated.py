"""Training on the grid within a run: the steps, the latent numbers, and the rounded network that the run returns."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from seedcnn.convert import reestimate_batchnorm_
from seedcnn.convert.copies import copy_model
from seedcnn.errors import ConfigError, ExportError, TrainingError
from seedcnn.export import fold
from seedcnn.processes import Processes
from seedcnn.train.checkpoint import load_checkpoint
from seedcnn.train.config import TrainConfig
from seedcnn.train.data import Batches
from seedcnn.train.rate import LatentGrid, on_the_grid, sensitivity_steps

__all__ = ["Rated"]

_SENSED, _ESTIMATED = 1024, 10_000  # images for the sensitivities, and for the statistics of the norms
_PREFIX = "rate."


class Rated:
    """The grid of a run, and a copy of the network with rounded weights.

    Args:
        config: with ``rate``.
        model: on its device; its weights become the latent numbers.
        batches: of the run.
        processes: which take the steps from the first one.

    Raises:
        ConfigError: if the network has no weights, or the checkpoint that brings the steps has none or others.
    """

    def __init__(self, config: TrainConfig, model: nn.Module, batches: Batches, processes: Processes) -> None:
        rate = config.rate
        assert rate is not None
        self.model = model
        weights = on_the_grid(model)
        if not weights:
            raise ConfigError("rate: the network has no weights of two or more axes that could be rounded")
        try:
            fold(model)  # a copy
        except ExportError as error:
            raise ConfigError(f"rate: the network cannot be packed, so it is not trained for it: {error}") from None
        start: dict[str, Tensor] = {}
        if rate.steps == "start":
            steps, start = _of_checkpoint(config.init_from, weights)
        else:
            count = -(-_SENSED // config.batch_size)
            some = [(images, labels) for images, labels, _ in batches.epoch(0, 0, min(count, batches.steps))]
            steps = processes.from_first(lambda: sensitivity_steps(model, some, rate.loss, seed=config.seed))
        self.grid = LatentGrid(model, steps, rate.weight, start=start, seed=config.seed)
        self.batch_size, self.norms_learn = config.batch_size, config.update != "head"
        self.network = copy_model(model)
        self._round()

    @torch.no_grad()
    def _round(self) -> None:
        """Copy the network's numbers, rounded."""
        self.network.load_state_dict(self.model.state_dict())
        for name, p in on_the_grid(self.network).items():
            p.copy_(self.grid.rounded(name, p))

    def settle(self, epoch: int, batches: Batches) -> None:
        """Bring the rounded network up to date after an epoch, its norms with statistics of their own."""
        self._round()
        count = min(batches.steps, -(-_ESTIMATED // self.batch_size))
        if self.norms_learn and any(
            isinstance(module, nn.modules.batchnorm._BatchNorm) for module in self.network.modules()
        ):
            reestimate_batchnorm_(self.network, (images for images, _, _ in batches.epoch(epoch, 0, count)))

    def state(self) -> dict[str, Tensor]:
        """All that a checkpoint keeps of it, by name."""
        return {f"{_PREFIX}{name}": value for name, value in self.grid.state().items()}

    def load(self, task: dict[str, Tensor], steps: Mapping[str, float]) -> None:
        """Take :meth:`state` out of a checkpoint's ``task``, and its steps."""
        self.grid.steps = dict(steps)
        found = {name: task.pop(name) for name in [name for name in task if name.startswith(_PREFIX)]}
        self.grid.load({name.removeprefix(_PREFIX): value for name, value in found.items()})


def _of_checkpoint(path: str, weights: Mapping[str, nn.Parameter]) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Steps and integers of a checkpoint that was trained on a grid."""
    try:
        saved = load_checkpoint(path)
    except TrainingError as error:
        raise ConfigError(f"rate.steps (='start'): {error}") from None
    if not saved.steps:
        raise ConfigError(f"rate.steps (='start'): {path} was not trained on a grid; train it with rate first")
    if odd := sorted(saved.steps.keys() ^ weights.keys()):
        raise ConfigError(f"rate.steps (='start'): {path} has a grid for other weights: {', '.join(odd):.200}")
    return saved.steps, {name: (saved.weights[name] / step).round() for name, step in saved.steps.items()}
