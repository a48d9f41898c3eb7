from __future__ import annotations

import pytest

from tests.device import bundles


@pytest.fixture(scope="session")
def make_bundle():
    return bundles.make_bundle
