"""Attacks on the repository, and accidents; the previous model stays active."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest

from seedcnn.device.fetcher import DownloadLimits
from seedcnn.errors import BundleFormatError, SelfTestError, UpdateError
from seedcnn.server.refresh import refresh
from seedcnn.server.repository import Expires, publish
from tests.device.attacker import Thief, rule, sign_targets
from tests.device.fleet import contents, open_fleet


def refused(device, match, *, cause=None, release=1, limits=None, url=None):
    """The update fails with one sentence and is journalled; both slots stay as they were, without debris."""
    before = contents(device.home)
    with pytest.raises(UpdateError, match=match) as caught:
        device.update(url, limits)
    assert "\n" not in str(caught.value)
    if cause is not None:
        assert isinstance(caught.value.__cause__, cause)
    last = device.slots.journal.last()
    assert (last.state, last.reason) == ("REFUSED", str(caught.value))
    assert contents(device.home) == before
    assert len(list(device.slots.models.iterdir())) == len([name for name in before if name.endswith("slot.json")])
    assert device.release() == release


@pytest.mark.parametrize("place", [0, 8, 100, -1])
def test_flipped_bit_on_the_server(device, fleet, place):
    fleet.publish(2)
    path = fleet.artefact(2)
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    refused(device, "not what was signed .*hash")


def test_update_succeeds_once_the_server_is_repaired(device, fleet):
    fleet.publish(2)
    path = fleet.artefact(2)
    good = path.read_bytes()
    path.write_bytes(good[:-1] + b"\0")
    refused(device, "not what was signed")
    path.write_bytes(good)
    assert device.update().release == 2


@pytest.mark.parametrize("keep", [0, 1, 1000])
def test_truncated_bundle(device, fleet, keep):
    fleet.publish(2)
    path = fleet.artefact(2)
    path.write_bytes(path.read_bytes()[:keep])
    refused(device, "not what was signed .*length")


def test_bundle_with_bytes_added(device, fleet):
    fleet.publish(2)
    path = fleet.artefact(2)
    path.write_bytes(path.read_bytes() + bytes(5_000_000))
    refused(device, "sends more than the [0-9]+ bytes signed")


def test_missing_bundle(device, fleet):
    fleet.publish(2)
    fleet.artefact(2).unlink()
    refused(device, "HTTP status 404")


@pytest.mark.parametrize(
    "name", ["timestamp.json", "3.snapshot.json", "2.demo.bundles.json", "2.demo.rule.json", "2.targets.json"]
)
def test_tampered_metadata(fleet, tmp_path, name):
    fleet.publish(1)
    device = fleet.device(tmp_path / "home")
    path = fleet.directory / "public" / "metadata" / name
    data = path.read_bytes()
    path.write_bytes(re.sub(rb'"version":[0-9]', b'"version":9', data, count=1))
    assert path.read_bytes() != data
    with pytest.raises(UpdateError, match=r"not signed by the keys|not what was signed"):
        device.update()
    path.write_bytes(data)
    assert device.update().release == 1


def test_metadata_that_is_not_json(device, fleet):
    (fleet.directory / "public" / "metadata" / "timestamp.json").write_bytes(b"<html>captive portal</html>")
    refused(device, "metadata is not valid")


def test_signed_bundle_of_a_future_version(device, fleet, make_bundle):
    future = make_bundle(2).replace(b"seedcnn-bundle/1", b"seedcnn-bundle/2")
    sign_targets(fleet.directory, {"demo/2.bundle": future, "rollout/demo.json": rule(2)})
    refused(device, "bundle format is 'seedcnn-bundle/2'; this version of seedcnn reads", cause=BundleFormatError)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"format": "seedcnn-rollout/3", "anything": [1]}, "format is 'seedcnn-rollout/3'"),
        ({"family": "other"}, "about family 'other'"),
        ({"artefact": "../../etc/passwd"}, "artefact is"),
    ],
)
def test_signed_rollout_rule_that_is_not_one(device, fleet, make_bundle, changes, match):
    sign_targets(fleet.directory, {"demo/2.bundle": make_bundle(2), "rollout/demo.json": rule(2, changes)})
    refused(device, match)


@pytest.mark.parametrize("text", [b"", b"[]", b"[" * 5000])
def test_signed_rollout_rule_that_is_not_an_object(device, fleet, text):
    sign_targets(fleet.directory, {"rollout/demo.json": text})
    refused(device, "the rollout rule of 'demo' was refused")


def test_rollout_rule_without_its_artefact(device, fleet):
    sign_targets(fleet.directory, {"rollout/demo.json": rule(2)})
    refused(device, "demo/2.bundle is not a signed target")


@pytest.mark.parametrize("name", ["rollout/demo.json", "demo/2.bundle"])
def test_target_signed_with_sha512_only(device, fleet, make_bundle, name):
    """TUF allows it, and this device refuses it on purpose, before it fetches the file."""
    sign_targets(fleet.directory, {"demo/2.bundle": make_bundle(2), "rollout/demo.json": rule(2)})
    thief = Thief(fleet.directory)

    def only_sha512(targets):
        targets.targets[name].hashes = {"sha512": "0" * 128}

    thief.role("demo.rule" if name.startswith("rollout/") else "demo.bundles", only_sha512)
    thief.publish()
    refused(device, f"{name} was refused: it is signed without a SHA-256 digest")


def test_bundle_of_another_family_or_release_under_the_announced_name(device, fleet, make_bundle):
    sign_targets(fleet.directory, {"demo/2.bundle": make_bundle(2, family="other"), "rollout/demo.json": rule(2)})
    refused(device, "its family is 'other', not 'demo'")
    sign_targets(fleet.directory, {"demo/3.bundle": make_bundle(2), "rollout/demo.json": rule(3)})
    refused(device, "it is release 2, but was announced as 3")


def test_older_rule_signed_by_somebody_with_the_keys(device, fleet):
    fleet.publish(4)
    device.update()
    sign_targets(fleet.directory, {"rollout/demo.json": rule(4, {"serial": 1})})
    refused(device, "its serial is 1; this device has seen serial 2 and never follows an older one", release=4)


def test_same_serial_with_another_content(device, fleet, make_bundle):
    sign_targets(fleet.directory, {"demo/2.bundle": make_bundle(2), "rollout/demo.json": rule(2, {"serial": 1})})
    refused(device, "this device has seen serial 1 with different content")


def test_floor_survives_the_loss_of_all_tuf_state(device, fleet):
    fleet.publish(4)
    device.update()
    for path in sorted((device.home / "metadata").rglob("*"), reverse=True):
        path.unlink() if path.is_symlink() or path.is_file() else path.rmdir()
    sign_targets(fleet.directory, {"rollout/demo.json": rule(1, {"serial": 1})})
    refused(device, "never follows an older one", release=4)


def test_unreadable_floor_stops_updates_not_answers(device, fleet):
    (device.home / "floor.json").write_bytes(b"{}")
    fleet.publish(2)
    refused(device, "floor.json cannot be read, so old rules cannot be told from new ones")


def test_replayed_old_metadata(device, fleet):
    metadata = fleet.directory / "public" / "metadata"
    old = (metadata / "timestamp.json").read_bytes()
    fleet.publish(2)
    device.update()
    (metadata / "timestamp.json").write_bytes(old)
    refused(device, "older than what this device has seen", release=2)


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "bundles", "rule"])
def test_expired_metadata(device, fleet, make_bundle, role):
    publish(fleet.directory, make_bundle(2), expires=Expires(**{role: timedelta(seconds=-5)}))
    refused(device, "metadata has expired or this device's clock is wrong")
    refresh(fleet.directory)
    assert device.update().release == 2


def test_expired_root(tmp_path, make_bundle):
    with open_fleet(tmp_path / "fleet", expires=Expires(root=timedelta(seconds=-5))) as fleet:
        fleet.publish(1)
        device = fleet.device(tmp_path / "home")
        with pytest.raises(UpdateError, match=r"expired .*root\.json"):
            device.update()
        assert refresh(fleet.directory).roles == ("root", "timestamp")
        assert device.update().release == 1


def test_wrong_root(device, fleet, tmp_path):
    with open_fleet(tmp_path / "impostor") as impostor:
        impostor.publish(9)
        refused(device, "not signed by the keys this device trusts", url=impostor.url)
        (device.home / "root.json").write_bytes((impostor.directory / "root.json").read_bytes())
        refused(device, "not signed by the keys this device trusts", url=fleet.url)


def test_unknown_family(tmp_path, fleet):
    fleet.publish(1, family="other")
    device = fleet.device(tmp_path / "home")
    with pytest.raises(UpdateError, match="published nothing for family 'demo'"):
        device.update()


def test_model_that_fails_its_self_test(device, fleet):
    fleet.publish(2, logit_error=0.5)
    refused(device, r"canned image 3 is off by 0.5; 0.001 is allowed", cause=SelfTestError)
    assert device.states()[-3:] == ["EXPAND", "SELFTEST", "REFUSED"]


def test_bundle_too_large_for_the_device(device, fleet):
    fleet.publish(2)
    refused(device, "this device accepts 1000", limits=DownloadLimits(max_bytes=1000))


def test_empty_metadata_files_count_as_absent(device, fleet):
    for path in (device.home / "metadata").glob("*.json"):
        if not path.is_symlink():
            path.write_bytes(b"")
    (device.home / "metadata" / "root_history" / "1.root.json").write_bytes(b"")
    (device.home / "metadata" / "tmp1234").write_bytes(b"half")
    fleet.publish(2)
    assert device.update().release == 2
    assert not (device.home / "metadata" / "tmp1234").exists()
