from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.device import bundles
from tests.device.fleet import Device, Fleet, open_fleet


@pytest.fixture(scope="session")
def make_bundle():
    return bundles.make_bundle


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with open_fleet(tmp_path / "repository") as fleet:
        yield fleet


@pytest.fixture
def device(fleet: Fleet, tmp_path: Path) -> Device:
    """A device that runs release 1."""
    fleet.publish(1)
    device = fleet.device(tmp_path / "home")
    device.update()
    return device
