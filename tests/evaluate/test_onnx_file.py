"""ONNX files of other people's: what they must be, and that pictures go in as said."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from seedcnn.errors import DataError
from seedcnn.evaluate.onnx_file import onnx_predictor, read_onnx

WEIGHT = np.random.default_rng(0).normal(size=(3, 7)).astype(np.float32)
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def network(shape=("N", 3, 32, 32), kind=TensorProto.FLOAT, inputs=1, outputs=1):
    """Mean over the pixels of each channel, times WEIGHT."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["x0"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y0"]),
        *(helper.make_node("Identity", ["y0"], [f"y{i}"]) for i in range(1, outputs)),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(f"x{i}", kind, shape) for i in range(inputs)],
        [helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, None) for i in range(outputs)],
        [numpy_helper.from_array(WEIGHT, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.fixture
def images():
    return np.random.default_rng(1).integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)


def wanted(images):
    return ((images / 255 - np.array(MEAN)) / np.array(STD)).mean((1, 2)) @ WEIGHT


@pytest.mark.parametrize("shape", [("N", 3, 32, 32), (1, 3, 32, 32), (4, 3, 32, 32), (None, 3, "h", "w")], ids=str)
def test_answers(images, tmp_path, shape):
    path = tmp_path / "a.onnx"
    onnx.save(network(shape), path)
    file = read_onnx(path)
    assert (file.input, file.output) == ("x0", "y0")
    predict = onnx_predictor(file, MEAN, STD)
    for n in (7, 1):
        np.testing.assert_allclose(predict(images[:n]), wanted(images[:n]), atol=2e-5)


def test_weights_in_a_file_beside_it(images, tmp_path):
    path = tmp_path / "a.onnx"
    onnx.save(network(), tmp_path / "inside.onnx")
    onnx.save(network(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    np.testing.assert_allclose(onnx_predictor(read_onnx(path), MEAN, STD)(images), wanted(images), atol=2e-5)
    before = read_onnx(path).sha256
    content = bytearray((tmp_path / "weights.bin").read_bytes())
    content[0] ^= 1
    (tmp_path / "weights.bin").write_bytes(content)
    assert read_onnx(path).sha256 != before
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(DataError, match=r"a\.onnx is not an ONNX file, or its weights are missing"):
        read_onnx(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"shape": ("N", 1, 32, 32)}, r"the input 'x0' of .* is float \[None, 1, 32, 32\]; it must be float \[N, 3, H"),
        ({"shape": ("N", 32, 32, 3)}, "must be float"),
        ({"shape": ("N", 3)}, "must be float"),
        ({"kind": TensorProto.UINT8}, r"is uint8 \["),
        ({"inputs": 2}, r"maps \['x0', 'x1'\] to \['y0'\]; it must have one input"),
        ({"outputs": 2}, r"maps \['x0'\] to \['y0', 'y1'\]"),
    ],
)
def test_other_networks_are_refused(tmp_path, change, words):
    path = tmp_path / "a.onnx"
    onnx.save(network(**change), path)
    with pytest.raises(DataError, match=words):
        read_onnx(path)


@pytest.mark.parametrize("content", [b"", b"name = 'x'\n", bytes(range(256))])
def test_what_is_no_onnx_file(tmp_path, content):
    path = tmp_path / "a.onnx"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.onnx is not an ONNX file"):
        read_onnx(path)
    with pytest.raises(DataError, match="there is no file"):
        read_onnx(tmp_path / "b.onnx")


def test_pictures_of_another_size(images, tmp_path):
    path = tmp_path / "a.onnx"
    onnx.save(network(("N", 3, 224, "w")), path)
    with pytest.raises(DataError, match="takes images of 224 x any pixels; these are 32 x 32"):
        onnx_predictor(read_onnx(path), MEAN, STD)(images)


@pytest.mark.parametrize(("mean", "std"), [((0, 0), (1, 1, 1)), ((0, 0, 0), (1, 0, 1)), ((0, 0, np.nan), (1, 1, 1))])
def test_wrong_normalisation(tmp_path, mean, std):
    path = tmp_path / "a.onnx"
    onnx.save(network(), path)
    with pytest.raises(ValueError, match=r"`(mean|std)` .* must be three"):
        onnx_predictor(read_onnx(path), mean, std)
