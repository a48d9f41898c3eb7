"""`seedcnn-device bench` on a real device, with fresh processes."""

from __future__ import annotations

import json
import os

import pytest

from seedcnn import __version__
from seedcnn.bundle import read_bundle
from seedcnn.device.bench import bench, lines
from seedcnn.device.footprint import measure
from seedcnn.device.main import main
from seedcnn.errors import BundleError, DeviceError, SelfTestError

LINUX = os.path.exists("/proc/self/status")


def test_bench_in_every_runtime(device, capsys):
    pytest.importorskip("openvino")
    assert main(["--home", str(device.home), "bench", "--rounds", "20", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    active = device.slots.active()
    bundle = read_bundle(active.data)
    assert (result["release"], result["sha256"], result["bundle_bytes"]) == (1, active.record.sha256, len(active.data))
    assert result["expanded_bytes"] == sum(value.nbytes for value in bundle.tensors().values())
    assert result["graph_bytes"] == len(bundle.graph())
    assert 0 < result["graph_coded_bytes"] < result["bundle_bytes"]
    assert (result["threads"], result["rounds"], result["failed"]) == (1, 20, {})
    assert set(result["latency"]) == set(result["footprint"]) == {"onnxruntime", "openvino"}
    assert set(result["versions"]) == {"seedcnn", "python", "onnxruntime", "openvino"}
    assert result["versions"]["seedcnn"] == __version__
    for timing in result["latency"].values():
        assert timing["n"] == 20
        assert 0 < timing["q1_ms"] <= timing["median_ms"] <= timing["q3_ms"] < 1000
    for load in result["footprint"].values():
        assert all(0 < value < 60_000 for name, value in load.items() if name.endswith("_ms"))
        if LINUX:
            assert 20e6 < load["rss_imports"] < load["rss_steady"] <= load["rss_peak"] < 2e9


def test_text_for_people_and_one_runtime(device):
    result = bench(device.slots, runtimes=["onnxruntime"], threads=2, rounds=5)
    text = list(lines(result))
    assert text[0].startswith("tiny, release 1, sha256 ")
    assert any(line.startswith("threads 2, rounds 5, loads 3") for line in text)
    table = text[5:]
    assert len({len(line) for line in table}) == 1
    assert table[0].split() == ["onnxruntime"]
    median = f"{result.latency['onnxruntime'].median_ms:.3f}"
    assert any(line.startswith("latency, ms") and median in line for line in table)


def test_a_runtime_that_does_not_pass_is_not_timed(fleet, tmp_path):
    pytest.importorskip("openvino")
    fleet.publish(1, only="onnxruntime")
    device = fleet.device(tmp_path / "home")
    device.update()
    result = bench(device.slots, rounds=3)
    assert set(result.latency) == set(result.footprint) == {"onnxruntime"}
    assert list(lines(result))[-1].startswith("openvino was not measured: OpenVINO does not accept the graph")
    with pytest.raises(SelfTestError, match="no runtime passes the bundle's canned test vectors: openvino: "):
        bench(device.slots, runtimes=["openvino"], rounds=3)


def test_a_factory_model_can_be_measured_and_none_cannot(fleet, tmp_path, make_bundle):
    factory = tmp_path / "factory.bundle"
    factory.write_bytes(make_bundle(4))
    device = fleet.device(tmp_path / "home", factory=factory)
    assert bench(device.slots, runtimes=["onnxruntime"], rounds=3).release == 4
    with pytest.raises(DeviceError, match="no usable model"):
        bench(fleet.device(tmp_path / "empty").slots)


def test_footprint_of_a_bundle_that_is_none(tmp_path):
    (tmp_path / "x").write_bytes(b"x" * 100)
    with pytest.raises(BundleError):
        measure(tmp_path / "x", "onnxruntime", 1)
