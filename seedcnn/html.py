"""Tables and sentences as a notebook shows them. All text is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

__all__ = ["folded", "paragraph", "table"]


def paragraph(text: str) -> str:
    """Return a paragraph."""
    return f"<p>{escape(text)}</p>"


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table, with integers on the right.

    Args:
        heads: of the columns.
        rows: a cell for each column; integers get separators of thousands, None an empty cell.

    Raises:
        ValueError: if a row has not as many cells as there are heads.
    """
    for row in rows:
        if len(row) != len(heads):
            raise ValueError(f"a row of {len(row)} cells does not fit under {len(heads)} heads: {row!r:.200}")
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: object) -> str:
    if value is None:
        return "<td></td>"
    if isinstance(value, int) and not isinstance(value, bool):
        return f'<td style="text-align: right">{value:,}</td>'
    return f"<td>{escape(str(value))}</td>"


def folded(summary: str, html: str) -> str:
    """Return HTML that opens on a click on ``summary``."""
    return f"<details><summary>{escape(summary)}</summary>{html}</details>"
