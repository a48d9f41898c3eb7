"""A repository on loopback and devices that use it: real keys, real metadata, real HTTP, real files."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seedcnn.device.agent import init, update
from seedcnn.device.fetcher import DownloadLimits
from seedcnn.device.runtime import Model
from seedcnn.device.slots import SLOTS, Slots
from seedcnn.rng import random_bytes
from seedcnn.server.families import Access, add_family
from seedcnn.server.repository import Expires, init_repository, publish
from seedcnn.server.static import serve
from tests.device.bundles import make_bundle

IMAGES = random_bytes(99, tensor_id=0, count=5 * 32 * 32 * 3).reshape(5, 32, 32, 3)


def expected_logits(bundle: bytes, directory: Path) -> np.ndarray:
    """A bundle's logits for IMAGES, computed without a device."""
    path = directory / "reference.bundle"
    path.write_bytes(bundle)
    return Model.load(path).logits(IMAGES)


def contents(home: Path) -> dict[str, bytes]:
    """Every byte of both slots, and where ``current`` points."""
    found = {"current": os.readlink(home / "current").encode() if (home / "current").is_symlink() else b""}
    for slot in SLOTS:
        directory = home / "slots" / slot
        found |= (
            {f"{slot}/{path.name}": path.read_bytes() for path in directory.iterdir()} if directory.exists() else {}
        )
    return found


@dataclass(frozen=True)
class Device:
    """One home directory."""

    home: Path

    @property
    def slots(self) -> Slots:
        return Slots(self.home)

    def update(self, url: str | None = None, limits: DownloadLimits | None = None, **options):
        return update(self.home, url, limits=limits, **options)

    def answer(self) -> tuple[int, np.ndarray]:
        """The active release and its logits for IMAGES."""
        model = Model.load(self.slots)
        return model.bundle.manifest.release, model.logits(IMAGES)

    def logits(self) -> np.ndarray:
        return self.answer()[1]

    def release(self) -> int:
        release, logits = self.answer()
        assert np.isfinite(logits).all()
        return release

    def states(self) -> list[str]:
        return [entry.state for entry in self.slots.journal.entries()]

    def command(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run the real command in a separate process."""
        line = [sys.executable, "-m", "seedcnn.device.main", "--home", str(self.home), *map(str, arguments)]
        return subprocess.run(line, capture_output=True, text=True, timeout=120, check=False, env=dict(os.environ))


@dataclass(frozen=True)
class Fleet:
    """One repository and its URL."""

    directory: Path
    url: str

    def publish(self, release: int, *, deltas: int = 0, **options) -> bytes:
        bundle = make_bundle(release, **options)
        family = options.get("family", "demo")
        if not (self.directory / "public" / "targets" / family).exists() and family != "demo":
            add_family(self.directory, family)
        publish(self.directory, bundle, deltas=deltas)
        return bundle

    def device(
        self,
        home: Path,
        *,
        url: str | None = None,
        factory: Path | None = None,
        runtime: str = "onnxruntime",
        device_id: str | None = None,
        cohort: str = "",
    ) -> Device:
        names = {"device_id": device_id, "cohort": cohort}
        init(home, self.directory / "root.json", url or self.url, "demo", factory=factory, runtime=runtime, **names)
        return Device(home)

    def artefact(self, release: int, family: str = "demo") -> Path:
        """The published file of a release."""
        (path,) = (self.directory / "public" / "targets" / family).glob(f"*.{release}.bundle")
        return path


@contextmanager
def open_fleet(directory: Path, *, expires: Expires | None = None) -> Iterator[Fleet]:
    """Make a repository with the family "demo" and serve it."""
    init_repository(directory, expires=expires)
    add_family(directory, "demo", access=Access(expires=expires))
    with serve(directory) as server:
        yield Fleet(directory, server.url)
