"""Static int8: which operations are quantised, what travels, how exact it is, and what is refused."""

from __future__ import annotations

import platform
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from torch import nn

from seedcnn.bundle import read_bundle
from seedcnn.convert import GroupNLConfig, MonoConfig
from seedcnn.device.health import self_test
from seedcnn.errors import ExportError
from seedcnn.export import fold, to_bundle, to_onnx
from seedcnn.export.bundles import encode_tensors
from seedcnn.export.quantize import quantize
from seedcnn.runtime.session import open_session
from tests.export.small import INFO, SIZE, small_network

CONFIGS = {
    "vanilla": None,
    "dense": GroupNLConfig.paper(normalize="batch"),
    "sparse": GroupNLConfig.paper(sparse=True, normalize="batch"),
    "mono": MonoConfig(seed_filters=4),
}


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(5).normal(size=(24, *SIZE)).astype(np.float32)


@pytest.fixture(scope="module")
def exported():
    """Small settled networks as graphs, by name; made when they are asked for."""
    made = {}

    def export(name, target="onnxruntime"):
        if (name, target) not in made:
            made[name, target] = to_onnx(fold(small_network(CONFIGS[name]), target=target), SIZE)
        return made[name, target]

    return export


def answers(model, pictures, runtime="onnxruntime"):
    tensors = {coded.entry.name: coded.expanded for coded in encode_tensors(model, None)}
    return open_session(model.graph, tensors, runtime=runtime).run(["logits"], {"image": pictures})[0]


def spread(reference, other):
    """Root mean square of the difference over the reference's standard deviation."""
    return float(np.sqrt(np.square(reference - other).mean()) / reference.std())


@pytest.mark.parametrize("name", CONFIGS)
def test_it_answers_nearly_as_float32_in_both_runtimes(exported, pictures, name):
    model = exported(name)
    calibration, unseen = pictures[:16], pictures[16:]
    quantised = quantize(model, calibration)
    reference = answers(model, unseen)
    found = answers(quantised, unseen)
    # Powers of random filters have a few large weights, which take the levels from the others.
    limit = 0.3 if name == "mono" else 0.06
    assert 0 < spread(reference, found) < limit
    pytest.importorskip("openvino")
    assert spread(found, answers(quantised, unseen, "openvino")) < limit


@pytest.mark.parametrize(
    ("name", "target", "convolutions"),
    [
        ("vanilla", "onnxruntime", 4),
        ("dense", "onnxruntime", 4),
        ("sparse", "onnxruntime", 1),
        ("sparse", "openvino", 1),
        ("mono", "onnxruntime", 4),
    ],
)
def test_only_what_lies_around_convolutions_is_quantised(exported, pictures, name, target, convolutions):
    graph = onnx.load_model_from_string(quantize(exported(name, target), pictures[:4]).graph).graph
    producer = {output: node for node in graph.node for output in node.output}

    def kinds(names):
        return {producer[name].op_type for name in names if name in producer}

    def readers(name):
        return [node for node in graph.node if name in node.input]

    chosen = [n for n in graph.node if n.op_type in ("Conv", "Gemm") and "DequantizeLinear" in kinds(n.input[1:2])]
    assert [node.op_type for node in chosen] == ["Conv"] * convolutions + ["Gemm"]
    assert all(kinds(node.input) == {"DequantizeLinear"} for node in chosen)
    for conv in chosen[:-1]:
        (after,) = readers(conv.output[0])
        after = readers(after.output[0])[0] if after.op_type == "Relu" else after
        assert after.op_type == "QuantizeLinear"
    for node in graph.node:
        if node.op_type == "DequantizeLinear":
            users, made_of = readers(node.output[0]), kinds(producer[node.input[0]].input[:1])
            assert made_of & {"Conv", "Relu"} or all(user in chosen for user in users)
            assert not made_of & {"Sin", "Concat"} or all(user in chosen for user in users)
        elif node.op_type == "Sin":
            assert "QuantizeLinear" not in {user.op_type for user in readers(node.output[0])}


def test_what_travels_is_what_travelled_before(exported, pictures):
    for name in ("dense", "mono"):
        model = exported(name)
        quantised = quantize(model, pictures[:4])
        assert quantised.tensors is model.tensors
        assert quantised.seeded == model.seeded
        assert quantised.seeded
        initializers = onnx.load_model_from_string(quantised.graph).graph.initializer
        inside = [t for t in initializers if t.data_location != onnx.TensorProto.EXTERNAL]
        assert all(np.prod(t.dims) <= 8 for t in inside)
        assert {t.name for t in initializers} - {t.name for t in inside} == {*model.tensors, *model.seeded}


def test_a_bundle_of_it_passes_the_self_test_in_both_runtimes(exported, pictures):
    data = to_bundle(quantize(exported("dense"), pictures[:8]), INFO, step=1 / 512, tolerance=0.05)
    bundle = read_bundle(data)
    tensors = bundle.tensors()
    self_test(open_session(bundle.graph(), tensors), bundle)
    pytest.importorskip("openvino")
    self_test(open_session(bundle.graph(), tensors, runtime="openvino"), bundle)


def test_the_same_pictures_give_the_same_bytes(exported, pictures):
    model = exported("dense")
    first = quantize(model, pictures[:8]).graph
    assert first == quantize(model, pictures[:8], batch_size=3).graph
    assert first != quantize(model, pictures[8:16]).graph


def sums_overflow():
    """Whether this processor adds products of eight bits in sixteen: x86 without VNNI."""
    cpuinfo = Path("/proc/cpuinfo")
    return platform.machine() == "x86_64" and cpuinfo.is_file() and "vnni" not in cpuinfo.read_text("utf-8")


@pytest.mark.skipif(sums_overflow(), reason="this processor has no VNNI: eight bits overflow")
def test_eight_bits_are_more_exact_than_seven(exported, pictures):
    model = exported("vanilla")
    reference = answers(model, pictures)
    seven, eight = (spread(reference, answers(quantize(model, pictures, weight_bits=b), pictures)) for b in (7, 8))
    assert eight < seven < 2.5 * eight


def test_a_channel_without_weights_stays_zero(exported, pictures):
    model = exported("vanilla")
    tensors = {name: value.copy() for name, value in model.tensors.items()}
    tensors["stem.0.weight"][3] = 0
    model = replace(model, tensors=tensors)
    found = answers(quantize(model, pictures[:8]), pictures[:8])
    assert np.isfinite(found).all()
    assert spread(answers(model, pictures[:8]), found) < 0.06


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        (np.zeros((0, 3, 16, 16), np.float32), "at least one image"),
        (np.zeros((2, 3, 16, 8), np.float32), r"must be float32 \[N, 3, 16, 16\]"),
        (np.zeros((2, 16, 16, 3), np.float32), r"must be float32 \[N, 3, 16, 16\]"),
        (np.zeros((3, 16, 16), np.float32), r"must be float32 \[N, 3, 16, 16\]"),
        (np.zeros((2, 3, 16, 16)), "is float64"),
        (np.full((2, 3, 16, 16), np.nan, np.float32), "not finite"),
        (np.full((2, 3, 16, 16), np.inf, np.float32), "not finite"),
    ],
)
def test_wrong_calibration_pictures_are_errors(exported, calibration, message):
    with pytest.raises(ValueError, match=message):
        quantize(exported("dense"), calibration)


def test_wrong_options_are_errors(exported, pictures):
    with pytest.raises(ValueError, match=r"`weight_bits` .=4."):
        quantize(exported("dense"), pictures, weight_bits=4)
    with pytest.raises(ValueError, match=r"`batch_size` .=0."):
        quantize(exported("dense"), pictures, batch_size=0)


def test_a_network_that_overflows_is_refused(exported):
    """The pictures are finite, what the network makes of them is not."""
    with pytest.raises(ExportError, match="not finite on the calibration images"):
        quantize(exported("vanilla"), np.full((2, 3, 16, 16), 3e38, np.float32))


def test_a_network_without_convolutions_is_refused():
    class Mean(nn.Module):
        def forward(self, x):
            return x.mean((2, 3))

    with pytest.raises(ExportError, match="nothing to quantise"):
        quantize(to_onnx(fold(Mean()), SIZE), np.zeros((2, 3, 16, 16), np.float32))
