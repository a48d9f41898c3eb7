"""Finding, listing and defining recipes."""

from __future__ import annotations

import inspect
import re

import pytest

from seedcnn.errors import ConfigError, DataError
from seedcnn.recipe_index import list_recipe_files, list_recipes, read_index, recipe_directory
from seedcnn.train import TrainConfig, find_recipe
from seedcnn.train.recipes import build_index, define, expected

FILE = '''
from seedcnn.train import TrainConfig
from seedcnn.train.recipes import define

def wrong() -> dict:
    """No config."""
    return {}

for _epochs in (1, 2):
    define(globals(), f"epochs_{_epochs}", lambda _epochs=_epochs: TrainConfig("vgg11_cifar", epochs=_epochs), "Short.")
'''


def test_defined_recipes_are_functions_of_their_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    assert [find_recipe(f"{path}:epochs_{count}").epochs for count in (1, 2)] == [1, 2]
    with pytest.raises(ConfigError, match=r"has no recipe 'epoch_1'; did you mean epochs_1.*it has 3"):
        find_recipe(f"{path}:epoch_1")
    with pytest.raises(ConfigError, match=r"mine.py:wrong' returns a dict; it must return a TrainConfig"):
        find_recipe(f"{path}:wrong")
    path.write_text("")
    with pytest.raises(ConfigError, match=r"has no recipe 'run', and no other"):
        find_recipe(f"{path}:run")


def test_define():
    namespace = {"__name__": "table"}
    define(namespace, "row", lambda: TrainConfig("vgg11_cifar"), "A row.\n\n    Source: none.\n    ")
    row = namespace["row"]
    assert (row.__name__, row.__qualname__, row.__module__) == ("row", "row", "table")
    assert inspect.getdoc(row) == "A row.\n\nSource: none."
    assert row() == TrainConfig("vgg11_cifar")
    for name, doc, words in [
        ("row", "Again.", "'row' is defined twice"),
        ("r 4", "A row.", "'r 4': the name must be that of a Python function"),
        ("_row", "A row.", "'_row': the name must be"),
        ("other", " ", "'other' must have a docstring"),
    ]:
        with pytest.raises(ConfigError, match=words):
            define(namespace, name, row, doc)


def test_the_index_is_what_the_files_say():
    assert list_recipe_files() == build_index(), "run: make docs"


@pytest.mark.parametrize("text", [None, "{", "[]", '{"demo": {"about": "", "recipes": {}}}', '{"demo": "text"}'])
def test_a_damaged_index_is_named(tmp_path, text):
    path = tmp_path / "index.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(
        DataError, match=r"the index of recipes .*index\.json cannot be read \(\w+: .*install seedcnn again"
    ):
        read_index(path)


def test_the_wheel_holds_the_index():
    wheel = pytest.importorskip("hatchling.builders.wheel", reason="hatchling is not installed here")
    files = wheel.WheelBuilder(str(recipe_directory().parent)).recurse_included_files()
    assert {"seedcnn/_recipes/index.json", "seedcnn/_recipes/demo.py"} <= {file.distribution_path for file in files}


def test_the_readme_counts_the_recipes():
    text = (recipe_directory().parent / "README.md").read_text("utf-8")
    count = sum(len(file.recipes) for file in list_recipe_files().values() if file.table)
    assert re.findall(r"(\d+) recipes for the papers' tables", text) == [str(count)]


def test_lists():
    files, every = list_recipe_files(), list_recipes()
    assert set(files) == {path.stem for path in recipe_directory().glob("*.py")}
    assert sum(len(file.recipes) for file in files.values()) == len(every)
    assert files["groupnl_table6"].about.startswith("GroupNL, Table 6: five ways")
    assert all(file.about for file in files.values())
    assert [name for name, file in files.items() if not file.table] == ["demo", "resnet8"]
    some = list_recipes("VGG11_Mono")
    assert list(some) == [name for name in every if "vgg11_mono" in name]
    assert len(some) == 8
    assert list(list_recipes(table="groupnl_table1")) == [
        f"groupnl_table1:{method}" for method in ("vanilla", "mono", "ghost", "sinefm", "groupnl")
    ]
    assert list(list_recipes("l", "groupnl_table1")) == list(list_recipes(table="groupnl_table1"))


def test_near_names():
    with pytest.raises(ConfigError, match="no recipe has 'vgg19' in its name; did you mean vgg11"):
        list_recipes("vgg19")
    with pytest.raises(ConfigError, match="no recipe of groupnl_table1 has 'gost' in its name; did you mean ghost"):
        list_recipes("gost", "groupnl_table1")
    for call in (lambda: list_recipes(table="groupnl_tabel6"), lambda: expected("groupnl_tabel6")):
        with pytest.raises(ConfigError, match="unknown table 'groupnl_tabel6'; did you mean groupnl_table6"):
            call()
