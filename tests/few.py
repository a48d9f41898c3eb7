"""Cases of a parametrised test: some in every run, the rest in the slow ones."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def few(cases: Iterable[Any], quick: Collection[int]) -> list[Any]:
    """Return the cases; all but those at the indices ``quick`` are slow. One of several values is a tuple."""
    found = list(cases)
    assert set(quick) <= set(range(len(found)))
    marks = [() if index in quick else (pytest.mark.slow,) for index in range(len(found))]
    return [
        pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=mark)
        for case, mark in zip(found, marks, strict=True)
    ]
