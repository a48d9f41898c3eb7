"""Updates by deltas: the same model for fewer bytes, and the whole bundle if a delta fails."""

from __future__ import annotations

import numpy as np
import pytest

from seedcnn.bundle import read_bundle
from seedcnn.errors import UpdateError
from tests.bundle.deltas import signed
from tests.device.attacker import rule, sign_targets
from tests.device.fleet import expected_logits


def test_the_delta_makes_the_published_model(fleet, device, tmp_path):
    whole = fleet.publish(2, parent=1, deltas=1)
    result = device.update()
    assert "; by a delta of " in result.message
    release, logits = device.answer()
    assert release == 2
    assert np.array_equal(logits, expected_logits(whole, tmp_path))
    active = device.slots.active()
    assert active.record.artefact == read_bundle(whole).sha256 != active.record.sha256
    assert active.record.content == read_bundle(whole).manifest.content_sha256()
    assert not device.update().updated


def test_the_whole_bundle_is_not_fetched(fleet, device):
    whole = fleet.publish(2, parent=1, deltas=1)
    for path in (fleet.directory / "public" / "targets" / "demo").glob("*.2.bundle"):
        path.unlink()
    device.update()
    assert device.release() == 2
    assert device.slots.active().record.artefact == read_bundle(whole).sha256


def test_a_chain_of_deltas(fleet, device, tmp_path):
    for release in (2, 3, 4):
        whole = fleet.publish(release, parent=1, deltas=1)
        assert "by a delta" in device.update().message
    assert np.array_equal(device.logits(), expected_logits(whole, tmp_path))


def test_skipped_releases(fleet, device, tmp_path):
    for release in (2, 3):
        whole = fleet.publish(release, parent=1, deltas=2)
    assert "by a delta" in device.update().message
    assert np.array_equal(device.logits(), expected_logits(whole, tmp_path))


def test_no_delta_from_what_the_device_has(fleet, device):
    for release in (2, 3):
        fleet.publish(release, parent=1, deltas=1)  # from release 2 only
    assert "delta" not in device.update().message
    assert device.release() == 3


def test_a_first_model_and_another_network_come_whole(fleet, device):
    fleet.publish(2, width=32, deltas=1)
    assert "delta" not in device.update().message
    assert device.release() == 2


def _spoil(fleet, change) -> None:
    (path,) = (fleet.directory / "public" / "targets" / "demo").glob("*.delta")
    change(path)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda path: path.unlink(), "404"),
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "not what was signed"),
        (lambda path: path.write_bytes(bytes(len(path.read_bytes()))), "not what was signed"),
        (lambda path: path.write_bytes(path.read_bytes() * 2), "it sends more than"),
    ],
    ids=["missing", "truncated", "other bytes", "longer"],
)
def test_a_delta_that_fails_gives_way_to_the_whole(fleet, device, change, why):
    whole = fleet.publish(2, parent=1, deltas=1)
    _spoil(fleet, change)
    result = device.update()
    assert "; its delta failed: " in result.message
    assert why in result.message
    assert device.release() == 2
    record = device.slots.active().record
    assert record.sha256 == record.artefact == read_bundle(whole).sha256


def _signed_delta(fleet, make_bundle, change):
    """Release 2 with a signed rule whose delta was changed by an attacker with the keys."""
    fleet.publish(2, parent=1, deltas=1)
    (path,) = (fleet.directory / "public" / "targets" / "demo").glob("*.delta")
    data = change(path.read_bytes())
    parent, child = read_bundle(make_bundle(1)).manifest, read_bundle(make_bundle(2, parent=1)).manifest
    name = "demo/2.from-1.delta"
    fields = {"content": child.content_sha256(), "deltas": {parent.content_sha256(): name}}
    sign_targets(fleet.directory, {name: data, "rollout/demo.json": rule(2, fields)})


def _flip(delta):
    return delta[:-1] + bytes([delta[-1] ^ 1])


def _other(word):
    def change(manifest):
        manifest[word] = ("0" if manifest[word][0] != "0" else "1") + manifest[word][1:]

    return lambda delta: signed(delta, change)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_flip, "the stored bytes do not match their digest"),
        (_other("parent"), "the delta applies to the bundle with content"),
        (_other("result"), "it makes content"),
    ],
    ids=["tampered", "wrong parent", "another result"],
)
def test_a_signed_delta_that_lies_gives_way_to_the_whole(fleet, device, make_bundle, change, why):
    _signed_delta(fleet, make_bundle, change)
    result = device.update()
    assert why in result.message
    assert device.release() == 2


def test_nothing_is_lost_where_neither_can_be_had(fleet, device):
    fleet.publish(2, parent=1, deltas=1)
    for path in (fleet.directory / "public" / "targets" / "demo").glob("*.2.*"):
        path.unlink()
    with pytest.raises(UpdateError, match="404"):
        device.update()
    assert device.release() == 1


def test_a_rule_whose_deltas_have_other_names_is_refused(fleet, device, make_bundle):
    fields = {"deltas": {"0" * 64: "../1.from-1.delta"}}
    sign_targets(fleet.directory, {"demo/2.bundle": make_bundle(2), "rollout/demo.json": rule(2, fields)})
    with pytest.raises(UpdateError, match="deltas has"):
        device.update()
    assert device.release() == 1
