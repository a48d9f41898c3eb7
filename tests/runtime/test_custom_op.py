"""The fused operator: built by the real compiler, compared with numpy, and never a crash on wrong input."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from seedcnn.errors import BundleError, DeviceError
from seedcnn.runtime.custom_op import COMMAND, FUNCTIONS, OPERATOR, build, check_library, default_path
from seedcnn.runtime.session import open_session

onnx = pytest.importorskip("onnx", reason="the graph of these tests is built with onnx")
pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler here")
ROOT = Path(__file__).parents[2]
DEFAULTS = {"nlf": "sine", "groups": 1, "relu": 0}
INPUTS = ("z", "W", "B", "A", "C")


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    return build(tmp_path_factory.mktemp("operator") / "below" / "op.so")


def node_graph(inputs=INPUTS, **attributes) -> bytes:
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    domain, kind = OPERATOR.split("::")
    node = helper.make_node(kind, list(inputs), ["y"], domain=domain, **(DEFAULTS | attributes))
    given = [helper.make_tensor_value_info(name, float32, None) for name in inputs if name]
    graph = helper.make_graph([node], "one", given, [helper.make_tensor_value_info("y", float32, None)])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(domain, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()


def run(library, values, **attributes):
    session = open_session(node_graph(tuple(values), **attributes), {}, libraries=[library])
    arrays = {name: np.asarray(value, np.float32) for name, value in values.items() if name}
    return session.run(["y"], arrays)[0]


def values(n, c_seed, c_gen, height, width, seed=0):
    rng = np.random.default_rng(seed)
    shapes = {"z": (n, c_seed, height, width)} | dict.fromkeys(INPUTS[1:], (c_gen,))
    return {name: rng.uniform(-2, 2, shape).astype(np.float32) for name, shape in shapes.items()}


def expected(v, nlf, groups, relu):
    """The definition, channel by channel: blocks (i, j) of n channels, cropped."""
    c_seed, c_gen = v["z"].shape[1], len(v["W"])
    n, gamma = c_seed // groups, -(-c_gen // c_seed)
    order = [i * n + within for i in range(groups) for _ in range(gamma) for within in range(n)][:c_gen]
    z = v["z"].astype(np.float64)
    maps = [z]
    for c, source in enumerate(order):
        u = np.float64(v["W"][c]) * z[:, source : source + 1] + np.float64(v["B"][c])
        a, shift = (float(v[name][c]) if name in v else default for name, default in (("A", 1), ("C", 0)))
        maps.append(a * FUNCTIONS[nlf](u) + shift)
    y = np.concatenate(maps, axis=1)
    return np.maximum(y, 0) if relu else y


@pytest.mark.parametrize("relu", [0, 1])
@pytest.mark.parametrize("nlf", FUNCTIONS)
@pytest.mark.parametrize(
    ("shape", "groups"),
    [((2, 4, 4, 5, 7), 2), ((1, 8, 24, 4, 4), 4), ((3, 6, 13, 1, 1), 3), ((1, 4, 3, 9, 31), 1), ((0, 2, 2, 3, 3), 1)],
)
def test_it_is_the_definition(library, nlf, relu, shape, groups):
    v = values(*shape)
    found = run(library, v, nlf=nlf, groups=groups, relu=relu)
    assert found.shape == (shape[0], shape[1] + shape[2], shape[3], shape[4])
    assert np.abs(found - expected(v, nlf, groups, relu)).max(initial=0) < 2e-6


def test_scale_and_shift_are_optional(library):
    v = values(2, 4, 8, 3, 5)
    del v["A"], v["C"]
    assert np.abs(run(library, v, groups=2) - expected(v, "sine", 2, 0)).max() < 2e-6


def test_sine_is_exact_to_1e_6_up_to_ten_thousand(library):
    u = np.linspace(-1e4, 1e4, 300_001, dtype=np.float32)
    found = run(library, {"z": u.reshape(1, 1, 1, -1), "W": [1], "B": [0]})[0, 1, 0]
    assert np.abs(found - np.sin(u.astype(np.float64))).max() < 1e-6


def test_what_is_not_a_number_stays_so(library):
    z = np.array([np.nan, np.inf, -np.inf, 0.5] * 9, np.float32).reshape(1, 1, 4, 9)
    for nlf in FUNCTIONS:
        for relu in (0, 1):
            y = run(library, {"z": z, "W": [1], "B": [0]}, nlf=nlf, relu=relu)
            assert (np.isnan(y[0, :, :, :]) >= np.isnan(z[0])).all()
            assert np.isfinite(y[0, 1][z[0, 0] == 0.5]).all()
    y = run(library, {"z": z, "W": [1], "B": [0]}, nlf="sine")
    assert (np.isfinite(y[0, 1]) == np.isfinite(z[0, 0])).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"z": np.zeros((1, 3, 2, 2))}, "3 channels, which groups"),
        ({"z": np.zeros((1, 0, 2, 2))}, "0 channels, which groups"),
        ({"z": np.zeros((4, 2, 2))}, r"must be \[N, c_seed, H, W\]"),
        ({"z": np.zeros((1, 4, 2, 2, 2))}, "more than 4 axes"),
        ({"W": np.zeros(3)}, "input 2 holds 4 values, W holds 3"),
        ({"B": np.zeros(5)}, "input 2 holds 5 values, W holds 4"),
        ({"A": np.zeros(())}, "input 3 holds 1 values, W holds 4"),
        ({"C": np.zeros(0)}, "input 4 holds 0 values, W holds 4"),
        ({"W": np.zeros(0), "B": np.zeros(0)}, "W holds no value"),
    ],
)
def test_wrong_shapes_are_errors(library, change, message):
    with pytest.raises(BundleError, match=message):
        run(library, values(1, 4, 4, 2, 2) | change, groups=2)


def test_scale_without_shift_is_an_error(library):
    v = values(1, 4, 4, 2, 2)
    del v["C"]
    with pytest.raises(BundleError, match="both be given, or neither"):
        run(library, v)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"nlf": "tangent"}, "nlf .=tangent. is not"),
        ({"nlf": "a" * 64}, "not large enough"),
        ({"groups": 0}, "groups .=0. must be positive"),
        ({"groups": -2}, "groups .=-2. must be positive"),
        ({"relu": 2}, "relu .=2. 0 or 1"),
        ({"nlf": 3}, "."),
    ],
)
def test_wrong_attributes_are_errors(library, attributes, message):
    with pytest.raises(BundleError, match=message):
        open_session(node_graph(**attributes), {}, libraries=[library])


def test_without_the_library_the_operator_and_the_command_are_named():
    with pytest.raises(BundleError, match=f"{OPERATOR}, which is not loaded: build it with `{COMMAND}`"):
        open_session(node_graph(), {})


def test_openvino_names_the_operator():
    pytest.importorskip("openvino")
    with pytest.raises(BundleError, match=f"{OPERATOR}, which only ONNX Runtime can load"):
        open_session(node_graph(), {}, runtime="openvino")


def test_several_sessions_of_one_process_share_it(library):
    sessions = [open_session(node_graph(nlf=nlf), {}, libraries=[library]) for nlf in ("abs", "negate")]
    v = values(1, 2, 2, 3, 3)
    for session, nlf in zip(sessions, ("abs", "negate"), strict=True):
        assert np.abs(session.run(["y"], v)[0] - expected(v, nlf, 1, 0)).max() < 1e-6


def test_no_compiler_and_a_failing_one(tmp_path):
    with pytest.raises(DeviceError, match="'no-such-compiler' cannot be run"):
        build(tmp_path / "op.so", compiler="no-such-compiler")
    with pytest.raises(DeviceError, match=r"'cc' exited with status \d+\n(?s:.*)no-such-header"):
        build(tmp_path / "op.so", compiler="cc -include no-such-header.h")
    with pytest.raises(ValueError, match="`compiler` is empty"):
        build(tmp_path / "op.so", compiler=" ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("defect", "message"),
    [
        ('strcmp("abs", b)', "fails its check(?s:.*)the operator's sine differs from numpy's"),
        ("(*(volatile int *)0)", r"fails its check: .* exited with status -\d+"),
    ],
)
def test_a_library_that_answers_wrongly_or_crashes_is_not_accepted(tmp_path, defect, message):
    header = tmp_path / "defect.h"
    header.write_text(f"#include <string.h>\n#undef strcmp\n#define strcmp(a, b) ((void)(a), {defect})\n")
    with pytest.raises(DeviceError, match=message):
        build(tmp_path / "below" / "op.so", compiler=f"cc -include {header}")
    assert not list((tmp_path / "below").iterdir())


def test_a_path_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DeviceError, match="cannot be written"):
        build(tmp_path / "file" / "op.so")


def test_a_library_that_is_none(tmp_path):
    (tmp_path / "op.so").write_bytes(b"no library")
    with pytest.raises(BundleError, match="cannot load the library"):
        check_library(tmp_path / "op.so")


def test_the_command(tmp_path):
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path)}
    command = [sys.executable, "-W", "error", *COMMAND.split()[1:]]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.strip())
    assert path.is_relative_to(tmp_path)
    assert path.name == default_path().name
    check_library(path)
    done = subprocess.run([*command, "--cc", "no-such"], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("the operator cannot be built")


def test_the_wheel_holds_the_source():
    wheel = pytest.importorskip("hatchling.builders.wheel", reason="hatchling is not installed here")
    files = wheel.WheelBuilder(str(ROOT)).recurse_included_files()
    assert "seedcnn/runtime/custom_op.c" in {file.distribution_path for file in files}
