"""A plan: which layer takes which form, and the predicted costs."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from seedcnn import html, typed
from seedcnn.convert import ConversionConfig, ConversionReport, convert_layers_
from seedcnn.errors import ConfigError
from seedcnn.files import write_file
from seedcnn.layers import learnable_count
from seedcnn.layers.families import fields_without_effect_forgiven
from seedcnn.literals import parse_json
from seedcnn.plan.costs import Costs
from seedcnn.plan.forms import KEEP

__all__ = ["BUDGETS", "FORMAT", "Budget", "LayerPlan", "Plan", "read_plan"]

FORMAT = "seedcnn-plan/1"
"""The format of a serialised plan."""

BUDGETS = {"latency": "ms", "bytes": "bytes", "macs": "MACs"}
"""Kind of budget -> unit."""


@dataclass(frozen=True)
class Budget:
    """The most that the converted network may cost.

    Args:
        of: "latency" (milliseconds for one image), "bytes" (of the tensors in its bundle) or "macs".
        limit: the largest value allowed, positive.

    Raises:
        ConfigError: if there is no such budget.
        ValueError: if the limit is not a positive number.
    """

    of: str
    limit: float

    def __post_init__(self) -> None:
        if self.of not in BUDGETS:
            raise ConfigError(f"unknown budget {self.of!r}; it must be one of {', '.join(BUDGETS)}")
        if not 0 < self.limit < float("inf"):
            raise ValueError(f"`limit` (={self.limit!r}) must be a positive number")

    def say(self, value: float) -> str:
        """A value of this budget with its unit."""
        return f"{value:.3f} ms" if self.of == "latency" else f"{value:,.0f} {BUDGETS[self.of]}"

    def __str__(self) -> str:
        return f"at most {self.say(self.limit)}"


@dataclass(frozen=True)
class LayerPlan:
    """One convolution.

    Attributes:
        name: its qualified name.
        layer: description, such as "3x3 32->64 /2 @16x16".
        form: the form's name, "keep" for one that stays.
        config: config to convert it with, None for one that stays.
        before, after: its costs, with its norm.
        sensitivity: sensitivity of this form, as the plan's ``how`` says.
        tried: number of forms to choose from.
    """

    name: str
    layer: str
    form: str
    config: ConversionConfig | None
    before: Costs
    after: Costs
    sensitivity: float
    tried: int

    def __post_init__(self) -> None:
        if (self.form == KEEP) != (self.config is None):
            raise ConfigError(f"layer {self.name} has the form {self.form!r} and the config {self.config}")


def _ms(costs: Costs) -> str | None:
    return None if costs.latency_ms is None else f"{costs.latency_ms:.3f}"


@dataclass(frozen=True)
class Plan:
    """The result of :func:`seedcnn.plan.plan`.

    Attributes:
        budget: the budget asked for.
        input_size: channels, height, width of an image.
        runtime: runtime in which latencies were measured.
        layers: every convolution that could be replaced, in the network's order.
        left: the other convolutions, and why they cannot be replaced.
        vanilla: costs of the network as it is.
        predicted: costs of the converted one: vanilla, plus the difference of each replaced layer.
        how: what the sensitivities are.
        loss: cross-entropy of the network as it is on the calibration images, None without them.
        step: grid step at which bytes are estimated, None for float32 (exact).
        seed: 64-bit model seed of the conversion.
        seconds: duration of each part.
    """

    budget: Budget
    input_size: tuple[int, int, int]
    runtime: str
    layers: tuple[LayerPlan, ...]
    left: dict[str, str]
    vanilla: Costs
    predicted: Costs
    how: str
    loss: float | None = None
    step: float | None = None
    seed: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def overrides(self) -> dict[str, ConversionConfig]:
        """The config of each replaced layer by qualified name, as ``convert_`` takes them."""
        return {layer.name: layer.config for layer in self.layers if layer.config is not None}

    @property
    def keeps_everything(self) -> bool:
        """Whether no layer is replaced."""
        return not self.overrides

    @property
    def forms(self) -> dict[str, int]:
        """Number of layers by form, including those that stay; the most frequent first."""
        return dict(Counter(layer.form for layer in self.layers).most_common())

    def __repr__(self) -> str:
        changed = f"{len(self.overrides)} of {len(self.layers)} layers replaced"
        before, after = (self.budget.say(each.of(self.budget.of)) for each in (self.vanilla, self.predicted))
        return f"Plan({self.budget}: {changed}, {before} -> {after} predicted)"

    def _repr_html_(self) -> str:
        """Costs of the network before and after, and the form of each layer, as a notebook shows them."""
        networks = [
            (name, each.macs, each.params, each.bytes, _ms(each))
            for name, each in (("as it is", self.vanilla), ("predicted", self.predicted))
        ]
        costs = ("MACs", "parameters", "bytes", "ms")
        rows: list[tuple[object, ...]] = [
            (
                each.name,
                each.layer,
                each.form,
                *(each.after.macs, each.after.params, each.after.bytes, _ms(each.after)),
                "" if each.config is None else f"{each.sensitivity:.4f}",
            )
            for each in self.layers
        ]
        rows += [(name, f"stays: {reason}", *(None,) * 6) for name, reason in self.left.items()]
        about = f"{self.budget}: {len(self.overrides)} of {len(self.layers)} layers replaced. Sensitivity: {self.how}."
        return (
            html.paragraph(about)
            + html.table(("network", *costs), networks)
            + html.table(("layer", "convolution", "form", *costs, "sensitivity"), rows)
        )

    def convert_(self, model: nn.Module) -> ConversionReport:
        """Convert ``model`` in place; replaced layers get fresh weights, the others keep theirs.

        A plan that keeps everything changes nothing, and its report says so.

        Raises:
            ConversionError: if the plan was made for another model.
        """
        if self.overrides:
            return convert_layers_(model, self.overrides, seed=self.seed)
        learnable = learnable_count(model)
        return ConversionReport("plan", (), (), learnable, learnable)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return typed.stamped(typed.to_plain(self), FORMAT)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Plan:
        """The inverse of :meth:`to_dict`, also after JSON.

        Raises:
            ConfigError: if the data are of another format, something is missing, a value is wrong, or a method or
                option does not exist.
        """
        plan: Plan = typed.convert(cls, typed.unstamped(data, "the plan", FORMAT), "")
        return plan

    def save(self, path: Path) -> None:
        """Write the plan as JSON, for :func:`read_plan`."""
        write_file(path, json.dumps(self.to_dict(), indent=2).encode() + b"\n")


def read_plan(path: str | Path) -> Plan:
    """Read a plan from a file that :meth:`Plan.save` or ``seedcnn plan --out`` wrote.

    Raises:
        ConfigError: if the file is missing, no JSON, no plan, or a plan of another format.
    """
    try:
        data = parse_json(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read as a plan: {error.strerror or error}") from None
    except ValueError as error:
        raise ConfigError(f"{path} cannot be read as a plan: {error}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path} holds a {type(data).__name__}; a plan is an object")
    with typed.prefixed(f"{path} is not a plan"), fields_without_effect_forgiven():
        return Plan.from_dict(data.get("plan", data))
