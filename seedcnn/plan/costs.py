"""The costs of each layer in each form: multiply-accumulates, bytes, parameters, and measured milliseconds."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from seedcnn.convert import ConversionConfig
from seedcnn.evaluate.benchmark import bench_latency
from seedcnn.evaluate.costs import cost
from seedcnn.export import fold
from seedcnn.export.bundles import F32, encode_learned, grids_of_step, is_weight
from seedcnn.plan.forms import KEEP
from seedcnn.plan.sites import Site, form_of_site

__all__ = ["Costs", "Option", "Table", "add_latency", "cost_table", "costs_of_network", "tensor_bytes"]

Say = Callable[[str], None]


@dataclass(frozen=True)
class Costs:
    """The costs of a layer with its norm, or of a network.

    Attributes:
        macs: multiply-accumulates for one image.
        params: learnable scalars.
        bytes: size of the folded tensors as a bundle codes them, without graph and manifest; see :func:`tensor_bytes`.
        latency_ms: latency of one image, None if it was not measured.
    """

    macs: int
    params: int
    bytes: int
    latency_ms: float | None = None

    def of(self, what: str) -> float:
        """One of the costs by name: "macs", "bytes" or "latency"."""
        value = self.latency_ms if what == "latency" else getattr(self, what)
        if value is None:
            raise ValueError(f"`what` (={what!r}) was not measured")
        return float(value)

    def plus(self, after: Costs, before: Costs) -> Costs:
        """These costs with ``after`` in the place of ``before``."""
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
        form: its name.
        config: config to convert with, None to keep the layer.
        costs: costs of the layer with the norm that follows.
        weights: learnable scalars, without those of biases and norms.
    """

    form: str
    config: ConversionConfig | None
    costs: Costs
    weights: int


Table = dict[str, list[Option]]
"""Name of a site -> its options; the first one keeps the layer."""


def _folded_tensors(model: nn.Module) -> tuple[dict[str, F32], set[str]]:
    """The learned tensors of a network's inference form, without those sent as seeds, and the names of divisors."""
    folded = fold(model)
    seeded, divisors = (
        {f"{name}.{part}" for name, m in folded.named_modules() for part in getattr(m, parts, ())}
        for parts in ("seed_specs", "divisors")
    )
    tensors = {name: value.detach().numpy() for name, value in folded.named_parameters() if name not in seeded}
    return tensors, divisors


def tensor_bytes(model: nn.Module, step: float | None = None) -> int:
    """Bytes of the tensors in a bundle of ``model``, without its graph, manifest and canned vectors.

    Args:
        step: grid step of the weights; None stores float32. On the grid the size depends on the current weights.

    Raises:
        ValueError: if the step is out of range.
        BundleError: if a weight is not finite or does not fit the grid.
        ExportError: if the network cannot be folded.
    """
    tensors, divisors = _folded_tensors(model)
    coded = encode_learned(tensors, None if step is None else grids_of_step(tensors, step, divisors))
    return sum(len(each.payload.data) for each in coded if each.payload is not None)


def _bytes_at(model: nn.Module, bytes_a_weight: float) -> int:
    sizes = [(is_weight(values.shape), values.size) for values in _folded_tensors(model)[0].values()]
    return round(sum(count * (bytes_a_weight if weight else 4) for weight, count in sizes))


def _learnable(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _weights(layer: nn.Module) -> int:
    return sum(p.numel() for p in layer.parameters() if p.requires_grad and is_weight(tuple(p.shape)))


def costs_of_network(model: nn.Module, input_size: tuple[int, int, int], step: float | None = None) -> Costs:
    """MACs, parameters and bytes of a whole network, without a latency."""
    return Costs(cost(model, input_size).macs, _learnable(model), tensor_bytes(model, step))


def _costs(layer: nn.Module, site: Site, bytes_a_weight: float) -> Costs:
    alone = site.alone(layer).cpu().float().eval()
    # `cost` agrees with this counter, but also looks at training, which takes many times as long.
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        alone(torch.zeros(1, *site.input_shape))
    return Costs(counter.get_total_flops() // 2, _learnable(alone), _bytes_at(alone, bytes_a_weight))


def cost_table(
    model: nn.Module,
    sites: Iterable[Site],
    forms: Mapping[str, ConversionConfig],
    *,
    multiple: int = 16,
    step: float | None = None,
) -> Table:
    """For each site, the forms that fit and save multiply-accumulates or bytes there, with their costs.

    With a grid step, the bytes of a kept layer are those of its coded weights, and the bytes of a form are estimated:
    its number of weights, at the kept layer's bytes per weight, since its own weights are not trained yet.

    Args:
        model: the network of the sites; unchanged afterwards.
        forms: the candidates by name.
        multiple: see :func:`seedcnn.plan.sites.form_of_site`.
        step: grid step of the weights, None for float32.
    """
    table: Table = {}
    known: dict[str, list[Option]] = {}
    with torch.random.fork_rng(devices=[]):
        for site in sites:
            key = site.key if step is None else site.name  # on the grid the size depends on the weights
            if key not in known:
                known[key] = _options(model, site, forms, multiple, step)
            table[site.name] = known[key]
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
        if (
            isinstance(layer, str) or (facts := _facts(layer)) in seen
        ):  # four groups that divide nothing are the dense form
            continue
        seen.append(facts)
        found = _costs(layer, site, rate)
        if found.macs < plain.macs or found.bytes < plain.bytes:
            options.append(Option(form, config, found, _weights(layer)))
    return options


def add_latency(
    model: nn.Module,
    sites: Iterable[Site],
    table: Table,
    *,
    runtime: str,
    rounds: int,
    threads: int,
    say: Say = lambda _: None,
) -> Table:
    """The same table with the measured milliseconds of each option, for one image at a time.

    Each distinct layer is exported alone with its norm and activation, in all its forms. Their calls are interleaved,
    and the medians count.

    Args:
        runtime: one of :data:`seedcnn.evaluate.runners.RUNNERS`.
        rounds, threads: see :func:`seedcnn.evaluate.benchmark.bench_latency`.
        say: called with one sentence for each distinct layer.

    Raises:
        ExportError, BundleError: if a form does not compute the same in the runtime as in torch.
    """
    result: Table = {}
    known: dict[tuple[str, tuple[str, ...]], dict[str, float]] = {}
    sites = [site for site in sites if site.name in table]
    distinct = {(site.key, tuple(option.form for option in table[site.name])) for site in sites}
    for site in sites:
        options = table[site.name]
        key = (site.key, tuple(option.form for option in options))
        if key not in known:
            say(f"timing {site} in {len(options)} forms ({len(known) + 1} of {len(distinct)} layers)")
            known[key] = _times(model, site, options, runtime, rounds, threads)
        times = known[key]
        result[site.name] = [replace(o, costs=replace(o.costs, latency_ms=times[o.form])) for o in options]
    return result


def _times(
    model: nn.Module, site: Site, options: list[Option], runtime: str, rounds: int, threads: int
) -> dict[str, float]:
    forms: dict[str, nn.Module] = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for option in options:
            layer = form_of_site(model, site, option.config, multiple=1)
            if isinstance(layer, str):
                raise ValueError(
                    f"`options` name the form {option.form!r} for {site.name}, where it does not fit: {layer}"
                )
            forms[option.form] = site.alone(layer)
    found = bench_latency(forms, site.input_shape, runtimes=(runtime,), rounds=rounds, threads=threads)
    return {one.form: one.latency.median_ms for one in found}
