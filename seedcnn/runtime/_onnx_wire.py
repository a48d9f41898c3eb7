"""Embed weights in an ONNX graph at the level of protobuf's wire format, because devices have no ``onnx`` package.

A small strict reader walks every message that can contain a tensor, so that the runtime finds no tensor to load from a
file. Whatever it does not rewrite it copies byte by byte. Field numbers are those of onnx.proto (ONNX IR).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from seedcnn.errors import BundleError

__all__ = ["append_to_graph", "embed_initializers", "encode_varint"]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_DEPTH = 32
_MAX_FIELDS = 1_000_000
_MODEL_GRAPH, _MODEL_TRAINING, _GRAPH_INITIALIZER = 7, 20, 5
_DIMS, _DATA_TYPE, _NAME, _RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 1, 2, 8, 9, 13, 14
_EXTERNAL = 1
# TensorProto.DataType: the types that a bundle may one day carry, little-endian.
_DTYPES = {1: "<f4", 2: "|u1", 3: "|i1", 6: "<i4", 7: "<i8", 10: "<f2", 11: "<f8"}
# {message: {field: message in it}}: every path from a model to a tensor.
_BELOW: dict[str, dict[int, str]] = {
    "model": {_MODEL_GRAPH: "graph", 25: "function"},
    "graph": {1: "node", _GRAPH_INITIALIZER: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}


class _Field(NamedTuple):
    """One field: where its tag starts, where its content begins and ends, and the ``value`` of a varint."""

    number: int
    wire: int
    start: int
    begin: int
    end: int
    value: int = 0


def _varint(data: memoryview, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            if value >= 1 << 64:
                break
            return value, at
    raise BundleError(f"its protobuf data is malformed: no number ends at byte {at}")


@dataclass
class _Reader:
    """Reads the fields of messages in ``data``, and counts them, so that millions of empty fields are refused."""

    data: memoryview
    left: int = field(default=_MAX_FIELDS)

    def fields(self, begin: int, end: int) -> Iterator[_Field]:
        at = begin
        while at < end:
            self.left -= 1
            if self.left < 0:
                raise BundleError(f"its protobuf data has more than {_MAX_FIELDS} fields")
            start = at
            tag, at = _varint(self.data, at, end)
            number, wire, value = tag >> 3, tag & 7, 0
            if not 0 < number < 1 << 29 or wire not in (_VARINT, _FIXED64, _BYTES, _FIXED32):
                raise BundleError(f"its protobuf data is malformed: tag {tag} at byte {start}")
            if wire == _VARINT:
                value, stop = _varint(self.data, at, end)
            elif wire == _BYTES:
                value, at = _varint(self.data, at, end)
                stop = at + value
            else:
                stop = at + (8 if wire == _FIXED64 else 4)
            if stop > end:
                raise BundleError(
                    f"its protobuf data is truncated: field {number} at byte {start} ends past its message"
                )
            yield _Field(number, wire, start, at, stop, value)
            at = stop

    def refuse_external(self, message: str, begin: int, end: int, depth: int = 0) -> None:
        """Walk a message and refuse any tensor that points to a file."""
        if depth > _MAX_DEPTH:
            raise BundleError(f"its messages are nested deeper than {_MAX_DEPTH}")
        below = _BELOW[message]
        for item in self.fields(begin, end):
            if message == "tensor" and item.number in (_EXTERNAL_DATA, _DATA_LOCATION):
                if item.number == _EXTERNAL_DATA or item.wire != _VARINT or item.value:
                    raise BundleError("a tensor outside the main graph's initializers has external data")
            elif item.number in below:
                if item.wire != _BYTES:
                    raise BundleError(f"field {item.number} of a {message} is not a message (wire type {item.wire})")
                self.refuse_external(below[item.number], item.begin, item.end, depth + 1)


@dataclass
class _Tensor:
    """The relevant parts of an initializer; ``kept`` are the spans of the fields that are copied unchanged."""

    name: str = ""
    dims: list[int] = field(default_factory=list)
    data_type: int = 0
    external: bool = False
    has_raw: bool = False
    kept: list[tuple[int, int]] = field(default_factory=list)


def _read_tensor(reader: _Reader, begin: int, end: int) -> _Tensor:
    tensor = _Tensor()
    seen: set[int] = set()
    for item in reader.fields(begin, end):
        wires = {_DIMS: (_VARINT, _BYTES), _DATA_TYPE: (_VARINT,), _DATA_LOCATION: (_VARINT,)}
        if item.number in (_DIMS, _DATA_TYPE, _NAME, _RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION):
            if item.wire not in wires.get(item.number, (_BYTES,)):
                raise BundleError(f"field {item.number} of an initializer has wire type {item.wire}")
            # Most readers take the last value of a singular field that is repeated, but not all need agree.
            if item.number in seen and item.number not in (_DIMS, _EXTERNAL_DATA):
                raise BundleError(f"field {item.number} of an initializer appears twice")
            seen.add(item.number)
        if item.number == _NAME:
            try:
                tensor.name = bytes(reader.data[item.begin : item.end]).decode()
            except UnicodeDecodeError:
                raise BundleError("the name of an initializer is not UTF-8") from None
        elif item.number == _DATA_TYPE:
            tensor.data_type = item.value
        elif item.number == _DIMS and item.wire == _VARINT:
            tensor.dims.append(item.value)
        elif item.number == _DIMS:
            at = item.begin
            while at < item.end:
                value, at = _varint(reader.data, at, item.end)
                tensor.dims.append(value)
        elif item.number == _RAW_DATA:
            tensor.has_raw = True
        if item.number == _EXTERNAL_DATA or (item.number == _DATA_LOCATION and item.value):
            tensor.external = True
        if item.number not in (_EXTERNAL_DATA, _DATA_LOCATION):
            tensor.kept.append((item.start, item.end))
    return tensor


def _check(tensor: _Tensor, value: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the array contiguous and little-endian, after checking its shape and type against the graph."""
    if tensor.has_raw:
        raise BundleError(f"initializer {tensor.name!r} has both its own and external data")
    if tensor.data_type not in _DTYPES:
        raise BundleError(f"initializer {tensor.name!r} has data type {tensor.data_type}, which cannot be passed")
    wanted = np.dtype(_DTYPES[tensor.data_type])
    if list(value.shape) != tensor.dims or value.dtype != wanted.newbyteorder("="):
        raise BundleError(
            f"initializer {tensor.name!r} is {wanted.name} {tensor.dims} in the graph, but {value.dtype} "
            f"{list(value.shape)} was passed"
        )
    return np.asarray(value, wanted, order="C")


def encode_varint(value: int) -> bytes:
    """Encode a number >= 0 as protobuf's varint: seven bits per byte, the lowest first."""
    result = bytearray()
    while value > 0x7F:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    result.append(value)
    return bytes(result)


def _message(number: int, parts: list[memoryview]) -> list[memoryview]:
    """Wrap ``parts`` as a field that holds a message."""
    head = encode_varint(number << 3 | _BYTES) + encode_varint(sum(part.nbytes for part in parts))
    return [memoryview(head), *parts]


def _rewrite_graph(reader: _Reader, graph: _Field, tensors: Mapping[str, npt.NDArray[Any]]) -> list[memoryview]:
    parts: list[memoryview] = []
    used: set[str] = set()
    for item in reader.fields(graph.begin, graph.end):
        if item.number != _GRAPH_INITIALIZER:
            if (below := _BELOW["graph"].get(item.number)) is not None:
                if item.wire != _BYTES:
                    raise BundleError(f"field {item.number} of a graph is not a message (wire type {item.wire})")
                reader.refuse_external(below, item.begin, item.end)
            parts.append(reader.data[item.start : item.end])
            continue
        if item.wire != _BYTES:
            raise BundleError(f"field {item.number} of a graph is not a message (wire type {item.wire})")
        tensor = _read_tensor(reader, item.begin, item.end)
        if tensor.name in used:
            raise BundleError(f"initializer {tensor.name!r} appears twice")
        if not tensor.external:
            parts.append(reader.data[item.start : item.end])
            continue
        if tensor.name not in tensors:
            raise BundleError(f"initializer {tensor.name!r} is external and was not passed; no file is read for it")
        used.add(tensor.name)
        array = _check(tensor, tensors[tensor.name])
        kept = [reader.data[start:end] for start, end in tensor.kept]
        raw: memoryview = array.reshape(-1).view(np.uint8).data
        parts += _message(_GRAPH_INITIALIZER, [*kept, *_message(_RAW_DATA, [raw])])
    if unknown := sorted(set(tensors) - used):
        raise BundleError(f"the graph has no external initializer for: {', '.join(unknown):.200}")
    return _message(_MODEL_GRAPH, parts)


def embed_initializers(model: bytes, tensors: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Replace the external initializers of a model by arrays.

    Args:
        model: ONNX ModelProto bytes whose external initializers are in the main graph.
        tensors: {initializer name: array of its shape and type}, with exactly the external initializers.

    Returns:
        The model with the arrays as ``raw_data``: one copy of each array, every other byte unchanged.

    Raises:
        BundleError: if the bytes are malformed or truncated, if the graph's external initializers and the arrays differ
            in name, shape or type, or if any other tensor points to a file.
    """
    reader = _Reader(memoryview(model))
    parts: list[memoryview] = []
    graphs = 0
    for item in reader.fields(0, len(model)):
        if item.number == _MODEL_TRAINING:
            raise BundleError("it carries training information")
        below = _BELOW["model"].get(item.number)
        if below is not None and item.wire != _BYTES:
            raise BundleError(f"field {item.number} of a model is not a message (wire type {item.wire})")
        if item.number == _MODEL_GRAPH:
            graphs += 1
            # A protobuf reader would merge a second graph into the first.
            if graphs > 1:
                raise BundleError("it holds more than one graph")
            parts += _rewrite_graph(reader, item, tensors)
            continue
        if below is not None:
            reader.refuse_external(below, item.begin, item.end)
        parts.append(reader.data[item.start : item.end])
    if not graphs:
        raise BundleError("it holds no graph")
    return b"".join(parts)


def append_to_graph(model: bytes, fields: bytes, instead_of: int = 0) -> bytes:
    """Append encoded fields to a model's main graph; every other byte stays.

    Args:
        instead_of: number of the fields of the graph that are left out; 0 for none.

    Raises:
        BundleError: if the bytes are malformed, or hold no graph or several.
    """
    reader = _Reader(memoryview(model))
    graphs = [item for item in reader.fields(0, len(model)) if item.number == _MODEL_GRAPH]
    if len(graphs) != 1 or graphs[0].wire != _BYTES:
        raise BundleError(f"it holds {len(graphs)} graphs; it must hold one")
    graph = graphs[0]
    kept = [item for item in reader.fields(graph.begin, graph.end) if item.number != instead_of]
    inside = [reader.data[item.start : item.end] for item in kept]
    parts = _message(_MODEL_GRAPH, [*inside, memoryview(fields)])
    return b"".join([reader.data[: graph.start], *parts, reader.data[graph.end :]])
