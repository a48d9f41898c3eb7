"""Canonical JSON of integers, strings, lists and objects: one text per value, so that digests are meaningful.

Keys are sorted by code point; there is no white space, no float, no null and no boolean (python-tuf's canonical JSON
refuses floats too). Integers stay within +-(2**53 - 1); wider ones travel as hexadecimal strings.
"""

from __future__ import annotations

import json
from typing import Any

from seedcnn.bundle.limits import MAX_INT, MAX_JSON_DEPTH, MAX_MANIFEST_BYTES
from seedcnn.errors import BundleFormatError
from seedcnn.literals import unique_keys

__all__ = ["dump_canonical", "parse_canonical"]


def _check_text(text: str) -> None:
    # JSON can spell a lone surrogate as an escape, but UTF-8 cannot carry it.
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise BundleFormatError(f"manifest string {text!r:.80} holds a surrogate, which UTF-8 cannot carry")


def _check(value: Any, depth: int) -> None:
    if depth > MAX_JSON_DEPTH:
        raise BundleFormatError(f"manifest nests deeper than {MAX_JSON_DEPTH} levels")
    if isinstance(value, bool) or not isinstance(value, (int, str, list, dict)):
        raise BundleFormatError(
            f"manifest holds {value!r:.80}, a {type(value).__name__}; only integers and strings are allowed"
        )
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, int) and abs(value) > MAX_INT:
        raise BundleFormatError(f"manifest integer {value!r:.80} is outside +-(2**53 - 1)")
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise BundleFormatError(f"manifest key {key!r:.80} is not a string")
            _check_text(key)
            _check(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check(item, depth + 1)


def dump_canonical(value: dict[str, Any]) -> bytes:
    """Return the canonical text of ``value``.

    Raises:
        BundleFormatError: if it holds anything but integers, strings, lists and objects.
    """
    _check(value, 0)
    return compact_json(value, sort_keys=True)


def compact_json(value: dict[str, Any], *, sort_keys: bool = False) -> bytes:
    """Return JSON without white space, in UTF-8, with only the escapes that JSON requires."""
    return json.dumps(value, sort_keys=sort_keys, separators=(",", ":"), ensure_ascii=False).encode("utf-8")


def load_json(text: bytes, what: str) -> dict[str, Any]:
    """Parse a JSON object; refuse duplicate keys, floats and anything but UTF-8.

    Raises:
        BundleFormatError: naming ``what`` and the rule it breaks.
    """

    def refuse_number(token: str) -> Any:
        raise BundleFormatError(f"{what} holds the number {token:.80}; only integers are allowed")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        try:
            return unique_keys(pairs)
        except ValueError as error:
            raise BundleFormatError(f"{what}: {error}") from None

    try:
        value = json.loads(
            text.decode("utf-8"),
            object_pairs_hook=unique,
            parse_float=refuse_number,
            parse_constant=refuse_number,
        )
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise BundleFormatError(f"{what} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise BundleFormatError(f"{what} is not a JSON object")
    return value


def parse_canonical(text: bytes) -> dict[str, Any]:
    """Parse a manifest and check that it is in canonical form.

    Raises:
        BundleFormatError: if it is too long, not JSON, or not the canonical text of its own value.
    """
    if len(text) > MAX_MANIFEST_BYTES:
        raise BundleFormatError(f"manifest has {len(text)} bytes; at most {MAX_MANIFEST_BYTES} are allowed")
    value = load_json(text, "manifest")
    if dump_canonical(value) != text:
        raise BundleFormatError("manifest is not in canonical form")
    return value
