"""A folded network as an ONNX graph whose weights stay outside."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import fx

from seedcnn.bundle import Seeded
from seedcnn.errors import ExportError
from seedcnn.export.forms import FoldedGroupNL, GeneratorAffine

__all__ = ["INPUT", "OUTPUT", "OnnxModel", "to_onnx"]

INPUT, OUTPUT = "image", "logits"
_OPSET = 20
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)


@dataclass(frozen=True)
class OnnxModel:
    """An ONNX graph and what it needs.

    Attributes:
        graph: ONNX bytes; every weight is an external initializer of the name used in ``tensors`` or ``seeded``.
        tensors: learned tensors, float32.
        seeded: fixed tensors as seeds, with their shapes.
    """

    graph: bytes
    tensors: dict[str, npt.NDArray[np.float32]]
    seeded: dict[str, tuple[tuple[int, ...], Seeded]]


class _AffineNodes:
    """Writes W and B of one FoldedGroupNL as graph nodes over its fixed numbers and learned scale and shift.

    The runtime folds them once when it loads the graph, so the fixed numbers can travel as a seed at no cost.
    """

    def __init__(self, prefix: str, affine: GeneratorAffine) -> None:
        self.prefix, self.affine = prefix, affine
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[TensorProto] = []

    def _op(self, kind: str, output: str, *inputs: str) -> str:
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=f"{output}/{kind}"))
        return output

    def _absorbed(self) -> tuple[str, str]:
        a, c = f"{self.prefix}.a", f"{self.prefix}.c"
        if self.affine.source is None:
            return a, c
        index = f"{self.prefix}.source"
        self.constants.append(numpy_helper.from_array(np.array(self.affine.source, np.int64), index))
        return self._op("Gather", f"{a}.gathered", a, index), self._op("Gather", f"{c}.gathered", c, index)

    def write(self) -> None:
        """Emit the nodes; they mirror :meth:`seedcnn.export.forms.GeneratorAffine.compute` operation by operation."""
        affine = self.affine
        w, b, omega, phi = (f"{self.prefix}.{name}" for name in ("w", "b", "omega", "phi"))
        if affine.a is None:
            if affine.omega is not None:
                self._op("Identity", w, omega)
                self._op("Mul", b, omega, phi)
            elif affine.phi is not None:
                self._op("Identity", b, phi)
            return
        a, c = self._absorbed()
        ratio = self._op("Div", f"{self.prefix}.c_over_a", c, a)
        if affine.omega is not None:
            self._op("Div", w, omega, a)
            self._op("Mul", b, omega, self._op("Sub", f"{self.prefix}.phase", phi, ratio))
            return
        self._op("Reciprocal", w, a)
        if affine.phi is not None:
            self._op("Sub", b, phi, ratio)
        else:
            self._op("Neg", b, ratio)


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
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise ExportError(f"the network cannot be expressed in ONNX: {error}") from error
    if program is None:
        raise ExportError("the ONNX exporter returned nothing")
    return program.model_proto


def _strip(proto: onnx.ModelProto) -> None:
    """Remove what the exporter notes about its own run: source paths, stack traces, versions."""
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
    learned = {name: value.detach().numpy().copy() for name, value in folded.named_parameters()}
    proto = _export(folded, torch.zeros(2, *input_size))
    _strip(proto)
    graph = proto.graph
    inside = [t for t in graph.initializer if t.name not in learned]
    if weights := [t.name for t in inside if t.data_type in _FLOATS and prod(t.dims) > 1]:
        raise ExportError(f"these weights would stay inside the graph: {', '.join(weights)}")
    used = {t.name for t in graph.initializer} & set(learned)
    seeded: dict[str, tuple[tuple[int, ...], Seeded]] = {}
    nodes: list[onnx.NodeProto] = []
    for name, form in folded.named_modules():
        if not isinstance(form, FoldedGroupNL):
            continue
        writer = _AffineNodes(name, form.affine)
        writer.write()
        nodes += writer.nodes
        inside += writer.constants
        used -= {f"{name}.w", f"{name}.b"}
        for part, value in (("a", form.affine.a), ("c", form.affine.c)):
            if value is not None:
                learned[f"{name}.{part}"] = value.numpy().copy()
                used.add(f"{name}.{part}")
        for part, spec in form.affine.seeds.items():
            drawn = Seeded(spec.seed, spec.tensor_id, 0, spec.fixed, spec.count, spec.repeat)
            seeded[f"{name}.{part}"] = (tuple(getattr(form.affine, part).shape), drawn)
    tensors = {name: learned[name] for name in sorted(used)}
    shapes = {name: value.shape for name, value in tensors.items()} | {name: item[0] for name, item in seeded.items()}
    body = list(graph.node)
    del graph.initializer[:]
    del graph.node[:]
    graph.initializer.extend([*inside, *(_external(name, shape) for name, shape in shapes.items())])
    graph.node.extend([*nodes, *body])
    return OnnxModel(proto.SerializeToString(deterministic=True), tensors, seeded)
