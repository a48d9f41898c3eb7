"""Measured latencies of layers in all their forms, and of whole networks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from seedcnn.arrays import F32
from seedcnn.evaluate.runners import Runner, runners, settled
from seedcnn.latency import Latency, interleave
from seedcnn.messages import Say, counted, steps
from seedcnn.plan.costs import Option, Table
from seedcnn.plan.sites import Site, form_of_site

__all__ = ["Timing", "add_latency", "time_networks"]

_ROUNDS = 100
_GROUP_BYTES = 1 << 28  # exported in one call


@dataclass(frozen=True)
class Timing:
    """How latencies are measured: one image at a time, interleaved, after a warm-up.

    Attributes:
        runtime: a key of :data:`seedcnn.evaluate.runners.RUNNERS`.
        rounds: timed calls of each network. None makes up to 100, as many as fit into ``seconds``, and at least five.
        threads: threads of the runtime.
        say: is shown the progress.
        seconds: that limit the rounds of a layer with its forms; twice as many do those of each network.
        together: forms that are exported in one call.
    """

    runtime: str
    rounds: int | None = None
    threads: int = 1
    say: Say = lambda _: None
    seconds: float = 3.0
    together: int = 48  # more would save little time and take more memory

    def measure(self, ready: Mapping[str, tuple[Runner, F32]], seconds: float) -> dict[str, Latency]:
        """Time networks against each other, each on its example; ``seconds`` limit the rounds if none are given."""
        calls: dict[str, Callable[[], object]] = {
            name: lambda run=one.run, example=example: run(example)  # type: ignore[misc]
            for name, (one, example) in ready.items()
        }
        rounds = _ROUNDS if self.rounds is None else self.rounds
        limit = seconds if self.rounds is None else float("inf")
        return interleave(calls, rounds=rounds, warmup=max(10, rounds // 10), settle=1, seconds=limit)


def _example(size: tuple[int, int, int]) -> F32:
    return np.random.default_rng(0).standard_normal((1, *size)).astype(np.float32)


def time_networks(
    networks: Mapping[str, nn.Module], input_size: tuple[int, int, int], timing: Timing
) -> dict[str, Latency]:
    """Time whole networks against each other.

    Args:
        networks: by name; copies are measured, with running statistics of noise.
        input_size: channels, height, width.

    Raises:
        ExportError, BundleError: if a network cannot be exported or differs in the runtime.
    """
    example = _example(input_size)
    title = counted(len(networks), "network")
    with steps(timing.say, f"exporting {title}"):
        settled_ones = {name: (settled(network, input_size), example) for name, network in networks.items()}
        ready = {name: (one, example) for name, one in runners(settled_ones, timing.runtime, threads=timing.threads)}
    with steps(timing.say, f"timing {title}"):
        return timing.measure(ready, 2 * timing.seconds * len(networks))


_Key = tuple[str, tuple[str, ...]]


def _key(site: Site, options: list[Option]) -> _Key:
    """Equal for sites whose options take equally long."""
    return site.key, tuple(option.form for option in options)


def add_latency(model: nn.Module, sites: Iterable[Site], table: Table, timing: Timing) -> Table:
    """Return the table with the measured milliseconds of each option, one image at a time.

    Each distinct layer is exported alone with its norm and activation, in all its forms; these are timed interleaved,
    and the medians are kept.

    Raises:
        ExportError, BundleError: if a form cannot be exported or behaves differently in the runtime than in torch; the
            message names the layer and the form.
    """
    sites = [site for site in sites if site.name in table]
    distinct: dict[_Key, Site] = {}
    for site in sites:
        distinct.setdefault(_key(site, table[site.name]), site)
    known: dict[_Key, dict[str, float]] = {}
    total = sum(len(table[site.name]) for site in distinct.values())
    what = f"exporting and timing {counted(total, 'form')} of {counted(len(distinct), 'layer')}"
    with steps(timing.say, what, 2 * total) as advance:  # a form is exported, then timed
        for group in _groups(model, distinct.values(), table, timing.together):
            every = {_title(site, form): one for site, forms in group.items() for form, one in forms.items()}
            advance(0, f"exporting {', '.join(site.name for site in group)}")
            loaded = runners(every, timing.runtime, threads=timing.threads)
            advance(len(every), f"exported {counted(len(every), 'form')}")
            for site, forms in group.items():
                ready = {}
                for form, (_, example) in forms.items():
                    name, one = next(loaded)
                    ready[form] = one, example
                    advance(note=name)
                times = timing.measure(ready, timing.seconds)
                known[_key(site, table[site.name])] = {form: time.median_ms for form, time in times.items()}
    result: Table = {}
    for site in sites:
        options = table[site.name]
        found = known[_key(site, options)]
        result[site.name] = [replace(o, costs=replace(o.costs, latency_ms=found[o.form])) for o in options]
    return result


def _title(site: Site, form: str) -> str:
    return f"{site.name} as {form}"


_Forms = dict[str, tuple[nn.Module, F32]]


def _groups(model: nn.Module, sites: Iterable[Site], table: Table, together: int) -> Iterator[dict[Site, _Forms]]:
    """Yield layers with their forms, as many as are exported in one call."""
    group: dict[Site, _Forms] = {}
    forms, size = 0, 0
    for site in sites:
        group[site] = _forms(model, site, table[site.name])
        forms += len(group[site])
        size += sum(p.numel() * p.element_size() for form, _ in group[site].values() for p in form.parameters())
        if forms >= together or size >= _GROUP_BYTES:
            yield group
            group, forms, size = {}, 0, 0
    if group:
        yield group


def _forms(model: nn.Module, site: Site, options: list[Option]) -> _Forms:
    example = _example(site.input_shape)
    forms: _Forms = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for option in options:
            layer = form_of_site(model, site, option.config, multiple=1)
            if isinstance(layer, str):
                raise ValueError(f"`table` names the form {option.form!r}, which does not fit {site.name}: {layer}")
            forms[option.form] = settled(site.alone(layer), site.input_shape), example
    return forms
