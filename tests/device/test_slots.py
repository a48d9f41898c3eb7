from __future__ import annotations

import json
import logging
import re
from dataclasses import replace

import numpy as np
import pytest

from seedcnn.device.journal import Journal
from seedcnn.device.records import Floor, SlotRecord, dump, parse
from seedcnn.device.runtime import Model
from seedcnn.device.slots import Slots
from seedcnn.errors import DeviceError, SlotError, UpdateError
from seedcnn.files import replace_symlink
from tests.device.attacker import rule, sign_targets
from tests.device.fleet import IMAGES, contents


@pytest.fixture
def two(device, fleet):
    """A device with release 1 in slot a and release 2, current, in slot b."""
    fleet.publish(2)
    device.update()
    assert device.slots.current() == "b"
    return device


def flip(path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", ["flip", "truncate", "unlink", "record", "no record"])
def test_damaged_current_slot_falls_back_and_says_so(two, fleet, caplog, damage):
    model, record = two.slots.path("b") / "model.bundle", two.slots.path("b") / "slot.json"
    {
        "flip": lambda: flip(model),
        "truncate": lambda: model.write_bytes(model.read_bytes()[:100]),
        "unlink": model.unlink,
        "record": lambda: record.write_bytes(b'{"release": 9}'),
        "no record": record.unlink,
    }[damage]()
    with caplog.at_level(logging.WARNING):
        assert two.release() == 1
    assert "slot b is bad" in caplog.text
    assert two.slots.current() == "a"
    last = two.slots.journal.last()
    assert (last.state, last.slot, last.release) == ("ROLLED_BACK", "b", 1)
    assert last.reason.startswith("slot b is bad")
    caplog.clear()
    assert two.release() == 1
    assert caplog.text == ""
    # The same release comes again, and goes into the bad slot.
    assert two.update().release == 2
    assert two.slots.current() == "b"
    assert two.slots.examine("a").record.release == 1


def test_fallback_is_said_on_stderr_by_the_command(two):
    flip(two.slots.path("b") / "model.bundle")
    done = two.command("status")
    assert done.returncode == 0
    assert "slot b is bad: model.bundle has SHA-256" in done.stderr
    assert re.match(r"demo  release 1 \(.*\), since .* \| last: slot b is bad, so back to release 1, ", done.stdout)


def test_update_repairs_before_it_stages(two, fleet):
    flip(two.slots.path("b") / "model.bundle")
    fleet.publish(3)
    good = two.slots.path("a") / "model.bundle"
    content = good.read_bytes()
    assert two.update().previous == 1
    assert two.slots.current() == "b"
    assert good.read_bytes() == content


def test_both_slots_damaged(two, fleet):
    for slot in "ab":
        flip(two.slots.path(slot) / "model.bundle")
    with pytest.raises(SlotError, match=r"slot b is bad.*slot a: model.bundle has SHA-256.*no factory model"):
        two.release()
    fleet.publish(3)
    assert two.update().release == 3
    assert two.release() == 3


def test_factory_model_when_no_slot_is_good(fleet, tmp_path, make_bundle):
    (tmp_path / "f.bundle").write_bytes(make_bundle(1))
    device = fleet.device(tmp_path / "home", factory=tmp_path / "f.bundle")
    fleet.publish(2)
    device.update()
    flip(device.slots.path(device.slots.current()) / "model.bundle")
    assert device.release() == 1
    assert device.slots.current() is None
    fields = {"serial": 1}
    sign_targets(fleet.directory, {"demo/1.bundle": make_bundle(1, width=8), "rollout/demo.json": rule(1, fields)})
    with pytest.raises(UpdateError, match="has seen serial 1 with different content"):
        device.update()
    assert device.release() == 1


def test_fallback_never_goes_below_the_minimum_release(device, fleet):
    fleet.publish(2, min_release=2)
    device.update()
    flip(device.slots.path("b") / "model.bundle")
    with pytest.raises(SlotError, match="slot a: release 1 is below the minimum 2"):
        device.release()


def test_fallback_while_an_update_holds_the_lock_answers_without_marking(two, caplog):
    flip(two.slots.path("b") / "model.bundle")
    with two.slots.lock():
        assert two.release() == 1
        assert "could not be marked bad" in caplog.text
        assert two.slots.current() == "b"


def test_only_the_other_slot_may_be_exchanged_and_only_for_a_complete_model(two):
    slots = two.slots
    before = contents(two.home)
    place = slots.fresh()
    assert list(place.iterdir()) == []
    for slot, words in (("b", "slot b is current and cannot be replaced"), ("a", r"slot\.json: No such file")):
        with pytest.raises(SlotError, match=words):
            slots.switch(slot, place)
    model = slots.examine("b")
    (place / "model.bundle").write_bytes(model.data[:-1])
    slots.complete(place, model.record)
    with pytest.raises(SlotError, match=r"model\.bundle has \d+ bytes"):
        slots.switch("a", place)
    assert contents(two.home) == before
    assert slots.current() == "b"
    slots.discard()
    assert len(list(slots.models.iterdir())) == 2
    with pytest.raises(ValueError, match="`slot`"):
        slots.path("../x")


@pytest.mark.parametrize("target", ["../models/4", "/etc", "../models/../metadata", "../models/1/"])
def test_a_slot_that_points_to_elsewhere_is_no_slot(two, target):
    replace_symlink(two.slots.path("a"), target)
    assert two.slots._place("a") is None
    two.slots.discard()
    assert two.release() == 2


def test_a_home_of_another_version_is_refused_in_words(device, fleet):
    (device.home / "slots" / "a").unlink()
    (device.home / "models" / "1").rename(device.home / "slots" / "a")
    (device.home / "models").rmdir()
    fleet.publish(2)
    with pytest.raises(
        UpdateError, match=r"slots/a must be a symbolic link; another version made .* initialise it anew"
    ):
        device.update()
    assert device.states()[-1] == "REFUSED"
    assert device.release() == 1


def test_what_killed_writers_left_is_dropped(two, fleet):
    left = [two.home / ".seedcnn-0a.tmp", two.home / "slots" / ".seedcnn-0b.tmp", two.slots.models / "3"]
    for path in left[:2]:
        path.write_bytes(b"half")
    left[2].mkdir()
    (left[2] / "model.bundle.part").write_bytes(b"half")
    fleet.publish(3)
    two.update()
    assert not any(path.exists() for path in left[:2])
    assert len(list(two.slots.models.iterdir())) == 2


@pytest.mark.parametrize("target", ["slots/c", "/etc", "slots/../../x", "slots/a/"])
def test_a_pointer_to_elsewhere_is_no_slot(two, target):
    replace_symlink(two.home / "current", target)
    assert two.slots.current() is None


def test_interrupted_commit_is_finished(two, fleet):
    """As after a power cut between the switch and the record of the commit."""
    journal = json.loads((two.home / "journal.json").read_bytes())
    assert journal["entries"].pop()["state"] == "COMMITTED"
    (two.home / "journal.json").write_text(json.dumps(journal))
    record = two.slots.path("b") / "slot.json"
    record.write_bytes(dump(replace(parse(SlotRecord, record.read_bytes()), min_release=2)))
    assert two.slots.floor().min_release == 2
    assert stored(two).min_release == 0
    two.update()
    assert two.states()[-1] == "COMMITTED"
    assert stored(two).min_release == 2


def stored(device) -> Floor:
    return parse(Floor, (device.home / "floor.json").read_bytes())


def test_the_minimum_release_never_sinks(tmp_path):
    slots = Slots(tmp_path)
    for minimum, lowest in ((4, 4), (0, 4), (6, 6)):
        slots.raise_minimum(SlotRecord("demo", 9, minimum, "5" * 64, 1, "c" * 64, "5" * 64))
        assert slots.floor() == Floor(min_release=lowest)
    slots.follow(Floor(3, "r", "k", 7, "t"))
    assert slots.floor() == Floor(3, "r", "k", 7, "t", 6)


def test_lock_of_a_home_that_is_not_there(tmp_path):
    with pytest.raises(DeviceError, match="cannot be locked"), Slots(tmp_path / "absent").lock():
        pass


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"serial":1}', b'{"serial":true}', b"\xff"])
def test_records_are_parsed_strictly(text):
    with pytest.raises(ValueError):
        parse(Floor, text)
    floor = Floor(1, "x", "k", 5, "t", 1)
    assert parse(Floor, dump(floor)) == floor
    for wrong in (dump(floor).replace(b"5", b"true"), dump(floor).replace(b'{"', b'{"extra": 1, "', 1)):
        with pytest.raises(ValueError, match="must hold exactly serial, rule, keys, signed_at, timekeepers, min_rel"):
            parse(Floor, wrong)


def test_journal_keeps_the_last_entries_and_folds_repeated_checks(tmp_path, caplog):
    journal = Journal(tmp_path / "journal.json")
    assert journal.last() is None
    for _ in range(3):
        journal.append("CHECK")
    assert len(journal.entries()) == 1
    for _ in range(3):
        journal.append("CHECK")
        journal.append("REFUSED", reason="why")
    assert [entry.state for entry in journal.entries()] == ["CHECK", "REFUSED"]
    for release in range(1, 100):
        journal.append("REFUSED", release=release, reason="why")
    assert [entry.release for entry in journal.entries()] == list(range(36, 100))
    with pytest.raises(ValueError, match="`state`"):
        journal.append("DONE")
    (tmp_path / "journal.json").write_bytes(b'{"format":"seedcnn-journal/9"}')
    assert journal.entries() == ()
    assert "a new journal is started" in caplog.text


def test_a_reader_that_started_before_the_switch_keeps_its_model(device, fleet):
    model = Model.load(device.slots)
    before = model.logits(IMAGES)
    for release in (2, 3):
        fleet.publish(release)
        device.update()
    np.testing.assert_array_equal(model.logits(IMAGES), before)
