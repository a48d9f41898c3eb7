"""Values inside a graph as further outputs of it, at the level of protobuf's wire format: nothing more travels."""

from __future__ import annotations

from collections.abc import Sequence

from seedcnn.errors import BundleError
from seedcnn.runtime._onnx_wire import append_to_graph, encode_varint

__all__ = ["with_outputs"]

_GRAPH_OUTPUT = 12
_BYTES = 2


def _field(number: int, content: bytes) -> bytes:
    return encode_varint(number << 3 | _BYTES) + encode_varint(len(content)) + content


def with_outputs(graph: bytes, names: Sequence[str], *, alone: bool = False) -> bytes:
    """Return an ONNX model that also returns values that it computes on the way.

    Args:
        graph: ONNX ModelProto bytes.
        names: of values of its main graph; none may be an output already. The runtime infers their types.
        alone: return nothing else, so that the runtime computes only what leads to them.

    Raises:
        BundleError: if the bytes are malformed or hold no graph or several. A name that the graph does not have is
            refused by the runtime.
    """
    if not all(names):
        raise BundleError("a value without a name cannot be an output")
    made = [_field(_GRAPH_OUTPUT, _field(1, name.encode())) for name in names]
    return append_to_graph(graph, b"".join(made), _GRAPH_OUTPUT if alone else 0)
