"""From a bundle to answers: preprocessing, and a session whose weights are passed from memory."""

from __future__ import annotations

import numpy as np
import pytest

from seedcnn.bundle import Preprocessing, encode_raw, read_bundle
from seedcnn.bundle.session import open_session, preprocess
from seedcnn.errors import BundleError
from tests.bundle.bundles import RULE, tiny_bundle

onnx = pytest.importorskip("onnx", reason="the graph of these tests is built with onnx")
WEIGHT = np.arange(9, dtype=np.float32).reshape(3, 3) / 10


def linear_graph(location: str = "weight") -> bytes:
    """Mean over the picture, then logits = mean @ weight + bias; weight and bias are external initializers."""

    def external(name: str, shape: list[int], where: str) -> onnx.TensorProto:
        tensor = onnx.TensorProto(name=name, data_type=onnx.TensorProto.FLOAT, dims=shape)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=where)
        return tensor

    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["image"], ["mean"], axes=[2, 3], keepdims=0),
            helper.make_node("MatMul", ["mean", "weight"], ["product"]),
            helper.make_node("Add", ["product", "bias"], ["logits"]),
        ],
        "linear",
        [helper.make_tensor_value_info("image", float32, ["n", 3, 4, 4])],
        [helper.make_tensor_value_info("logits", float32, ["n", 3])],
        [external("weight", [3, 3], location), external("bias", [], "bias")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return model.SerializeToString()


def test_a_bundle_answers_as_its_formula_says():
    coded = [encode_raw("weight", WEIGHT), encode_raw("bias", np.float32(0.5))]
    bundle = read_bundle(tiny_bundle(graph=linear_graph(), tensors=coded))
    session = open_session(bundle.graph(), bundle.tensors(), threads=1)
    images = preprocess(bundle.canned_images(), bundle.manifest.preprocessing)
    (logits,) = session.run([bundle.manifest.graph.output], {bundle.manifest.graph.input: images})
    np.testing.assert_allclose(logits, images.mean((2, 3)) @ WEIGHT + 0.5, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "tensors",
    [
        {"weight": WEIGHT},
        {"weight": WEIGHT[:2], "bias": np.float32(0)},
        {"weight": WEIGHT, "bias": np.float32(0), "extra": np.float32(0)},
    ],
    ids=["missing", "wrong shape", "unknown"],
)
def test_tensors_that_do_not_fit_the_graph_are_refused(tensors):
    with pytest.raises(BundleError, match="ONNX Runtime does not accept the graph"):
        open_session(linear_graph(), {name: np.asarray(value, np.float32) for name, value in tensors.items()})


def test_a_graph_that_is_none_is_refused():
    with pytest.raises(BundleError, match="ONNX Runtime does not accept the graph"):
        open_session(b"not a graph", {})


def test_preprocess_is_the_documented_formula():
    images = np.random.default_rng(1).integers(0, 256, (2, 4, 4, 3), np.uint8)
    result = preprocess(images, RULE)
    mean, std = np.array(RULE.mean_e8) / 1e8, np.array(RULE.std_e8) / 1e8
    expected = ((images / 255 - mean) / std).transpose(0, 3, 1, 2)
    assert result.dtype == np.float32
    assert result.flags["C_CONTIGUOUS"]
    np.testing.assert_allclose(result, expected, atol=1e-6)


def test_every_part_of_the_preprocessing_has_an_effect():
    image = np.full((1, 1, 2, 3), 51, np.uint8)
    rule = Preprocessing(1, 2, (0, 20_000_000, 0), (100_000_000, 100_000_000, 50_000_000))
    np.testing.assert_allclose(preprocess(image, rule)[0, :, 0, 0], [0.2, 0.0, 0.4], atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((2, 4, 4, 3), np.float32),
        ((4, 4, 3), np.uint8),
        ((1, 4, 5, 3), np.uint8),
        ((1, 4, 4, 4), np.uint8),
        ((1, 3, 4, 4), np.uint8),
    ],
)
def test_preprocess_names_what_it_wants(shape, dtype):
    with pytest.raises(ValueError, match=r"it must be uint8 \[N, 4, 4, 3\]"):
        preprocess(np.zeros(shape, dtype), RULE)
