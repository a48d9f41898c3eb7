"""Reproduce a table of the papers: train each row, measure it, and compare it with the printed values."""

from __future__ import annotations

from seedcnn.reproduce.scales import SCALES
from seedcnn.reproduce.table import Figure, Row, list_tables, reproduce

__all__ = ["SCALES", "Figure", "Row", "list_tables", "reproduce"]
