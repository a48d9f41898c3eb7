"""Every exported name is there, and says what it is."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import pytest

import seedcnn

MODULES = ["seedcnn"] + [
    module.name
    for module in pkgutil.walk_packages(seedcnn.__path__, "seedcnn.")
    if not module.name.endswith("__main__") and not module.name.startswith("seedcnn._recipes")
]


def test_modules_are_discovered():
    assert {"seedcnn", "seedcnn.rng", "seedcnn.errors", "seedcnn.bundle", "seedcnn.bundle.reader"} <= set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_exported_names_exist_and_are_documented(name):
    module = importlib.import_module(name)
    assert (module.__doc__ or "").strip(), f"{name} has no docstring"
    exported = getattr(module, "__all__", [])
    assert len(set(exported)) == len(exported)
    for item in exported:
        value = getattr(module, item)
        if inspect.isclass(value) or inspect.isroutine(value):
            doc = (value.__doc__ or "").strip()
            # A dataclass without a docstring gets its signature as one.
            assert doc, f"{name}.{item} has no docstring"
            assert not doc.startswith(f"{item}("), f"{name}.{item} has no docstring"
