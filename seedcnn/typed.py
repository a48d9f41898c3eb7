"""Text and plain data become configuration: a field's annotation says how its value is converted and checked.

``--set``, ``--method``, ``--methods``, ``--forms``, recipes, checkpoints and plans all use this module. So a value
means the same wherever it is written, and a wrong one is refused with one sentence that names the field, the value and
the rule.

======================  ================================================================================
annotation              accepted values
======================  ================================================================================
``bool``                true, false, yes, no, on, off, 1, 0, in any case
``int``                 integral numbers ("7", 7.0, ``numpy.int64(7)``), but not bools
``float``               finite numbers ("1e-3", 1, ``numpy.float32(1)``), but not bools
``str``                 text and paths
``X | None``            whatever ``X`` accepts, and none or null in any case
``Literal``             one of its values
``tuple``, ``list``     lists and tuples, or text such as "(0, 1)" or "[16, 16, 32]"
``dict``                mappings with text for keys, or their text
a dataclass             an instance, a mapping of its fields, or the text of that mapping
the base of a family    the same, with the member's name among the fields (see :func:`register_family`), or text
                        such as "ghost:ratio=4:relu=no"
``Any``                 whatever JSON can hold; lists become tuples
======================  ================================================================================

docs/adr/0011 explains why this is not left to a library.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import PurePath
from typing import Any, Literal

from seedcnn.errors import ConfigError, did_you_mean
from seedcnn.literals import literal, member_of_text

__all__ = [
    "FORMAT",
    "convert",
    "convertible",
    "field_types",
    "prefixed",
    "register_family",
    "settle",
    "stamped",
    "to_plain",
    "unstamped",
]

FORMAT = "seedcnn-config/1"
"""The format of a serialised config."""

_BOOLS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_LONGEST = 120  # characters of a value in a message


class _MismatchError(ConfigError):
    """A value that does not fit its annotation; ``name`` and ``rule`` are those of the message."""

    name = ""
    rule = ""


def _mismatch(name: str, value: Any, rule: str) -> _MismatchError:
    shown = repr(value)
    if len(shown) > _LONGEST:
        shown = f"{shown[:_LONGEST]}..."
    error = _MismatchError(f"{name} (={shown}) must be {rule}")
    error.name, error.rule = name, rule
    return error


@contextmanager
def prefixed(option: str) -> Iterator[None]:
    """Put ``option`` in front of the sentence of a ``ConfigError``."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{option}: {error}") from None


@dataclass(frozen=True)
class _Family:
    tag: str
    members: Mapping[str, Callable[..., Any]]


_FAMILIES: dict[type, _Family] = {}


def register_family(base: type, tag: str, members: Mapping[str, Callable[..., Any]]) -> None:
    """Let fields annotated with ``base`` hold any of several dataclasses, whose name plain data hold under ``tag``.

    Args:
        base: the common base class.
        tag: key of the member's name in plain data; no member may have a field of this name.
        members: name -> dataclass, or a function that makes one from some of its fields. Names may be added later.
    """
    _FAMILIES[base] = _Family(tag, members)


def _family_of(kind: type) -> _Family | None:
    return next((family for base, family in _FAMILIES.items() if issubclass(kind, base)), None)


def field_types(kind: Any) -> dict[str, Any]:
    """Name -> annotation of the fields that the constructor of a dataclass takes."""
    return _field_types(kind)


@cache
def _field_types(kind: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind) if field.init}


def convertible(kind: Any) -> bool:
    """Whether :func:`convert` knows an annotation."""
    if kind is Any or kind in _SCALARS or (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        return True
    origin, arguments = typing.get_origin(kind) or kind, typing.get_args(kind)
    if origin is Literal:
        return True
    if origin in (typing.Union, types.UnionType, tuple, list, Sequence, dict, Mapping):
        return all(each in (None, type(None), Ellipsis) or convertible(each) for each in arguments)
    return False


def convert(kind: Any, value: Any, name: str, *, text: bool = False) -> Any:
    """Convert ``value`` to its annotation.

    Args:
        kind: one of the annotations in the table above.
        value: text, plain data, a numpy scalar, a path, or a value that fits already.
        name: the value's name in messages, such as "convert.phi_range".
        text: the value comes from a command line, where "false" and "3" are not text under ``Any`` either.

    Raises:
        ConfigError: naming the field, its value and the rule; near names are listed.
        TypeError: if the annotation is not in the table.
    """
    value = _native(value)
    if kind is Any:
        return _untyped(literal(value) if text and isinstance(value, str) else value, name)
    if kind in _SCALARS:
        return _SCALARS[kind](value, name)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _dataclass(kind, value, name, text)
    origin, arguments = typing.get_origin(kind) or kind, typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _union(arguments, value, name, text)
    if origin is Literal:
        return _one_of(arguments, value, name)
    if origin in (tuple, list, Sequence):
        return _sequence(origin, arguments, value, name, text)
    if origin in (dict, Mapping):
        return _mapping(arguments or (str, Any), value, name, text)
    raise TypeError(f"{name} is annotated {kind}, which seedcnn.typed cannot convert to")


def _native(value: Any) -> Any:
    """Python's own number for numpy's, and text for a path."""
    if isinstance(value, PurePath):
        return str(value)
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        return value.item()
    return value


def _bool(value: Any, name: str) -> bool:
    known = _BOOLS.get(str(value).strip().lower()) if isinstance(value, str | int) else None
    if known is None:
        raise _mismatch(name, value, "true or false")
    return known


def _int(value: Any, name: str) -> int:
    found = literal(value) if isinstance(value, str) else value
    if isinstance(found, float) and found.is_integer():
        found = int(found)
    if isinstance(found, bool) or not isinstance(found, int):
        raise _mismatch(name, value, "an integer")
    return int(found)


def _float(value: Any, name: str) -> float:
    found = literal(value) if isinstance(value, str) else value
    try:
        number = math.nan if isinstance(found, bool) or not isinstance(found, int | float) else float(found)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _mismatch(name, value, "a finite number")
    return number


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise _mismatch(name, value, "text")
    return str.__str__(value)


_SCALARS: dict[Any, Callable[[Any, str], Any]] = {bool: _bool, int: _int, float: _float, str: _text}


def _untyped(value: Any, name: str) -> Any:
    """Whatever JSON can hold, with tuples for lists."""
    value = _native(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value, name)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return _float(value, name)
    if isinstance(value, list | tuple):
        return tuple(_untyped(each, f"{name}[{index}]") for index, each in enumerate(value))
    if isinstance(value, Mapping):
        return {_text(key, f"a key of {name}"): _untyped(each, _join(name, str(key))) for key, each in value.items()}
    raise _mismatch(name, value, "something that JSON can hold: a number, text, true, false, none, a list or a mapping")


def _union(kinds: tuple[Any, ...], value: Any, name: str, text: bool) -> Any:
    optional = type(None) in kinds
    if optional and (value is None or (isinstance(value, str) and value.strip().lower() in ("none", "null"))):
        return None
    rules = []
    for kind in kinds:
        if kind is type(None):
            continue
        try:
            return convert(kind, value, name, text=text)
        except _MismatchError as error:
            if error.name != name:
                raise
            rules.append(error.rule)
    raise _mismatch(name, value, " or ".join([*rules, *(["none"] if optional else [])]))


def _one_of(known: tuple[Any, ...], value: Any, name: str) -> Any:
    for each in known:
        try:
            if each is None and value is None:
                return None
            if each is not None and convert(type(each), value, name) == each:
                return each
        except _MismatchError:
            continue
    hint = did_you_mean(value, [each for each in known if isinstance(each, str)])
    raise _mismatch(name, value, f"one of {', '.join(map(repr, known))}{'; ' if hint else ''}{hint.rstrip()}")


def _sequence(origin: Any, kinds: tuple[Any, ...], value: Any, name: str, text: bool) -> Any:
    found = literal(value) if isinstance(value, str) else value
    fixed = origin is tuple and bool(kinds) and kinds[-1] is not Ellipsis
    if not isinstance(found, list | tuple) or (fixed and len(found) != len(kinds)):
        raise _mismatch(name, value, f"a list of {len(kinds)} values" if fixed else "a list")
    each = kinds if fixed else [kinds[0] if kinds else Any] * len(found)
    text = text and found is value  # "3" in quotes inside a literal is text
    done = [
        convert(kind, item, f"{name}[{index}]", text=text)
        for index, (kind, item) in enumerate(zip(each, found, strict=True))
    ]
    return done if origin is list else tuple(done)


def _mapping(kinds: tuple[Any, ...], value: Any, name: str, text: bool) -> dict[Any, Any]:
    found = literal(value) if isinstance(value, str) else value
    if not isinstance(found, Mapping):
        raise _mismatch(name, value, "a mapping")
    text = text and found is value
    return {
        convert(kinds[0], key, f"a key of {name}"): convert(kinds[1], item, _join(name, str(key)), text=text)
        for key, item in found.items()
    }


def _join(name: str, field: str) -> str:
    return f"{name}.{field}" if name else field


def _dataclass(kind: type, value: Any, name: str, text: bool) -> Any:
    if isinstance(value, kind):
        own = {field: getattr(value, field) for field in field_types(type(value))}
        return _build(type(value), own, name, type(value), text)
    family = _family_of(kind)
    found = literal(value) if isinstance(value, str) else value
    if kind in _FAMILIES and isinstance(found, str) and found:
        found = value = member_of_text(found, _FAMILIES[kind].tag)
    if not isinstance(found, Mapping):
        rule = f"a {kind.__name__} (or a mapping of its fields)"
        if family is not None and kind in _FAMILIES:
            rule = f"a {family.tag} ({', '.join(family.members)}), with options as NAME:option=value"
        raise _mismatch(name or kind.__name__, value, rule)
    text = text and found is value
    if family is None or (kind not in _FAMILIES and family.tag not in found):
        return _build(kind, found, name, kind, text)
    options = dict(found)
    member = options.pop(family.tag, "")
    if not isinstance(member, str) or member not in family.members:
        known = ", ".join(family.members)
        if not member:
            raise ConfigError(f"the name of the {family.tag} is missing; known {family.tag}s: {known}")
        hint = did_you_mean(member, family.members)
        raise ConfigError(f"unknown {family.tag} {member!r}; {hint}known {family.tag}s: {known}")
    make = family.members[member]
    of = make if isinstance(make, type) else type(make())
    if not issubclass(of, kind):
        raise _mismatch(_join(name, family.tag), member, f"one that makes a {kind.__name__}")
    return _build(of, options, name, make, text, f"{family.tag} {member!r}")


def _build(
    kind: type, values: Mapping[str, Any], name: str, make: Callable[..., Any], text: bool, label: str = ""
) -> Any:
    """Call ``make`` with converted values; ``label`` names the member of a family, whose fields are called options."""
    known, noun, label = field_types(kind), "option" if label else "field", label or kind.__name__
    for field in values:
        if field not in known:
            hint = did_you_mean(field, known)
            raise ConfigError(f"{label} has no {noun} {field!r}; {hint}{noun}s: {', '.join(known)}")
    converted = {field: convert(known[field], item, _join(name, field), text=text) for field, item in values.items()}
    for each in dataclasses.fields(kind):
        required = each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING
        if make is kind and each.init and required and each.name not in converted:
            raise ConfigError(f"{label} needs the {noun} {each.name!r}, which is missing")
    try:
        return make(**converted)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name or label}: {error}") from error


def settle(config: Any, prefix: str = "") -> None:
    """Convert all fields of a frozen dataclass in place; call it first in ``__post_init__``.

    Args:
        prefix: name of the config in messages, in front of the field's name.

    Raises:
        ConfigError: naming the field, its value and the rule.
    """
    for field, kind in field_types(type(config)).items():
        object.__setattr__(config, field, convert(kind, getattr(config, field), _join(prefix, field)))


def to_plain(value: object, name: str = "") -> Any:
    """A config as JSON holds it: dataclasses become dicts (with the member's name in a family), tuples become lists.

    Raises:
        ConfigError: naming the field that JSON cannot hold, or the class that is not registered with its family.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field: to_plain(getattr(value, field), _join(name, field)) for field in field_types(type(value))}
        family = _family_of(type(value))
        if family is None:
            return fields
        for member, make in family.members.items():
            if make is type(value):
                return {family.tag: member, **fields}
        raise ConfigError(
            f"{name or 'config'} is a {type(value).__name__}, which is no {family.tag}: {', '.join(family.members)}"
        )
    if isinstance(value, list | tuple):
        return [to_plain(each, f"{name}[{index}]") for index, each in enumerate(value)]
    if isinstance(value, Mapping):
        return {_text(key, f"a key of {name}"): to_plain(each, _join(name, str(key))) for key, each in value.items()}
    return _untyped(value, name)


def stamped(data: Mapping[str, Any], version: str = FORMAT) -> dict[str, Any]:
    """Add the format to plain data."""
    return {"format": version, **data}


def unstamped(data: Any, what: str, version: str = FORMAT) -> dict[str, Any]:
    """Check the format that :func:`stamped` added, and take it off.

    Args:
        data: the content of a file.
        what: its name in messages.

    Raises:
        ConfigError: if it is not a mapping, or has another format.
    """
    if not isinstance(data, Mapping):
        raise ConfigError(f"{what} is a {type(data).__name__}; it must be a mapping")
    if (found := data.get("format")) != version:
        told = "names no format" if found is None else f"has the format {found!r}"
        raise ConfigError(f"{what} {told}; this version of seedcnn reads {version!r} only")
    return {name: value for name, value in data.items() if name != "format"}
