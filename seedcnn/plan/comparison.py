"""Comparison of a plan with the original network and the plain alternative, all measured as whole networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from seedcnn.convert.copies import copy_model
from seedcnn.latency import Latency
from seedcnn.messages import Say
from seedcnn.plan.costs import Costs, costs_of_network
from seedcnn.plan.result import Plan
from seedcnn.plan.timing import Timing, time_networks

__all__ = ["Compared", "Comparison", "compare"]


@dataclass(frozen=True)
class Compared:
    """One network: its name, its counted costs, and its latency (None if not measured)."""

    name: str
    costs: Costs
    latency: Latency | None


@dataclass(frozen=True)
class Comparison:
    """Networks measured against each other.

    Attributes:
        networks: "vanilla", "plan", and the other networks compared.
        verdict: conclusions about the budget, one sentence each.
    """

    networks: tuple[Compared, ...]
    verdict: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as plain data, ready for JSON."""
        return asdict(self)


def _verdict(plan: Plan, rows: Mapping[str, Compared]) -> tuple[str, ...]:
    budget = plan.budget

    estimated = budget.of == "bytes" and plan.step is not None

    def of(row: Compared) -> float | None:
        if budget.of == "latency":
            return None if row.latency is None else row.latency.median_ms
        return None if estimated else row.costs.of(budget.of)

    if plan.keeps_everything:
        return (f"The network meets the budget ({budget}) as it is: nothing is replaced.",)
    told = []
    mine = of(rows["plan"])
    if mine is not None:
        predicted = budget.say(plan.predicted.of(budget.of))
        verb = "measured" if budget.of == "latency" else "counted"
        kept = "meets" if mine <= budget.limit else "MISSES"
        told.append(f"Predicted {predicted}, {verb} {budget.say(mine)}: {kept} the budget ({budget}).")
    if estimated:
        told.append("Bytes on a grid are an estimate until the network is trained; pack it to count them.")
    for name, row in rows.items():
        if name in ("vanilla", "plan"):
            continue
        other = of(row)
        if budget.of == "macs":
            told.append(f"{name}: sized to cost about as much. Train both before you choose.")
        elif other is not None and mine is not None and other <= mine:
            told.append(f"{name}: {budget.say(other)}, no more than the plan. Train both before you choose.")
        elif other is not None and mine is not None:
            told.append(f"{name}: {budget.say(other)}, more than the plan.")
        theirs, ours = row.latency, rows["plan"].latency
        if budget.of != "latency" and theirs is not None and ours is not None:
            faster = "as fast or faster than" if theirs.median_ms <= ours.median_ms else "slower than"
            told.append(f"{name}: {theirs.median_ms:.3f} ms, {faster} the plan ({ours.median_ms:.3f} ms).")
    return tuple(told)


def compare(
    plan: Plan,
    model: nn.Module,
    *,
    beside: Mapping[str, nn.Module] | None = None,
    rounds: int | None = None,
    threads: int = 1,
    latency: bool = True,
    say: Say = lambda _: None,
) -> Comparison:
    """Convert a copy of ``model`` as planned and measure it against the model and other networks.

    Args:
        model: the network that the plan was made for; it is not changed.
        beside: other networks by name, such as the vanilla one narrowed to as many multiply-accumulates.
        rounds, threads: for the latencies, which are interleaved, in the plan's runtime, one image at a time; see
            :class:`seedcnn.plan.timing.Timing`.
        latency: False only counts, without measuring latencies.
        say: is shown the progress.

    Raises:
        ConversionError: if the plan was made for another model.
        ExportError: if a network cannot be exported or differs in the runtime.
    """
    converted = copy_model(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        plan.convert_(converted)
    networks = {"vanilla": model, "plan": converted, **(beside or {})}
    times: dict[str, Latency] = {}
    if latency:
        times = time_networks(networks, plan.input_size, Timing(plan.runtime, rounds, threads, say))
    # On a grid the converted layers' bytes depend on weights that are not trained yet, so float32 bytes are counted.
    rows = {
        name: Compared(name, costs_of_network(network, plan.input_size, None), times.get(name))
        for name, network in networks.items()
    }
    return Comparison(tuple(rows.values()), _verdict(plan, rows))
