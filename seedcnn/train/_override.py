"""``--set a.b=c`` on frozen configs, and the fields in which two of them differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

from seedcnn.errors import ConfigError, did_you_mean
from seedcnn.literals import check_brackets
from seedcnn.typed import convert, field_types, prefixed

__all__ = ["differences", "override"]

_Config = TypeVar("_Config")
_ABSENT = "not set"


@dataclass(frozen=True)
class _Text:
    """The text of a field's new value, and the whole assignment."""

    value: str
    whole: str


def _tree(assignments: Iterable[str]) -> dict[str, Any]:
    """Assignments by field: a text, or the assignments to the fields of a field."""
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
                raise ConfigError(f"--set {whole}: {parent} is also set as a whole ({node.whole})")
        if isinstance(node.get(name), dict):
            raise ConfigError(f"--set {whole}: a field of {name} is also set ({_first(node[name])})")
        if name in node:
            raise ConfigError(f"--set {whole}: {path} is also set by {node[name].whole}")
        node[name] = _Text(text, whole)
    return root


def _first(node: dict[str, Any] | _Text) -> str:
    while isinstance(node, dict):
        node = next(iter(node.values()))
    return node.whole


def _value(node: _Text, kind: Any, name: str) -> Any:
    with prefixed(f"--set {node.whole}"):
        if kind is not str:
            check_brackets(node.value)
        return convert(kind, node.value, name, text=True)


def _options(options: dict[str, Any], tree: dict[str, Any], kind: Any, where: str) -> dict[str, Any]:
    """A dict with some of its values replaced; ``kind`` is the annotation of the values."""
    new = dict(options)
    for name, node in tree.items():
        if isinstance(node, _Text):
            new[name] = _value(node, kind, f"{where}{name}")
        else:
            new[name] = _apply(options.get(name), node, kind, f"{where}{name}.")
    return new


def _fieldless(target: Any, name: str) -> str:
    if target is None:
        return f"{name} is none, so it has no fields; set it as a whole"
    return f"{name} (={target!r}) has no fields"


def _apply(target: Any, tree: dict[str, Any], kind: Any, where: str) -> Any:
    """``target`` with all its fields set at once, so that rules between fields see the whole.

    Args:
        kind: the annotation of ``target``.
        where: its name with a dot behind, or "" at the top.
    """
    first = _first(tree)
    if isinstance(target, dict):
        return _options(target, tree, (get_args(kind) or (str, Any))[1], where)
    if isinstance(target, type) or not dataclasses.is_dataclass(target):
        raise ConfigError(f"--set {first}: {_fieldless(target, where.removesuffix('.'))}")
    kinds = field_types(type(target))
    changes = {}
    for name, node in tree.items():
        if name not in kinds:
            hint = did_you_mean(name, kinds).strip()
            told = hint or f"fields: {', '.join(kinds)}"
            raise ConfigError(f"--set {_first(node)}: {type(target).__name__} has no field {name!r}; {told}")
        if isinstance(node, _Text):
            changes[name] = _value(node, kinds[name], f"{where}{name}")
        else:
            changes[name] = _apply(getattr(target, name), node, kinds[name], f"{where}{name}.")
    try:
        return dataclasses.replace(target, **changes)  # type: ignore[type-var]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"--set {first}: {error}") from error


def override(config: _Config, assignments: Iterable[str]) -> _Config:
    """Apply ``a.b=c`` assignments to a config dataclass; each field's annotation says what its text means.

    All are applied together: ``schedule=multistep`` and ``decay_epochs=(3,)`` may stand in any order.

    Args:
        config: what a recipe made; not changed.
        assignments: as typed. Without an annotation, as in ``model_options``, a text is a Python or JSON literal, or
            else text.

    Raises:
        ConfigError: naming the assignment, the value and the rule, or the field that does not exist (near names are
            listed) or is set twice.
    """
    tree = _tree(assignments)
    changed: _Config = _apply(config, tree, type(config), "") if tree else config
    return changed


def differences(first: Any, second: Any) -> dict[str, tuple[Any, Any]]:
    """The fields in which two configs differ, those of nested configs by path, with both values as plain data."""
    ours, theirs = _flat(first.to_dict()), _flat(second.to_dict())
    return {
        name: (ours.get(name, _ABSENT), theirs.get(name, _ABSENT))
        for name in (ours | theirs)
        if ours.get(name, _ABSENT) != theirs.get(name, _ABSENT)
    }


def _flat(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in data.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) and value else {f"{prefix}{name}": value}
    return flat
