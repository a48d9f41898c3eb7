from __future__ import annotations

from collections.abc import Callable

import pytest

from seedcnn.bundle import Bundle, read_bundle
from seedcnn.bundle.delta import write_delta
from seedcnn.errors import BundleError
from tests.bundle.bundles import explore, tiny_bundle
from tests.bundle.deltas import bundle


@pytest.fixture(scope="session")
def tiny() -> bytes:
    """A bundle with every coding, as bytes."""
    return tiny_bundle()


@pytest.fixture(scope="session")
def refused() -> Callable[[bytes, str], None]:
    """Check that a file is refused with a message when it is opened or read."""

    def check(data: bytes, message: str) -> None:
        with pytest.raises(BundleError, match=message):
            explore(read_bundle(data))

    return check


@pytest.fixture(scope="session")
def parent() -> Bundle:
    """Release 3 of a small network."""
    return read_bundle(bundle(3))


@pytest.fixture(scope="session")
def delta(parent) -> bytes:
    """From release 3 to release 4, as bytes."""
    return write_delta(parent, read_bundle(bundle(4, 0.02)))
