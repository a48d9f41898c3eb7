"""Channel orders that layers of a network share, and that must therefore change together."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field

import torch
from torch import fx, nn
from torch.nn import functional as F

from seedcnn.convert.tracing import frozen_types, trace
from seedcnn.layers import ConvLayer
from seedcnn.layers.low_pass import binomial

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
_KEEP_FUNCTIONS = {F.relu, torch.relu, F.avg_pool2d, F.max_pool2d, F.adaptive_avg_pool2d, F.silu, F.dropout, binomial}
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
        self.channels: dict[int, int] = {}
        self.vectors: set[fx.Node] = set()  # values of shape [N, features]

    def new(self, channels: int | None = None) -> int:
        space = len(self.parent)
        self.parent.append(space)
        if channels is not None:
            self.channels[space] = channels
        return space

    def alike(self, a: int, b: int) -> bool:
        """Whether two spaces are known to have equally many channels, so that adding them joins their orders."""
        counts = [self.channels.get(self.find(space)) for space in (a, b)]
        return counts[0] == counts[1] is not None

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
            for space in (self.input[name], self.output[name], source):
                self.fix(space, f"{name} is called more than once")
            self.opaque(node, f"{name} is called more than once")
            return
        result: int | None = None
        flat = node.all_input_nodes[0] in self.vectors
        if isinstance(module, nn.Conv2d):
            depthwise = module.groups == module.in_channels == module.out_channels
            if module.groups > 1 and not depthwise:
                self.fix(source, f"{name} is grouped")
            result = source if depthwise else self.new(module.out_channels)
            if module.groups > 1 and not depthwise:
                self.fix(result, f"{name} is grouped")
        elif isinstance(module, nn.Linear):
            result = self.new(module.out_features) if flat else None  # of a map it mixes columns, not channels
            flat = True
        elif isinstance(module, (*_KEEP_MODULES, *frozen_types())):
            result = source
        elif isinstance(module, nn.Flatten):
            # A feature is a channel only after global pooling.
            before = node.all_input_nodes[0]
            pool = self.traced.get_submodule(str(before.target)) if before.op == "call_module" else None
            whole = (module.start_dim, module.end_dim) == (1, -1)
            if isinstance(pool, nn.AdaptiveAvgPool2d) and pool.output_size in (1, (1, 1)) and whole:
                result = source
            flat = whole
        if result is None:
            self.opaque(node, f"{name} is a {type(module).__name__}")
            return
        self.input[name], self.output[name], self.of[node] = source, result, result
        if flat:
            self.vectors.add(node)

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
                if self.alike(self.of[left], self.of[right]):
                    self.of[node] = self.union(self.of[left], self.of[right])
                else:
                    self.opaque(node, f"{node.name} adds maps of different channels")
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
        traced = trace(dense, lambda module: isinstance(module, (ConvLayer, *frozen_types())))
    except Exception:  # the tracer runs the model's own code, which may raise anything
        return None
    return _Builder(traced).build()
