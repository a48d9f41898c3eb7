"""Choice of a form for each layer, so that the network meets a budget at the least loss."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from torch import nn

from seedcnn.errors import ConfigError, did_you_mean
from seedcnn.evaluate.runners import RUNNERS
from seedcnn.messages import Say
from seedcnn.plan.costs import Costs, Option, Table, cost_table, costs_of_network
from seedcnn.plan.forms import find_forms
from seedcnn.plan.knapsack import choose
from seedcnn.plan.result import Budget, LayerPlan, Plan
from seedcnn.plan.sensitivity import Calibration, Sensitivities, measured_sensitivity, proxy_sensitivity
from seedcnn.plan.sites import Site, find_sites
from seedcnn.plan.timing import Timing, add_latency, time_networks

__all__ = ["plan"]


@dataclass(frozen=True)
class _Job:
    """The network and budget of one plan, and how to measure latencies."""

    model: nn.Module
    budget: Budget
    input_size: tuple[int, int, int]
    timing: Timing

    def whole_latency(self) -> float:
        """Measure the median milliseconds of the unchanged network."""
        return time_networks({"vanilla": self.model}, self.input_size, self.timing)["vanilla"].median_ms

    def with_latency(self, sites: list[Site], table: Table) -> Table:
        """Return the table with measured milliseconds."""
        return add_latency(self.model, sites, table, self.timing)


@dataclass(frozen=True)
class _Choice:
    """An option for each site, with the table and sensitivities it was chosen by."""

    table: Table
    chosen: dict[str, Option]
    found: Sensitivities


def _checked_runtime(runtime: str) -> str:
    if runtime not in RUNNERS:
        hint = did_you_mean(runtime, RUNNERS)
        raise ConfigError(f"unknown runtime {runtime!r}; {hint}known runtimes: {', '.join(RUNNERS)}")
    return runtime


def _predicted(vanilla: Costs, chosen: Iterable[tuple[Option, Option]]) -> Costs:
    """Return the costs of ``vanilla`` with the kept layers (first) replaced by the chosen options (second)."""
    total = vanilla
    for kept, option in chosen:
        if option.config is not None:
            total = total.plus(option.costs, kept.costs)
    return total


def _pick(table: Table, found: Sensitivities, budget: Budget, vanilla: Costs) -> dict[str, Option]:
    """Choose the options with the least sum of sensitivities within the budget, by site."""
    usable = {n: [o for o in options if (n, o.form) in found.of] for n, options in table.items()}
    least = {n: min(options, key=lambda o: o.costs.of(budget.of)) for n, options in usable.items()}
    smallest = _predicted(vanilla, [(table[n][0], option) for n, option in least.items()]).of(budget.of)
    floors = {n: option.costs.of(budget.of) for n, option in least.items()}
    costs = [[o.costs.of(budget.of) - floors[n] for o in options] for n, options in usable.items()]
    losses = [[found.of[n, o.form] for o in options] for n, options in usable.items()]
    picked = choose(costs, losses, budget.limit - smallest) if smallest <= budget.limit else None
    if picked is None:
        forms = Counter(option.form for option in least.values()).most_common()
        told = ", ".join(f"{form} in {count} layers" for form, count in forms) or "no layer can be replaced"
        raise ConfigError(
            f"the budget cannot be met: {budget}; the least that can be reached is {budget.say(smallest)} ({told}); "
            f"the unchanged network takes {budget.say(vanilla.of(budget.of))}"
        )
    return {n: options[index] for (n, options), index in zip(usable.items(), picked, strict=True)}


def _keep(table: Table) -> _Choice:
    how = "not needed: the unchanged network meets the budget"
    kept = {name: options[0] for name, options in table.items()}
    return _Choice(table, kept, replace(proxy_sensitivity(table), how=how))


def _choose(
    job: _Job, sites: list[Site], table: Table, vanilla: Costs, calibration: Calibration | None, seed: int
) -> _Choice:
    if job.budget.of == "latency":
        table = job.with_latency(sites, table)
    if calibration is None:
        found = proxy_sensitivity(table)
    else:
        found = measured_sensitivity(
            job.model, sites, table, calibration, budget=job.budget.of, seed=seed, say=job.timing.say
        )
    return _Choice(table, _pick(table, found, job.budget, vanilla), found)


def _timed(job: _Job, sites: list[Site], choice: _Choice) -> _Choice:
    """Return the choice with latencies, measured only for the replaced layers."""
    pairs = {name: [choice.table[name][0], o] for name, o in choice.chosen.items() if o.config is not None}
    measured = job.with_latency(sites, pairs)
    table = {name: [pair[0], *choice.table[name][1:]] for name, pair in measured.items()}
    chosen = {name: pair[1] for name, pair in measured.items()}
    return replace(choice, table=choice.table | table, chosen=choice.chosen | chosen)


def plan(
    model: nn.Module,
    budget: Budget,
    *,
    input_size: tuple[int, int, int],
    runtime: str = "onnxruntime",
    forms: Iterable[str] | None = None,
    calibration: Calibration | None = None,
    multiple: int = 16,
    rounds: int | None = None,
    threads: int = 1,
    step: float | None = None,
    seed: int = 0,
    latency: bool = True,
    say: Say = lambda _: None,
) -> Plan:
    """Choose a form for each convolution, so that the sum of the sensitivities is least within the budget.

    The plan assumes that sensitivities add up: what two layers lose together is not measured.

    Args:
        model: the network, trained if there is a ``calibration``; it is not changed.
        budget: largest cost of the converted network.
        input_size: channels, height, width of an image.
        runtime: runtime to measure latencies in, a key of :data:`seedcnn.evaluate.runners.RUNNERS`.
        forms: names of :data:`seedcnn.plan.FORMS` or ``method:option=value``; None for all.
        calibration: images to measure sensitivities on; without them the plan uses a stand-in and says so.
        multiple: divisor of the widths that a form introduces; 1 allows any. Widths that are not multiples of 16 leave
            the blocked memory layout of the runtimes.
        rounds, threads: for the latencies, see :class:`seedcnn.plan.timing.Timing`.
        step: grid step to estimate bytes at, None for float32 (exact).
        seed: 64-bit model seed of the conversion.
        latency: False skips latency measurements unless the budget is a latency.
        say: is shown the progress.

    Raises:
        ConfigError: if the budget cannot be met (the message names the least that can be reached), or a form or the
            runtime does not exist.
        ValueError: naming an argument, its value and the rule.
        ExportError: if the network, or a layer of it, cannot be exported or differs in the runtime.
    """
    if isinstance(multiple, bool) or not isinstance(multiple, int) or multiple < 1:
        raise ValueError(f"`multiple` (={multiple!r}) must be a positive integer")
    configs = find_forms(forms)
    job = _Job(model, budget, input_size, Timing(_checked_runtime(runtime), rounds, threads, say))
    begin = time.perf_counter()
    sites, left = find_sites(model, input_size)
    vanilla = costs_of_network(model, input_size, step)
    if latency or budget.of == "latency":
        vanilla = replace(vanilla, latency_ms=job.whole_latency())
    enough = vanilla.of(budget.of) <= budget.limit
    table = cost_table(model, sites, {} if enough else configs, multiple=multiple, step=step, say=say)
    choice = _keep(table) if enough else _choose(job, sites, table, vanilla, calibration, seed)
    if latency and budget.of != "latency":
        choice = _timed(job, sites, choice)
    seconds = {"sensitivity": choice.found.seconds, "all": time.perf_counter() - begin}
    rows = tuple(_row(site, choice) for site in sites)
    total = _predicted(vanilla, [(choice.table[name][0], option) for name, option in choice.chosen.items()])
    how, loss = choice.found.how, choice.found.loss
    return Plan(budget, input_size, runtime, rows, left, vanilla, total, how, loss, step, seed, seconds)


def _row(site: Site, choice: _Choice) -> LayerPlan:
    options, option = choice.table[site.name], choice.chosen[site.name]
    sensitivity = choice.found.of[site.name, option.form]
    tried = len(options) - 1
    before = options[0].costs
    after = before if option.config is None else option.costs
    return LayerPlan(site.name, str(site), option.form, option.config, before, after, sensitivity, tried)
