"""Export of folded networks as ONNX graphs whose weights stay outside."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxscript import optimizer
from torch import fx

from seedcnn.bundle import Seeded
from seedcnn.errors import ExportError

__all__ = ["INPUT", "OUTPUT", "OnnxModel", "absorbed_norms", "export_program", "finish", "tell_apart", "to_onnx"]

INPUT, OUTPUT = "image", "logits"
_OPSET = 20
_NO_FORM = re.compile(r"No ONNX function found for <OpOverload\(op='([^']+)', overload='([^']+)'\)>")
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
_BY_VALUES = re.compile(r"[Cc]ould not (guard on|extract specialized integer from) data-dependent")
_DIVIDING = {"Div": 1, "Reciprocal": 0, "Log": 0, "BatchNormalization": 4}  # which input may not be zero
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
        constants: tensors that the network's code makes itself, float32; they travel exactly.
    """

    graph: bytes
    tensors: dict[str, npt.NDArray[np.float32]]
    seeded: dict[str, tuple[tuple[int, ...], Seeded]]
    divisors: frozenset[str] = frozenset()
    constants: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)


def export_program(
    model: torch.nn.Module, example: Any, dynamic: Any, inputs: list[str], outputs: list[str]
) -> torch.onnx.ONNXProgram:
    """Return what torch's exporter makes of a network, unoptimised.

    Args:
        example: the network's argument, a tensor or a list of tensors.
        dynamic: the dimensions of it that stay free, as ``torch.export`` takes them.
        inputs, outputs: names for the values that enter and leave the graph.

    Raises:
        ExportError: if the exporter fails.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about its own internals
        try:
            program = torch.onnx.export(
                model,
                (example,),
                dynamo=True,
                opset_version=_OPSET,
                input_names=inputs,
                output_names=outputs,
                dynamic_shapes=(dynamic,),
                optimize=False,
                verbose=False,
            )
        except Exception as error:  # the exporter runs the network's own code, which may raise anything
            raise ExportError(f"the network cannot be expressed in ONNX: {_reason(error)}") from error
    if program is None:
        raise ExportError("the ONNX exporter returned nothing")
    return program


def tell_apart(graph: Any) -> None:
    """Rename values that are called like a tensor: the exporter calls the result of a mean "mean", whatever else is."""
    taken = set(graph.initializers)
    if clash := taken & {INPUT, OUTPUT}:
        raise ExportError(f"a tensor of the network is called {clash.pop()!r}, as the graph's own; call it otherwise")
    for node in graph:
        for value in node.outputs:
            if value.name in taken:
                value.name = f"{value.name}:value"


def _reason(error: BaseException) -> str:
    """Return the operator that ONNX lacks if that is torch's complaint, else the first line of the innermost error."""
    cause: BaseException | None = error
    while cause is not None:
        error = cause
        if found := _NO_FORM.search(str(error)):
            name = found[1] if found[2] == "default" else f"{found[1]}.{found[2]}"
            return f"it has no form of the operator {name}"
        cause = error.__cause__ or error.__context__
    text = _ESCAPES.sub("", str(error)).strip()
    if _BY_VALUES.search(text):
        return f"its code depends on the values of its input, not only on their shape ({text.partition(chr(10))[0]})"
    return text.partition("\n")[0] or type(error).__name__


def _constants(graph: onnx.GraphProto, parameters: set[str]) -> dict[str, npt.NDArray[np.float32]]:
    """Return the initializers with several floats that are no parameters: the code of the network makes them."""
    found = [t for t in graph.initializer if t.name not in parameters and t.data_type in _FLOATS and prod(t.dims) > 1]
    if odd := [
        f"{t.name} ({TensorProto.DataType.Name(t.data_type)})" for t in found if t.data_type != TensorProto.FLOAT
    ]:
        raise ExportError(f"the network's code makes tensors that a bundle cannot carry: {', '.join(odd)}; use float32")
    return {tensor.name: numpy_helper.to_array(tensor).copy() for tensor in found}


def _optimize(proto: onnx.ModelProto, outside: set[str]) -> onnx.ModelProto:
    """Simplify the graph without computing anything from the initializers that stay outside.

    While the optimizer runs, these are inputs of the graph. Otherwise it would fold values computed from them into new
    constants and bake in the numbers that travel as seeds.
    """
    graph = proto.graph
    own_inputs = list(graph.input)
    others = [tensor for tensor in graph.initializer if tensor.name not in outside]
    moved = [tensor for tensor in graph.initializer if tensor.name in outside]
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
        ExportError: if an operation has no ONNX form, the network's code depends on the values of its input or fixes
            the batch size, or it makes tensors of floats that are not float32.
    """
    dynamic = {0: torch.export.Dim("batch")}
    program = export_program(folded, torch.zeros(2, *input_size), dynamic, [INPUT], [OUTPUT])
    tell_apart(program.model.graph)
    return finish(folded, program.model_proto)


def finish(folded: fx.GraphModule, proto: onnx.ModelProto) -> OnnxModel:
    """Simplify the graph that the exporter made of a folded network, and take its tensors out.

    Raises:
        ExportError: as :func:`to_onnx`.
    """
    named = folded.named_parameters(remove_duplicate=False)
    parameters = {name: value.detach().numpy().copy() for name, value in named}
    if proto.graph.input[0].type.tensor_type.shape.dim[0].HasField("dim_value"):
        raise ExportError(
            "the network's code turns the number of images in a batch into a fixed number, so the graph would answer "
            "no other; a device asks for one image at a time, the canned vectors for several"
        )
    constants = _constants(proto.graph, set(parameters))
    proto = _optimize(proto, {*parameters, *constants})
    _strip(proto)
    graph = proto.graph
    values = parameters | constants
    kept = [tensor for tensor in graph.initializer if tensor.name not in values]
    read = {name for node in graph.node for name in node.input}
    used = {name: values[name] for name in sorted(values) if name in read}
    del graph.initializer[:]
    graph.initializer.extend([*kept, *(_external(name, value.shape) for name, value in used.items())])
    constants = {name: used.pop(name) for name in constants if name in used}
    seeded = {}
    for name, module in folded.named_modules():
        for part, spec in getattr(module, "seed_specs", {}).items():
            if (full := f"{name}.{part}") in used:
                drawn = Seeded(spec.seed, spec.tensor_id, 0, spec.fixed, spec.count, spec.repeat)
                seeded[full] = (used.pop(full).shape, drawn)
    divisors = _divisors(graph) & used.keys()
    return OnnxModel(proto.SerializeToString(deterministic=True), used, seeded, divisors, constants)


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
