"""A device obeys the rule: dial, cohorts, start and base; never an older rule; and it goes back without a download."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from seedcnn.bundle import Artefact, Rollout
from seedcnn.bundle.rollout import bucket
from seedcnn.device.agent import UpdateResult
from seedcnn.device.bad import bad_files, note_bad
from seedcnn.device.main import main
from seedcnn.device.records import Floor
from seedcnn.device.status import status
from seedcnn.device.status_text import brief, full
from seedcnn.device.trusted import BUILT, Seen, followed, is_clock_behind, trusted_now
from seedcnn.errors import UpdateError
from seedcnn.server.families import rotate
from tests.device.attacker import base, content_of, rule, sign_targets
from tests.device.bundles import make_bundle
from tests.device.fleet import Device, Fleet, contents, expected_logits
from tests.device.hostile import Request, hostile

SALT = "00112233445566778899aabbccddeeff"


def offer(fleet: Fleet, release: int, **fields: object) -> None:
    """Sign a rule."""
    sign_targets(fleet.directory, {"rollout/demo.json": rule(release, fields)})


def hold(fleet: Fleet, *releases: int) -> None:
    """Sign releases that no rule offers."""
    sign_targets(fleet.directory, {f"demo/{each}.bundle": make_bundle(each) for each in releases})


@pytest.fixture
def named(fleet: Fleet, tmp_path) -> Device:
    """Device camera-1 of the cohort "lab", whose number is 275 with SALT, at release 1; release 2 is signed."""
    fleet.publish(1)
    device = fleet.device(tmp_path / "home", device_id="camera-1", cohort="lab")
    device.update()
    hold(fleet, 2)
    return device


def fetched(device: Device, fleet: Fleet) -> tuple[UpdateResult, int]:
    """Update, and return the result and how many bundles were asked for."""

    def good(request: Request) -> None:
        request.serve()

    with hostile(fleet.directory / "public", good, ".bundle") as (server, url):
        return device.update(url), len(server.spoiled)


def test_init_names_the_device_and_status_shows_it(fleet, tmp_path, capsys):
    line = ["init", "--root", fleet.directory / "root.json", "--url", fleet.url, "--family", "demo"]
    names = []
    for number, more in enumerate(([], ["--device-id", "00:1b:44:11:3a:b7", "--cohort", "lab"])):
        home = tmp_path / str(number)
        assert main(["--home", str(home), *map(str, line), *more]) == 0
        assert main(["--home", str(home), "status", "--verbose"]) == 0
        names.append((status(home)["device_id"], status(home)["cohort"]))
        assert f"device     {names[-1][0]}\ncohort     {names[-1][1] or '-'}\n" in capsys.readouterr().out
    assert len(names[0][0]) == 32
    assert int(names[0][0], 16) >= 0
    assert names[0][1] == ""
    assert names[1] == ("00:1b:44:11:3a:b7", "lab")
    for more in (["--device-id", ""], ["--device-id", "a/b"], ["--cohort", "Lab"], ["--cohort", ""]):
        with pytest.raises(SystemExit):
            main(["--home", str(tmp_path / "x"), *map(str, line), *more])
        assert "must be 1 to 64 of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"per_mille": 275}, "not selected: the dial is at 275 per mille"),
        ({"cohorts": ["field", "office"]}, "not selected: the rule is for the cohorts field, office"),
        ({"not_before": 4102444800}, "before its start at 2100-01-01 00:00:00 UTC"),
    ],
)
def test_a_hold_is_said_and_journalled_once(named, fleet, fields, words):
    assert bucket(SALT, "camera-1") == 275
    offer(fleet, 2, salt=SALT, **fields)
    before = contents(named.home)
    result = named.update()
    assert (result.updated, result.release) == (False, 1)
    assert result.message == f"release 2 is held: {words}; release 1 stays"
    entry = named.slots.journal.last()
    assert (entry.state, entry.release, entry.reason) == ("HOLD", 2, words)
    assert f"last: 2 is held, 0 seconds ago: {words}" in brief(status(named.home), entry.time)
    # A check in between that fails does not make it news.
    with pytest.raises(UpdateError):
        named.update("http://127.0.0.1:1")
    entries, written = len(named.states()), (named.home / "journal.json").stat().st_mtime_ns
    for _ in range(2):
        assert words in named.update().message
    assert len(named.states()) == entries
    assert (named.home / "journal.json").stat().st_mtime_ns == written
    assert contents(named.home) == before


def test_the_dial_and_the_cohort_select(named, fleet):
    offer(fleet, 2, salt=SALT, per_mille=276, cohorts=["lab"], not_before=int(time.time()) - 5)
    assert named.update().release == 2
    assert "ELIGIBLE" in named.states()


def test_others_run_the_base(named, fleet):
    hold(fleet, 3)
    offer(fleet, 3, salt=SALT, per_mille=0, base=base(2))
    result = named.update()
    assert (result.updated, result.release) == (True, 2)
    assert named.update().message == "release 3 is held: not selected: the dial is at 0 per mille; release 2 stays"
    assert named.states()[-1] == "HOLD"
    offer(fleet, 3, salt=SALT, base=base(2))
    assert named.update().release == 3


def test_a_device_without_a_model_is_held_too(fleet, tmp_path):
    fleet.publish(1)
    offer(fleet, 1, per_mille=0)
    device = fleet.device(tmp_path / "home")
    assert device.update().message.endswith("per mille; nothing is installed")


@pytest.mark.parametrize("fields", [{"base": base(7)}, {"base": base(7), "per_mille": 0}])
def test_offer_and_base_must_be_signed(named, fleet, fields):
    offer(fleet, 2, **fields)
    with pytest.raises(UpdateError, match=r"demo/7\.bundle is not a signed target"):
        named.update()
    assert named.release() == 1
    assert named.slots.floor().serial == 1


def test_a_revert_fetches_nothing(named, fleet, tmp_path):
    offer(fleet, 2)
    assert named.update().release == 2
    fleet.artefact(1).unlink()
    offer(fleet, 1)
    states = len(named.states())
    result, asked = fetched(named, fleet)
    assert (result.updated, result.release, result.previous) == (True, 1, 2)
    assert result.message == "release 1 is installed in slot a (before: 2; the slot still held it)"
    assert asked == 0
    assert named.states()[states:] == ["CHECK", "ELIGIBLE", "EXPAND", "SELFTEST", "SWITCH", "COMMITTED"]
    np.testing.assert_array_equal(named.logits(), expected_logits(make_bundle(1), tmp_path))
    assert not named.update().updated
    offer(fleet, 2)
    assert fetched(named, fleet)[1] == 0
    assert named.release() == 2


def test_a_revert_to_a_damaged_slot_fetches_the_bundle(named, fleet):
    offer(fleet, 2)
    named.update()
    path = named.slots.path("a") / "model.bundle"
    path.write_bytes(path.read_bytes()[:-1])
    offer(fleet, 1)
    result, asked = fetched(named, fleet)
    assert (result.release, asked) == (1, 1)
    assert named.release() == 1


def test_a_revert_below_the_minimum_release_is_refused(named, fleet):
    bundle = make_bundle(3, min_release=2)
    newer = rule(3, {"content": content_of(bundle)})
    sign_targets(fleet.directory, {"demo/3.bundle": bundle, "rollout/demo.json": newer})
    named.update()
    offer(fleet, 1)
    with pytest.raises(UpdateError, match=r"release 1 of 'demo' was refused: a model .* requires release 2 or later"):
        named.update()
    assert named.release() == 3


def test_a_bundle_that_failed_here_is_not_switched_to(named, fleet):
    offer(fleet, 2)
    named.update()
    for _ in range(2):
        note_bad(named.home, named.slots.examine("a").record.artefact, 1, "it lies")
    offer(fleet, 1)
    with pytest.raises(UpdateError, match="has failed or was taken back"):
        named.update()
    assert named.release() == 2


def test_a_rule_that_was_only_seen_is_a_floor(named, fleet):
    offer(fleet, 2, serial=50, per_mille=0)
    named.update()
    offer(fleet, 2, serial=49)
    with pytest.raises(UpdateError, match="its serial is 49; this device has seen serial 50"):
        named.update()
    assert named.release() == 1


ARTEFACT = Artefact("demo", 2, "0" * 64, {})


def seen(serial: int, *, keys: str = "k", timekeepers: str = "t", signed_at: int = 1000, until: int = 5000) -> Seen:
    return Seen(Rollout(ARTEFACT, serial, None, SALT, 1000, signed_at), f"{serial:064x}", keys, timekeepers, until)


def test_floors_belong_to_the_keys_that_signed_them():
    floor = followed(Floor(min_release=3), seen(7))
    assert floor == Floor(7, f"{7:064x}", "k", 1000, "t", 3)
    assert followed(floor, seen(7)) is floor
    assert followed(floor, seen(8, signed_at=900)).signed_at == 1000
    with pytest.raises(UpdateError, match="its serial is 6"):
        followed(floor, seen(6))
    # New keys of the rule's role start anew, and so does the time.
    assert followed(floor, seen(1, keys="l", signed_at=900)) == Floor(1, f"{1:064x}", "l", 900, "t", 3)
    # New keys of the timestamp role start the time anew, but not the serial.
    assert followed(floor, seen(7, timekeepers="u", signed_at=900)) == Floor(7, f"{7:064x}", "k", 900, "u", 3)
    with pytest.raises(UpdateError, match="its serial is 6"):
        followed(floor, seen(6, timekeepers="u"))


def test_a_thief_of_the_rules_key_cannot_push_the_time_beyond_the_metadata():
    floor = followed(Floor(), seen(7, signed_at=10**9, until=5000))
    assert floor.signed_at == 4999


def test_the_time_is_the_latest_that_is_known():
    floor = Floor(signed_at=BUILT + 500, timekeepers="t")
    assert trusted_now(0.0, floor, "t") == BUILT + 500
    assert trusted_now(0.0, floor, "u") == BUILT
    assert trusted_now(BUILT + 900.5, floor, "t") == BUILT + 900.5
    assert is_clock_behind(0.0, floor)
    assert not is_clock_behind(BUILT, floor)
    assert time.time() > BUILT


def test_after_the_rules_key_is_replaced_a_lower_serial_is_followed(named, fleet):
    """A thief of the key has signed the highest serial that there is."""
    offer(fleet, 1, serial=2**53 - 1)
    named.update()
    assert named.slots.floor().serial == 2**53 - 1
    rotate(fleet.directory, "demo.rule")
    offer(fleet, 2, serial=2)
    assert named.update().release == 2
    assert named.slots.floor().serial == 2


def test_a_thief_with_the_rules_key_leaves_no_device_in_the_future(named, fleet):
    offer(fleet, 1, signed_at=int(time.time()) + 10**8)
    assert not named.update().updated
    assert named.slots.floor().signed_at < time.time() + 4 * 86400
    assert not named.update().updated


def test_a_device_in_1970_notices_a_frozen_repository(fleet, tmp_path):
    """The repository froze a month ago; a device whose clock says 1970 has committed under a newer rule."""
    fleet.publish(1)
    device = fleet.device(tmp_path / "home")

    def start() -> float:
        return 60.0

    assert device.update(clock=start).release == 1
    assert status(device.home, clock=start)["clock"]["behind"]
    assert "so the age of the repository's metadata is unknown" in brief(status(device.home, clock=start), 60.0)
    assert any(row.startswith("clock") and "unknown" in row for row in full(status(device.home, clock=start)))
    assert "unknown" not in brief(status(device.home), time.time())
    path = device.home / "floor.json"
    floor = json.loads(path.read_bytes())
    assert abs(floor["signed_at"] - time.time()) < 100
    path.write_text(json.dumps(floor | {"signed_at": floor["signed_at"] + 30 * 86400}))
    with pytest.raises(UpdateError, match="metadata has expired or this device's clock is wrong"):
        device.update(clock=start)
    assert device.release() == 1


def test_a_clock_that_is_ahead_is_refused_and_comes_right_by_itself(named, fleet):
    offer(fleet, 2)
    ahead = datetime.now(UTC) + timedelta(days=200)
    with pytest.raises(UpdateError, match="metadata has expired or this device's clock is wrong"):
        named.update(clock=ahead.timestamp)
    assert named.update().release == 2
    assert bad_files(named.home) == ()
