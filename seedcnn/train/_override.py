"""``--set a.b=c`` on frozen configs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from seedcnn.convert import literal
from seedcnn.errors import ConfigError, did_you_mean

__all__ = ["override"]

_Config = TypeVar("_Config")


@dataclass(frozen=True)
class _Value:
    """What a field is set to, and the assignment that said so."""

    value: Any
    whole: str


def _tree(assignments: Iterable[str]) -> dict[str, Any]:
    """Assignments by field: a value, or the assignments to the fields of a field."""
    root: dict[str, Any] = {}
    for whole in assignments:
        path, equals, text = whole.partition("=")
        if not equals:
            raise ConfigError(f"--set {whole}: it must look like field=value")
        *parents, name = path.split(".")
        node = root
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ConfigError(f"--set {whole}: {parent} is set as a whole, too ({node.whole})")
        if isinstance(node.get(name), dict):
            raise ConfigError(f"--set {whole}: a field of {name} is set, too ({_first(node[name])})")
        node[name] = _Value(literal(text), whole)
    return root


def _first(node: dict[str, Any] | _Value) -> str:
    while isinstance(node, dict):
        node = next(iter(node.values()))
    return node.whole


def _check(field: dataclasses.Field[Any], old: Any, new: Any, whole: str) -> Any:
    """The new value, as a float where the old one is; it has to be of the same kind."""
    if isinstance(old, float) and isinstance(new, int) and not isinstance(new, bool):
        return float(new)
    none = new is None and field.default is None
    kind = isinstance(new, type(old)) and isinstance(new, bool) == isinstance(old, bool)
    if old is not None and not none and not kind:
        raise ConfigError(f"--set {whole}: {field.name} is a {type(old).__name__}, not {new!r}")
    return new


def _apply(target: Any, tree: dict[str, Any]) -> Any:
    """``target`` with all its fields set at once, so that rules between fields see the whole."""
    first = _first(tree)
    if isinstance(target, dict):
        new = {
            name: _apply(target.get(name), node) if isinstance(node, dict) else node.value
            for name, node in tree.items()
        }
        return {**target, **new}
    if isinstance(target, type) or not dataclasses.is_dataclass(target):
        raise ConfigError(f"--set {first}: {target!r} has no fields")
    fields = {field.name: field for field in dataclasses.fields(target)}
    changes = {}
    for name, node in tree.items():
        if name not in fields:
            hint = did_you_mean(name, fields)
            kind = type(target).__name__
            raise ConfigError(f"--set {_first(node)}: {kind} has no field {name!r}; {hint}fields: {', '.join(fields)}")
        old = getattr(target, name)
        if isinstance(node, dict):
            changes[name] = _apply(old, node)
        else:
            changes[name] = _check(fields[name], old, node.value, node.whole)
    try:
        return dataclasses.replace(target, **changes)  # type: ignore[type-var]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"--set {first}: {error}") from error


def override(config: _Config, assignments: Iterable[str]) -> _Config:
    """Apply ``a.b=c`` assignments to a config dataclass; values are Python literals, anything else is a string.

    All are applied together: ``schedule=multistep`` and ``decay_epochs=(3,)`` may stand in any order.

    Raises:
        ConfigError: naming the field and the rule; near names are listed.
    """
    tree = _tree(assignments)
    changed: _Config = _apply(config, tree) if tree else config
    return changed
