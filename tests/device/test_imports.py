"""What the device may import, shown in processes where everything else cannot be imported."""

from __future__ import annotations

import subprocess
import sys

from tests.device.fleet import Device

BLOCKER = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

BLOCKED = set(sys.argv[1].split(","))
sys.meta_path.insert(0, Blocker())
sys.argv = ["seedcnn-device", *sys.argv[2:]]
"""
TORCH = "torch,torchvision,timm,onnx,onnxscript,matplotlib,typer,rich"
NUMPY = f"{TORCH},numpy,onnxruntime,safetensors,PIL,backports"
MAIN = "from seedcnn.device.main import main\nsys.exit(main())\n"


def run(code: str, blocked: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-c", BLOCKER + code, blocked, *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=120)


def test_the_blocker_blocks():
    done = run("import numpy", NUMPY)
    assert done.returncode == 1
    assert "ModuleNotFoundError: No module named 'numpy'" in done.stderr


def test_every_module_without_torch():
    code = """
import importlib, pkgutil, seedcnn.device
for module in pkgutil.iter_modules(seedcnn.device.__path__, "seedcnn.device."):
    importlib.import_module(module.name)
    print(module.name)
assert not BLOCKED & set(sys.modules)
"""
    done = run(code, TORCH)
    assert done.returncode == 0, done.stderr
    assert {"seedcnn.device.agent", "seedcnn.device.runtime", "seedcnn.device.updater"} <= set(done.stdout.split())


def test_agent_half_without_numpy():
    code = """
import seedcnn.device.agent, seedcnn.device.main, seedcnn.device.slots, seedcnn.device.updater
assert not BLOCKED & set(sys.modules), BLOCKED & set(sys.modules)
"""
    done = run(code, NUMPY)
    assert done.returncode == 0, done.stderr


def test_base_install_imports_without_any_dependency():
    done = run("import seedcnn.device.slots, seedcnn.device.agent, seedcnn.device.main", f"{NUMPY},tuf,urllib3")
    assert done.returncode == 0, done.stderr


def test_update_without_numpy_gets_as_far_as_verify_and_says_what_is_missing(device, fleet):
    fleet.publish(2)
    done = run(MAIN, NUMPY, "--home", device.home, "update")
    assert done.returncode == 1
    assert "is not installed; install this part of seedcnn with: pip install 'seedcnn[device]'" in done.stderr
    assert "Traceback" not in done.stderr
    states = device.states()
    assert states[-4:-1] == ["DOWNLOAD", "VERIFY", "EXPAND"]
    assert states[-1] == "REFUSED"
    assert device.release() == 1
    assert device.update().release == 2


def test_check_without_numpy_when_nothing_is_new(device):
    done = run(MAIN, NUMPY, "--home", device.home, "update")
    assert (done.returncode, done.stdout) == (0, "nothing new: release 1 is installed\n")


def test_status_needs_no_dependency_and_init_names_the_extra(device, fleet, tmp_path):
    everything = f"{NUMPY},tuf,securesystemslib,urllib3"
    done = run(MAIN, everything, "--home", device.home, "status")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("demo  release 1 (tiny), since ")
    root = fleet.directory / "root.json"
    done = run(
        MAIN, everything, "--home", tmp_path / "new", "init", "--root", root, "--url", fleet.url, "--family", "demo"
    )
    assert done.returncode == 1
    assert "pip install 'seedcnn[agent]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert Device(device.home).release() == 1


def test_without_openvino_it_is_named_and_auto_is_the_other_one(fleet, tmp_path):
    fleet.publish(1)
    root = fleet.directory / "root.json"
    for runtime in ("openvino", "auto"):
        home = tmp_path / runtime
        arguments = ["--root", root, "--url", fleet.url, "--family", "demo", "--runtime", runtime]
        assert run(MAIN, "openvino", "--home", home, "init", *arguments).returncode == 0
        done = run(MAIN, "openvino", "--home", home, "update")
        if runtime == "openvino":
            assert (done.returncode, done.stdout) == (1, "")
            assert "pip install 'seedcnn[openvino]'" in done.stderr
            assert "Traceback" not in done.stderr
            continue
        assert done.returncode == 0, done.stderr
        done = run(MAIN, "openvino", "--home", home, "status", "--verbose")
        assert "choices    onnxruntime, 1 thread (the only runtime installed)" in done.stdout
        done = run(MAIN, "openvino", "--home", home, "bench", "--rounds", "1", "--runtime", "openvino")
        assert done.returncode == 1
        assert "pip install 'seedcnn[openvino]'" in done.stderr
