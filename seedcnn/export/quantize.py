"""Static int8 quantisation of the convolutions and the last linear layer; everything else stays float32."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from seedcnn.arrays import F32
from seedcnn.errors import ExportError
from seedcnn.export.bundles import encode_tensors
from seedcnn.export.onnx_graphs import INPUT, OnnxModel
from seedcnn.runtime.session import Session, open_session

__all__ = ["quantize"]


_TINY = 1e-12
_ONE, _TINIEST, _ZERO = "int8:weight_step", "int8:tiny", "int8:zero"


def _attribute(node: NodeProto, name: str, default: float) -> float:
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def _chosen(graph: onnx.GraphProto, tensors: Iterable[str]) -> list[NodeProto]:
    """Return the nodes to quantise: ungrouped convolutions and linear layers with weights from the model's tensors."""
    learned, constant = set(tensors), {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if all(name in constant or not name for name in node.input):
            constant.update(node.output)
            if learned.intersection(node.input):
                learned.update(node.output)
    result = []
    for node in graph.node:
        conv = node.op_type == "Conv" and _attribute(node, "group", 1) == 1
        linear = node.op_type == "Gemm" and _attribute(node, "transB", 0) == 1 and _attribute(node, "transA", 0) == 0
        linear = linear and _attribute(node, "alpha", 1.0) == _attribute(node, "beta", 1.0) == 1.0
        if (conv or linear) and node.input[1] in learned & constant and node.input[0] not in constant:
            result.append(node)
    return result


def _output_of(node: NodeProto, users: dict[str, list[NodeProto]], outputs: set[str]) -> str | None:
    """Return the tensor after a convolution to quantise too, past a ReLU that is its only reader; None at the end."""
    name = node.output[0]
    readers = users.get(name, [])
    if node.op_type != "Conv" or name in outputs:
        return None
    if len(readers) == 1 and readers[0].op_type == "Relu" and readers[0].output[0] not in outputs:
        return str(readers[0].output[0])
    return str(name)


def _observing(proto: onnx.ModelProto, wanted: list[str]) -> bytes:
    """Return the graph with the wanted outputs."""
    observed = onnx.ModelProto()
    observed.CopyFrom(proto)
    del observed.graph.output[:]
    observed.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in wanted)
    return bytes(observed.SerializeToString())


def _ranges(session: Session, wanted: list[str], pictures: F32, batch_size: int) -> dict[str, tuple[float, float]]:
    """Return the smallest and largest value of each wanted tensor over the calibration images, zero included."""
    found = {INPUT: (min(0.0, float(pictures.min())), max(0.0, float(pictures.max())))}
    for start in range(0, len(pictures), batch_size):
        for name, value in zip(wanted, session.run(wanted, {INPUT: pictures[start : start + batch_size]}), strict=True):
            low, high = float(value.min()), float(value.max())
            if not np.isfinite([low, high]).all():
                raise ExportError(f"tensor {name!r} is not finite on the calibration images; it cannot be quantised")
            before = found.get(name, (0.0, 0.0))
            found[name] = (min(before[0], low), max(before[1], high))
    return found


@dataclass
class _Builder:
    """Builder of the new graph: nodes in order and small constants."""

    ranges: dict[str, tuple[float, float]]
    nodes: list[NodeProto] = field(default_factory=list)
    constants: dict[str, TensorProto] = field(default_factory=dict)
    weights: set[str] = field(default_factory=set)

    def constant(self, name: str, value: np.generic | npt.NDArray[np.int64]) -> str:
        self.constants[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def activation(self, name: str) -> None:
        """Add ``name:int8``: tensor ``name`` rounded to 256 levels between its smallest and largest value."""
        low, high = self.ranges[name]
        scale = max((high - low) / 255, _TINY)
        zero = self.constant(f"{name}:zero", np.uint8(np.clip(round(-low / scale), 0, 255)))
        step = self.constant(f"{name}:step", np.float32(scale))
        levels = self.add("QuantizeLinear", [name, step, zero], f"{name}:levels")
        self.add("DequantizeLinear", [levels, step, zero], f"{name}:int8")

    def weight(self, name: str, rank: int) -> str:
        """Add a weight rounded per output channel; the graph computes its steps from it once, when it is loaded."""
        if name not in self.weights:
            self.weights.add(name)
            axes = self.constant(f"int8:axes{rank}", np.arange(1, rank))
            largest = self.add("ReduceMax", [self.add("Abs", [name], f"{name}:abs"), axes], f"{name}:max", keepdims=0)
            step = self.add("Max", [self.add("Mul", [largest, _ONE], f"{name}:raw"), _TINIEST], f"{name}:step")
            zeros = self.add("Mul", [step, _ZERO], f"{name}:zeros")
            zero = self.add("Cast", [zeros], f"{name}:zero", to=TensorProto.INT8)
            levels = self.add("QuantizeLinear", [name, step, zero], f"{name}:levels", axis=0)
            self.add("DequantizeLinear", [levels, step, zero], f"{name}:int8", axis=0)
        return f"{name}:int8"

    def bias(self, node: NodeProto) -> str:
        """Add the bias in steps of input times weight, as the integer kernels add it."""
        x, weight, bias = node.input
        key = f"{bias}@{node.output[0]}"
        step = self.add("Mul", [f"{weight}:step", f"{x}:step"], f"{key}:step")
        rounded = self.add("Round", [self.add("Div", [bias, step], f"{key}:quotient")], f"{key}:rounded")
        levels = self.add("Cast", [rounded], f"{key}:levels", to=TensorProto.INT32)
        return self.add("DequantizeLinear", [levels, step], f"{key}:int8", axis=0)


def _rewrite(
    graph: onnx.GraphProto, chosen: list[NodeProto], sources: set[str], sinks: set[str], builder: _Builder
) -> None:
    """Replace the chosen nodes by quantised ones; the other nodes keep their inputs, except quantised outputs."""
    picked = {node.output[0] for node in chosen}
    if INPUT in sources:
        builder.activation(INPUT)
    for node in graph.node:
        copy = NodeProto()
        copy.CopyFrom(node)
        if node.output[0] in picked:
            copy.input[0] = f"{node.input[0]}:int8"
            copy.input[1] = builder.weight(node.input[1], 4 if node.op_type == "Conv" else 2)
            if len(node.input) > 2 and node.input[2]:
                copy.input[2] = builder.bias(node)
        else:
            for index, name in enumerate(node.input):
                if name in sinks:
                    copy.input[index] = f"{name}:int8"
        builder.nodes.append(copy)
        for name in node.output:
            if name in sources or name in sinks:
                builder.activation(name)
    del graph.node[:]
    graph.node.extend(builder.nodes)
    graph.initializer.extend(builder.constants.values())


def _check_calibration(pictures: F32, shape: list[int]) -> None:
    if pictures.dtype != np.float32 or pictures.ndim != 4 or list(pictures.shape[1:]) != shape:
        raise ValueError(
            f"`calibration` is {pictures.dtype} {pictures.shape}; it must be float32 [N, {', '.join(map(str, shape))}]"
        )
    if not len(pictures):
        raise ValueError("`calibration` is empty; at least one image is needed")
    if not np.isfinite(pictures).all():
        raise ValueError("`calibration` has values that are not finite")


def quantize(
    model: OnnxModel,
    calibration: F32,
    *,
    weight_bits: int = 7,
    batch_size: int = 16,
    libraries: Sequence[Path] = (),
) -> OnnxModel:
    """Quantise an exported network to static int8, by QuantizeLinear/DequantizeLinear pairs that the runtimes fuse.

    Ungrouped convolutions and linear layers are quantised: their inputs and outputs to 256 levels between the smallest
    and the largest value on the calibration images (zero included), their weights symmetrically per output channel.
    Depthwise and grouped convolutions, and the operations that generate maps (sine, scale and shift, concatenation),
    stay float32. The weight tensors stay float: the graph computes steps, rounding and integer biases from them, once,
    when a runtime loads it, so grid weights and seeds travel unchanged.

    Args:
        model: from :func:`seedcnn.export.to_onnx`.
        calibration: network inputs, float32 [N, C, H, W], normalised as in use.
        weight_bits: 7, whose products cannot overflow the 16-bit sums of x86 processors without VNNI, or 8.
        batch_size: images per calibration run.
        libraries: shared libraries of the operators that the graph needs, see ``seedcnn.runtime.custom_op``.

    Returns:
        The same tensors and seeds with another graph.

    Raises:
        ValueError: if the calibration images are empty, not finite, or of a wrong type or shape, or an option is out
            of range.
        ExportError: if a tensor is not finite on them, or the network has nothing to quantise.
    """
    if weight_bits not in (7, 8):
        raise ValueError(f"`weight_bits` (={weight_bits}) must be 7 or 8")
    if batch_size < 1:
        raise ValueError(f"`batch_size` (={batch_size}) must be positive")
    proto = onnx.load_model_from_string(model.graph)
    graph = proto.graph
    _check_calibration(calibration, [d.dim_value for d in graph.input[0].type.tensor_type.shape.dim[1:]])
    chosen = _chosen(graph, [*model.tensors, *model.seeded])
    if not chosen:
        raise ExportError("the network has no ungrouped convolution and no linear layer: there is nothing to quantise")
    users: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    outputs = {value.name for value in graph.output}
    sources = {str(node.input[0]) for node in chosen}
    sinks = {name for node in chosen if (name := _output_of(node, users, outputs)) is not None}
    tensors = {coded.entry.name: coded.expanded for coded in encode_tensors(model, None)}
    wanted = sorted((sources | sinks) - {INPUT})
    session = open_session(_observing(proto, wanted), tensors, libraries=libraries)
    builder = _Builder(_ranges(session, wanted, calibration, batch_size))
    builder.constant(_ONE, np.float32(1 / (2 ** (weight_bits - 1) - 1)))
    builder.constant(_TINIEST, np.float32(_TINY))
    builder.constant(_ZERO, np.float32(0))
    _rewrite(graph, chosen, sources, sinks, builder)
    return replace(model, graph=proto.SerializeToString(deterministic=True))
