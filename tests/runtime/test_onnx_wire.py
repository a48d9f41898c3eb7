"""Weights embedded in a graph without the ``onnx`` package, and checked with it."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from seedcnn.errors import BundleError
from seedcnn.runtime._onnx_wire import embed_initializers

onnx = pytest.importorskip("onnx", reason="the graphs of these tests are built and judged with onnx")
helper, TensorProto = onnx.helper, onnx.TensorProto
FLOAT = TensorProto.FLOAT


def external(name: str, shape: list[int], data_type: int = FLOAT) -> onnx.TensorProto:
    tensor = TensorProto(name=name, data_type=data_type, dims=shape, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="secret")
    return tensor


def make(initializers, nodes=(), **model) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes) or [helper.make_node("Add", ["x", "w"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info("x", FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", FLOAT, ["n", 3])],
        list(initializers),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10, **model)


def inside(name: str = "i") -> onnx.TensorProto:
    return onnx.numpy_helper.from_array(np.array([2, 3], np.int64), name)


def external_tensors(message) -> list[str]:
    """Every tensor anywhere in a message that points to a file, found through the schema."""
    if isinstance(message, TensorProto):
        pointing = message.data_location == TensorProto.EXTERNAL or message.external_data
        return [message.name] if pointing else []
    found = []
    for descriptor, value in message.ListFields():
        if descriptor.message_type is not None:
            items = [value] if hasattr(value, "ListFields") else value
            found += [name for item in items for name in external_tensors(item)]
    return found


W = np.arange(3, dtype=np.float32)


def test_the_arrays_are_in_and_the_rest_is_as_it_was():
    scalar, wide = np.asarray(0.5, np.float32), np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
    before = make([inside(), external("w", [3]), external("häß", []), external("wide", [4, 5, 6])], doc_string="kept")
    result = embed_initializers(before.SerializeToString(), {"wide": wide, "w": W, "häß": scalar})
    after = onnx.load_from_string(result)
    values = {item.name: onnx.numpy_helper.to_array(item) for item in after.graph.initializer}
    np.testing.assert_array_equal(values["w"], W)
    np.testing.assert_array_equal(values["wide"], wide)
    assert (values["häß"], values["i"].tolist()) == (0.5, [2, 3])
    assert external_tensors(after) == []
    for model in (before, after):
        del model.graph.initializer[:]
    assert before == after


def test_an_array_that_is_not_contiguous_and_every_type():
    for data_type, dtype in ((1, "f4"), (2, "u1"), (3, "i1"), (6, "i4"), (7, "i8"), (10, "f2"), (11, "f8")):
        value = np.arange(6).reshape(2, 3).astype(dtype).T
        after = onnx.load_from_string(
            embed_initializers(make([external("w", [3, 2], data_type)]).SerializeToString(), {"w": value})
        )
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(after.graph.initializer[0]), value)


def test_a_model_without_external_data_is_copied_byte_by_byte():
    unknown = bytes([0xFA, 0x3F, 3]) + b"abc" + bytes([0xF8, 0x3F, 0x80, 0x01])
    data = make([inside("w")]).SerializeToString() + unknown
    assert embed_initializers(data, {}) == data


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({}, "initializer 'w' is external and was not passed; no file is read for it"),
        ({"w": W, "v": W}, "no external initializer for: v"),
        ({"w": W, "i": W}, "no external initializer for: i"),
        ({"w": W[:2]}, r"'w' is float32 \[3\] in the graph, but float32 \[2\] was passed"),
        ({"w": W.reshape(1, 3)}, r"float32 \[1, 3\] was passed"),
        ({"w": W.astype(np.float64)}, r"but float64 \[3\] was passed"),
    ],
)
def test_tensors_that_do_not_fit(tensors, says):
    with pytest.raises(BundleError, match=says):
        embed_initializers(make([inside(), external("w", [3])]).SerializeToString(), tensors)


def sparse() -> onnx.SparseTensorProto:
    return helper.make_sparse_tensor(external("s", [1]), inside("at"), [3])


def below(tensor_field: str):
    """A model with an external tensor in an attribute, a subgraph, a sparse tensor or a function."""
    nodes = {
        "attribute": lambda: [helper.make_node("Constant", [], ["y"], value=external("t", [3]))],
        "attributes": lambda: [helper.make_node("Own", [], ["y"], values=[inside(), external("t", [3])])],
        "subgraph": lambda: [helper.make_node("If", ["x"], ["y"], then_branch=make([external("t", [3])]).graph)],
        "sparse attribute": lambda: [helper.make_node("Constant", [], ["y"], sparse_value=sparse())],
    }
    if tensor_field in nodes:
        return make([], nodes[tensor_field]())
    model = make([inside("w")])
    if tensor_field == "sparse":
        model.graph.sparse_initializer.append(sparse())
    else:
        body = nodes["attribute"]()
        model.functions.append(helper.make_function("own", "F", [], ["y"], body, [helper.make_opsetid("", 18)]))
    return model


@pytest.mark.parametrize("place", ["attribute", "attributes", "subgraph", "sparse attribute", "sparse", "function"])
def test_external_data_anywhere_else_is_refused(place):
    model = below(place)
    assert external_tensors(model)
    with pytest.raises(BundleError, match="outside the main graph's initializers has external data"):
        embed_initializers(model.SerializeToString(), {})


def field(number: int, content: bytes) -> bytes:
    assert len(content) < 1 << 14
    head = number << 3 | 2
    return bytes([head & 127 | 128, head >> 7, len(content) & 127 | 128, len(content) >> 7]) + content


def nested(depth: int) -> bytes:
    graph = b""
    for _ in range(depth):
        graph = field(1, field(5, field(6, graph)))
    return field(7, graph)


GRAPH = make([external("w", [3])]).graph.SerializeToString()
RAW = TensorProto(name="w", data_type=FLOAT, dims=[3], raw_data=W.tobytes(), data_location=TensorProto.EXTERNAL)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "holds no graph"),
        (b"not a graph", "malformed"),
        (b"<?xml version='1.0'?><net name='a' version='11'/>", "malformed"),
        (field(7, GRAPH) * 2, "more than one graph"),
        (field(7, field(5, inside().SerializeToString()) + field(5, external("i", [2]).SerializeToString())), "passed"),
        (field(7, field(5, external("w", [3]).SerializeToString()) * 2), "'w' appears twice"),
        (field(7, field(5, RAW.SerializeToString())), "both its own and external data"),
        (field(7, field(5, external("w", [3]).SerializeToString() + field(8, b"v"))), "field 8 .* appears twice"),
        (field(7, field(5, external("w", [3], 8).SerializeToString())), "data type 8"),
        (field(7, field(5, field(13, b"") + field(8, b"\xff"))), "not UTF-8"),
        (field(7, field(5, bytes([0x42 & ~7 | 0, 1]) + field(13, b""))), "field 8 of an initializer has wire type 0"),
        (field(7, bytes([5 << 3, 1])), "field 5 of a graph is not a message"),
        (field(7, bytes([1 << 3, 1])), "field 1 of a graph is not a message"),
        (bytes([7 << 3, 1]), "field 7 of a model is not a message"),
        (field(7, GRAPH) + field(20, b""), "training information"),
        (field(7, GRAPH) + bytes([0x0B, 0x0C]), "malformed: tag 11"),
        (field(7, GRAPH) + bytes([0x00, 0x00]), "malformed: tag 0"),
        (field(7, GRAPH) + bytes([0x08] + [0xFF] * 11), "malformed: no number ends"),
        (field(7, GRAPH) + bytes([0x0A, 0x05, 0x00]), "truncated"),
        (nested(20), "nested deeper than"),
    ],
)
def test_malformed_models_are_refused(data, says):
    with pytest.raises(BundleError, match=says):
        embed_initializers(data, {"w": W})


def test_every_truncation_inside_the_graph_is_refused():
    data = field(7, make([inside(), external("w", [3])]).graph.SerializeToString())
    assert embed_initializers(data, {"w": W})
    for cut in range(len(data)):
        with pytest.raises(BundleError):
            embed_initializers(data[:cut], {"w": W})


@pytest.mark.parametrize("place", ["main", "attribute", "subgraph", "sparse", "function"])
def test_whatever_is_changed_nothing_points_to_a_file_afterwards(place):
    model = make([inside(), external("w", [3])]) if place == "main" else below(place)
    original, rng = model.SerializeToString(), np.random.default_rng(1)
    accepted = 0
    for _ in range(3000):
        data = bytearray(original)
        for at in rng.integers(0, len(data), rng.integers(1, 4)):
            data[at] = rng.integers(0, 256)
        try:
            result = embed_initializers(bytes(data), {"w": W} if place == "main" else {})
        except BundleError:
            continue
        try:
            after = onnx.load_from_string(result)
        except Exception:  # onnx's own parser refuses it, so no runtime gets further
            continue
        accepted += 1
        assert external_tensors(after) == []
    assert accepted > 0


def test_millions_of_empty_fields_are_refused():
    with pytest.raises(BundleError, match="more than 1000000 fields"):
        embed_initializers(bytes([0x08, 0x00]) * 1_000_001, {})


def test_the_weights_are_copied_once():
    weights = np.zeros(4 << 20, np.float32)
    data = make([external("w", [4 << 20])]).SerializeToString()
    tracemalloc.start()
    try:
        result = embed_initializers(data, {"w": weights})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(result) > weights.nbytes
    assert peak < 1.01 * weights.nbytes
