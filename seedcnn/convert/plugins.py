"""Third-party methods: users' files, and packages that declare the entry point group "seedcnn.methods"."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from traceback import walk_tb

from seedcnn.errors import ConfigError, SeedCNNError
from seedcnn.layers.families import FAMILIES, Family

__all__ = ["GROUP", "Plugin", "families", "load_plugin", "loaded_plugins", "place_in_plugin", "plugins_named"]

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


def place_in_plugin(error: BaseException, *files: Path) -> str | None:
    """Name the innermost line of a plugin that an error, or one that led to it, came through: file, line, function.

    Args:
        error: as it was caught.
        files: plugins that are still being loaded.

    Returns:
        Such as "own.py, line 12, in OwnConv2d.forward", or None if no plugin had a part in it.
    """
    plugins = {str(path) for path in (*_LOADED, *files)}
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        if isinstance(found, SyntaxError) and found.filename in plugins:
            return f"{Path(found.filename).name}, line {found.lineno}"
        frames = [(frame.f_code, line) for frame, line in walk_tb(found.__traceback__)]
        for code, line in reversed(frames):
            if code.co_filename in plugins:
                where = "" if code.co_name == "<module>" else f", in {code.co_qualname}"
                return f"{Path(code.co_filename).name}, line {line}{where}"
        found = found.__cause__ or found.__context__
    return None


def in_words(error: BaseException) -> str:
    """Describe an error that a plugin raised: its kind and its message."""
    if isinstance(error, SystemExit):
        return "it ends the process (SystemExit), which a plugin must not do"
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


@contextmanager
def plugins_named() -> Iterator[None]:
    """Name file, line and function where a plugin's code made something fail.

    Raises:
        ConfigError: instead of an error that is not one of this library's, and of ``SystemExit``.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        place = place_in_plugin(error)
        if place is None:
            raise
        if not isinstance(error, SeedCNNError):
            raise ConfigError(f"plugin {place}: {in_words(error)}") from error
        if place not in str(error):
            error.args = (f"{error} (plugin {place})",)
        raise


@cache
def _load_entry_points() -> None:
    for entry in metadata.entry_points(group=GROUP):
        try:
            entry.load()
        except (Exception, SystemExit) as error:  # another package's code may raise anything
            raise ConfigError(
                f"the method {entry.name!r} of {entry.value} cannot be loaded: {in_words(error)}"
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
    if not str(file):
        raise ConfigError(f"plugin {str(file)!r} names no file; it must be the path of a Python file")
    path = Path(file).resolve()
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(f"plugin {file} cannot be read: {error.strerror}") from None
    if path in _LOADED:
        if _LOADED[path].sha256 != digest:
            raise ConfigError(f"plugin {file} has changed since it was loaded; start a new process")
        return _LOADED[path]
    name = f"seedcnn_plugin_{path.stem}_{hashlib.sha256(bytes(path)).hexdigest()[:8]}"  # stems repeat
    spec = spec_from_file_location(name, path)
    if path.suffix != ".py" or spec is None or spec.loader is None:
        raise ConfigError(f"plugin {file} is not a Python file; its name must end with .py")
    before = set(families())
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look up their module
    try:
        spec.loader.exec_module(module)
        if not set(FAMILIES) - before:
            raise ConfigError("it registers no method; it must call seedcnn.convert.register")
    except BaseException as error:
        sys.modules.pop(name, None)
        for added in set(FAMILIES) - before:
            del FAMILIES[added]
        if not isinstance(error, (Exception, SystemExit)):
            raise
        said = str(error) if isinstance(error, ConfigError) else in_words(error)
        place = (place_in_plugin(error, path) or path.name).removeprefix(path.name)  # ", line 3"
        raise ConfigError(f"plugin {file}{place}: {said}") from error
    _LOADED[path] = Plugin(path.name, digest, tuple(each for each in FAMILIES if each not in before))
    return _LOADED[path]
