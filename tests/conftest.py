"""Fixtures for every room."""

from __future__ import annotations

import pytest

from seedcnn.data.cifar10 import Cifar10, load_cifar10
from seedcnn.errors import DataError


@pytest.fixture(scope="session")
def cifar10() -> Cifar10:
    """The real CIFAR-10, downloaded once into the user's cache (139 MB)."""
    try:
        return load_cifar10()
    except DataError as error:
        pytest.skip(f"CIFAR-10 could not be had: {error}")
