"""The recipes that come with seedcnn, listed from an index, so that no recipe file is executed and nothing is imported.

The index is ``index.json`` beside the recipe files; ``tools/recipe_index.py`` writes it. Recipes themselves are run by
``seedcnn.train.recipes``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import seedcnn
from seedcnn.errors import ConfigError, DataError, did_you_mean

__all__ = ["INDEX", "RecipeFile", "list_recipe_files", "list_recipes", "read_index", "recipe_directory", "unknown_file"]

INDEX = "index.json"
"""Name of the index in :func:`recipe_directory`."""


@dataclass(frozen=True)
class RecipeFile:
    """A file of recipes.

    Attributes:
        about: the first line of the file's docstring.
        table: whether it is a table of a paper, whose printed values it holds.
        recipes: name of a function -> the first line of its docstring, in the file's order.
    """

    about: str
    table: bool
    recipes: Mapping[str, str]


def recipe_directory() -> Path:
    """The directory of the recipe files: beside the package in a checkout, inside it when installed."""
    package = Path(seedcnn.__file__).parent
    installed = package / "_recipes"
    return installed if installed.is_dir() else package.parent / "recipes"


def read_index(path: Path) -> dict[str, RecipeFile]:
    """The recipe files of an index, by name.

    Raises:
        DataError: if the index is missing or damaged.
    """
    try:
        found = json.loads(path.read_text("utf-8"))
        return {
            name: RecipeFile(str(each["about"]), bool(each["table"]), dict(each["recipes"]))
            for name, each in found.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise DataError(f"the index of recipes {path} cannot be read ({reason}); install seedcnn again") from error


def list_recipe_files() -> dict[str, RecipeFile]:
    """The files that come with seedcnn by name, most of them a table of a paper, in alphabetical order.

    Raises:
        DataError: if the index is missing or damaged.
    """
    return read_index(recipe_directory() / INDEX)


def unknown_file(name: str) -> ConfigError:
    """The error for a file that does not come with seedcnn; near names are listed."""
    known = list(list_recipe_files())
    return ConfigError(f"unknown table {name!r}; {did_you_mean(name, known)}tables: {', '.join(known)}")


def list_recipes(pattern: str = "", table: str = "") -> dict[str, str]:
    """The recipes that come with seedcnn: "file:function" -> first line of its docstring.

    Args:
        pattern: list only recipes with this in their name, in upper or lower case.
        table: list only recipes of this file.

    Raises:
        ConfigError: if there is no such file, or no recipe has the pattern in its name; near names are listed.
        DataError: if the index is missing or damaged.
    """
    files = list_recipe_files()
    if table and table not in files:
        raise unknown_file(table)
    every = {
        f"{file}:{name}": about
        for file, each in files.items()
        if table in ("", file)
        for name, about in each.recipes.items()
    }
    found = {name: about for name, about in every.items() if pattern.lower() in name.lower()}
    if not found:
        words = {word for name in every for word in (name, *name.split(":"), *re.split("[:_]", name))}
        where, option = (f" of {table}", f"--table {table}") if table else ("", "--all")
        raise ConfigError(
            f"no recipe{where} has {pattern!r} in its name; {did_you_mean(pattern.lower(), sorted(words))}"
            f"`seedcnn recipes {option}` lists all {len(every)}"
        )
    return found
