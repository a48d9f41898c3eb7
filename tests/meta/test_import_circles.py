"""The import graph of the library has no circle, imports for types and inside functions included."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _statements(node: ast.AST, *, types: bool, functions: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """The imports below a node: those of `if TYPE_CHECKING` and those inside functions only where they are wanted."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            yield from _statements(child, types=types, functions=functions) if types else ()
        elif functions or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _statements(child, types=types, functions=functions)


def _targets(statement: ast.Import | ast.ImportFrom, modules: set[str]) -> Iterator[str]:
    if isinstance(statement, ast.Import):
        yield from (alias.name for alias in statement.names if alias.name in modules)
        return
    assert statement.level == 0, ast.unparse(statement)
    for alias in statement.names:
        inner = f"{statement.module}.{alias.name}"
        if inner in modules:
            yield inner
        elif statement.module in modules:
            yield statement.module


def import_graph(package: Path, *, types: bool = True, functions: bool = False) -> dict[str, set[str]]:
    """{module: the modules of the package that it imports}.

    ``from package import name`` counts as an import of ``package.name`` where that is a module, else of the package.
    """
    paths = {_module_name(path, package.parent): path for path in sorted(package.rglob("*.py"))}
    return {
        name: {
            target
            for statement in _statements(ast.parse(path.read_text("utf-8")), types=types, functions=functions)
            for target in _targets(statement, set(paths))
        }
        for name, path in paths.items()
    }


def find_circle(graph: dict[str, set[str]]) -> list[str]:
    """The modules of one circle in order, the first one again at the end; empty if there is none."""
    done: set[str] = set()
    for start in graph:
        trail: list[str] = []
        todo = [iter([start])]
        while todo:
            name = next(todo[-1], None)
            if name is None:
                todo.pop()
                if trail:
                    done.add(trail.pop())
            elif name in trail:
                return [*trail[trail.index(name) :], name]
            elif name not in done:
                trail.append(name)
                todo.append(iter(sorted(graph[name])))
    return []


@pytest.fixture
def package(tmp_path):
    """Write modules of a package: ``package(a="import b", ...)`` and return the graph with the given options."""

    def make(types: bool = True, functions: bool = False, **sources: str) -> dict[str, set[str]]:
        (tmp_path / "pkg").mkdir(exist_ok=True)
        for name, text in {"__init__": "", **sources}.items():
            (tmp_path / "pkg" / f"{name}.py").write_text(text)
        return import_graph(tmp_path / "pkg", types=types, functions=functions)

    return make


@pytest.mark.parametrize("functions", [False, True], ids=["modules and types", "functions too"])
def test_the_library_has_no_circle(functions):
    graph = import_graph(ROOT / "seedcnn", functions=functions)
    assert len(graph) > 200
    assert "seedcnn.convert" in graph["seedcnn.train.config"]
    assert not find_circle(graph), " -> ".join(find_circle(graph))


def test_circles_are_found(package):
    graph = package(a="import pkg.b", b="from pkg import c", c="from pkg.a import x")
    assert find_circle(graph) == ["pkg.a", "pkg.b", "pkg.c", "pkg.a"]
    assert find_circle(package(a="from pkg.b import x", b="from pkg import x", __init__="from pkg.a import y"))
    assert not find_circle(package(a="from pkg.b import x", b="", c="import pkg.a", __init__="from pkg.a import y"))


def test_imports_for_types_and_inside_functions_count_apart(package):
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pkg.a import x"
    assert find_circle(package(a="import pkg.b", b=typed))
    assert not find_circle(package(types=False, a="import pkg.b", b=typed))
    later = "class B:\n    def run(self):\n        from pkg.a import x"
    assert not find_circle(package(a="import pkg.b", b=later))
    assert find_circle(package(functions=True, a="import pkg.b", b=later))
