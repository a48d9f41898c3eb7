"""``seedcnn repo init`` killed at any instant can be run again, and never touches what was finished."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from seedcnn.errors import RepositoryError
from seedcnn.server.families import add_family
from seedcnn.server.lock import exclusive
from seedcnn.server.refresh import refresh
from seedcnn.server.repository import init_repository, publish
from seedcnn.server.static import serve
from tests.device.fleet import Device, init

KEYS = {f"{role}-{number}.pem" for role in ("root", "targets") for number in (1, 2, 3)}
KEYS |= {"snapshot.pem", "timestamp.pem"}


def keys(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (directory / "keys").glob("*")}


def usable(directory: Path, bundle: bytes, *, device: bool) -> None:
    """The repository is whole: it signs; it publishes, and a ``device`` that trusts its root takes the release."""
    assert set(keys(directory)) == KEYS
    assert {path.name for path in directory.iterdir()} == {"keys", "public", "root.json", "lock"}
    assert (directory / "keys").stat().st_mode & 0o777 == 0o700
    refresh(directory)
    if not device:
        return
    add_family(directory, "demo")
    publish(directory, bundle)
    with serve(directory) as server:
        home = directory.with_name(f"{directory.name}-home")
        init(home, directory / "root.json", server.url, "demo")
        assert Device(home).update().release == 1


def test_killed_before_every_call_and_run_again(tmp_path, make_bundle):
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("killed.py")), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    number = int(done.stdout)
    assert number > 40
    finished = 0
    for count, directory in enumerate(sorted(tmp_path.iterdir())):
        before = keys(directory)
        if (directory / "root.json").exists() and not (directory / ".seedcnn-init").exists():
            finished += directory.name.isdigit()
            with pytest.raises(RepositoryError, match="already holds a repository"):
                init_repository(directory)
        else:
            init_repository(directory)
        assert before.items() <= keys(directory).items()
        usable(directory, make_bundle(1), device=count % 10 == 0)
    assert 1 <= finished <= 4  # the one that came to its end, and those killed before the last flush


def test_a_finished_repository_is_never_changed(tmp_path, make_bundle):
    init_repository(tmp_path / "r")
    add_family(tmp_path / "r", "demo")
    publish(tmp_path / "r", make_bundle(1))
    for lost in ("", "root.json", "public"):
        if lost:
            (tmp_path / "r" / lost).rename(tmp_path / lost)
        before = {path: path.read_bytes() for path in (tmp_path / "r").rglob("*") if path.is_file()}
        with pytest.raises(RepositoryError, match="already holds"):
            init_repository(tmp_path / "r")
        after = {path: path.read_bytes() for path in (tmp_path / "r").rglob("*") if path.is_file()}
        assert after == before


def test_keys_put_there_meanwhile_are_not_overwritten(tmp_path):
    """An init that was killed before it moved its keys, and keys that came there since."""
    init_repository(tmp_path / "other")
    made = tmp_path / "r" / ".seedcnn-init"
    made.parent.mkdir()
    shutil.copytree(tmp_path / "other", made)
    shutil.copytree(tmp_path / "other" / "keys", tmp_path / "r" / "keys")
    before = keys(tmp_path / "r")
    with pytest.raises(RepositoryError, match=r"root-1\.pem exists, so the interrupted init in .* cannot be completed"):
        init_repository(tmp_path / "r")
    assert keys(tmp_path / "r") == before
    assert not (tmp_path / "r" / "root.json").exists()


def test_two_at_once(tmp_path):
    (tmp_path / "r").mkdir()
    with exclusive(tmp_path / "r"), pytest.raises(RepositoryError, match="another process is publishing"):
        init_repository(tmp_path / "r")
    line = [sys.executable, "-c", "import sys; from seedcnn.server.repository import *; init_repository(sys.argv[1])"]
    running = [subprocess.Popen([*line, str(tmp_path / "r")], stderr=subprocess.PIPE, text=True) for _ in range(4)]
    ends = [(process.communicate(timeout=120)[1], process.returncode) for process in running]
    assert sorted(code for _, code in ends) == [0, 1, 1, 1]
    assert all("RepositoryError" in text for text, code in ends if code)
    assert refresh(tmp_path / "r").roles == ("timestamp",)


@pytest.mark.parametrize("mask", [0o077, 0o027, 0o022])
def test_what_is_served_can_be_read_by_others_and_keys_cannot(tmp_path, make_bundle, mask):
    before = os.umask(mask)
    try:
        init_repository(tmp_path / "new" / "r")
        add_family(tmp_path / "new" / "r", "demo")
        publish(tmp_path / "new" / "r", make_bundle(1))
        publish(tmp_path / "new" / "r", make_bundle(2, parent=1))
        refresh(tmp_path / "new" / "r")
    finally:
        os.umask(before)
    directory = tmp_path / "new" / "r"
    found: dict[bool, set[int]] = {True: set(), False: set()}
    for path in [directory.parent, directory, directory / "root.json", *(directory / "public").rglob("*")]:
        found[path.is_dir()].add(path.stat().st_mode & 0o777)
    assert found == {True: {0o755}, False: {0o644}}
    assert {path.stat().st_mode & 0o777 for path in (directory / "keys").iterdir()} == {0o600}
    assert (directory / "keys").stat().st_mode & 0o777 == 0o700


def test_a_directory_of_the_user_keeps_its_mode(tmp_path):
    (tmp_path / "r").mkdir(mode=0o700)
    init_repository(tmp_path / "r")
    assert (tmp_path / "r").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "r" / "public").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/fleet", "/dev/null/fleet"])
def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path, make_bundle, place):
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(RepositoryError, match="cannot be written: ") as caught:
        init_repository(tmp_path / place)
    assert "\n" not in str(caught.value)
    for call in (lambda: publish(tmp_path / place, make_bundle(1)), lambda: refresh(tmp_path / place)):
        with pytest.raises(RepositoryError, match="is not a repository"):
            call()


def test_a_file_system_that_refuses_while_publishing_is_one_sentence(tmp_path, make_bundle):
    init_repository(tmp_path / "r")
    add_family(tmp_path / "r", "demo")
    targets = tmp_path / "r" / "public" / "targets"
    targets.rmdir()
    targets.write_bytes(b"a file in the way")
    with pytest.raises(RepositoryError, match=r"r cannot be written: .* \(.*targets"):
        publish(tmp_path / "r", make_bundle(1))
    targets.unlink()
    assert publish(tmp_path / "r", make_bundle(1)).release == 1


@pytest.mark.parametrize(("bundle", "words"), [(".", "Is a directory"), ("/dev/zero", "more than the")])
def test_what_is_no_bundle_file(tmp_path, bundle, words):
    init_repository(tmp_path / "r")
    with pytest.raises(RepositoryError, match=words):
        publish(tmp_path / "r", bundle)
