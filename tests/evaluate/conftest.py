"""Pictures and labels for tests that look at numbers, not at what is to be seen."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (30, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def labels():
    return np.random.default_rng(1).integers(0, 4, 30)
