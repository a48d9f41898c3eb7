"""A device on its own, over HTTP, while its repository's keys are replaced."""

from __future__ import annotations

import json

import pytest

from seedcnn.errors import UpdateError
from seedcnn.server.families import revoke, rotate
from seedcnn.server.keys import generate_key
from tests.device.attacker import Thief


def test_every_key_is_replaced_under_a_device_that_goes_on(device, fleet):
    """All roles, one after the other; the factory root stays as it was built in."""
    for number, role in enumerate(("timestamp", "snapshot", "demo.rule"), 2):
        rotate(fleet.directory, role)
        fleet.publish(number)
        assert device.update().release == number
    signed = json.loads((fleet.directory / "root.json").read_bytes())["signed"]["roles"]
    for role in ("root", "targets"):
        for count, keyid in enumerate(signed[role]["keyids"]):
            new = fleet.directory / "keys" / f"{role}-{count + 4}.pem"
            generate_key(new)
            revoke(fleet.directory, keyid, replace_with=new)
    fleet.publish(5)
    assert device.update().release == 5
    fresh = fleet.device(device.home.with_name("fresh"))
    assert fresh.update().release == 5


def test_a_thief_of_the_online_keys_holds_a_device_back_until_they_are_rotated(device, fleet):
    metadata = fleet.directory / "public" / "metadata"
    good = {path: path.read_bytes() for path in metadata.iterdir()}
    thief = Thief(fleet.directory)
    thief.snapshot.signed.meta["invented.json"] = thief.snapshot.signed.meta["targets.json"]
    thief.publish(snapshot=10**9, timestamp=10**9)
    assert not device.update().updated
    for path, data in good.items():
        path.write_bytes(data)
    fleet.publish(2)
    with pytest.raises(UpdateError, match="metadata is older than what this device has seen"):
        device.update()
    for role in ("timestamp", "snapshot"):
        rotate(fleet.directory, role)
    assert device.update().release == 2
