"""A refused update leaves both slots as they were, byte for byte, at whatever step it fails, and the fallback works."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from seedcnn.bundle import Preprocessing
from seedcnn.device.agent import update
from seedcnn.errors import DeviceError, UpdateError
from tests.device.attacker import rule, sign_targets
from tests.device.bundles import RULE, make_bundle
from tests.device.fleet import Device, Fleet, contents

CROP = Preprocessing.crop(32, mean=RULE.mean, std=RULE.std)
EVENTS = {"os.rename", "os.symlink", "open"}


@pytest.fixture
def two(device: Device, fleet: Fleet) -> Device:
    """A device with release 1 in slot a and release 2, current, in slot b."""
    fleet.publish(2)
    device.update()
    return device


def unchanged(device: Device, words: str) -> None:
    """The update is refused with these words, both slots stay, and the fallback still answers."""
    before = contents(device.home)
    assert {name for name in before if name.endswith(".bundle")} == {"a/model.bundle", "b/model.bundle"}
    with pytest.raises(UpdateError, match=words):
        device.update()
    assert contents(device.home) == before
    assert sorted(path.name for path in device.slots.models.iterdir()) == ["1", "2"]
    assert device.slots.journal.last().state == "REFUSED"
    copy = Device(device.home.with_name("fallback"))
    shutil.copytree(device.home, copy.home, symlinks=True)
    flip(copy.slots.path("b") / "model.bundle")
    assert copy.release() == 1


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def spoil(change: Callable[[bytes], bytes]) -> Callable[[Fleet], None]:
    """Sign a bundle that the publishing side would have refused."""

    def sign(fleet: Fleet) -> None:
        sign_targets(fleet.directory, {"demo/3.bundle": change(make_bundle(3)), "rollout/demo.json": rule(3)})

    return sign


def spoil_expansion(data: bytes) -> bytes:
    """Damage the coded weights; the manifest's digest of them then differs."""
    damaged = bytearray(data)
    damaged[-40] ^= 1
    return bytes(damaged)


def missing(fleet: Fleet) -> None:
    fleet.publish(3)
    fleet.artefact(3).unlink()


def flipped(fleet: Fleet) -> None:
    fleet.publish(3)
    flip(fleet.artefact(3))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (missing, "HTTP status 404"),
        (flipped, "not what was signed"),
        (spoil(lambda data: data[:-3]), "the bundle was refused"),
        (spoil(spoil_expansion), "the bundle was refused"),
        (spoil(lambda _: make_bundle(3, family="other")), "its family is 'other'"),
        (lambda fleet: fleet.publish(3, logit_error=0.5), "self-test failed: canned image 3"),
        (lambda fleet: fleet.publish(3, wrong_pictures=True), "self-test failed: the canned pictures do not become"),
        (lambda fleet: fleet.publish(3, rule=CROP, wrong_pictures=True), "self-test failed: the canned pictures do"),
    ],
    ids=["download", "digest", "format", "expand", "family", "self-test", "picture", "resized picture"],
)
def test_damage_of_what_is_sent(two, fleet, damage, words):
    damage(fleet)
    unchanged(two, words)
    fleet.publish(4)
    assert two.update().release == 4
    assert {name: two.slots.examine(name).record.release for name in "ab"} == {"a": 4, "b": 2}


def test_damage_on_the_disk_between_the_self_test_and_the_switch(two, fleet):
    """A thread that sees the state SWITCH flips a byte of what was staged, before it is exchanged."""
    fleet.publish(3)
    home, journal = str(two.home), str(two.home / "journal.json")
    done = threading.Event()

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event != "os.rename" or done.is_set() or str(arguments[1]) != journal:
            return
        if b'"SWITCH"' in Path(str(arguments[0])).read_bytes().rsplit(b"{", 1)[-1]:
            done.set()
            (staged,) = (path for path in Path(home).glob("models/*") if path.name not in _used(Path(home)))
            flip(staged / "model.bundle")

    sys.addaudithook(hook)
    try:
        unchanged(two, r"model\.bundle has SHA-256 .*its record says")
        assert done.is_set()
    finally:
        done.set()


def _used(home: Path) -> set[str]:
    return {Path(os.readlink(home / "slots" / slot)).name for slot in "ab"}


class Refusing:
    """From the N-th call on that changes a name under ``home``, the file system refuses ``count`` calls."""

    def __init__(self) -> None:
        self.home, self.first, self.seen, self.count = "", 0, 0, 0
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self.home or event not in EVENTS or not any(self.home in str(item) for item in arguments):
            return
        if event == "open" and not isinstance(arguments[2], int):
            return
        if event == "open" and not int(str(arguments[2])) & (os.O_WRONLY | os.O_RDWR):
            return
        self.seen += 1
        if self.first <= self.seen < self.first + self.count:
            raise OSError(28, "No space left on device", self.home)


@pytest.fixture(scope="module")
def refusing():
    refusing = Refusing()
    yield refusing
    refusing.home = ""


def test_a_file_system_that_refuses_any_one_write(two, fleet, refusing, tmp_path):
    """Each write, link and rename of an update fails once: both slots stay, or the new model is in."""
    fleet.publish(3)
    before, number, refused = contents(two.home), 0, 0
    while True:
        number += 1
        copy = Device(tmp_path / "copy")
        shutil.rmtree(copy.home, ignore_errors=True)
        shutil.copytree(two.home, copy.home, symlinks=True)
        refusing.home, refusing.first, refusing.seen, refusing.count = str(copy.home), number, 0, 1
        try:
            update(copy.home)
            words = ""
        except DeviceError as error:
            words = str(error)
        refusing.home = ""
        if words:
            assert "No space left on device" in words
            assert contents(copy.home) == before
            assert copy.release() == 2
            refused += 1
        assert copy.slots.examine(copy.slots.staging()).record.release in (1, 2)
        if refusing.seen < number:
            break
    assert refused > 10
    assert copy.release() == 3
