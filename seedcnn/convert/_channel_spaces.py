"""Channel orders that layers of a network share, and that must therefore change together."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field

import torch
from torch import fx, nn
from torch.nn import functional as F

__all__ = ["Spaces", "channel_spaces"]

_KEEP_MODULES = (
    nn.modules.batchnorm._BatchNorm,
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.SiLU,
    nn.GELU,
    nn.Hardswish,
    nn.Sigmoid,
    nn.Identity,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
    nn.modules.dropout._DropoutNd,
)
_KEEP_FUNCTIONS = {F.relu, torch.relu, F.avg_pool2d, F.max_pool2d, F.adaptive_avg_pool2d, F.silu, F.dropout}
_ADD = {operator.add, operator.iadd, torch.add}


@dataclass
class Spaces:
    """Sets of tensors that share one channel order ("spaces"), by number.

    Attributes:
        output: space of a module's output channels, by qualified name.
        input: space of a module's input channels, by qualified name.
        fixed: why a space cannot be reordered; no entry if it can.
    """

    output: dict[str, int] = field(default_factory=dict)
    input: dict[str, int] = field(default_factory=dict)
    fixed: dict[int, str] = field(default_factory=dict)


class _Builder:
    """Union-find over the nodes of a traced network."""

    def __init__(self, traced: fx.GraphModule) -> None:
        self.traced = traced
        self.parent: list[int] = []
        self.of: dict[fx.Node, int] = {}
        self.fixed: dict[int, str] = {}
        self.output: dict[str, int] = {}
        self.input: dict[str, int] = {}

    def new(self) -> int:
        self.parent.append(len(self.parent))
        return self.parent[-1]

    def find(self, space: int) -> int:
        while self.parent[space] != space:
            space = self.parent[space]
        return space

    def union(self, a: int, b: int) -> int:
        a, b = self.find(a), self.find(b)
        self.parent[b] = a
        if b in self.fixed:
            self.fixed.setdefault(a, self.fixed[b])
        return a

    def fix(self, space: int, reason: str) -> None:
        self.fixed.setdefault(self.find(space), reason)

    def opaque(self, node: fx.Node, what: str) -> None:
        """Fix the order of an unknown node's inputs and output."""
        for source in node.all_input_nodes:
            self.fix(self.of[source], what)
        self.of[node] = self.new()
        self.fix(self.of[node], what)

    def module(self, node: fx.Node) -> None:
        name = str(node.target)
        module = self.traced.get_submodule(name)
        source = self.of[node.all_input_nodes[0]]
        if name in self.input and any(True for _ in module.parameters()):  # called twice with the same weights
            self.union(self.input[name], source)
            self.of[node] = self.output[name]
            return
        result: int | None = None
        if isinstance(module, nn.Conv2d):
            depthwise = module.groups == module.in_channels == module.out_channels
            if module.groups > 1 and not depthwise:
                self.fix(source, f"{name} is grouped")
            result = source if depthwise else self.new()
            if module.groups > 1 and not depthwise:
                self.fix(result, f"{name} is grouped")
        elif isinstance(module, nn.Linear):
            result = self.new()
        elif isinstance(module, _KEEP_MODULES):
            result = source
        elif isinstance(module, nn.Flatten):
            # A feature is a channel only after global pooling.
            before = node.all_input_nodes[0]
            pool = self.traced.get_submodule(str(before.target)) if before.op == "call_module" else None
            if isinstance(pool, nn.AdaptiveAvgPool2d) and pool.output_size in (1, (1, 1)):
                result = source
        if result is None:
            self.opaque(node, f"{name} is a {type(module).__name__}")
            return
        self.input[name], self.output[name], self.of[node] = source, result, result

    def build(self) -> Spaces:
        for node in self.traced.graph.nodes:
            if node.op == "placeholder":
                self.of[node] = self.new()
                self.fix(self.of[node], "the network's input")
            elif node.op == "output":
                for source in node.all_input_nodes:
                    self.fix(self.of[source], "the network's output")
            elif node.op == "call_module" and len(node.all_input_nodes) == 1:
                self.module(node)
            elif node.target in _ADD and len(node.all_input_nodes) == 2:
                left, right = node.all_input_nodes
                self.of[node] = self.union(self.of[left], self.of[right])
            elif node.target in _KEEP_FUNCTIONS:
                self.of[node] = self.of[node.all_input_nodes[0]]
            else:
                self.opaque(node, f"{node.name} is not understood")
        return Spaces(
            {name: self.find(space) for name, space in self.output.items()},
            {name: self.find(space) for name, space in self.input.items()},
            {self.find(space): reason for space, reason in self.fixed.items()},
        )


def channel_spaces(dense: nn.Module) -> Spaces | None:
    """Return the channel orders of a network of plain convolutions, or None if it cannot be traced."""
    try:
        traced = fx.symbolic_trace(dense)
    except Exception:  # the tracer runs the model's own code, which may raise anything
        return None
    return _Builder(traced).build()
