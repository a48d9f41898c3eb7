"""The error tree: as documented, and a missing dependency is answered by a sentence."""

from __future__ import annotations

import inspect
import re

import pytest

from seedcnn import errors
from seedcnn.errors import MissingExtraError, SeedCNNError, did_you_mean, missing_extra

CLASSES = {name: value for name, value in vars(errors).items() if inspect.isclass(value)}


def _documented_tree() -> dict[str, str]:
    parents: dict[str, str] = {}
    path: list[str] = []
    for line in errors.__doc__.splitlines():
        match = re.fullmatch(r"    ([ │├└─]*)(\w+Error)\b.*", line)
        if match:
            depth = len(match[1]) // 4
            path = [*path[:depth], match[2]]
            parents[match[2]] = path[-2] if depth else "Exception"
    return parents


def test_the_docstring_shows_the_tree_that_is_there():
    assert _documented_tree() == {name: cls.__bases__[0].__name__ for name, cls in CLASSES.items()}


def test_every_error_is_exported_and_says_what_it_means():
    assert set(CLASSES) <= set(errors.__all__)
    for cls in CLASSES.values():
        assert issubclass(cls, SeedCNNError)
        assert (cls.__doc__ or "").strip().endswith(".")


@pytest.mark.parametrize(
    ("module", "extra"), [("tuf.ngclient", "agent"), ("numpy", "device"), ("torch.nn", "torch"), ("timm", "train")]
)
def test_a_missing_dependency_names_its_extra(module, extra):
    error = missing_extra(ModuleNotFoundError(f"No module named {module!r}", name=module))
    assert isinstance(error, MissingExtraError)
    assert isinstance(error, ImportError)
    assert module.split(".")[0] in str(error)
    assert f"pip install 'seedcnn[{extra}]'" in str(error)


@pytest.mark.parametrize("error", [ModuleNotFoundError("x", name="no_such_module"), ModuleNotFoundError("nameless")])
def test_an_unknown_module_is_a_defect_and_not_an_extra(error):
    assert missing_extra(error) is None


def test_near_names_end_up_in_a_message():
    assert did_you_mean("ghots", ["ghost", "mono", "groupnl"]) == "did you mean ghost? "
    assert did_you_mean("epoch", ["epochs", "epoch_1", "batch"]) == "did you mean epochs, epoch_1? "
    assert did_you_mean("epoch", ["epochs", "epoch_1"], count=1) == "did you mean epochs? "
    assert did_you_mean(3, ["ghost"]) == ""
