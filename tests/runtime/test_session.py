"""Preprocessing, and sessions in each runtime with weights passed from memory."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from seedcnn.bundle import Preprocessing, encode_raw, read_bundle
from seedcnn.errors import BundleError
from seedcnn.runtime.names import RUNTIMES
from seedcnn.runtime.session import open_session, preprocess
from tests.bundle.bundles import RULE, tiny_bundle

ROOT = Path(__file__).parents[2]

onnx = pytest.importorskip("onnx", reason="the graph of these tests is built with onnx")
WEIGHT = np.arange(9, dtype=np.float32).reshape(3, 3) / 10


def linear_graph(location: str = "weight") -> bytes:
    """Mean over the image, then logits = mean @ weight + bias; weight and bias are external initializers."""

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


def fixed_graph() -> bytes:
    """The linear graph for exactly two images."""
    model = onnx.load_from_string(linear_graph())
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    return model.SerializeToString()


TENSORS = {"weight": WEIGHT, "bias": np.asarray(0.5, np.float32)}
IMAGES = np.random.default_rng(3).normal(size=(5, 3, 4, 4)).astype(np.float32)
SAYS = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}


@pytest.fixture(params=RUNTIMES)
def runtime(request) -> str:
    pytest.importorskip(request.param)
    return request.param


def test_a_bundle_answers_as_its_formula_says(runtime):
    coded = [encode_raw("weight", WEIGHT), encode_raw("bias", np.float32(0.5))]
    bundle = read_bundle(tiny_bundle(graph=linear_graph(), tensors=coded))
    session = open_session(bundle.graph(), bundle.tensors(), threads=1, runtime=runtime)
    assert session.runtime == runtime
    images = preprocess(bundle.canned_images(), bundle.manifest.preprocessing)
    (logits,) = session.run([bundle.manifest.graph.output], {bundle.manifest.graph.input: images})
    np.testing.assert_allclose(logits, images.mean((2, 3)) @ WEIGHT + 0.5, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_batches_of_any_size_and_answers_that_stay(runtime, count):
    session = open_session(linear_graph(), TENSORS, runtime=runtime)
    (first,) = session.run(["logits"], {"image": IMAGES[:count]})
    kept = first.copy()
    (second,) = session.run(None, {"image": -IMAGES[:count]})
    np.testing.assert_array_equal(first, kept)
    assert (first.shape, first.dtype, second.shape) == ((count, 3), np.float32, (count, 3))
    np.testing.assert_allclose(first, IMAGES[:count].mean((2, 3)) @ WEIGHT + 0.5, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(first + second, np.ones_like(first), rtol=1e-5, atol=1e-6)


def test_a_graph_for_a_fixed_number_of_images(runtime):
    session = open_session(fixed_graph(), TENSORS, runtime=runtime)
    (logits,) = session.run(["logits"], {"image": IMAGES[:2]})
    np.testing.assert_allclose(logits, IMAGES[:2].mean((2, 3)) @ WEIGHT + 0.5, rtol=1e-5, atol=1e-6)
    with pytest.raises(BundleError, match=f"{SAYS[runtime]} cannot run the graph"):
        session.run(["logits"], {"image": IMAGES[:3]})


@pytest.mark.parametrize(
    ("outputs", "inputs"),
    [
        (["absent"], {"image": IMAGES}),
        (["logits"], {"picture": IMAGES}),
        (["logits"], {}),
        (["logits"], {"image": IMAGES[:, :, :3]}),
        (["logits"], {"image": IMAGES[:, :2]}),
    ],
    ids=["output", "input", "no input", "size", "channels"],
)
def test_what_the_graph_does_not_take_is_one_sentence(runtime, outputs, inputs):
    session = open_session(linear_graph(), TENSORS, runtime=runtime)
    with pytest.raises(BundleError, match=f"{SAYS[runtime]} cannot run the graph") as caught:
        session.run(outputs, inputs)
    assert "\n" not in str(caught.value)
    assert len(session.run(["logits"], {"image": IMAGES})[0]) == 5


@pytest.mark.parametrize(
    "tensors",
    [
        {"weight": WEIGHT},
        {"weight": WEIGHT[:2], "bias": np.float32(0)},
        {"weight": WEIGHT, "bias": np.float32(0), "extra": np.float32(0)},
    ],
    ids=["missing", "wrong shape", "unknown"],
)
def test_tensors_that_do_not_fit_the_graph_are_refused(runtime, tensors):
    arrays = {name: np.asarray(value, np.float32) for name, value in tensors.items()}
    with pytest.raises(BundleError, match=f"{SAYS[runtime]} does not accept the graph"):
        open_session(linear_graph(), arrays, runtime=runtime)


@pytest.mark.parametrize("graph", [b"not a graph", b"", linear_graph()[:-40]], ids=["text", "empty", "cut"])
def test_a_graph_that_is_none_is_refused(runtime, graph):
    with pytest.raises(BundleError, match=f"{SAYS[runtime]} does not accept the graph") as caught:
        open_session(graph, TENSORS, runtime=runtime)
    assert "\n" not in str(caught.value)


def test_an_operator_that_a_runtime_has_not(runtime):
    model = onnx.load_from_string(linear_graph())
    model.graph.node[2].op_type = "NoSuchOperator"
    with pytest.raises(BundleError, match=f"{SAYS[runtime]} does not accept the graph.*NoSuchOperator"):
        open_session(model.SerializeToString(), TENSORS, runtime=runtime)


def subgraph_graph(location: str) -> bytes:
    """An If branch adds an initializer that lies in a file."""
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    weight = onnx.TensorProto(name="own", data_type=float32, dims=[3], data_location=onnx.TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value=location)
    branch = helper.make_graph(
        [helper.make_node("Identity", ["own"], ["z"])],
        "branch",
        [],
        [helper.make_tensor_value_info("z", float32, [3])],
        [weight],
    )
    model = onnx.load_from_string(linear_graph())
    model.graph.node[2].output[0] = "sum"
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "yes"))
    model.graph.node.append(helper.make_node("If", ["yes"], ["own"], then_branch=branch, else_branch=branch))
    model.graph.node.append(helper.make_node("Add", ["sum", "own"], ["logits"]))
    return model.SerializeToString()


@pytest.mark.parametrize("absolute", [False, True], ids=["relative", "absolute"])
@pytest.mark.parametrize("build", [linear_graph, subgraph_graph])
def test_no_weight_is_read_from_the_disk(runtime, build, absolute, tmp_path):
    (tmp_path / "secret").write_bytes(WEIGHT.tobytes())
    tensors = {"bias": TENSORS["bias"]} if build is linear_graph else TENSORS
    with contextlib.chdir(tmp_path), pytest.raises(BundleError, match=f"{SAYS[runtime]} does not accept the graph"):
        open_session(build(str(tmp_path / "secret") if absolute else "secret"), tensors, runtime=runtime)


def test_threads_reach_the_runtime(runtime):
    for threads in (1, 2):
        session = open_session(linear_graph(), TENSORS, runtime=runtime, threads=threads)
        if runtime == "onnxruntime":
            assert session._session.get_session_options().intra_op_num_threads == threads
        else:
            compiled = session._request.get_compiled_model()
            # It takes no more than there are cores.
            assert compiled.get_property("INFERENCE_NUM_THREADS") == min(threads, len(os.sched_getaffinity(0)))
            assert str(compiled.get_property("INFERENCE_PRECISION_HINT")) == "<Type: 'float32'>"
    with pytest.raises(ValueError, match="`threads` \\(=0\\) must be at least 1"):
        open_session(linear_graph(), TENSORS, runtime=runtime, threads=0)


def test_options_of_onnx_runtime_change_nothing_but_the_cost():
    reference = open_session(linear_graph(), TENSORS).run(None, {"image": IMAGES})[0]
    for options in ({"arena": False}, {"arena": True, "spinning": True}, {"spinning": False, "threads": 2}):
        session = open_session(linear_graph(), TENSORS, **options)
        np.testing.assert_array_equal(session.run(None, {"image": IMAGES})[0], reference)
        found = session._session.get_session_options()
        assert found.enable_cpu_mem_arena == found.enable_mem_pattern == options.get("arena", True)
        spins = found.get_session_config_entry("session.intra_op.allow_spinning")
        assert spins == str(int(options.get("spinning", False)))


def test_options_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(ValueError, match="`runtime` \\(='tensorrt'\\) must be one of onnxruntime, openvino"):
        open_session(linear_graph(), TENSORS, runtime="tensorrt")
    pytest.importorskip("openvino")
    for options in ({"arena": True}, {"spinning": False}, {"libraries": [tmp_path / "x.so"]}):
        with pytest.raises(ValueError, match="options of ONNX Runtime; OpenVINO has none"):
            open_session(linear_graph(), TENSORS, runtime="openvino", **options)


def test_a_library_that_is_none_is_refused(tmp_path):
    (tmp_path / "ops.so").write_bytes(b"no library")
    for name in ("ops.so", "absent.so"):
        with pytest.raises(BundleError, match=f"cannot load the library .*{name}"):
            open_session(linear_graph(), TENSORS, libraries=[tmp_path / name])


def test_openvino_starts_no_process_opens_no_socket_and_leaves_no_file(tmp_path):
    """The package would report the import over the network and store a user id in the home directory."""
    pytest.importorskip("openvino")
    code = (
        "import sys\n"
        "events = []\n"
        "watched = ('socket.', 'os.fork', 'os.posix_spawn', 'subprocess.', 'urllib.')\n"
        "sys.addaudithook(lambda event, _: events.append(event) if event.startswith(watched) else None)\n"
        "from seedcnn.runtime.session import import_runtime\n"
        "module = import_runtime('openvino')\n"
        "assert callable(module.convert_model) and 'openvino_telemetry' not in sys.modules\n"
        "import time\n"
        "time.sleep(0.3)\n"
        "print(events)\n"
    )
    clean = {name: value for name, value in os.environ.items() if name not in ("CI", "TF_BUILD", "JENKINS_URL")}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**clean, "HOME": str(tmp_path)}, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
    assert list(tmp_path.iterdir()) == []


def test_openvino_leaves_the_stack_of_signal_handlers_alone():
    """On processors with tile registers it sets a stack that handlers overflow: the kernel then ends the process."""
    pytest.importorskip("openvino")
    code = (
        "from seedcnn.runtime._signal_stack import signal_stack\n"
        "from seedcnn.runtime.session import open_session\n"
        "from tests.runtime.test_session import TENSORS, linear_graph\n"
        "before = signal_stack()\n"
        "open_session(linear_graph(), TENSORS, runtime='openvino')\n"
        "print(signal_stack() == before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("True\n", "")


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
