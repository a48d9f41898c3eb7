"""Run recipes: Python functions that return a :class:`seedcnn.train.TrainConfig`."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from seedcnn.errors import ConfigError, did_you_mean
from seedcnn.recipe_index import RecipeFile, list_recipes, recipe_directory, unknown_file
from seedcnn.train.config import TrainConfig

__all__ = ["build_index", "define", "expected", "find_recipe"]

Recipe = Callable[[], TrainConfig]


def define(namespace: dict[str, Any], name: str, make: Recipe, doc: str) -> None:
    """Add a recipe to a recipe file that generates its recipes from a table of figures.

    Args:
        namespace: the ``globals()`` of the file.
        name: name of the function.
        make: returns the config; called without arguments.
        doc: the docstring; ``seedcnn recipes`` lists its first line.

    Raises:
        ConfigError: if the name is not a valid function name or is taken, or there is no docstring.
    """
    if not name.isidentifier() or name.startswith("_"):
        raise ConfigError(f"recipe {name!r}: the name must be that of a Python function, and not start with _")
    if name in namespace:
        raise ConfigError(f"recipe {name!r} is defined twice")
    if not doc.strip():
        raise ConfigError(f"recipe {name!r} must have a docstring")

    def recipe() -> TrainConfig:
        return make()

    recipe.__name__ = recipe.__qualname__ = name
    recipe.__module__, recipe.__doc__ = namespace["__name__"], doc
    namespace[name] = recipe


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"seedcnn_recipe_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _recipes(module: ModuleType) -> dict[str, Recipe]:
    return {
        name: value
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
    }


def _summary(thing: Any) -> str:
    return (inspect.getdoc(thing) or "").split("\n")[0]


def expected(file: str) -> dict[str, dict[str, float]]:
    """The printed values of the paper for each recipe of a file.

    Args:
        file: name of a recipe file that comes with seedcnn, without ".py".

    Returns:
        Name of the function -> quantity ("top1" in percent, "params_M", ...) -> value; empty for a file that is not a
        table of a paper.

    Raises:
        ConfigError: if there is no such file; near names are listed.
    """
    path = recipe_directory() / f"{file}.py"
    if not path.is_file():
        raise unknown_file(file)
    found: dict[str, dict[str, float]] = getattr(_module(path), "EXPECTED", {})
    return found


def build_index() -> dict[str, RecipeFile]:
    """The index of all recipes, made by executing every recipe file; its copy is ``recipes/index.json``."""
    found = {}
    for path in sorted(recipe_directory().glob("*.py")):
        module = _module(path)
        recipes = {name: _summary(recipe) for name, recipe in _recipes(module).items()}
        found[path.stem] = RecipeFile(_summary(module), bool(getattr(module, "EXPECTED", {})), recipes)
    return found


def find_recipe(name: str) -> TrainConfig:
    """Run a recipe, and return its config.

    Args:
        name: "file:function" of a recipe that comes with seedcnn, or "path/to/file.py:function".

    Raises:
        ConfigError: if there is no recipe of that name (near names are listed), or it does not return a config.
        DataError: if there is no such file, and the index of recipes is missing or damaged.
    """
    where, colon, function = name.rpartition(":")
    path = Path(where) if where.endswith(".py") else recipe_directory() / f"{where}.py"
    if not colon or not path.is_file():
        known = list(list_recipes())
        raise ConfigError(
            f"unknown recipe {name!r}; {did_you_mean(name, known)}`seedcnn recipes --all` lists all {len(known)}; "
            "or use FILE.py:FUNCTION"
        )
    recipes = _recipes(_module(path))
    if not recipes:
        raise ConfigError(f"{path} has no recipe {function!r}, and no other recipe")
    if function not in recipes:
        hint = did_you_mean(function, recipes, 5) or f"it begins with {', '.join(list(recipes)[:5])}; "
        raise ConfigError(f"{path} has no recipe {function!r}; {hint}it has {len(recipes)}")
    config = recipes[function]()
    if not isinstance(config, TrainConfig):
        raise ConfigError(f"recipe {name!r} returns a {type(config).__name__}; it must return a TrainConfig")
    return config
