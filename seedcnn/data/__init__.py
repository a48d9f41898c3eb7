"""Datasets, corruptions and transforms: numpy and torch arrays, batched, no per-picture Python."""

from __future__ import annotations
