"""Networks of the user: a callable in a file or in a module that returns one."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from seedcnn.convert.plugins import place_in_plugin
from seedcnn.errors import ConfigError, SeedCNNError, did_you_mean

__all__ = ["call_of", "file_of", "is_own", "model_name", "own_code_named", "own_network", "sha256_of", "takes"]

_FILES: set[Path] = set()  # of networks that were loaded


def is_own(name: str) -> bool:
    """Return whether a name is FILE.py:CALLABLE or package.module:CALLABLE."""
    where, colon, call = name.rpartition(":")
    return bool(colon and where and call.isidentifier())


def model_name(name: str) -> str:
    """Return what a network is called in a bundle: its name, or that of its callable without the file."""
    return name.rpartition(":")[2] if is_own(name) else name


def file_of(name: str) -> Path | None:
    """Return the file of FILE.py:CALLABLE; None for package.module:CALLABLE."""
    where = name.rpartition(":")[0]
    return Path(where) if where.endswith(".py") else None


def sha256_of(name: str) -> str:
    """Return the SHA-256 of the file that holds the callable.

    Raises:
        ConfigError: if there is no such file, or the module has none.
    """
    path = file_of(name)
    if path is None:
        found = getattr(_module(name), "__file__", None)
        if found is None:
            raise ConfigError(f"{name}: the module has no file")
        path = Path(found)
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None


def _module(name: str) -> ModuleType:
    where = name.rpartition(":")[0]
    path = file_of(name)
    try:
        if path is None:
            sys.path.insert(0, "")
            try:
                found = importlib.import_module(where)
                _FILES.update(map(Path, filter(None, [getattr(found, "__file__", None)])))
                return found
            finally:
                sys.path.remove("")
        spec = importlib.util.spec_from_file_location(f"seedcnn_own_{path.stem}", path)
        if not path.is_file() or spec is None or spec.loader is None:
            raise ConfigError(f"there is no file {path}")
        _FILES.update((path, path.absolute()))
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses and pickles look their module up
        spec.loader.exec_module(module)
    except ConfigError:
        raise
    except SyntaxError as error:
        line = "" if error.lineno is None else f" (line {error.lineno})"
        raise ConfigError(f"{where} is not valid Python: {error.msg}{line}") from None
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        raise ConfigError(f"{where} cannot be run: {type(error).__name__}: {_sentence(error)}") from error
    return module


def _sentence(error: BaseException) -> str:
    return " ".join(str(error).split()) or "no reason given"


@contextmanager
def own_code_named() -> Iterator[None]:
    """Name file, line and function where a network of the user made something fail.

    Raises:
        ConfigError: instead of an error that is not one of this library's, and of ``SystemExit``.
    """
    try:
        yield
    except SeedCNNError:
        raise
    except (Exception, SystemExit) as error:
        place = place_in_plugin(error, *_FILES) if _FILES else None
        if place is None:
            raise
        raise ConfigError(f"{place}: {type(error).__name__}: {_sentence(error)}") from error


def call_of(name: str) -> Callable[..., Any]:
    """Return the callable of a name.

    Raises:
        ConfigError: if the file or module cannot be run, or has nothing of that name that can be called.
    """
    module, call = _module(name), name.rpartition(":")[2]
    found = getattr(module, call, None)
    if isinstance(found, nn.Module):
        raise ConfigError(f"{name} is a network already; name a class or function that returns one")
    if not callable(found):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        hint = did_you_mean(call, known)
        raise ConfigError(f"{name}: there is nothing to call by the name {call}; {hint}".rstrip("; "))
    return found  # type: ignore[no-any-return]


def takes(call: Callable[..., Any], argument: str) -> bool:
    """Return whether a callable has an argument of this name, or takes any."""
    try:
        parameters = inspect.signature(call).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(p.name == argument or p.kind is p.VAR_KEYWORD for p in parameters)


def own_network(name: str, options: Mapping[str, Any] | None = None) -> nn.Module:
    """Build a network of the user.

    Args:
        name: FILE.py:CALLABLE, or package.module:CALLABLE; the working directory is searched first.
        options: keyword arguments of the callable.

    Raises:
        ConfigError: if the file or module cannot be run, there is no such callable, it fails with these options, or it
            returns no ``nn.Module``.
    """
    call = call_of(name)
    try:
        model = call(**(options or {}))
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        given = ", ".join(f"{key}={value!r}" for key, value in (options or {}).items())
        raise ConfigError(f"{name} fails with ({given}): {type(error).__name__}: {_sentence(error)}") from error
    if not isinstance(model, nn.Module):
        raise ConfigError(f"{name} returns {type(model).__name__}; it must return an nn.Module")
    return model
