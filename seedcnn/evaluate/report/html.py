"""Pieces of HTML that the report's sections share; every text that comes from outside is escaped here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

__all__ = ["NONE", "box", "cell", "head", "minus", "name_html", "row", "table", "words"]

NONE = '<span class="none">not measured</span>'


def words(name: str) -> str:
    """A corruption's name as words."""
    return name.replace("_", " ")


def minus(value: float, form: str = ".2f") -> str:
    """A difference with its sign, none before zero."""
    text = f"{abs(value):{form}}"
    if not float(text):
        return text
    return ("\N{MINUS SIGN}" if value < 0 else "+") + text


def name_html(name: str) -> str:
    """A name that may break behind the signs that file names are made of."""
    return re.sub(r"([_/.\\])", r"\1<wbr>", escape(name))


def cell(main: str, small: Iterable[str] = (), *, mark: str = "") -> str:
    """A table cell: the number, and lines of small print below it. ``mark`` is the class, if any."""
    told = "".join(f"<small>{escape(text)}</small>" for text in small)
    kind = f' class="{mark}"' if mark else ""
    return f'<td{kind}><span class="main">{escape(main)}</span>{told}</td>'


def head(first: str, names: Sequence[str], small: Sequence[str] = ()) -> str:
    """A table's first line; ``small`` is small print below the names, as many as names or none."""
    below = [f"<small>{escape(text)}</small>" if text else "" for text in small or [""] * len(names)]
    cells = [f'<th scope="col">{name_html(name)}{text}</th>' for name, text in zip(names, below, strict=True)]
    return f'<tr><th scope="col">{escape(first)}</th>{"".join(cells)}</tr>'


def row(name: str, small: str, cells: Iterable[str], *, mark: str = "") -> str:
    """A line of a table: its name, small print below the name if there is any, and its cells."""
    below = f"<small>{escape(small)}</small>" if small else ""
    kind = f' class="{mark}"' if mark else ""
    return f'<tr{kind}><th scope="row">{name_html(name)}{below}</th>{"".join(cells)}</tr>'


def table(first: str, bodies: Iterable[Iterable[str]], *, mark: str = "") -> str:
    """A table of a first line (see :func:`head`) and groups of lines."""
    kind = f' class="{mark}"' if mark else ""
    parts = "".join(f"<tbody>{''.join(lines)}</tbody>" for lines in bodies)
    return f"<table{kind}><thead>{first}</thead>{parts}</table>"


def box(label: str, content: str, *, fit: bool = False) -> str:
    """What may be wider than the page, in a box that scrolls; focusable, so that the keyboard can scroll it.

    With ``fit`` it is no wider than its content.
    """
    kind = "box fit" if fit else "box"
    return f'<div class="{kind}" role="region" tabindex="0" aria-label="{escape(label)}">{content}</div>'
