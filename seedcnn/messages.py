"""How a long job reports progress: it calls a function with one line of text at a time."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Say"]

Say = Callable[[str], None]
"""Takes one line of text for the user; ``print`` is one."""
