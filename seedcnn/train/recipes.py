"""Find recipes: Python functions that return a :class:`seedcnn.train.TrainConfig`."""

from __future__ import annotations

import difflib
import importlib.util
import inspect
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import seedcnn
from seedcnn.errors import ConfigError
from seedcnn.train.config import TrainConfig

__all__ = ["expected", "find_recipe", "list_recipes", "recipe_directory"]

Recipe = Callable[[], TrainConfig]


def recipe_directory() -> Path:
    """Where the recipes that come with seedcnn stand: beside the package in a checkout, inside it when installed."""
    package = Path(seedcnn.__file__).parent
    installed = package / "_recipes"
    return installed if installed.is_dir() else package.parent / "recipes"


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"seedcnn_recipe_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _load(path: Path) -> dict[str, Recipe]:
    module = _module(path)
    return {
        name: value
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
    }


def expected(file: str) -> dict[str, dict[str, float]]:
    """What the paper prints for each recipe of a file, by quantity ("top1" in percent, "params_M", ...).

    Args:
        file: name of a recipe file that comes with seedcnn, without ".py".

    Returns:
        By function name; empty for a file that is no table of a paper.
    """
    found: dict[str, dict[str, float]] = getattr(_module(recipe_directory() / f"{file}.py"), "EXPECTED", {})
    return found


def list_recipes() -> dict[str, str]:
    """The recipes that come with seedcnn: "file:function" -> first line of its docstring."""
    return {
        f"{path.stem}:{name}": (inspect.getdoc(recipe) or "").split("\n")[0]
        for path in sorted(recipe_directory().glob("*.py"))
        for name, recipe in _load(path).items()
    }


def find_recipe(name: str) -> TrainConfig:
    """The config of a recipe.

    Args:
        name: "file:function" of a recipe that comes with seedcnn, or "path/to/file.py:function".

    Raises:
        ConfigError: if there is none of that name; near names are listed.
    """
    where, colon, function = name.rpartition(":")
    path = Path(where) if where.endswith(".py") else recipe_directory() / f"{where}.py"
    if not colon or not path.is_file():
        known = list(list_recipes())
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        hint = f"did you mean {', '.join(near)}? " if near else ""
        raise ConfigError(
            f"unknown recipe {name!r}; {hint}`seedcnn recipes` lists all {len(known)}; or give FILE.py:FUNCTION"
        )
    recipes = _load(path)
    if function not in recipes:
        near = difflib.get_close_matches(function, recipes, n=5, cutoff=0.4) or list(recipes)[:5]
        raise ConfigError(f"{path} has no recipe {function!r}; did you mean {', '.join(near)}? It has {len(recipes)}")
    return recipes[function]()
