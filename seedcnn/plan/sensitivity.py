"""Sensitivities: the loss of a network when one layer takes one form, measured on images or by a stand-in."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seedcnn.convert import reestimate_batchnorm_
from seedcnn.convert.copies import copy_model
from seedcnn.messages import Advance, Say, counted, steps
from seedcnn.plan.costs import Option, Table
from seedcnn.plan.fit import fit, start_from_dense
from seedcnn.plan.replay import LARGEST, Replay, graph_of, replay_from
from seedcnn.plan.sites import Site, form_of_site

__all__ = ["PROXY", "Calibration", "Sensitivities", "measured_sensitivity", "proxy_sensitivity"]

PROXY = "stand-in, not measured: ln(weights of the layer / weights of the form), without norms and biases"
_BATCH = 128


@dataclass(frozen=True, eq=False)
class Calibration:
    """Labelled images to measure a trained network's loss on; a few hundred are enough.

    Args:
        images: network inputs, float32 [N, C, H, W], at least 16.
        labels: int64 [N].
        fit_images: number of leading images used to fit each form to the layer it replaces.
        fit_steps: steps of that fit.

    Raises:
        ValueError: naming the argument, its value and the rule.
    """

    images: Tensor
    labels: Tensor
    fit_images: int = 64
    fit_steps: int = 20

    def __post_init__(self) -> None:
        if self.images.dim() != 4 or not self.images.is_floating_point() or len(self.images) < 16:
            shape = tuple(self.images.shape)
            raise ValueError(f"`images` is {self.images.dtype} {shape}; it must be float32 [N, C, H, W], N >= 16")
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            shape = tuple(self.labels.shape)
            raise ValueError(f"`labels` is {self.labels.dtype} {shape}; it must be int64 [{len(self.images)}]")
        if int(self.labels.min()) < 0:
            raise ValueError(f"`labels` (smallest: {int(self.labels.min())}) must not be negative")
        for name, value, least in (("fit_images", self.fit_images, 2), ("fit_steps", self.fit_steps, 0)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"`{name}` (={value!r}) must be an integer of at least {least}")


@dataclass(frozen=True)
class Sensitivities:
    """Sensitivities of every option of every layer.

    Attributes:
        of: sensitivity by site and form; 0 for a kept layer.
        how: the measurement, in words.
        loss: cross-entropy of the unchanged network, None for the stand-in.
        seconds: time taken.
    """

    of: dict[tuple[str, str], float]
    how: str
    loss: float | None
    seconds: float


def proxy_sensitivity(table: Table) -> Sensitivities:
    """Compute :data:`PROXY` for every option, for networks without trained weights to measure.

    A form with a quarter of its layer's weights counts as much as two layers with half of theirs.
    """
    start = time.perf_counter()
    found = {
        (name, option.form): max(0.0, math.log(options[0].weights / max(option.weights, 1)))
        for name, options in table.items()
        for option in options
    }
    return Sensitivities(found, PROXY, None, time.perf_counter() - start)


class _Network:
    """A copy of the trained network in which one layer at a time is replaced."""

    def __init__(self, model: nn.Module, calibration: Calibration, largest: int) -> None:
        # Convolutions, norms and sums are up to eight times as fast in this layout.
        self.net = copy_model(model).cpu().float().eval().to(memory_format=torch.channels_last)
        self.data, self.largest = calibration, largest
        self.images = calibration.images.float().contiguous(memory_format=torch.channels_last)
        parts = math.ceil(len(self.images) / _BATCH)  # of about equal size: a norm cannot learn from one image
        self.batches = self.images.chunk(parts)
        self.graph = graph_of(self.net)
        self.norms = {n: m for n, m in self.net.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
        self.kept = {name: copy.deepcopy(norm.state_dict()) for name, norm in self.norms.items()}

    def loss(self, replay: Replay | None = None) -> float:
        """Compute the cross-entropy over all images, after re-estimating the norms' statistics on them."""
        if replay is not None:
            return self._cross_entropy(replay.logits())
        reestimate_batchnorm_(self.net, self.batches)
        with torch.inference_mode():
            return self._cross_entropy(torch.cat([self.net(x) for x in self.batches]))

    def _cross_entropy(self, logits: Tensor) -> float:
        classes = logits.shape[1] if logits.dim() == 2 else 0
        if int(self.data.labels.max()) >= classes:
            raise ValueError(f"`labels` reach {int(self.data.labels.max())}; the network has {classes} classes")
        return float(F.cross_entropy(logits, self.data.labels))

    def replay(self, site: Site, base: float) -> Replay | None:
        """Prepare for changes of a layer; None if the whole network has to run each time.

        Args:
            base: loss of the unchanged network, which the replay must reproduce.
        """
        found = replay_from(self.graph, self.net, site.name, self.batches, self.largest)
        if found is not None and not math.isclose(self.loss(found), base, rel_tol=1e-5):
            found = None  # the network's code does something else while it is traced
        self.restore()
        return found

    def restore(self) -> None:
        for name, norm in self.norms.items():
            norm.load_state_dict(self.kept[name])

    @torch.no_grad()
    def seen_by(self, site: Site) -> tuple[Tensor, Tensor]:
        """Return the layer's input and output on the images that forms are fitted on."""
        kept: list[Tensor] = []
        conv = self.net.get_submodule(site.name)
        handle = conv.register_forward_pre_hook(lambda module, args: kept.append(args[0].clone()))  # noqa: ARG005
        try:
            self.net(self.images[: self.data.fit_images])
        finally:
            handle.remove()
        return kept[0], conv(kept[0])

    def with_form(self, site: Site, layer: nn.Module, x: Tensor, y: Tensor, replay: Replay | None) -> float:
        """Compute the loss with ``layer`` in the site's place, then restore the network."""
        parent, _, child = site.name.rpartition(".")
        conv = self.net.get_submodule(site.name)
        norm = self.norms[site.norm_name] if site.norm_name else None
        layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        start_from_dense(layer, conv)  # type: ignore[arg-type]
        correlation = fit(layer, x, y, norm, steps=self.data.fit_steps)  # type: ignore[arg-type]
        try:
            setattr(self.net.get_submodule(parent), child, layer)
            if norm is not None and norm.weight is not None:
                with torch.no_grad():  # weaken a channel by its correlation with the trained one
                    norm.weight.mul_(correlation)
            return self.loss(replay)
        finally:
            setattr(self.net.get_submodule(parent), child, conv)
            self.restore()


def measured_sensitivity(
    model: nn.Module,
    sites: Iterable[Site],
    table: Table,
    calibration: Calibration,
    *,
    budget: str,
    seed: int = 0,
    say: Say = lambda _: None,
    largest: int = LARGEST,
) -> Sensitivities:
    """Measure the rise of the loss when one layer alone takes one form, for every option that saves on the budget.

    Each form starts from the trained filters and is fitted to the layer's own output (:mod:`seedcnn.plan.fit`). The
    norm after it scales each channel by its correlation with the trained one, and all norms re-estimate their
    statistics. A fall of the loss counts as 0. Options that cost as much as the layer itself are not tried and cannot
    be chosen.

    Args:
        model: the trained network; it is not changed.
        budget: the cost to save: "macs", "bytes" or "latency".
        seed: seed of the forms' fresh weights and fixed numbers.
        say: is shown the progress.
        largest: bytes of values to keep, so that a network runs from the changed layer on; the result is the same.

    Raises:
        ValueError: if the network cannot take the images, or a label has no class.
    """
    start = time.perf_counter()
    network = _Network(model, calibration, largest)
    base = network.loss()
    network.restore()
    found: dict[tuple[str, str], float] = {}
    sites = [site for site in sites if site.name in table]
    tried = {
        site: [o for o in table[site.name][1:] if o.costs.of(budget) < table[site.name][0].costs.of(budget)]
        for site in sites
    }
    total = sum(map(len, tried.values()))
    what = f"fitting {counted(total, 'form')} in {counted(len(sites), 'layer')}"
    with torch.random.fork_rng(devices=[]), steps(say, what, total) as advance:
        torch.manual_seed(seed)
        for site, options in tried.items():
            found[site.name, table[site.name][0].form] = 0.0
            if options:
                found |= _rises(network, site, options, base, seed, advance)
    n = len(calibration.images)
    how = f"rise of the cross-entropy on {n} calibration images when only this layer takes this form"
    return Sensitivities(found, how, base, time.perf_counter() - start)


def _rises(
    network: _Network, site: Site, tried: list[Option], base: float, seed: int, advance: Advance
) -> dict[tuple[str, str], float]:
    x, y = network.seen_by(site)
    replay = network.replay(site, base)
    conv: Any = network.net.get_submodule(site.name)
    mine = replace(site, conv=conv)
    rises = {}
    for option in tried:
        layer = form_of_site(network.net, mine, option.config, multiple=1, seed=seed)
        if isinstance(layer, str):
            raise ValueError(f"`table` names the form {option.form!r}, which does not fit {site.name}: {layer}")
        rises[site.name, option.form] = max(0.0, network.with_form(mine, layer, x, y, replay) - base)
        advance(note=f"{site.name} as {option.form}")
    return rises
