from __future__ import annotations

from pathlib import Path

import pytest

from tests.bundle.bundles import tiny_bundle
from tests.bundle.c_reader import build


@pytest.fixture(scope="session")
def tiny() -> bytes:
    """A bundle with every coding, as bytes."""
    return tiny_bundle()


@pytest.fixture(scope="session")
def tiny_zlib() -> bytes:
    """A bundle with every coding, that the reader in C reads without a library."""
    return tiny_bundle(compression="zlib")


@pytest.fixture(scope="session")
def reader(tmp_path_factory) -> Path:
    """The C reader without any library: zlib bundles."""
    return build(tmp_path_factory.mktemp("reader"), "cc", "-O2")
