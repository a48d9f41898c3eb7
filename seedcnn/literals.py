"""Text that users write for values: literals, lists with separators, and methods with options."""

from __future__ import annotations

import ast
from typing import Any

from seedcnn.errors import ConfigError

__all__ = ["literal", "member_of_text", "split"]

_NAMES: dict[str, bool | None] = {"true": True, "false": False, "none": None, "null": None}
_OPENING, _CLOSING = "([{", ")]}"


class _Names(ast.NodeTransformer):
    """JSON's names of constants become Python's, in any case."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        name = node.id.lower()
        return ast.Constant(_NAMES[name]) if name in _NAMES else node


def literal(text: str) -> Any:
    """The value of a Python or JSON literal, or else the text itself."""
    try:
        return ast.literal_eval(_Names().visit(ast.parse(text.strip(), mode="eval")))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


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
        ConfigError: if the text does not look like that, or an option is given twice.
    """
    member, *assignments = split(text, ":")
    options = {tag: member}
    for assignment in assignments:
        option, equals, value = assignment.partition("=")
        if not equals:
            raise ConfigError(f"{tag} {text!r}: {assignment!r} must look like option=value")
        if option in options:
            raise ConfigError(f"{tag} {text!r}: {option} is given twice")
        options[option] = value
    return options
