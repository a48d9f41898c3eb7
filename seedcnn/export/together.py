"""Export of many small networks in one call of torch's exporter, whose cost is mostly that of the call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import onnx
import torch
from onnxscript import ir
from torch import Tensor, fx, nn

from seedcnn.errors import ExportError
from seedcnn.export.onnx_graphs import INPUT, OUTPUT, OnnxModel, export_program, finish, tell_apart, to_onnx

__all__ = ["to_onnx_together"]

_LARGEST = 1 << 30  # bytes of tensors in one call; a message of Protocol Buffers ends at twice that
_PREFIX, _BATCH = "parts", "batch"


class _SideBySide(nn.Module):
    """Networks that do not know each other, each with its own input and output."""

    def __init__(self, parts: list[fx.GraphModule]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, images: list[Tensor]) -> tuple[Any, ...]:
        return tuple(part(x) for part, x in zip(self.parts, images, strict=True))


def _read(node: ir.Node) -> Iterator[ir.Value]:
    """Yield the values that a node reads, those of its inner graphs included."""
    yield from (value for value in node.inputs if value is not None)
    for attribute in node.attributes.values():
        if attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
            for graph in [attribute.value] if attribute.type == ir.AttributeType.GRAPH else attribute.value:
                for inner in graph:
                    yield from _read(inner)


def _split(model: ir.Model, count: int) -> list[onnx.ModelProto]:
    """Split a graph of ``count`` networks into a graph for each, with the names that it has when exported alone."""
    graph = model.graph
    readers: dict[ir.Value, set[int]] = {value: {k} for k, value in enumerate(graph.outputs)}
    nodes: list[list[ir.Node]] = [[] for _ in range(count)]
    for node in reversed(graph):
        mine = set().union(*(readers.get(value, set()) for value in node.outputs))
        for k in mine:
            nodes[k].append(node)
        for value in _read(node):
            readers.setdefault(value, set()).update(mine)
    if mixed := [value.name for k, value in enumerate(graph.inputs) if not readers.get(value, {k}) <= {k}]:
        raise ExportError(f"another network reads the inputs {', '.join(map(str, mixed))}")
    tensors: list[list[ir.Value]] = [[] for _ in range(count)]
    for value in list(graph.initializers.values()):
        for k in readers.get(value, ()):
            tensors[k].append(value)
    graph.initializers.clear()  # it would refuse equal names in different parts
    split = []
    for k in range(count):
        for value in tensors[k]:
            value.name = str(value.name).removeprefix(f"{_PREFIX}.{k}.")
        graph.inputs[k].name, graph.outputs[k].name = INPUT, OUTPUT
        ends = [graph.inputs[k]], [graph.outputs[k]]
        view = ir.GraphView(
            *ends, nodes=nodes[k][::-1], initializers=tensors[k], opset_imports=graph.opset_imports, name=graph.name
        )
        tell_apart(view)
        proto = ir.to_proto(ir.Model(view, ir_version=model.ir_version))  # type: ignore[arg-type]  # a view will do
        for end in (*proto.graph.input, *proto.graph.output):
            for dim in end.type.tensor_type.shape.dim:
                if dim.dim_param == f"{_BATCH}{k}":
                    dim.dim_param = _BATCH
        split.append(proto)
    return split


def _exported(networks: list[tuple[fx.GraphModule, tuple[int, int, int]]]) -> list[OnnxModel]:
    """Export networks side by side in one call."""
    count = range(len(networks))
    program = export_program(
        _SideBySide([folded for folded, _ in networks]),
        [torch.zeros(2, *size) for _, size in networks],
        [{0: torch.export.Dim(f"{_BATCH}{k}")} for k in count],  # with one for all, a network would read another's
        [f"{INPUT}{k}" for k in count],
        [f"{OUTPUT}{k}" for k in count],
    )
    protos = _split(program.model, len(networks))
    return [finish(folded, proto) for (folded, _), proto in zip(networks, protos, strict=True)]


def _groups(networks: Mapping[str, tuple[fx.GraphModule, tuple[int, int, int]]], largest: int) -> Iterator[list[str]]:
    """Yield names of networks whose tensors fit into one call."""
    group: list[str] = []
    total = 0
    for name, (folded, _) in networks.items():
        size = sum(p.numel() * p.element_size() for p in folded.parameters())
        if group and total + size > largest:
            yield group
            group, total = [], 0
        group.append(name)
        total += size
    if group:
        yield group


def to_onnx_together(
    networks: Mapping[str, tuple[fx.GraphModule, tuple[int, int, int]]], largest: int = _LARGEST
) -> dict[str, OnnxModel]:
    """Export networks from :func:`seedcnn.export.fold`, each as :func:`seedcnn.export.to_onnx` exports it.

    The graphs have the same operators, inputs, outputs and tensors; values inside may have other numbers in their
    names. If the networks cannot be exported in one call, each is exported alone.

    Args:
        networks: by name, each with its channels, height and width.
        largest: bytes of tensors in one call of the exporter.

    Raises:
        ExportError: as :func:`seedcnn.export.to_onnx`, with the name of the network.
    """
    found: dict[str, OnnxModel] = {}
    for group in _groups(networks, largest):
        try:
            found |= dict(zip(group, _exported([networks[name] for name in group]), strict=True))
        except ExportError:
            found |= {name: _alone(name, *networks[name]) for name in group}
    return found


def _alone(name: str, folded: fx.GraphModule, size: tuple[int, int, int]) -> OnnxModel:
    try:
        return to_onnx(folded, size)
    except ExportError as error:
        raise ExportError(f"{name}: {error}") from error
