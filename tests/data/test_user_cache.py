"""Users without a home directory, and homes that cannot be written: a sentence, and only where the cache is needed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from seedcnn.data.user_cache import user_cache

NOBODY = ["unshare", "-U", "--map-user=54321"]
CALLS = """
import importlib, pkgutil, seedcnn
for module in pkgutil.walk_packages(seedcnn.__path__, "seedcnn."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
from seedcnn.data.corruptions import frost_cache
from seedcnn.data.corruptions.frost import frost_pictures
from seedcnn.data.sets.cifar10 import load_cifar10
from seedcnn.data.sets.icons50_rebuilt import load_icons50_rebuilt
from seedcnn.errors import SeedCNNError
from seedcnn.runtime.custom_op import built
for call in (
    lambda: load_cifar10("/nowhere"),
    load_cifar10,
    load_icons50_rebuilt,
    lambda: frost_pictures(None, shrink=5, height=32, width=32),
    built,
):
    try:
        call()
        print("no error")
    except SeedCNNError as error:
        print(" ".join(str(error).split()))
"""


def answers(environment: dict[str, str], prefix: list[str]) -> list[str]:
    dropped = {"HOME", "XDG_CACHE_HOME", "USER", "LOGNAME", "LNAME", "USERNAME"}
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    line = [*prefix, sys.executable, "-c", CALLS]
    done = subprocess.run(line, env={**kept, **environment}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_user_without_home_and_name():
    """An arbitrary user id, as in many a container."""
    if subprocess.run([*NOBODY, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("user namespaces are not allowed here")
    given, *others = answers({}, NOBODY)
    assert "nowhere" in given
    assert "cache" not in given
    assert len(others) == 4
    for text, part in zip(others, ("cifar10", "icons50", "frost", "the operator"), strict=True):
        assert f"there is no cache directory for {part}: the user has no home directory, and neither HOME nor" in text


def test_a_home_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    given, *others = answers({"HOME": str(tmp_path / "file")}, [])
    assert "nowhere" in given
    for text, words in zip(others, ("cifar10", "icons50", "frost", "group_nl"), strict=True):
        assert words in text
        assert "cannot be" in text
        assert "Not a directory" in text


def test_the_environment_chooses(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert user_cache("frost") == Path("/somewhere/seedcnn/frost")
