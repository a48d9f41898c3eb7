"""``seedcnn.evaluate`` shows what is used outside of it, and nothing else."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import seedcnn.evaluate

ROOT = Path(__file__).parents[2]


def _used_outside():
    """Names that other rooms, benchmarks, examples and tools import from the room, and those that a guide shows."""
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        yield from re.findall(r"seedcnn\.evaluate\.(\w+)\(", page.read_text("utf-8"))
    paths = [
        path for folder in ("seedcnn", "benchmarks", "examples", "tools") for path in (ROOT / folder).rglob("*.py")
    ]
    for path in paths:
        if (ROOT / "seedcnn" / "evaluate") not in path.parents:
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("seedcnn.evaluate"):
                    yield from (alias.name for alias in node.names)


def test_every_name_of_the_face_is_used_outside():
    assert set(seedcnn.evaluate.__all__) - set(_used_outside()) == set()


def test_no_other_room_reaches_for_private_names():
    assert [name for name in _used_outside() if name.startswith("_")] == []
