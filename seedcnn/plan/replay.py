"""A network run from one of its layers on, on values that were computed once up to there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves, tree_map

from seedcnn.convert import reestimate_batchnorm_
from seedcnn.convert.tracing import NORMS, trace
from seedcnn.layers import ConvLayer

__all__ = ["LARGEST", "Replay", "Values", "graph_of", "replay_from"]

LARGEST = 1 << 30  # bytes of values to keep
_UNNEEDED = "seedcnn_unneeded"  # in a node's notes: the values that no later node reads


@dataclass(frozen=True, eq=False)
class Values:
    """Results of a part of a network's code for some images, by the nodes of its graph."""

    of: dict[fx.Node, Any]
    images: int

    def __len__(self) -> int:
        return self.images

    def copied(self) -> dict[fx.Node, Any]:
        """Return copies of the values, since the code may change them in place."""
        return tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, self.of)  # type: ignore[no-any-return]

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(x.numel() * x.element_size() for x in tree_leaves(self.of) if isinstance(x, Tensor))

    @property
    def apart(self) -> bool:
        """Whether no two tensors share memory."""
        places = [x.untyped_storage().data_ptr() for x in tree_leaves(self.of) if isinstance(x, Tensor)]
        return len(set(places)) == len(places)


class _Part(nn.Module):
    """Consecutive nodes of a network's graph. Its children are the modules that they call, as they are now."""

    def __init__(self, traced: fx.GraphModule, network: nn.Module, nodes: list[fx.Node]) -> None:
        super().__init__()
        called = dict.fromkeys(str(node.target) for node in nodes if node.op == "call_module")
        self.called = nn.ModuleList(network.get_submodule(name) for name in called)
        self._index = {name: index for index, name in enumerate(called)}
        self._nodes = nodes
        self._traced = [traced]  # in a list, so that its modules are no children

    def forward(self, values: Values) -> Any:
        """Return the logits, or the values that later nodes need."""
        env = values.copied()
        for node in self._nodes:
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), env.__getitem__)
            if node.op == "output":
                return args[0]
            if node.op == "call_module":
                env[node] = self.called[self._index[str(node.target)]](*args, **kwargs)
            elif node.op == "call_method":
                env[node] = getattr(args[0], str(node.target))(*args[1:], **kwargs)
            elif node.op == "get_attr":
                env[node] = attrgetter(str(node.target))(self._traced[0])
            else:
                env[node] = node.target(*args, **kwargs)  # type: ignore[operator]
            for done in node.meta[_UNNEEDED]:
                env.pop(done, None)
        return Values(env, len(values))


def graph_of(network: nn.Module) -> fx.GraphModule | None:
    """Trace a network; return None if its code cannot be traced."""
    try:
        traced = trace(network, lambda module: isinstance(module, (ConvLayer, *NORMS)))
    except Exception:  # the tracer runs the network's own code, which may raise anything
        return None
    seen: set[fx.Node] = set()
    for node in reversed(traced.graph.nodes):
        last = [used for used in dict.fromkeys((node, *node.all_input_nodes)) if used not in seen]
        node.meta[_UNNEEDED] = last
        seen.update(last)
    return traced


class Replay:
    """A network whose part before one layer stays as it is, while the layer changes."""

    def __init__(self, traced: fx.GraphModule, network: nn.Module, start: int, batches: Iterable[Tensor]) -> None:
        inputs, nodes = _inputs_and_rest(traced)
        self._rest = lambda: _Part(traced, network, nodes[start:])
        before = _Part(traced, network, nodes[:start])
        first = [Values({**inputs, next(iter(inputs)): x}, len(x)) for x in batches]
        self._learning: list[Values] = []
        before.register_forward_hook(lambda _, __, found: self._learning.append(found))
        reestimate_batchnorm_(before, first)  # type: ignore[arg-type]
        before._forward_hooks.clear()
        with torch.inference_mode():
            self._answering = [before(values) for values in first]

    def logits(self) -> Tensor:
        """Return the logits of all images, after re-estimating the statistics of the norms from the layer on."""
        rest = self._rest()
        reestimate_batchnorm_(rest, self._learning)  # type: ignore[arg-type]
        with torch.inference_mode():
            return torch.cat([rest(values) for values in self._answering])


def _inputs_and_rest(traced: fx.GraphModule) -> tuple[dict[fx.Node, Any], list[fx.Node]]:
    """Return the graph's inputs with their defaults, and its other nodes."""
    nodes = list(traced.graph.nodes)
    inputs = {node: node.args[0] if node.args else None for node in nodes if node.op == "placeholder"}
    return inputs, nodes[len(inputs) :]


def replay_from(
    traced: fx.GraphModule | None, network: nn.Module, name: str, batches: Sequence[Tensor], largest: int = LARGEST
) -> Replay | None:
    """Prepare a network for changes of one layer.

    Args:
        traced: its graph, from :func:`graph_of`.
        network: the network in eval mode.
        name: qualified name of the layer.
        batches: its inputs, each [N, C, H, W].
        largest: bytes of values to keep.

    Returns:
        None if the graph does not call the layer exactly once, or if there would be too much to remember.
    """
    if traced is None:
        return None
    inputs, nodes = _inputs_and_rest(traced)
    calls = [index for index, node in enumerate(nodes) if node.op == "call_module" and node.target == name]
    if len(calls) != 1:
        return None
    before = _Part(traced, network, nodes[: calls[0]])
    with torch.no_grad():
        one: Values = before(Values({**inputs, next(iter(inputs)): batches[0][:1]}, 1))
    if 2 * one.size * sum(map(len, batches)) > largest or not one.apart:
        return None
    return Replay(traced, network, calls[0], batches)
