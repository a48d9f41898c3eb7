from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.device import bundles
from tests.device.fleet import Device, Fleet, open_fleet
from tests.device.simulator import Home, Simulator


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


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A device of a repository in memory, at release 1."""
    home = Home.make(tmp_path_factory.mktemp("simulated") / "home", Simulator())
    home.repository.offer(1)
    home.takes(1)
    return home


@pytest.fixture
def home(simulated: Home, tmp_path: Path) -> Home:
    """A device of a repository in memory, at release 1; both are this test's own."""
    return simulated.copy(tmp_path / "home")


@pytest.fixture
def repository(home: Home) -> Simulator:
    """The repository in memory of ``home``."""
    return home.repository
