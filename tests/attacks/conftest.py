from __future__ import annotations

from collections.abc import Callable

import pytest

from seedcnn.bundle import read_bundle
from seedcnn.errors import BundleError
from tests.bundle.bundles import explore, tiny_bundle


@pytest.fixture(scope="session")
def tiny() -> bytes:
    """A bundle with every coding, as bytes."""
    return tiny_bundle()


@pytest.fixture(scope="session")
def refused() -> Callable[[bytes, str], None]:
    """Check that a file is refused with a message, on opening or when asked for its content."""

    def check(data: bytes, message: str) -> None:
        with pytest.raises(BundleError, match=message):
            explore(read_bundle(data))

    return check
