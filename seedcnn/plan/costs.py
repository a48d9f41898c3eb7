"""Counted costs of each layer in each form: multiply-accumulates, bytes, parameters."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from seedcnn.arrays import F32
from seedcnn.bundle.codings import store
from seedcnn.convert import ConversionConfig
from seedcnn.evaluate.costs import cost
from seedcnn.export import fold
from seedcnn.export.bundles import encode_learned, grids_of_step, is_weight
from seedcnn.layers import learnable_count
from seedcnn.messages import Say, steps
from seedcnn.plan.forms import KEEP
from seedcnn.plan.sites import Site, form_of_site

__all__ = ["Costs", "Option", "Table", "cost_table", "costs_of_network", "tensor_bytes"]


@dataclass(frozen=True)
class Costs:
    """Costs of a layer with its norm, or of a network.

    Attributes:
        macs: multiply-accumulates per image.
        params: learnable scalars.
        bytes: bytes of the folded tensors as a bundle codes them, without graph and manifest; see
            :func:`tensor_bytes`.
        latency_ms: milliseconds per image, None if not measured.
    """

    macs: int
    params: int
    bytes: int
    latency_ms: float | None = None

    def of(self, what: str) -> float:
        """Return the cost called "macs", "bytes" or "latency"."""
        value = self.latency_ms if what == "latency" else getattr(self, what)
        if value is None:
            raise ValueError(f"`what` (={what!r}) was not measured")
        return float(value)

    def plus(self, after: Costs, before: Costs) -> Costs:
        """Return these costs with ``before`` replaced by ``after``."""
        times = (self.latency_ms, after.latency_ms, before.latency_ms)
        whole, new, old = times
        latency = None if whole is None or new is None or old is None else whole + new - old
        return Costs(
            self.macs + after.macs - before.macs,
            self.params + after.params - before.params,
            self.bytes + after.bytes - before.bytes,
            latency,
        )


@dataclass(frozen=True)
class Option:
    """One form for one layer.

    Attributes:
        form: the form's name.
        config: config to convert with, None to keep the layer.
        costs: costs with the norm that follows.
        weights: learnable scalars except those with one value per channel (biases, norms).
    """

    form: str
    config: ConversionConfig | None
    costs: Costs
    weights: int


Table = dict[str, list[Option]]
"""Name of a site -> its options; the first keeps the layer."""


def _folded_tensors(model: nn.Module) -> tuple[dict[str, F32], set[str]]:
    """Return the learned tensors of a network's inference form, without seeded ones, and its divisors."""
    folded = fold(model)
    seeded, divisors = (
        {f"{name}.{part}" for name, m in folded.named_modules() for part in getattr(m, parts, ())}
        for parts in ("seed_specs", "divisors")
    )
    tensors = {name: value.detach().numpy() for name, value in folded.named_parameters() if name not in seeded}
    return tensors, divisors


def tensor_bytes(model: nn.Module, step: float | None = None) -> int:
    """Count the bytes of the tensors in a bundle of ``model``, without its graph, manifest and canned vectors.

    Args:
        step: grid step of the weights; None stores float32. On a grid the count depends on the current weights.

    Raises:
        ValueError: if the step is out of range.
        BundleError: if a weight is not finite or does not fit the grid.
        ExportError: if the network cannot be folded.
    """
    tensors, divisors = _folded_tensors(model)
    coded = encode_learned(tensors, None if step is None else grids_of_step(tensors, step, divisors))
    stored, _ = store(coded, "entropy")
    return len(stored.integers) + sum(len(data) for data in stored.floats.values())


def _bytes_at(model: nn.Module, bytes_a_weight: float) -> int:
    sizes = [(is_weight(values.shape), values.size) for values in _folded_tensors(model)[0].values()]
    return round(sum(count * (bytes_a_weight if weight else 4) for weight, count in sizes))


def _weights(layer: nn.Module) -> int:
    return sum(p.numel() for p in layer.parameters() if p.requires_grad and is_weight(tuple(p.shape)))


def costs_of_network(model: nn.Module, input_size: tuple[int, int, int], step: float | None = None) -> Costs:
    """Count the MACs, parameters and bytes of a whole network, without measuring its latency."""
    return Costs(cost(model, input_size).macs, learnable_count(model), tensor_bytes(model, step))


def _costs(layer: nn.Module, site: Site, bytes_a_weight: float) -> Costs:
    alone = site.alone(layer).cpu().float().eval()
    # `cost` gives the same count, but also measures training memory, which takes many times as long.
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        alone(torch.zeros(1, *site.input_shape))
    return Costs(counter.get_total_flops() // 2, learnable_count(alone), _bytes_at(alone, bytes_a_weight))


def cost_table(
    model: nn.Module,
    sites: Iterable[Site],
    forms: Mapping[str, ConversionConfig],
    *,
    multiple: int = 16,
    step: float | None = None,
    say: Say = lambda _: None,
) -> Table:
    """List every form that fits each site and saves multiply-accumulates or bytes there, with its costs.

    With a grid step, a kept layer's bytes are those of its coded weights. A form's bytes are an estimate, since its
    weights are not trained yet: its number of weights times the kept layer's bytes per weight.

    Args:
        model: the network of the sites; it is not changed.
        forms: candidate configs by name.
        multiple: see :func:`seedcnn.plan.sites.form_of_site`.
        step: grid step of the weights, None for float32.
        say: is shown the progress.
    """
    table: Table = {}
    known: dict[str, list[Option]] = {}
    sites = list(sites)
    with torch.random.fork_rng(devices=[]), steps(say, "counting the costs of layers", len(sites)) as advance:
        for site in sites:
            key = site.key if step is None else site.name  # on a grid the bytes depend on the weights
            if key not in known:
                known[key] = _options(model, site, forms, multiple, step)
            table[site.name] = known[key]
            advance(note=site.name)
    return table


def _facts(layer: nn.Module) -> list[tuple[str, type, dict[str, Any], list[torch.Size]]]:
    """The class, the public attributes and the shapes of a layer and its parts: equal for layers that are the same."""
    return [
        (
            name,
            type(part),
            {key: value for key, value in vars(part).items() if key[0] != "_" and not isinstance(value, Tensor)},
            [parameter.shape for parameter in part.parameters(recurse=False)],
        )
        for name, part in layer.named_modules()
    ]


def _options(
    model: nn.Module, site: Site, forms: Mapping[str, ConversionConfig], multiple: int, step: float | None
) -> list[Option]:
    kept = site.alone(site.conv)
    rate = 4.0
    if step is not None:
        tensors = _folded_tensors(kept)[0].values()
        weights = sum(values.size for values in tensors if is_weight(values.shape))
        others = sum(4 * values.size for values in tensors if not is_weight(values.shape))
        rate = (tensor_bytes(kept, step) - others) / max(weights, 1)
    plain = _costs(copy.deepcopy(site.conv), site, rate)
    options, seen = [Option(KEEP, None, plain, _weights(site.conv))], []
    for form, config in forms.items():
        layer = form_of_site(model, site, config, multiple=multiple)
        if isinstance(layer, str):
            continue
        facts = _facts(layer)
        if facts in seen:  # with nothing to divide, a grouped form equals the dense one
            continue
        seen.append(facts)
        found = _costs(layer, site, rate)
        if found.macs < plain.macs or found.bytes < plain.bytes:
            options.append(Option(form, config, found, _weights(layer)))
    return options
