"""Bad items of a data set, collected and refused in one sentence, or left out if the caller asked for that."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from seedcnn.data.image_set import Unreadable
from seedcnn.data.sets._layouts import some_of
from seedcnn.errors import DataError

__all__ = ["Problems"]

_SHOWN = 5
_log = logging.getLogger(__name__)


@dataclass
class Problems:
    """Collects bad items. ``settle`` raises one error for them, or returns them if they are to be skipped.

    Args:
        on_error: "raise" or "skip".
        source: what is read, for messages.

    Raises:
        ValueError: if ``on_error`` is another word.
    """

    on_error: str
    source: str
    found: list[Unreadable] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.on_error not in ("raise", "skip"):
            raise ValueError(f"`on_error` (={self.on_error!r}) must be 'raise' or 'skip'")

    def add(self, name: str, reason: str = "") -> None:
        """Note a bad item: its file or annotation, and what is wrong; together they read as a sentence."""
        self.found.append(Unreadable(name, reason))

    def settle(self) -> tuple[Unreadable, ...]:
        """Return the items to leave out, and log them.

        Raises:
            DataError: if there are any and ``on_error`` is "raise".
        """
        if not self.found:
            return ()
        sentences = [f"{each.name} {each.reason}".strip() for each in self.found]
        if self.on_error == "raise":
            if len(sentences) == 1:
                raise DataError(sentences[0])
            raise DataError(f"{len(sentences)} items of {self.source} cannot be used: {some_of(sentences, _SHOWN)}")
        _log.warning("left out %d items of %s: %s", len(sentences), self.source, some_of(sentences, _SHOWN))
        return tuple(self.found)
