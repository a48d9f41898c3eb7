"""Who signs what: families, teams, new keys, keys taken out of use; and what is refused, with nothing lost."""

from __future__ import annotations

import json

import pytest
from tuf.api.exceptions import UnsignedMetadataError

from seedcnn.errors import RepositoryError
from seedcnn.server.families import add_family, revoke, rotate
from seedcnn.server.keys import generate_key
from seedcnn.server.repository import publish
from seedcnn.server.verify import verify
from tests.server.client import Client
from tests.server.teams import WORD, delegations, keys, public_of, refused


def test_a_family_has_a_role_for_bundles_and_one_for_its_rule(repository, tmp_path, make_bundle):
    (team, team_id), (second, second_id) = keys(tmp_path, "team", "second")
    added = add_family(repository, "demo", [team, second], threshold=2)
    assert (set(added.team), added.generated) == ({team_id, second_id}, None)
    roles = delegations(repository)
    assert set(roles) == {"demo.bundles", "demo.rule"}
    assert roles["demo.bundles"]["threshold"] == 2
    assert set(roles["demo.bundles"]["keyids"]) == {team_id, second_id}
    assert (roles["demo.bundles"]["paths"], roles["demo.rule"]["paths"]) == (["demo/*"], ["rollout/demo.json"])
    assert roles["demo.rule"]["keyids"] == [added.rule]
    assert all(role["terminating"] for role in roles.values())
    assert {path.name for path in (repository / "keys").glob("demo*")} == {"demo.rule.pem"}
    with pytest.raises(RepositoryError, match=r"demo\.bundles needs 2 of its keys; 1 at hand"):
        publish(repository, make_bundle(1), keys=[team])
    publish(repository, make_bundle(1), keys=[team, second])
    assert Client(repository, tmp_path / "home").release() == 1


def test_a_second_person_gives_the_public_key_only(repository, tmp_path, make_bundle):
    (team, _), (second, second_id) = keys(tmp_path, "team", "second")
    public = public_of(second, tmp_path / "second.pub.pem")
    assert second_id in add_family(repository, "demo", [team, public]).team
    publish(repository, make_bundle(1), keys=[second])
    refused(
        repository,
        lambda: add_family(repository, "two", [public]),
        r"two\.bundles needs 1 of its keys; 0 at hand",
    )


@pytest.mark.parametrize(
    ("family", "files", "threshold", "match"),
    [
        ("demo", ["team"], 1, "family 'demo' exists already"),
        ("A b", ["team"], 1, "must be 1 to 64 of a-z"),
        ("new", ["team"], 2, r"the threshold of new\.bundles is 2; it must be from 1 to the number of keys, 1"),
        ("new", ["team"], 0, r"the threshold of new\.bundles is 0"),
        ("new", ["team", "team"], 1, "was given one key twice"),
        ("new", ["r/keys/root-1"], 1, r"cannot sign new\.bundles: it signs root, and a stolen key must open one door"),
        ("new", ["r/keys/timestamp"], 1, "it signs timestamp"),
        ("new", ["r/keys/demo.rule"], 1, r"it signs demo\.rule"),
        ("new", ["absent"], 1, r"absent\.pem cannot be read"),
        ("new", ["open"], 1, "has mode 0644; other users"),
        ("new", ["locked"], 1, "is encrypted; give its passphrase"),
    ],
)
def test_families_that_cannot_be_added(repository, tmp_path, family, files, threshold, match):
    keys(tmp_path, "team", "open")
    (tmp_path / "open.pem").chmod(0o644)
    generate_key(tmp_path / "locked.pem", WORD)
    add_family(repository, "demo", [tmp_path / "team.pem"])
    paths = [tmp_path / f"{name}.pem" for name in files]
    refused(repository, lambda: add_family(repository, family, paths, threshold=threshold), match)


def test_one_team_may_have_several_families(repository, tmp_path, make_bundle):
    (team, _), (new, _) = keys(tmp_path, "team", "new")
    for family in ("demo", "other"):
        add_family(repository, family, [team])
        publish(repository, make_bundle(1, family=family), keys=[team])
    keyid = delegations(repository)["demo.bundles"]["keyids"][0]
    home = Client(repository, tmp_path / "home")
    assert home.release() == 1
    assert revoke(repository, keyid[:8], replace_with=new) == ("demo.bundles", "other.bundles")
    assert (home.release(), home.release("other")) == (1, 1)
    refused(repository, lambda: publish(repository, make_bundle(2), keys=[team]), r"does not sign demo\.bundles")
    publish(repository, make_bundle(2), keys=[new])
    assert home.release() == 2


def test_publishing_needs_a_family_and_its_own_team(repository, tmp_path, make_bundle):
    (team, _), (other, _) = keys(tmp_path, "team", "other")
    add_family(repository, "demos", [other])
    match = r"has no family 'demo'; did you mean demos\? add it with: seedcnn repo add-family .* demo"
    refused(repository, lambda: publish(repository, make_bundle(1)), match)
    add_family(repository, "demo", [team])
    refused(repository, lambda: publish(repository, make_bundle(1)), r"demo\.bundles needs 1 of its keys; 0 at hand")
    match = r"key .*other\.pem \(id [0-9a-f]{8}\) does not sign demo\.bundles"
    refused(repository, lambda: publish(repository, make_bundle(1), keys=[team, other]), match)


def test_a_publish_of_one_family_costs_another_snapshot_and_timestamp(repository, tmp_path, make_bundle):
    for family in ("demo", "other"):
        add_family(repository, family)
        publish(repository, make_bundle(1, family=family))
    home = Client(repository, tmp_path / "home")
    home.release()
    publish(repository, make_bundle(2, family="other"))
    assert home.release() == 1
    assert set(home.fetched) == {"timestamp.json", "6.snapshot.json"}
    publish(repository, make_bundle(2))
    assert home.release() == 2
    assert set(home.fetched) == {"timestamp.json", "7.snapshot.json", "3.demo.bundles.json", "3.demo.rule.json"}


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "demo.rule"])
def test_devices_follow_a_rotation(repository, tmp_path, make_bundle, role):
    add_family(repository, "demo")
    publish(repository, make_bundle(1))
    home = Client(repository, tmp_path / "home")
    assert home.release() == 1
    old = (repository / "keys" / f"{role}.pem").read_bytes()
    keyid = rotate(repository, role)
    assert (repository / "keys" / f"{role}.pem").read_bytes() != old
    assert not list((repository / "keys").glob("*.new.pem"))
    assert home.release() == 1
    publish(repository, make_bundle(2))
    assert home.release() == 2
    assert verify(repository) == []
    assert rotate(repository, role) != keyid
    (repository / "keys" / f"{role}.pem").write_bytes(old)
    refused(
        repository, lambda: publish(repository, make_bundle(3)), f"{role} needs 1 of its keys; 0 at hand; .* does not"
    )


@pytest.mark.parametrize(
    ("role", "match"),
    [
        ("root", "root has no online key to rotate; replace one with: seedcnn repo revoke .* --replace-with"),
        ("demo.bundles", "has no online key to rotate"),
        ("timestmp", "there is no role 'timestmp'; did you mean timestamp"),
    ],
)
def test_roles_that_cannot_be_rotated(repository, role, match):
    add_family(repository, "demo")
    refused(repository, lambda: rotate(repository, role), match)


def test_keys_that_cannot_be_revoked(repository, tmp_path):
    (team, keyid), (second, _) = keys(tmp_path, "team", "second")
    add_family(repository, "demo", [team])
    add_family(repository, "two", [second])
    rule = delegations(repository)["demo.rule"]["keyids"][0]
    root = json.loads((repository / "root.json").read_bytes())["signed"]["roles"]["root"]["keyids"]
    for start, options, match in (
        ("ffff0000ffff", {}, "key id 'ffff0000ffff': no key has this id"),
        ("", {}, "must begin one key's id"),
        (
            keyid,
            {},
            r"cannot be revoked: demo\.bundles needs 1 of its keys and has 1; name another with --replace-with",
        ),
        (rule, {}, r"demo\.rule has one key, which stays online; replace it with: seedcnn repo rotate"),
        (keyid, {"replace_with": team}, r"signs demo\.bundles already"),
        (root[0], {"replace_with": second}, r"cannot sign root: it signs two\.bundles"),
        (
            keyid,
            {"replace_with": public_of(second, tmp_path / "p.pem")},
            r"has signed demo\.bundles, and demo\.bundles n",
        ),
    ):
        refused(repository, lambda start=start, options=options: revoke(repository, start, **options), match)


def test_a_root_key_is_revoked_then_one_is_replaced(repository, tmp_path, make_bundle):
    add_family(repository, "demo")
    publish(repository, make_bundle(1))
    home = Client(repository, tmp_path / "home")
    home.release()
    ids = json.loads((repository / "root.json").read_bytes())["signed"]["roles"]["root"]["keyids"]
    assert revoke(repository, ids[0]) == ("root",)
    assert len(list((repository / "keys").glob("root-?.pem.revoked"))) == 1
    match = "root needs 2 of its keys and has 2; name another with --replace-with"
    refused(repository, lambda: revoke(repository, ids[1]), match)
    ((new, new_id),) = keys(tmp_path, "new")
    # Both remaining keys sign for the old root; the new one and the one that stays sign for the new.
    revoke(repository, ids[1], replace_with=new)
    named = json.loads((repository / "root.json").read_bytes())["signed"]["roles"]["root"]["keyids"]
    assert set(named) == {ids[2], new_id}
    assert home.release() == 1
    assert Client(repository, tmp_path / "fresh", home.root).release() == 1
    assert verify(repository) == []


def test_a_targets_key_that_signed_is_revoked(repository, tmp_path, make_bundle):
    add_family(repository, "demo")
    publish(repository, make_bundle(1))
    home = Client(repository, tmp_path / "home")
    home.release()
    signed = json.loads((repository / "public" / "metadata" / "2.targets.json").read_bytes())["signatures"]
    revoke(repository, signed[0]["keyid"])
    assert home.release() == 1
    assert (repository / "public" / "metadata" / "3.targets.json").exists()


def test_old_keys_do_not_sign_for_devices_any_more(repository, tmp_path, make_bundle):
    """A device that has seen the rotation refuses what the old key signs."""
    add_family(repository, "demo")
    publish(repository, make_bundle(1))
    home = Client(repository, tmp_path / "home")
    home.release()
    timestamp = repository / "public" / "metadata" / "timestamp.json"
    old = timestamp.read_bytes()
    rotate(repository, "timestamp")
    new = timestamp.read_bytes()
    timestamp.write_bytes(old)
    with pytest.raises(UnsignedMetadataError):
        home.release()
    timestamp.write_bytes(new)
    assert home.release() == 1
