"""Find recipes: Python functions that return a :class:`seedcnn.train.TrainConfig`."""

from __future__ import annotations

import importlib.util
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import seedcnn
from seedcnn.errors import ConfigError, did_you_mean
from seedcnn.train.config import TrainConfig

__all__ = ["define", "expected", "find_recipe", "list_recipe_files", "list_recipes", "recipe_directory"]

Recipe = Callable[[], TrainConfig]


def define(namespace: dict[str, Any], name: str, make: Recipe, doc: str) -> None:
    """Add a recipe to a recipe file whose rows come from a table of figures.

    Args:
        namespace: the file's ``globals()``.
        name: of the function.
        make: called without arguments for the config.
        doc: the docstring; its first line is what ``seedcnn recipes`` lists.

    Raises:
        ConfigError: if the name cannot be a function's, is taken, or there is no docstring.
    """
    if not name.isidentifier() or name.startswith("_"):
        raise ConfigError(f"recipe {name!r}: the name must be one of a Python function, without _ at its beginning")
    if name in namespace:
        raise ConfigError(f"recipe {name!r} is defined twice")
    if not doc.strip():
        raise ConfigError(f"recipe {name!r} must have a docstring")

    def recipe() -> TrainConfig:
        return make()

    recipe.__name__ = recipe.__qualname__ = name
    recipe.__module__, recipe.__doc__ = namespace["__name__"], doc
    namespace[name] = recipe


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


def _recipes(module: ModuleType) -> dict[str, Recipe]:
    return {
        name: value
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
    }


def _file(name: str) -> Path:
    """A file that comes with seedcnn; raises ConfigError with near names if there is none."""
    path = recipe_directory() / f"{name}.py"
    if not path.is_file():
        known = sorted(each.stem for each in recipe_directory().glob("*.py"))
        raise ConfigError(f"unknown table {name!r}; {did_you_mean(name, known)}tables: {', '.join(known)}")
    return path


def _summary(thing: Any) -> str:
    return (inspect.getdoc(thing) or "").split("\n")[0]


def expected(file: str) -> dict[str, dict[str, float]]:
    """What the paper prints for each recipe of a file, by quantity ("top1" in percent, "params_M", ...).

    Args:
        file: name of a recipe file that comes with seedcnn, without ".py".

    Returns:
        By function name; empty for a file that is no table of a paper.

    Raises:
        ConfigError: if there is no such file; near names are listed.
    """
    found: dict[str, dict[str, float]] = getattr(_module(_file(file)), "EXPECTED", {})
    return found


def list_recipe_files() -> dict[str, tuple[str, int]]:
    """The files that come with seedcnn, most of them a table of a paper: name -> (first line, number of recipes)."""
    found = {}
    for path in sorted(recipe_directory().glob("*.py")):
        module = _module(path)
        found[path.stem] = (_summary(module), len(_recipes(module)))
    return found


def list_recipes(pattern: str = "", table: str = "") -> dict[str, str]:
    """The recipes that come with seedcnn: "file:function" -> first line of its docstring.

    Args:
        pattern: only those that have it in their name; upper and lower case are the same.
        table: only those of this file.

    Raises:
        ConfigError: if there is no such file, or no recipe has the pattern in its name; near names are listed.
    """
    paths = [_file(table)] if table else sorted(recipe_directory().glob("*.py"))
    every = {
        f"{path.stem}:{name}": _summary(recipe) for path in paths for name, recipe in _recipes(_module(path)).items()
    }
    found = {name: summary for name, summary in every.items() if pattern.lower() in name.lower()}
    if not found:
        words = {word for name in every for word in (name, *name.split(":"), *re.split("[:_]", name))}
        where, option = (f" of {table}", f"--table {table}") if table else ("", "--all")
        raise ConfigError(
            f"no recipe{where} has {pattern!r} in its name; {did_you_mean(pattern.lower(), sorted(words))}"
            f"`seedcnn recipes {option}` lists all {len(every)}"
        )
    return found


def find_recipe(name: str) -> TrainConfig:
    """The config of a recipe.

    Args:
        name: "file:function" of a recipe that comes with seedcnn, or "path/to/file.py:function".

    Raises:
        ConfigError: if there is none of that name (near names are listed), or it gives no config.
    """
    where, colon, function = name.rpartition(":")
    path = Path(where) if where.endswith(".py") else recipe_directory() / f"{where}.py"
    if not colon or not path.is_file():
        known = list(list_recipes())
        raise ConfigError(
            f"unknown recipe {name!r}; {did_you_mean(name, known)}`seedcnn recipes --all` lists all {len(known)}; "
            "or give FILE.py:FUNCTION"
        )
    recipes = _recipes(_module(path))
    if not recipes:
        raise ConfigError(f"{path} has no recipe {function!r}, nor any other")
    if function not in recipes:
        hint = did_you_mean(function, recipes, 5) or f"it begins with {', '.join(list(recipes)[:5])}; "
        raise ConfigError(f"{path} has no recipe {function!r}; {hint}it has {len(recipes)}")
    config = recipes[function]()
    if not isinstance(config, TrainConfig):
        raise ConfigError(f"recipe {name!r} gives a {type(config).__name__}; it must be a TrainConfig")
    return config
