from __future__ import annotations

import pytest

from tests.bundle.bundles import tiny_bundle


@pytest.fixture(scope="session")
def tiny() -> bytes:
    """A bundle with every coding, as bytes."""
    return tiny_bundle()
