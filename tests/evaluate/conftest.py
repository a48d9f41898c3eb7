"""Pictures and labels for tests that look at numbers, not at what is to be seen."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (30, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def labels():
    return np.random.default_rng(1).integers(0, 4, 30)


class Stages:
    """Shows nothing, and keeps each stage: its name, its total, and every step with its note."""

    def __init__(self):
        self.said = []

    def __call__(self, text):
        self.said.append(text)

    @contextmanager
    def steps(self, what, total):
        done = []
        self.said.append((what, total, done))
        yield lambda amount=1, note="": done.append((amount, note))


@pytest.fixture
def stages():
    return Stages()
