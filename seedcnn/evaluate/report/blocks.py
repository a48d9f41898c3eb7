"""The pieces of the page: plain data that ``report.html.j2`` lays out and escapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

__all__ = ["NOT_MEASURED", "Cell", "Column", "Line", "Plot", "Section", "Table", "minus", "words"]


def words(name: str) -> str:
    """A corruption's name as words."""
    return name.replace("_", " ")


def minus(value: float, form: str = ".2f") -> str:
    """A difference with its sign; what rounds to zero has none."""
    text = f"{abs(value):{form}}"
    if not float(text):
        return text
    return ("\N{MINUS SIGN}" if value < 0 else "+") + text


@dataclass(frozen=True)
class Cell:
    """A table cell: a number, and lines of small print below it.

    Attributes:
        main: the number, or the reason why there is none.
        small: lines of small print.
        mark: a class of the style sheet.
        absent: whether ``main`` is a reason.
    """

    main: str
    small: Sequence[str] = ()
    mark: str = ""
    absent: bool = False


NOT_MEASURED = Cell("not measured", absent=True)


@dataclass(frozen=True)
class Column:
    """The head of a column: its name, and small print below it."""

    name: str
    small: str = ""


@dataclass(frozen=True)
class Line:
    """A line of a table: its name, small print below the name, its cells, and a class of the style sheet."""

    name: str
    small: str
    cells: Sequence[Cell]
    mark: str = ""


@dataclass(frozen=True)
class Table:
    """A table: the head of its first column, the other columns, groups of lines, and a class of the style sheet."""

    first: str
    columns: Sequence[Column]
    bodies: Sequence[Sequence[Line]]
    mark: str = ""


@dataclass(frozen=True)
class Section:
    """A section of one table: a sentence or two about it, and the table."""

    about: str
    table: Table


@dataclass(frozen=True)
class Plot:
    """A drawing with its caption; the SVG goes into the page unchanged, as its texts are already escaped."""

    title: str
    svg: Markup
    small: str = ""
