"""Export of folded networks as ONNX graphs whose weights stay outside."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper
from onnxscript import optimizer
from torch import fx

from seedcnn.bundle import Seeded
from seedcnn.errors import ExportError

__all__ = ["INPUT", "OUTPUT", "OnnxModel", "absorbed_norms", "to_onnx"]

INPUT, OUTPUT = "image", "logits"
_OPSET = 20
_NO_FORM = re.compile(r"No ONNX function found for <OpOverload\(op='([^']+)', overload='([^']+)'\)>")
_DIVIDING = {"Div": 1, "Reciprocal": 0, "Log": 0}  # which input may not be zero
_ZERO_STAYS = {
    *("Abs", "Cast", "Concat", "Expand", "Flatten", "Gather", "Identity", "Mul", "Neg", "Reshape", "Slice", "Split"),
    *("Sqrt", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
}
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)


@dataclass(frozen=True)
class OnnxModel:
    """An ONNX graph with the tensors it needs.

    Attributes:
        graph: ONNX bytes; every weight is an external initializer, named as in ``tensors`` or ``seeded``.
        tensors: learned tensors, float32.
        seeded: fixed tensors as seeds, with their shapes.
        divisors: learned tensors that the graph divides by; a coding may not round their numbers to zero.
    """

    graph: bytes
    tensors: dict[str, npt.NDArray[np.float32]]
    seeded: dict[str, tuple[tuple[int, ...], Seeded]]
    divisors: frozenset[str] = frozenset()


def _export(model: torch.nn.Module, example: torch.Tensor) -> onnx.ModelProto:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about its own internals
        try:
            program = torch.onnx.export(
                model,
                (example,),
                dynamo=True,
                opset_version=_OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                optimize=False,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise ExportError(f"the network cannot be expressed in ONNX: {_reason(error)}") from error
    if program is None:
        raise ExportError("the ONNX exporter returned nothing")
    return program.model_proto


def _reason(error: BaseException) -> str:
    """Name the operator that ONNX lacks if that is torch's complaint, else return the first line of the error."""
    cause: BaseException | None = error
    while cause is not None:
        if found := _NO_FORM.search(str(cause)):
            name = found[1] if found[2] == "default" else f"{found[1]}.{found[2]}"
            return f"it has no form of the operator {name}"
        cause = cause.__cause__ or cause.__context__
    return str(error).partition("\n")[0]


def _optimize(proto: onnx.ModelProto, parameters: set[str]) -> onnx.ModelProto:
    """Simplify the graph without computing anything from the parameters.

    While the optimizer runs, parameters are inputs of the graph. Otherwise it would fold values computed from them into
    new constants and bake in the numbers that travel as seeds.
    """
    graph = proto.graph
    own_inputs = list(graph.input)
    others = [tensor for tensor in graph.initializer if tensor.name not in parameters]
    if weights := [t.name for t in others if t.data_type in _FLOATS and prod(t.dims) > 1]:
        raise ExportError(f"these tensors are not parameters and would stay inside the graph: {', '.join(weights)}")
    moved = [tensor for tensor in graph.initializer if tensor.name in parameters]
    graph.input.extend(helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in moved)
    del graph.initializer[:]
    graph.initializer.extend(others)
    proto = optimizer.optimize(proto)
    del proto.graph.input[:]
    proto.graph.input.extend(own_inputs)
    return proto


def _strip(proto: onnx.ModelProto) -> None:
    """Remove the exporter's notes about its own run: source paths, stack traces, versions."""
    proto.producer_name, proto.producer_version, proto.doc_string = "seedcnn", "", ""
    del proto.metadata_props[:]
    for item in (proto.graph, *proto.graph.node, *proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        item.doc_string = ""
        del item.metadata_props[:]
    del proto.graph.value_info[:]


def _external(name: str, shape: tuple[int, ...]) -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL)
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "bundle"
    return tensor


def to_onnx(folded: fx.GraphModule, input_size: tuple[int, int, int] = (3, 32, 32)) -> OnnxModel:
    """Export a network from :func:`seedcnn.export.fold`.

    Args:
        input_size: channels, height, width; the batch size stays free.

    Returns:
        Graph with input "image" float32 [batch, c, h, w] and output "logits" float32 [batch, classes].

    Raises:
        ExportError: if an operation has no ONNX form, or a weight would be left inside the graph.
    """
    parameters = {name: value.detach().numpy().copy() for name, value in folded.named_parameters()}
    proto = _optimize(_export(folded, torch.zeros(2, *input_size)), set(parameters))
    _strip(proto)
    graph = proto.graph
    kept = [tensor for tensor in graph.initializer if tensor.name not in parameters]
    read = {name for node in graph.node for name in node.input}
    used = {name: parameters[name] for name in sorted(parameters) if name in read}
    del graph.initializer[:]
    graph.initializer.extend([*kept, *(_external(name, value.shape) for name, value in used.items())])
    seeded = {}
    for name, module in folded.named_modules():
        for part, spec in getattr(module, "seed_specs", {}).items():
            if (full := f"{name}.{part}") in used:
                drawn = Seeded(spec.seed, spec.tensor_id, 0, spec.fixed, spec.count, spec.repeat)
                seeded[full] = (used.pop(full).shape, drawn)
    return OnnxModel(proto.SerializeToString(deterministic=True), used, seeded, _divisors(graph) & used.keys())


def _divisors(graph: onnx.GraphProto) -> frozenset[str]:
    """Find initializers that the graph divides by or takes the log of, directly or through :data:`_ZERO_STAYS`."""
    sources = {output: node for node in graph.node for output in node.output}
    waiting = [node.input[_DIVIDING[node.op_type]] for node in graph.node if node.op_type in _DIVIDING]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        node = sources.get(name)
        if name not in seen and node is not None and node.op_type in _ZERO_STAYS:
            waiting += node.input if node.op_type in ("Mul", "Concat") else node.input[:1]
        seen.add(name)
    return frozenset(seen & {tensor.name for tensor in graph.initializer})


def absorbed_norms(graph: bytes) -> dict[str, bool]:
    """Return by layer name whether an exported graph absorbs the norm after the layer: it then divides by its scale."""
    proto = onnx.load_from_string(graph).graph
    divisors = _divisors(proto)
    scales = [tensor.name for tensor in proto.initializer if tensor.name.endswith(".scale")]
    return {name.removesuffix(".scale"): name in divisors for name in scales}
