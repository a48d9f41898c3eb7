"""Report of a conversion: replaced and skipped layers, learnable parameters before and after."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from seedcnn import html
from seedcnn.convert.from_dense import FromDenseReport

__all__ = ["ConversionReport", "Replaced", "Skipped"]


@dataclass(frozen=True)
class Replaced:
    """One replaced layer: qualified name, the old and the new layer, and learnable parameters of both.

    ``frozen``: the old layer's weight was not learnable, nor is the new layer.
    """

    name: str
    before: str
    after: str
    params_before: int
    params_after: int
    frozen: bool = False

    def __str__(self) -> str:
        return f"{self.after}{' (frozen, as before)' if self.frozen else ''}"


@dataclass(frozen=True)
class Skipped:
    """One convolution left alone, with the reason."""

    name: str
    reason: str


@dataclass(frozen=True)
class ConversionReport:
    """Report of :func:`seedcnn.convert.convert_`; :mod:`seedcnn.evaluate` measures MACs and times.

    ``parts``: of a detector or a segmenter, those that were converted; () for any other network.
    """

    method: str
    replaced: tuple[Replaced, ...]
    skipped: tuple[Skipped, ...]
    params_before: int
    params_after: int
    from_dense: FromDenseReport | None = None
    parts: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data, ready for JSON."""
        return asdict(self)

    def to_json(self) -> str:
        """Return the report as JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    def __repr__(self) -> str:
        return f"ConversionReport({self._title()}; {self._total()})"

    def _repr_html_(self) -> str:
        """The table of :meth:`__rich__`, as a notebook shows it."""
        rows: list[tuple[object, ...]] = [
            (each.name, each.params_before, each.params_after, str(each)) for each in self.replaced
        ]
        rows += [(left.name, None, None, f"left: {left.reason}") for left in self.skipped]
        parts = [html.paragraph(self._title())]
        parts += [html.table(("layer", "parameters", "after", "now, or why it was left"), rows)] if rows else []
        parts += [html.paragraph(line) for line in str(self.from_dense).split("\n") if self.from_dense is not None]
        return "".join([*parts, html.paragraph(self._total())])

    def __str__(self) -> str:
        lines = [self._title()]
        names = [item.name for item in self.replaced] + [left.name for left in self.skipped]
        width = max(map(len, names), default=0)
        lines += [
            f"  {item.name:<{width}}  {item.params_before:>10,} -> {item.params_after:>10,}  {item}"
            for item in self.replaced
        ]
        lines += [f"  {left.name:<{width}}  left: {left.reason}" for left in self.skipped]
        if self.from_dense is not None:
            lines += [f"  {line}" for line in str(self.from_dense).split("\n")]
        lines.append(f"  {self._total()}")
        return "\n".join(lines)

    def _title(self) -> str:
        where = f" in the {' and the '.join(self.parts)}" if self.parts else ""
        return f"{self.method}: replaced {len(self.replaced)} convolutions{where}, left {len(self.skipped)} alone"

    def _total(self) -> str:
        share = f" ({self.params_after / self.params_before:.3f})" if self.params_before else ""
        return f"learnable parameters {self.params_before:,} -> {self.params_after:,}{share}"

    def __rich__(self) -> Any:
        """Return a table for ``rich.print(report)``: each layer, its parameters before and after, and the new layer."""
        # Imported here, so that reports work without rich.
        from rich.table import Table
        from rich.text import Text  # unlike a string, never read as markup

        table = Table(title=Text(self._title(), style="table.title"), caption=self._total())
        table.add_column("layer")
        table.add_column("parameters", justify="right")
        table.add_column("after", justify="right")
        table.add_column("now, or why it was left")
        for item in self.replaced:
            table.add_row(Text(item.name), f"{item.params_before:,}", f"{item.params_after:,}", Text(str(item)))
        for left in self.skipped:
            table.add_row(Text(left.name), "", "", Text(f"left: {left.reason}"), style="dim")
        return table
