"""Every third-party package that the library imports is installed by the extra that a user is told to install."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from seedcnn.errors import missing_extra

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def _imported() -> dict[str, str]:
    """{top-level module: a file that imports it} over the library, without the standard library and itself."""
    found: dict[str, str] = {}
    for path in [*(ROOT / "seedcnn").rglob("*.py"), *(ROOT / "recipes").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            else:
                continue
            found |= {name.split(".")[0]: str(path.relative_to(ROOT)) for name in names}
    # `compression` is in the standard library from Python 3.14.
    return {k: v for k, v in found.items() if k not in sys.stdlib_module_names | {"seedcnn", "recipes", "compression"}}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _requirement(text: str) -> tuple[str, list[str]]:
    match = re.match(r"([A-Za-z0-9._-]+)(?:\[([^\]]*)\])?", text)
    assert match
    return _normal(match[1]), (match[2] or "").replace(" ", "").split(",") if match[2] else []


def _installed_by(extra: str) -> set[str]:
    """The distributions that an extra brings, with what those need (platform markers are ignored)."""
    seen: set[str] = set()
    todo = [_requirement(text) for text in EXTRAS[extra]]
    while todo:
        name, extras = todo.pop()
        if name == "seedcnn":
            todo += [_requirement(text) for item in extras for text in EXTRAS[item]]
            continue
        if name in seen:
            continue
        seen.add(name)
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        wanted = [
            text
            for text in needs
            if "extra ==" not in text or any(re.search(f"['\"]{item}['\"]", text) for item in extras)
        ]
        todo += [_requirement(text) for text in wanted]
    return seen


@pytest.mark.parametrize("module", sorted(_imported()))
def test_an_imported_package_belongs_to_the_extra_that_is_named(module):
    error = missing_extra(ModuleNotFoundError(name=module))
    assert error is not None, f"{module} (imported in {_imported()[module]}) has no entry in errors.missing_extra"
    match = re.search(r"seedcnn\[(\w+)\]", str(error))
    assert match
    distributions = {_normal(name) for name in metadata.packages_distributions().get(module, [])}
    if not distributions:
        pytest.skip(f"{module} is not installed here")
    assert distributions & _installed_by(match[1]), f"{module} does not come with seedcnn[{match[1]}]"


def test_the_base_has_no_dependency():
    assert PROJECT["dependencies"] == []


def test_every_extra_that_names_another_names_one_that_exists():
    for texts in EXTRAS.values():
        for name, extras in map(_requirement, texts):
            assert name != "seedcnn" or set(extras) <= set(EXTRAS)
    assert {"agent", "device", "server", "torch", "train", "dev", "all"} <= set(EXTRAS)
