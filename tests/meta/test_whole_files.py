"""The library writes files whole: through ``files.write_file``, or under another name that is renamed at the end."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2] / "seedcnn"
WRITERS = {"write_text", "write_bytes", "save", "savez", "savez_compressed", "savefig", "tofile", "dump"}
# What is written into memory, to a device, or into a place that nobody reads before it is complete.
ALLOWED = {
    ("files.py", "write_bytes"),  # devices and pipes
    ("files.py", "open"),  # the lock, which stays empty
    ("terminal.py", "open"),  # the null device
    ("device/transfer.py", "open"),  # a download, as far as it has come
    ("data/pictures/files.py", "open"),  # PictureWriter renames it
    ("data/sets/cifar10.py", "write_bytes"),  # a staged directory
    ("data/sets/icons50_rebuilt.py", "savez_compressed"),  # a staged directory
    ("evaluate/report/plots.py", "savefig"),  # memory
    ("cli/_pack_tables.py", "savefig"),  # memory
}


def _writes(call: ast.Call) -> str:
    """The name of a call that writes a file, or ""."""
    name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
    if name == "open":
        modes = [word.value for word in call.keywords if word.arg == "mode"] + call.args[:2]
        texts = [mode.value for mode in modes if isinstance(mode, ast.Constant) and isinstance(mode.value, str)]
        return name if any(set(text) <= set("rwabxt+") and set(text) & set("wax+") for text in texts) else ""
    of = ast.unparse(call.func.value) if isinstance(call.func, ast.Attribute) else ""
    if name in ("save", "dump") and of not in ("np", "numpy", "torch", "json", "pickle"):
        return ""
    return name if name in WRITERS else ""


def test_files_are_written_whole():
    found = set()
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and (name := _writes(node)):
                found.add((path.relative_to(ROOT).as_posix(), name))
    assert found == ALLOWED


def test_the_search_finds_what_it_looks_for():
    for text, name in (
        ("open(p, 'w')", "open"),
        ("p.open('wb')", "open"),
        ("open(p, mode='a')", "open"),
        ("p.write_text(x)", "write_text"),
        ("np.save(p, x)", "save"),
        ("json.dump(x, file)", "dump"),
        ("open(p)", ""),
        ("open(p, 'rb')", ""),
        ("found.save(p)", ""),
        ("tarfile.open(p, 'r:gz')", ""),
    ):
        assert _writes(ast.parse(text).body[0].value) == name, text
