from __future__ import annotations

import pytest

from seedcnn.server.repository import init_repository
from tests.device import bundles
from tests.server.teams import WORD


@pytest.fixture(scope="session")
def make_bundle():
    return bundles.make_bundle


@pytest.fixture
def repository(tmp_path):
    init_repository(tmp_path / "r")
    return tmp_path / "r"


@pytest.fixture
def offline(tmp_path):
    """A repository whose root and targets keys are on a stick."""
    init_repository(tmp_path / "r", offline_keys=tmp_path / "stick", passphrase=WORD)
    return tmp_path / "r"
