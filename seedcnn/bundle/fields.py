"""Strict reading of a parsed JSON object, field by field."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from seedcnn.bundle import limits
from seedcnn.errors import BundleFormatError

__all__ = ["Fields"]


class Fields:
    """Strict access to a JSON object: an error names the field, its value and the rule, and no field may be left over.

    Every method raises :class:`BundleFormatError` if the field is missing or breaks the rule.
    """

    def __init__(self, value: Any, what: str) -> None:
        if not isinstance(value, dict):
            raise BundleFormatError(f"{what} must be an object, not {value!r:.80}")
        self._rest, self._what = dict(value), what

    @property
    def what(self) -> str:
        """Name of the object, for messages."""
        return self._what

    def _take(self, name: str) -> Any:
        if name not in self._rest:
            raise BundleFormatError(f"{self._what} lacks the field {name!r}")
        return self._rest.pop(name)

    def text(self, name: str, *, empty: bool = False) -> str:
        """Read a string of at most 256 UTF-8 bytes."""
        value = self._take(name)
        if not isinstance(value, str) or len(value.encode()) > limits.MAX_NAME_BYTES or not (value or empty):
            raise BundleFormatError(
                f"{self._what}.{name} must be a string of at most {limits.MAX_NAME_BYTES} bytes, not {value!r:.80}"
            )
        return value

    def one_of(self, name: str, choices: Sequence[str]) -> str:
        """Read one of some words."""
        value = self._take(name)
        if value not in choices:
            raise BundleFormatError(f"{self._what}.{name} must be one of {', '.join(choices)}, not {value!r:.80}")
        return str(value)

    def digest(self, name: str, *, empty: bool = False) -> str:
        """Read a SHA-256 written as 64 lower-case hexadecimal digits."""
        value = self.text(name, empty=empty)
        if empty and not value:
            return value
        if len(value) != 64 or set(value) - set("0123456789abcdef"):
            raise BundleFormatError(f"{self._what}.{name} must be 64 lower-case hexadecimal digits, not {value!r:.80}")
        return value

    def word64(self, name: str) -> int:
        """Read a 64-bit word written as 16 lower-case hexadecimal digits."""
        value = self.text(name)
        if len(value) != 16 or set(value) - set("0123456789abcdef"):
            raise BundleFormatError(f"{self._what}.{name} must be 16 lower-case hexadecimal digits, not {value!r:.80}")
        return int(value, 16)

    def integer(self, name: str, low: int, high: int) -> int:
        """Read an integer in [low, high]."""
        value = self._take(name)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise BundleFormatError(f"{self._what}.{name} must be an integer in [{low}, {high}], not {value!r:.80}")
        return value

    def integers(self, name: str, low: int, high: int, most: int) -> tuple[int, ...]:
        """Read a list of at most ``most`` integers in [low, high]."""
        values = self._take(name)
        if not isinstance(values, list) or len(values) > most:
            raise BundleFormatError(f"{self._what}.{name} must be a list of at most {most} integers")
        for value in values:
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise BundleFormatError(f"{self._what}.{name} must hold integers in [{low}, {high}], not {value!r:.80}")
        return tuple(values)

    def list(self, name: str, most: int) -> list[Any]:
        """Read a list of at most ``most`` items of any kind."""
        values = self._take(name)
        if not isinstance(values, list) or len(values) > most:
            raise BundleFormatError(f"{self._what}.{name} must be a list of at most {most} items")
        return values

    def object(self, name: str) -> Any:
        """Read a nested object, to be wrapped in its own ``Fields``."""
        return self._take(name)

    def end(self) -> None:
        """Refuse fields that have not been read."""
        if self._rest:
            raise BundleFormatError(f"{self._what} has unknown fields: {', '.join(sorted(self._rest)):.200}")
