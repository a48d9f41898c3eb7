"""A walk through what the attributes of modules hold besides registered parts, which exchanges or copies it."""

from __future__ import annotations

import copy
import functools
import types
from collections import deque
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

__all__ = ["Copying", "Exchange", "exchange_attributes"]

_OWN = {"_parameters", "_buffers", "_modules"}  # what named_modules and state_dict see
_DEPTH, _MOST = 8, 50_000  # how deep, and how many objects, attributes are searched
_ATOMS = (str, bytes, int, float, complex, bool, type(None), type, types.ModuleType, torch.Tensor)


def exchange_attributes(model: nn.Module, exchange: Exchange) -> None:
    """Let the attributes of a model's modules hold what ``exchange`` answers; registered places are not touched."""
    for module in list(model.modules()):
        for key, value in list(vars(module).items()):
            if key not in _OWN and not key.endswith("_hooks"):
                found = exchange.of(value)
                if found is not value:
                    vars(module)[key] = found


class Exchange:
    """One walk through what attributes hold; containers change in place where they can."""

    def __init__(self, new_of: Mapping[int, nn.Module], known: set[int]) -> None:
        self.new_of, self.seen = new_of, set(known)
        self.alive: list[Any] = []  # so that no address is used twice

    def of(self, value: Any, depth: int = 0) -> Any:
        """Return the value to hold instead of ``value``; containers that can change stay and change inside."""
        if id(value) in self.new_of:
            return self.new_of[id(value)]
        if depth > _DEPTH or len(self.seen) > _MOST or id(value) in self.seen or isinstance(value, _ATOMS):
            return value
        self.seen.add(id(value))
        self.alive.append(value)
        return self._inside(value, depth + 1)

    def _inside(self, value: Any, depth: int) -> Any:
        if isinstance(value, dict):
            self._items(value, list(value.items()), depth)
        elif isinstance(value, list | deque):
            self._items(value, list(enumerate(value)), depth)
        elif isinstance(value, set):
            changed = [(each, new) for each in value if (new := self.of(each, depth)) is not each]
            value.difference_update(each for each, _ in changed)
            value.update(new for _, new in changed)
        elif isinstance(value, tuple | frozenset):
            parts = [self.of(each, depth) for each in value]
            if any(new is not each for new, each in zip(parts, value, strict=True)):
                return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
        elif isinstance(value, functools.partial):
            return self._partial(value, depth)
        elif isinstance(value, types.MethodType):
            owner = self.of(value.__self__, depth)
            return value if owner is value.__self__ else getattr(owner, value.__name__, value)
        elif isinstance(value, types.FunctionType):
            return self._function(value, depth)
        else:
            self._items(getattr(value, "__dict__", {}), list(getattr(value, "__dict__", {}).items()), depth)
        return value

    def _items(self, container: Any, items: list[tuple[Any, Any]], depth: int) -> None:
        for key, each in items:
            if (new := self.of(each, depth)) is not each:
                container[key] = new

    def _partial(self, value: functools.partial[Any], depth: int) -> Any:
        func = self.of(value.func, depth)
        args = [self.of(each, depth) for each in value.args]
        keywords = {key: self.of(each, depth) for key, each in value.keywords.items()}
        olds, news = [value.func, *value.args, *value.keywords.values()], [func, *args, *keywords.values()]
        changed = any(new is not old for new, old in zip(news, olds, strict=True))
        return functools.partial(func, *args, **keywords) if changed else value

    def _function(self, value: types.FunctionType, depth: int) -> Any:
        for cell in value.__closure__ or ():
            try:
                each = cell.cell_contents
            except ValueError:  # not filled yet
                continue
            if (new := self.of(each, depth)) is not each:
                cell.cell_contents = new
        if value.__defaults__:
            value.__defaults__ = tuple(self.of(each, depth) for each in value.__defaults__)
        return value


class Copying(Exchange):
    """The walk after a ``copy.deepcopy``, which leaves functions alone: they are copied with what they close over.

    Args:
        memo: of that copy; functions that close over nothing in it stay as they are.
        known: ``id`` of the copied modules.
    """

    def __init__(self, memo: dict[int, Any], known: set[int]) -> None:
        super().__init__({}, known)
        self.new_of: dict[int, Any] = {}
        self.memo = memo

    def _function(self, value: types.FunctionType, depth: int) -> Any:
        cells = value.__closure__ or ()
        made = types.FunctionType(
            value.__code__, value.__globals__, value.__name__, None, tuple(types.CellType() for _ in cells)
        )
        self.new_of[id(value)] = made  # a function may close over itself
        held = [self._copied(cell, depth) for cell in cells]
        given = [self._contents(each, depth) for each in value.__defaults__ or ()]
        changed = [new is not old for old, new in [*held, *given]]
        if not any(changed):
            del self.new_of[id(value)]
            return value
        for cell, (_, new) in zip(made.__closure__ or (), held, strict=True):
            if new is not _EMPTY:
                cell.cell_contents = new
        made.__defaults__ = tuple(new for _, new in given) or None
        made.__kwdefaults__ = value.__kwdefaults__
        made.__qualname__, made.__module__ = value.__qualname__, value.__module__
        made.__dict__.update(value.__dict__)
        return made

    def _copied(self, cell: types.CellType, depth: int) -> tuple[Any, Any]:
        try:
            return self._contents(cell.cell_contents, depth)
        except ValueError:  # not filled yet
            return _EMPTY, _EMPTY

    def _contents(self, value: Any, depth: int) -> tuple[Any, Any]:
        return value, self.of(copy.deepcopy(value, self.memo), depth)


_EMPTY = object()
