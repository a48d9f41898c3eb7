"""Every threat on the page names tests that exist, or says why there is none."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "threat-model.md").read_text("utf-8")
LAST = "shown in"
NO_TEST = re.compile(r"\bno test: \w.{10,}", re.DOTALL)


def tables(text: str) -> list[list[list[str]]]:
    """The tables of a page: rows of cells, with the head and without the line below it."""
    blocks = re.findall(r"(?:^\|.*\n)+", text + "\n", re.MULTILINE)
    return [
        [[cell.strip() for cell in line.strip("|\n").split("|")] for line in block.splitlines() if "|---" not in line]
        for block in blocks
    ]


def threats(text: str) -> list[tuple[str, str]]:
    """What is threatened and the last cell, of each row of each table of threats."""
    found = []
    for head, *rows in tables(text):
        if head[0] == "threat":
            assert head[-1] == LAST, head
            for row in rows:
                assert len(row) == len(head), row
                found.append((row[0], row[-1]))
    return found


@cache
def functions(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


def problems(cell: str) -> list[str]:
    """What is wrong with the last cell of a row."""
    named = [name for name in re.findall(r"`([^`]+)`", cell) if ".py" in name]
    found = [f"{name} is no path from the top" for name in named if not name.startswith("tests/")]
    for name in (name for name in named if name.startswith("tests/")):
        path, _, function = name.partition("::")
        if not (ROOT / path).is_file():
            found.append(f"{path} does not exist")
        elif function and function.partition("[")[0] not in functions(path):
            found.append(f"{path} has no function {function}")
        elif not function and not any(each.startswith("test_") for each in functions(path)):
            found.append(f"{path} has no test")
    if not named and not NO_TEST.search(cell):
        found.append("it names no test, nor why there is none (no test: ...)")
    return found


THREATS = threats(TEXT)


def test_the_page_has_its_tables():
    assert len(THREATS) > 50
    assert sum("no test:" in cell for _, cell in THREATS) < len(THREATS) // 5
    assert len({threat for threat, _ in THREATS}) == len(THREATS)


@pytest.mark.parametrize(("threat", "cell"), THREATS, ids=[threat[:50] for threat, _ in THREATS])
def test_a_threat_names_its_tests(threat, cell):
    assert threat
    assert problems(cell) == []


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("", "it names no test"),
        ("no test:", "it names no test"),
        ("nobody knows", "it names no test"),
        ("`test_attacks.py`", "no path from the top"),
        ("`tests/device/test_nothing.py`", "does not exist"),
        ("`tests/device/test_attacks.py::test_nothing`", "has no function test_nothing"),
        ("`tests/device/fleet.py`", "has no test"),
        ("`tests/device/test_attacks.py`, `tests/device/nothing.py`", "nothing.py does not exist"),
    ],
)
def test_a_wrong_cell_is_found(cell, says):
    (found,) = problems(cell)
    assert says in found


def test_a_row_without_a_cell_is_found():
    with pytest.raises(AssertionError):
        threats("| threat | happens | shown in |\n|---|---|---|\n| a | b |\n")
    with pytest.raises(AssertionError):
        threats("| threat | happens |\n|---|---|\n| a | b |\n")
