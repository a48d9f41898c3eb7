"""A plan: which layer takes which form, and what that is predicted to cost."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from seedcnn.convert import ConversionConfig, ConversionReport, from_plain, to_plain
from seedcnn.errors import ConfigError
from seedcnn.files import write_file
from seedcnn.layers import learnable_count
from seedcnn.plan.costs import Costs
from seedcnn.plan.forms import KEEP
from seedcnn.plan.sites import replaced

__all__ = ["BUDGETS", "Budget", "LayerPlan", "Plan", "read_plan"]

BUDGETS = {"latency": "ms", "bytes": "bytes", "macs": "MACs"}
"""What a budget can be of, and its unit."""


@dataclass(frozen=True)
class Budget:
    """What the converted network may cost.

    Args:
        of: "latency" (milliseconds for one picture), "bytes" (of the tensors in its bundle) or "macs".
        limit: the most that is allowed, positive.

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
        layer: what it is, in words.
        form: the form's name, "keep" for one that stays.
        config: to convert it with, None for one that stays.
        before, after: its costs, with its norm.
        sensitivity: of this form, as the plan's ``how`` says.
        tried: how many forms there were to choose from.
    """

    name: str
    layer: str
    form: str
    config: ConversionConfig | None
    before: Costs
    after: Costs
    sensitivity: float
    tried: int


@dataclass(frozen=True)
class Plan:
    """What :func:`seedcnn.plan.plan` found.

    Attributes:
        budget: what was asked for.
        input_size: channels, height, width of a picture.
        runtime: where latencies were measured.
        layers: every convolution that could be replaced, in the network's order.
        left: the other convolutions, and why they cannot be.
        vanilla: costs of the network as it is.
        predicted: costs of the converted one: vanilla, plus the difference of each layer that is replaced.
        how: what the sensitivities are.
        loss: cross-entropy of the network as it is on the calibration pictures, None without them.
        step: grid step that bytes are estimated at, None for float32 (exact).
        seed: 64-bit model seed of the conversion.
        seconds: how long each part took.
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
        """The config of each layer that is replaced, by qualified name; as ``convert_`` takes them."""
        return {layer.name: layer.config for layer in self.layers if layer.config is not None}

    @property
    def keeps_everything(self) -> bool:
        """Whether no layer is replaced."""
        return not self.overrides

    @property
    def forms(self) -> dict[str, int]:
        """How many layers take each form, those that stay included, the most frequent first."""
        return dict(Counter(layer.form for layer in self.layers).most_common())

    def convert_(self, model: nn.Module) -> ConversionReport:
        """Convert ``model`` in place; fresh weights in the layers that are replaced, the others keep theirs.

        A plan that keeps everything changes nothing, and its report says so.

        Raises:
            ConversionError: if the model is not the one that was planned for.
        """
        if self.overrides:
            report: ConversionReport = replaced(model, self.overrides, self.seed)
            return report
        learnable = learnable_count(model)
        return ConversionReport("plan", (), (), learnable, learnable)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        data = asdict(self)
        for row, layer in zip(data["layers"], self.layers, strict=True):
            row["config"] = None if layer.config is None else to_plain(layer.config)
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Plan:
        """The inverse of :meth:`to_dict`.

        Raises:
            ConfigError: if something is missing, or a method or option does not exist.
        """
        try:
            layers = tuple(_layer(row) for row in data["layers"])
            channels, height, width = data["input_size"]
            rest: dict[str, Any] = {
                name: data[name] for name in ("runtime", "left", "how", "loss", "step", "seed", "seconds")
            }
            rest |= {name: Costs(**data[name]) for name in ("vanilla", "predicted")}
            return cls(Budget(**data["budget"]), (channels, height, width), layers=layers, **rest)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"this is not a plan: {type(error).__name__}: {error}") from None

    def save(self, path: Path) -> None:
        """Write the plan as JSON; :func:`read_plan` reads it."""
        write_file(path, json.dumps(self.to_dict(), indent=2).encode() + b"\n")


def _layer(row: dict[str, Any]) -> LayerPlan:
    config = None if row["config"] is None else from_plain(row["config"])
    if (row["form"] == KEEP) != (config is None):
        raise ValueError(f"layer {row['name']} has the form {row['form']!r} and the config {row['config']}")
    return LayerPlan(**row | {"config": config, "before": Costs(**row["before"]), "after": Costs(**row["after"])})


def read_plan(path: str | Path) -> Plan:
    """A plan from the file that :meth:`Plan.save` or ``seedcnn plan --out`` wrote.

    Raises:
        ConfigError: if the file is missing, no JSON, or no plan.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as a plan: {error}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path} holds a {type(data).__name__}; a plan is an object")
    return Plan.from_dict(data.get("plan", data))
