"""The disk fills up at any point of an update, on a real, small file system."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from seedcnn.errors import UpdateError
from tests.device.fleet import Device


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 512 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(directory: Path, leave: int) -> None:
    """Fill the file system up to ``leave`` bytes."""
    free = os.statvfs(directory)
    (directory / "ballast").write_bytes(bytes(max(0, free.f_bavail * free.f_frsize - leave)))


@pytest.mark.parametrize("leave", [0, 4096, 8192, 16384, 32768, 65536])
def test_disk_full_while_staging(fleet, tmp_path, small_disk, leave):
    fleet.publish(1)
    device = fleet.device(small_disk / "home")
    device.update()
    fleet.publish(2, width=1500)
    assert fleet.artefact(2).stat().st_size > 65536
    fill(small_disk, leave)
    with pytest.raises(UpdateError, match="No space left on device"):
        device.update()
    assert device.release() == 1
    assert not list(device.home.glob("models/*/*.part"))
    (small_disk / "ballast").unlink()
    assert device.update().release == 2
    assert device.release() == 2


def test_disk_full_without_being_root(fleet, tmp_path, make_bundle):
    """The same through the real command, in a separate mount namespace if the test is not root."""
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("neither user namespaces nor mounts are allowed here")
    fleet.publish(1)
    device = fleet.device(tmp_path / "home")
    device.update()
    fleet.publish(2, width=1500)
    place = tmp_path / "disk"
    place.mkdir()
    script = f"""
        set -e
        mount -t tmpfs -o size=128k tmpfs {place}
        cp -a {device.home} {place}/home
        set +e
        "$PYTHON" -m seedcnn.device.main --home {place}/home update; echo "code $?"
        "$PYTHON" -m seedcnn.device.main --home {place}/home status
    """
    done = subprocess.run(
        ["unshare", "-rm", "bash", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHON": sys.executable},
    )
    assert "code 1" in done.stdout, done.stderr
    assert "No space left on device" in done.stderr
    assert "demo  release 1 (tiny), since " in done.stdout
    assert Device(device.home).release() == 1
