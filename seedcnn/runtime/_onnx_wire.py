"""Put weights into an ONNX graph at the level of protobuf's wire format: the device has no ``onnx`` package.

A small strict reader: it walks every message in which a tensor can lie, so that no tensor is left for a runtime to look
up as a file. What it does not rewrite it copies byte by byte. Field numbers are those of onnx.proto (ONNX IR).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from seedcnn.errors import BundleError

__all__ = ["embed_initializers", "encode_varint"]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_DEPTH = 32
_MAX_FIELDS = 1_000_000
_MODEL_GRAPH, _MODEL_TRAINING, _GRAPH_INITIALIZER = 7, 20, 5
_DIMS, _DATA_TYPE, _NAME, _RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 1, 2, 8, 9, 13, 14
_EXTERNAL = 1
# The numbers of TensorProto.DataType that a bundle may one day carry, little-endian.
_DTYPES = {1: "<f4", 2: "|u1", 3: "|i1", 6: "<i4", 7: "<i8", 10: "<f2", 11: "<f8"}
# {message: {field: message below it}}: every way from a model to a tensor.
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
    """One field: where its tag starts, where its content starts and where it ends; ``value`` of a varint."""

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
    """Fields of messages in ``data``; counts them, so that a graph of millions of empty fields ends."""

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
        """Walk a message; no tensor in it may point to a file."""
        if depth > _MAX_DEPTH:
            raise BundleError(f"its messages are nested deeper than {_MAX_DEPTH}")
        below = _BELOW[message]
        for item in self.fields(begin, end):
            if message == "tensor" and item.number in (_EXTERNAL_DATA, _DATA_LOCATION):
                if item.number == _EXTERNAL_DATA or item.wire != _VARINT or item.value:
                    raise BundleError("a tensor that is no initializer of the main graph has external data")
            elif item.number in below:
                if item.wire != _BYTES:
                    raise BundleError(f"field {item.number} of a {message} is no message (wire type {item.wire})")
                self.refuse_external(below[item.number], item.begin, item.end, depth + 1)


@dataclass
class _Tensor:
    """What matters of an initializer: ``kept`` are the spans of its fields that stay as they are."""

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
            # Of a repeated singular field readers take the last; two readers need not agree on that.
            if item.number in seen and item.number not in (_DIMS, _EXTERNAL_DATA):
                raise BundleError(f"field {item.number} of an initializer is there twice")
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
    """The array as the graph wants it: contiguous, little-endian, of its shape and type."""
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
    """A number that is not negative as protobuf writes it: seven bits a byte, the lowest first."""
    result = bytearray()
    while value > 0x7F:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    result.append(value)
    return bytes(result)


def _message(number: int, parts: list[memoryview]) -> list[memoryview]:
    """A field holding a message made of ``parts``."""
    head = encode_varint(number << 3 | _BYTES) + encode_varint(sum(part.nbytes for part in parts))
    return [memoryview(head), *parts]


def _rewrite_graph(reader: _Reader, graph: _Field, tensors: Mapping[str, npt.NDArray[Any]]) -> list[memoryview]:
    parts: list[memoryview] = []
    used: set[str] = set()
    for item in reader.fields(graph.begin, graph.end):
        if item.number != _GRAPH_INITIALIZER:
            if (below := _BELOW["graph"].get(item.number)) is not None:
                if item.wire != _BYTES:
                    raise BundleError(f"field {item.number} of a graph is no message (wire type {item.wire})")
                reader.refuse_external(below, item.begin, item.end)
            parts.append(reader.data[item.start : item.end])
            continue
        if item.wire != _BYTES:
            raise BundleError(f"field {item.number} of a graph is no message (wire type {item.wire})")
        tensor = _read_tensor(reader, item.begin, item.end)
        if tensor.name in used:
            raise BundleError(f"initializer {tensor.name!r} is there twice")
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
    """Write arrays into a model in place of its external initializers.

    Args:
        model: ONNX ModelProto bytes; external initializers lie in the main graph.
        tensors: {initializer name: array of its shape and type}; each external initializer, and no other.

    Returns:
        The model with the arrays as ``raw_data``; one copy of each array, every other byte untouched.

    Raises:
        BundleError: if the bytes are malformed or truncated, if an external initializer was not passed or a passed one
            is not in the graph, if shape or type do not match, or if any other tensor points to a file.
    """
    reader = _Reader(memoryview(model))
    parts: list[memoryview] = []
    graphs = 0
    for item in reader.fields(0, len(model)):
        if item.number == _MODEL_TRAINING:
            raise BundleError("it carries training information")
        below = _BELOW["model"].get(item.number)
        if below is not None and item.wire != _BYTES:
            raise BundleError(f"field {item.number} of a model is no message (wire type {item.wire})")
        if item.number == _MODEL_GRAPH:
            graphs += 1
            # A second graph would be merged with the first by a protobuf reader.
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
