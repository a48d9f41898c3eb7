"""What importing does: nothing heavy at the top, no torch below the line, one direction only."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = [room for room in ("bundle", "device", "server") if (ROOT / "seedcnn" / room / "__init__.py").exists()]
# Also what torch would drag in, and the rooms that need it.
ABOVE_THE_LINE = ["torch", "torchvision", "timm", "onnx", "onnxscript", "matplotlib"]

IMPORT_WITHOUT = """
import importlib, json, pkgutil, sys
room, blocked = json.loads(sys.argv[1])

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Block())
package = importlib.import_module(room)
found = [module.name for module in pkgutil.walk_packages(package.__path__, room + ".")]
names = [room] + [name for name in found if not name.endswith("__main__")]
for name in names:
    importlib.import_module(name)
print(json.dumps([names, sorted(sys.modules)]))
"""


def _run(code: str, *arguments: str) -> str:
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    return child.stdout


def test_importing_the_package_imports_nothing_else():
    bare = json.loads(_run("import sys, json; print(json.dumps(sorted(sys.modules)))"))
    loaded = json.loads(_run("import seedcnn, sys, json; print(json.dumps(sorted(sys.modules)))"))
    new = {name.split(".")[0] for name in set(loaded) - set(bare)}
    assert new == {"seedcnn"} | (new & sys.stdlib_module_names)
    assert not {"numpy", "torch"} & new


def test_the_face_of_bundle_imports_numpy_only_when_a_name_needs_it():
    code = "import seedcnn.bundle, sys; print('numpy' in sys.modules); {}; print('numpy' in sys.modules)"
    assert _run(code.format("seedcnn.bundle.read_bundle")) == "False\nTrue\n"


def test_the_face_of_bundle_has_the_names_it_says():
    import seedcnn.bundle

    listed = [name for names in seedcnn.bundle._MODULES.values() for name in names]
    assert sorted(listed) == sorted(seedcnn.bundle.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Manifest'"):
        _ = seedcnn.bundle.Manifest


@pytest.mark.parametrize("room", ROOMS)
def test_below_the_line_every_module_imports_where_torch_cannot(room):
    names, loaded = json.loads(_run(IMPORT_WITHOUT, json.dumps([f"seedcnn.{room}", ABOVE_THE_LINE])))
    assert len(names) > 1
    assert not {name.split(".")[0] for name in loaded} & set(ABOVE_THE_LINE)


def test_the_block_works():
    command = [sys.executable, "-c", IMPORT_WITHOUT, json.dumps(["seedcnn.bundle", ["numpy"]])]
    child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert child.returncode != 0
    assert "No module named 'numpy'" in child.stderr


def test_imports_point_down_only():
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert child.returncode == 0, child.stdout + child.stderr
    assert "0 broken" in child.stdout
