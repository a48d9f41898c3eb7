"""Each role compromised in turn: what the thief can do, then what the operator does, and the same device goes on.

The thief has copied keys, and can write to the server. The operator's own copy of the public files is whole: what the
thief publishes is laid over a copy that devices see, until the operator publishes again.
"""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tuf.api.exceptions import BadVersionNumberError, RepositoryError, UnsignedMetadataError
from tuf.api.metadata import DelegatedRole, Metadata, MetaFile, Root, TargetFile, Targets

from seedcnn.bundle import Artefact, Rollout, read_bundle
from seedcnn.server.families import add_family, revoke, rotate
from seedcnn.server.keys import generate_key, load_signer
from seedcnn.server.repository import init_repository, publish
from tests.device.attacker import Thief
from tests.server.client import Client

LATE = 1_000_000_000


class Scene:
    """A repository, the server that devices ask, a device that has seen release 2, and what a thief has copied."""

    def __init__(self, place: Path, make_bundle) -> None:
        self.mine, self.server, self.loot = place / "mine", place / "server", place / "loot"
        init_repository(self.mine)
        add_family(self.mine, "demo")
        add_family(self.mine, "other")
        publish(self.mine, make_bundle(1))
        publish(self.mine, make_bundle(2, parent=1))
        publish(self.mine, make_bundle(1, family="other"))
        shutil.copytree(self.mine / "keys", self.loot)
        self.upload()
        self.device = Client(self.server, place / "home", (self.mine / "root.json").read_bytes())
        assert self.device.release() == 2

    def upload(self) -> None:
        """Put the operator's files on the server, in place of what is there."""
        shutil.rmtree(self.server, ignore_errors=True)
        shutil.copytree(self.mine / "public", self.server / "public")

    def thief(self) -> Thief:
        return Thief(self.server, self.loot)

    def refused(self, *kinds: type[Exception]) -> None:
        with pytest.raises(kinds):
            self.device.release()


@pytest.fixture
def scene(tmp_path, make_bundle):
    return Scene(tmp_path, make_bundle)


def rule_of(bundle: bytes) -> bytes:
    manifest = read_bundle(bundle).manifest
    return to_all(Artefact(manifest.family, manifest.release, manifest.content_sha256(), {}))


def to_all(artefact: Artefact) -> bytes:
    """A rule by which every device runs a release, of a serial far ahead."""
    return Rollout(artefact, 10**6, None, "0" * 32, 1000, 0).dump()


def test_timestamp(scene, make_bundle):
    """Nothing of the thief's runs; a version far ahead holds devices back until the key is rotated."""
    thief = scene.thief()
    thief.timestamp.signed.snapshot_meta = MetaFile(LATE)
    path = thief.metadata / "timestamp.json"
    path.write_bytes(thief.sign("timestamp", thief.timestamp, version=LATE))
    scene.refused(Exception)  # the snapshot that it names is not there
    publish(scene.mine, make_bundle(3))
    scene.upload()
    scene.refused(BadVersionNumberError)
    rotate(scene.mine, "timestamp")
    scene.upload()
    assert scene.device.release() == 3
    thief = scene.thief()
    thief.publish(timestamp=LATE)
    scene.refused(UnsignedMetadataError)


def test_snapshot_and_timestamp(scene, make_bundle):
    """Nothing of the thief's runs; versions far ahead and invented roles hold devices back until both are rotated."""
    thief = scene.thief()
    thief.snapshot.signed.meta["invented.json"] = MetaFile(1)
    thief.publish(snapshot=LATE, timestamp=LATE)
    assert scene.device.release() == 2  # which has seen the thief's snapshot now
    thief = scene.thief()
    thief.snapshot.signed.meta["demo.rule.json"] = MetaFile(LATE)
    thief.publish()
    scene.refused(Exception)
    publish(scene.mine, make_bundle(3))
    scene.upload()
    scene.refused(BadVersionNumberError)
    rotate(scene.mine, "timestamp")
    scene.upload()
    scene.refused(RepositoryError)  # the snapshot that it has seen is newer, as far as it knows
    rotate(scene.mine, "snapshot")
    scene.upload()
    assert (scene.device.release(), scene.device.release("other")) == (3, 1)


def test_rule(scene, make_bundle):
    """With the rule's key and the online ones: any release that the team has signed, and no other."""
    thief = scene.thief()
    thief.add("demo.rule", "rollout/demo.json", rule_of(make_bundle(1)))
    thief.publish()
    assert scene.device.release() == 1  # a device's own floor refuses it: tests/device/test_attacks.py
    own = make_bundle(9)
    thief = scene.thief()
    thief.add("demo.rule", "demo/9.bundle", own)
    thief.add("demo.rule", "rollout/demo.json", rule_of(own))
    thief.publish()
    with pytest.raises(AssertionError, match=r"demo/9\.bundle"):
        scene.device.release()  # nobody signs a bundle with the rule's key
    thief = scene.thief()
    thief.add("demo.rule", "rollout/other.json", rule_of(make_bundle(9, family="other")))
    thief.publish()
    assert scene.device.release("other") == 1  # nor the rule of another family
    for role in ("demo.rule", "snapshot", "timestamp"):
        rotate(scene.mine, role)
    scene.upload()
    assert scene.device.release() == 2
    scene.thief().publish()
    scene.refused(UnsignedMetadataError)


def test_team(scene, make_bundle, tmp_path):
    """With the team's key and the online ones: any new release of this family, none of another."""
    own, foreign = make_bundle(9), make_bundle(9, family="other")
    thief = scene.thief()
    thief.add("demo.bundles", "demo/9.bundle", own)
    thief.add("demo.bundles", "other/9.bundle", foreign)
    thief.add("demo.rule", "rollout/demo.json", rule_of(own))
    thief.add("other.rule", "rollout/other.json", rule_of(foreign))
    thief.publish()
    assert scene.device.release() == 9
    with pytest.raises(AssertionError, match=r"other/9\.bundle"):
        scene.device.release("other")
    new = tmp_path / "new.pem"
    generate_key(new)
    keyid = load_signer(scene.loot / "demo.bundles.pem").public_key.keyid
    assert revoke(scene.mine, keyid, replace_with=new) == ("demo.bundles",)
    for role in ("demo.rule", "other.rule", "snapshot", "timestamp"):
        rotate(scene.mine, role)
    scene.upload()
    assert (scene.device.release(), scene.device.release("other")) == (2, 1)
    publish(scene.mine, make_bundle(10), keys=[new])
    scene.upload()
    assert scene.device.release() == 10


def test_one_of_two_team_keys(scene, tmp_path, make_bundle):
    for name in ("first", "second"):
        generate_key(tmp_path / f"{name}.pem")
    pair = [tmp_path / "first.pem", tmp_path / "second.pem"]
    add_family(scene.mine, "two", pair, threshold=2)
    publish(scene.mine, make_bundle(1, family="two"), keys=pair)
    scene.upload()
    shutil.copytree(scene.mine / "keys", scene.loot, dirs_exist_ok=True)
    shutil.copy(pair[0], scene.loot / "two.bundles.pem")
    assert scene.device.release("two") == 1
    own = make_bundle(9, family="two")
    thief = scene.thief()
    thief.add("two.bundles", "two/9.bundle", own)
    thief.add("two.rule", "rollout/two.json", rule_of(own))
    thief.publish()
    with pytest.raises(UnsignedMetadataError):
        scene.device.release("two")


def signed_by(metadata, loot, names):
    metadata.signatures.clear()
    for name in names:
        metadata.sign(load_signer(loot / f"{name}.pem"), append=True)
    return metadata.to_bytes()


def take_family(scene, names):
    """Delegate the family to a key of the thief's, signed by stolen keys of targets."""
    thief = scene.thief()
    version = thief.snapshot.signed.meta["targets.json"].version
    targets: Metadata[Targets] = Metadata.from_file(str(thief.metadata / f"{version}.targets.json"))
    key = generate_key(scene.loot / f"mine-{len(names)}.pem").public_key
    for role, path in (("demo.bundles", "demo/*"), ("demo.rule", "rollout/demo.json")):
        targets.signed.delegations.roles[role] = DelegatedRole(role, [], 1, True, paths=[path])
        targets.signed.add_key(key, role)
    targets.signed.version += 1
    (thief.metadata / f"{version + 1}.targets.json").write_bytes(signed_by(targets, scene.loot, names))
    thief.snapshot.signed.meta["targets.json"] = MetaFile(version + 1)
    own = read_bundle(scene.own).manifest
    for role, name, data in (
        ("demo.bundles", "demo/9.bundle", scene.own),
        ("demo.rule", "rollout/demo.json", to_all(Artefact("demo", 9, own.content_sha256(), {}))),
    ):
        thief.role(role, lambda signed: signed.targets.clear(), key=f"mine-{len(names)}")
        thief.add(role, name, data, key=f"mine-{len(names)}")
    thief.publish()


def test_targets(scene, make_bundle):
    """One key of three does nothing; two give any family to anybody, until root replaces them."""
    scene.own = make_bundle(9)
    take_family(scene, ["targets-1"])
    scene.refused(UnsignedMetadataError)
    scene.upload()
    take_family(scene, ["targets-1", "targets-2"])
    assert scene.device.release() == 9
    for number in (1, 2):
        keyid = load_signer(scene.loot / f"targets-{number}.pem").public_key.keyid
        new = scene.mine / "keys" / f"targets-{number + 3}.pem"
        generate_key(new)
        assert revoke(scene.mine, keyid, replace_with=new) == ("targets",)
    for role in ("snapshot", "timestamp"):
        rotate(scene.mine, role)
    scene.upload()
    assert scene.device.release() == 2
    take = json.loads((scene.mine / "root.json").read_bytes())["signed"]["roles"]["targets"]
    assert len(take["keyids"]) == 3


def own_root(scene, names):
    root: Metadata[Root] = Metadata.from_bytes((scene.mine / "root.json").read_bytes())
    key = generate_key(scene.loot / f"mine-{'-'.join(names)}.pem").public_key
    root.signed.roles["timestamp"].keyids.clear()
    root.signed.add_key(key, "timestamp")
    root.signed.version += 1
    root.signed.expires = datetime.now(UTC) + timedelta(days=1)
    data = signed_by(root, scene.loot, names)
    (scene.server / "public" / "metadata" / f"{root.signed.version}.root.json").write_bytes(data)


def test_root(scene, make_bundle):
    """One key of three does nothing. Two are the repository: whoever has them decides what devices trust."""
    own_root(scene, ["root-1"])
    scene.refused(UnsignedMetadataError)
    keyid = load_signer(scene.loot / "root-1.pem").public_key.keyid
    new = scene.mine / "keys" / "root-4.pem"
    generate_key(new)
    assert revoke(scene.mine, keyid, replace_with=new) == ("root",)
    scene.upload()
    assert scene.device.release() == 2
    fresh = Client(scene.server, scene.device.home.with_name("fresh"), scene.device.root)
    assert fresh.release() == 2
    # The stolen key and another one that the thief finds later are not two of the new root's.
    shutil.copy(scene.mine / "keys" / "root-2.pem", scene.loot / "root-2.pem")
    own_root(scene, ["root-1", "root-2"])
    scene.refused(UnsignedMetadataError)
    scene.upload()
    own_root(scene, ["root-2", "root-3"])
    scene.refused(UnsignedMetadataError)  # the timestamp is the operator's; the device waits for the thief's
    publish(scene.mine, make_bundle(3))
    for path in (scene.mine / "public").rglob("*"):
        if path.is_file():
            shutil.copy(path, scene.server / path.relative_to(scene.mine))
    scene.refused(UnsignedMetadataError)  # no repository of ours helps: a new factory root does


def test_a_target_that_targets_itself_lists_needs_its_keys(scene, make_bundle):
    """The online keys alone put nothing into the top list."""
    thief = scene.thief()
    version = thief.snapshot.signed.meta["targets.json"].version
    targets: Metadata[Targets] = Metadata.from_file(str(thief.metadata / f"{version}.targets.json"))
    data = rule_of(make_bundle(9))
    targets.signed.targets["rollout/demo.json"] = TargetFile.from_data("rollout/demo.json", data)
    targets.signed.version += 1
    (thief.metadata / f"{version + 1}.targets.json").write_bytes(
        signed_by(targets, scene.loot, ["snapshot", "timestamp"])
    )
    thief.snapshot.signed.meta["targets.json"] = MetaFile(version + 1)
    thief.publish()
    scene.refused(UnsignedMetadataError)
