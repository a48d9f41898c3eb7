"""Third-party methods: users' files, and packages that declare the entry point group "seedcnn.methods"."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from seedcnn.errors import ConfigError
from seedcnn.layers.families import FAMILIES, Family

__all__ = ["GROUP", "Plugin", "families", "load_plugin", "loaded_plugins"]

GROUP = "seedcnn.methods"
"""Entry point group: each entry names a module whose import registers methods."""


@dataclass(frozen=True)
class Plugin:
    """A file that registered methods.

    Attributes:
        name: the file's name.
        sha256: SHA-256 of its content, in hexadecimal.
        methods: names that it registered.
    """

    name: str
    sha256: str
    methods: tuple[str, ...]


_LOADED: dict[Path, Plugin] = {}


@cache
def _load_entry_points() -> None:
    for entry in metadata.entry_points(group=GROUP):
        try:
            entry.load()
        except Exception as error:  # another package's code may raise anything
            raise ConfigError(
                f"the method {entry.name!r} of {entry.value} cannot be loaded: {type(error).__name__}: {error}"
            ) from error


def families() -> Mapping[str, Family]:
    """Return all registered families by name, including those of installed packages.

    Raises:
        ConfigError: if an installed package's method cannot be loaded.
    """
    _load_entry_points()
    return FAMILIES


def loaded_plugins(methods: Iterable[str] | None = None) -> tuple[Plugin, ...]:
    """Return the files that :func:`load_plugin` ran; with ``methods``, only those that registered one of them."""
    wanted = None if methods is None else set(methods)
    return tuple(each for each in _LOADED.values() if wanted is None or wanted & set(each.methods))


def load_plugin(file: str | Path) -> Plugin:
    """Run a Python file that registers methods with :func:`seedcnn.convert.register`; each file runs once.

    The file runs with all rights of this process, like any Python module.

    Raises:
        ConfigError: if the file does not exist, fails, registers nothing, or has changed since it ran.
    """
    path = Path(file).resolve()
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(f"plugin {file} cannot be read: {error.strerror}") from None
    if path in _LOADED:
        if _LOADED[path].sha256 != digest:
            raise ConfigError(f"plugin {file} has changed since it was loaded; start a new process")
        return _LOADED[path]
    name = f"seedcnn_plugin_{path.stem}"
    spec = spec_from_file_location(name, path)
    if path.suffix != ".py" or spec is None or spec.loader is None:
        raise ConfigError(f"plugin {file} is not a Python file; its name must end with .py")
    before = set(families())
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look up their module
    try:
        spec.loader.exec_module(module)
        if not set(FAMILIES) - before:
            raise ConfigError(f"plugin {file} registers no method; it must call seedcnn.convert.register")
    except BaseException as error:
        sys.modules.pop(name, None)
        for added in set(FAMILIES) - before:
            del FAMILIES[added]
        if isinstance(error, Exception) and not isinstance(error, ConfigError):
            raise ConfigError(f"plugin {file} failed: {type(error).__name__}: {error}") from error
        raise
    _LOADED[path] = Plugin(path.name, digest, tuple(each for each in FAMILIES if each not in before))
    return _LOADED[path]
