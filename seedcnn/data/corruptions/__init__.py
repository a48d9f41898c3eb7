"""Common corruptions (Hendrycks and Dietterich, ICLR 2019) as batched functions of numpy arrays.

Each corruption is one entry of ``CORRUPTIONS``: its group, its constants by severity, the random fields it draws, and
a function from a batch to the corrupted batch. Constants, order of operations, quirks and truncation follow the
official ``make_cifar_c.py`` and ``make_imagenet_c.py`` (github.com/hendrycks/robustness, commit 8190fe3).
"""

from __future__ import annotations

from seedcnn.data.corruptions._corrupt import corrupt, draw_fields
from seedcnn.data.corruptions._table import CORRUPTIONS
from seedcnn.data.corruptions.core import GROUPS, SEVERITIES, Corruption
from seedcnn.data.corruptions.frost import FROST_FILES, frost_cache

__all__ = ["CORRUPTIONS", "FROST_FILES", "GROUPS", "SEVERITIES", "Corruption", "corrupt", "draw_fields", "frost_cache"]
