"""Integers in rules, reports and records, which come from outside."""

from __future__ import annotations

__all__ = ["LATEST", "check_integer"]

LATEST = 253402300799
"""The end of the year 9999, in seconds since 1970."""


def check_integer(name: str, value: object, low: int, high: int) -> None:
    """Check a field; a truth value is no integer.

    Raises:
        ValueError: naming the field, its value and the rule.
    """
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{name} is {value!r:.80}; it must be an integer from {low} to {high}")
