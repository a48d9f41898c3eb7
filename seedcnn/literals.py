"""Text that users write for values: JSON, literals, lists with separators, and methods with options."""

from __future__ import annotations

import ast
import json
import re
from datetime import timedelta
from typing import Any

from seedcnn.errors import ConfigError

__all__ = ["check_brackets", "literal", "member_of_text", "parse_duration", "parse_json", "split", "unique_keys"]

_NAMES: dict[str, bool | None] = {"true": True, "false": False, "none": None, "null": None}
_OPENING, _CLOSING = "([{", ")]}"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make the dict of a JSON object, as ``object_pairs_hook`` of :func:`json.loads`.

    Raises:
        ValueError: if a key is there twice, of which JSON readers keep either.
    """
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"an object has the duplicate key {key!r}")
        result[key] = value
    return result


def parse_json(text: str | bytes) -> Any:
    """Parse JSON that a user can have written or changed.

    Raises:
        ValueError: if it is not JSON, nests too deeply, or has an object with a duplicate key.
    """
    try:
        return json.loads(text, object_pairs_hook=unique_keys)
    except RecursionError:
        raise ValueError("it nests too deeply") from None


def parse_duration(text: str) -> timedelta:
    """Parse 90s, 30m, 6h or 2d.

    Raises:
        ValueError: for anything else, and for no time at all.
    """
    found = re.fullmatch(r"([0-9]{1,6})([smhd])", text)
    if not found or not int(found[1]):
        raise ValueError("it must be a number and a unit, such as 90s, 30m, 6h or 2d")
    return timedelta(seconds=int(found[1]) * _UNITS[found[2]])


class _Names(ast.NodeTransformer):
    """JSON's names of constants become Python's, in any case; a duplicate key is refused."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        name = node.id.lower()
        return ast.Constant(_NAMES[name]) if name in _NAMES else node

    def visit_Dict(self, node: ast.Dict) -> ast.expr:
        keys = [key.value for key in node.keys if isinstance(key, ast.Constant)]
        for key in keys:
            if keys.count(key) > 1:
                raise ConfigError(f"a mapping has the key {key!r} twice; each may be there once")
        self.generic_visit(node)
        return node


def literal(text: str) -> Any:
    """The value of a Python or JSON literal, or else the text itself.

    Raises:
        ConfigError: if it is a mapping with a duplicate key.
    """
    try:
        return ast.literal_eval(_Names().visit(ast.parse(text.strip(), mode="eval")))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def check_brackets(text: str) -> None:
    """Check that every bracket of a text that is no literal has its partner.

    Raises:
        ConfigError: naming the first bracket that has none.
    """
    if literal(text) is not text:  # a bracket in quotes needs no partner
        return
    opened: list[str] = []
    for character in text:
        if character in _OPENING:
            opened.append(character)
        elif character in _CLOSING and (not opened or opened.pop() != _OPENING[_CLOSING.index(character)]):
            raise ConfigError(f"{text!r} closes a bracket {character!r} that it does not open")
    if opened:
        raise ConfigError(f"{text!r} opens a bracket {opened[-1]!r} that it does not close")


def split(text: str, separator: str) -> list[str]:
    """Split at each separator that is not inside brackets."""
    parts, depth = [""], 0
    for character in text:
        depth = max(0, depth + (character in _OPENING) - (character in _CLOSING))
        if character == separator and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def member_of_text(text: str, tag: str) -> dict[str, str]:
    """The plain data of ``member:option=value:option=value``; a colon inside brackets separates nothing.

    Raises:
        ConfigError: if the text does not look like that, the member's name is missing, or an option is given twice.
    """
    check_brackets(text)
    member, *assignments = split(text, ":")
    if not member:
        raise ConfigError(f"{tag} {text!r}: the name of the {tag} is missing; write NAME:option=value")
    options = {tag: member}
    for assignment in assignments:
        option, equals, value = assignment.partition("=")
        if not equals:
            raise ConfigError(f"{tag} {text!r}: {assignment!r} must look like option=value")
        if option in options:
            raise ConfigError(f"{tag} {text!r}: {option} is given twice")
        options[option] = value
    return options
