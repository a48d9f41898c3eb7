"""Every layer is tested on memory full of NaN."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def poisoned(poisoned_memory):
    """Outputs that a layer allocates and does not write are NaN."""
