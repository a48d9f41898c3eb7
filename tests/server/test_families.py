"""Who signs what: families, teams, new keys, keys taken out of use; and what is refused, with nothing lost."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tuf.api.exceptions import UnsignedMetadataError

from seedcnn.errors import RepositoryError
from seedcnn.server.ceremony import export, import_todo, sign_todo
from seedcnn.server.families import Access, add_family, revoke, rotate
from seedcnn.server.keys import generate_key
from seedcnn.server.lock import exclusive
from seedcnn.server.refresh import refresh
from seedcnn.server.repository import init_repository, publish
from seedcnn.server.verify import verify
from tests.server.client import Client

WORD = b"open sesame"
STICK = Access(passphrase=lambda _: WORD)


@pytest.fixture
def repository(tmp_path):
    init_repository(tmp_path / "r")
    return tmp_path / "r"


@pytest.fixture
def offline(tmp_path):
    """A repository whose root and targets keys are on a stick."""
    init_repository(tmp_path / "r", offline_keys=tmp_path / "stick", passphrase=WORD)
    return tmp_path / "r"


def keys(tmp_path, *names):
    return [(tmp_path / f"{name}.pem", generate_key(tmp_path / f"{name}.pem").public_key.keyid) for name in names]


def public_of(path, to):
    from seedcnn.server.keys import load_signer

    key = load_signer(path)._private_key.public_key()
    to.write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return to


def state(directory):
    """Every byte except what remembers and locks."""
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file() and path.name != "lock"}


def refused(directory, call, match):
    before = state(directory)
    with pytest.raises(RepositoryError, match=match) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert state(directory) == before


def delegations(directory):
    newest = max(
        (directory / "public" / "metadata").glob("*.targets.json"), key=lambda path: int(path.name.split(".")[0])
    )
    found = json.loads(newest.read_bytes())["signed"]["delegations"]
    return {role["name"]: role for role in found["roles"]}


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


def test_with_offline_keys_there_is_no_secret_in_the_repository_but_the_online_keys(offline, tmp_path):
    assert {path.name for path in (offline / "keys").iterdir()} == {"snapshot.pem", "timestamp.pem"}
    stick = {path.name: path.read_bytes() for path in (tmp_path / "stick").iterdir()}
    assert set(stick) == {f"{role}-{number}.pem" for role in ("root", "targets") for number in (1, 2, 3)}
    assert all(b"ENCRYPTED PRIVATE KEY" in data for data in stick.values())
    assert refresh(offline).roles == ("timestamp",)


def test_the_stick_at_hand_or_not(offline, tmp_path, make_bundle):
    stick = Access(offline_keys=tmp_path / "stick", passphrase=lambda _: WORD)
    add_family(offline, "demo", access=stick)
    publish(offline, make_bundle(1))
    home = Client(offline, tmp_path / "home")
    for access, match in (
        (Access(offline_keys=tmp_path / "stick", passphrase=lambda _: b"wrong"), "the passphrase is wrong"),
        (Access(offline_keys=tmp_path / "stick"), "is encrypted; give its passphrase with --passphrase-file"),
        (Access(offline_keys=tmp_path / "absent"), "there is no directory .*absent with offline keys"),
    ):
        with pytest.raises(RepositoryError, match=match):
            rotate(offline, "timestamp", access=access)
        assert home.release() == 1
    rotate(offline, "timestamp", access=stick)
    assert home.release() == 1


def test_what_needs_offline_keys_is_prepared_and_says_which_commands_finish_it(offline, tmp_path, make_bundle):
    """Rotation, a first family and a second one, each signed elsewhere."""
    todo, (team, _) = tmp_path / "todo.json", *keys(tmp_path, "team")
    start = Client(offline, tmp_path / "home")
    for role, call in (
        ("root", lambda: rotate(offline, "timestamp")),
        ("targets", lambda: add_family(offline, "demo", [team])),
        ("targets", lambda: add_family(offline, "other")),
    ):
        before = state(offline / "public")
        match = (
            f"is prepared, not done, because {role} needs 2 of its keys; 0 at hand: seedcnn repo export .* {role} > "
            "todo.json; seedcnn repo sign todo.json --key KEY.pem, where the keys are; seedcnn repo import .* todo.json"
        )
        for _ in range(2):  # a repeated command prepares the same
            with pytest.raises(RepositoryError, match=match):
                call()
        assert state(offline / "public") == before
    publish_all = [("root", 1), ("targets", 2)]
    for role, number in publish_all:
        todo.write_bytes(export(offline, role))
        sign_todo(todo, [tmp_path / "stick" / f"{role}-{number}.pem"], passphrase=STICK.passphrase)
        with pytest.raises(RepositoryError, match=f"is not signed by enough keys of {role}: .* sign it with"):
            import_todo(offline, todo)
        sign_todo(todo, [tmp_path / "stick" / f"{role}-3.pem"], passphrase=STICK.passphrase)
        assert role in import_todo(offline, todo)
        match = f"holds version 2 of {role}, but the repository has version 2 now, so it moved on since the export"
        refused(offline, lambda: import_todo(offline, todo), match)
    assert not list((offline / "pending").iterdir())
    for family, team_keys in (("demo", [team]), ("other", [])):
        publish(offline, make_bundle(1, family=family), keys=team_keys)
        assert start.release(family) == 1
    assert verify(offline) == []
    assert not list((offline / "keys").glob("*.new.pem"))


def test_a_stolen_team_key_is_replaced_from_offline(offline, tmp_path, make_bundle):
    (team, keyid), (new, _) = keys(tmp_path, "team", "new")
    stick = Access(offline_keys=tmp_path / "stick", passphrase=lambda _: WORD)
    add_family(offline, "demo", [team], access=stick)
    publish(offline, make_bundle(1), keys=[team])
    home, todo = Client(offline, tmp_path / "home"), tmp_path / "todo.json"
    with pytest.raises(RepositoryError, match=r"revoking key .* is prepared, not done"):
        revoke(offline, keyid, replace_with=new)
    publish(offline, make_bundle(2), keys=[team])  # meanwhile; what waits is older than this
    todo.write_bytes(export(offline, "targets"))
    paths = [tmp_path / "stick" / f"targets-{number}.pem" for number in (1, 2)]
    sign_todo(todo, paths, passphrase=STICK.passphrase)
    with pytest.raises(RepositoryError, match=r"demo\.bundles needs 1 of its keys; 0 at hand; give them with --key"):
        import_todo(offline, todo)
    assert import_todo(offline, todo, keys=[new]) == ("targets", "demo.bundles", "snapshot", "timestamp")
    assert home.release() == 2
    with pytest.raises(RepositoryError, match=r"does not sign demo\.bundles"):
        publish(offline, make_bundle(3), keys=[team])


def test_signing_elsewhere_refuses_other_keys_and_other_files(offline, tmp_path):
    todo = tmp_path / "todo.json"
    todo.write_bytes(export(offline, "root"))
    before = todo.read_bytes()
    for name, match in (
        ("targets-1", r"targets-1\.pem \(id [0-9a-f]{8}\) does not sign root"),
        ("x", "cannot be read"),
    ):
        with pytest.raises(RepositoryError, match=match):
            sign_todo(todo, [tmp_path / "stick" / f"{name}.pem"], passphrase=STICK.passphrase)
    assert todo.read_bytes() == before
    for text in (
        b"",
        b"{}",
        b"[]",
        b"[" * 9999,
        b'{"format":"seedcnn-todo/1"}',
        before.replace(b'"root"', b'"targets"'),
    ):
        todo.write_bytes(text)
        for call in (lambda: sign_todo(todo, []), lambda: import_todo(offline, todo)):
            with pytest.raises(RepositoryError, match="is no todo file of seedcnn repo export"):
                call()
    with pytest.raises(RepositoryError, match="timestamp has its key online; renew it with: seedcnn repo refresh"):
        export(offline, "timestamp")
    with pytest.raises(RepositoryError, match=r"there is no role .demo\.bundles."):
        export(offline, "demo.bundles")


def test_an_import_must_follow_from_the_repository(offline, tmp_path):
    now, todo, stick = datetime(2026, 5, 1, tzinfo=UTC), tmp_path / "todo.json", tmp_path / "stick"
    refresh(offline, now=now, clock_ok=True)

    def exported(role, moment, change=lambda text: text):
        todo.write_bytes(change(export(offline, role, now=moment, clock_ok=True)))
        paths = [stick / f"{role}-{number}.pem" for number in (1, 2)]
        sign_todo(todo, paths, passphrase=STICK.passphrase)

    exported("root", now + timedelta(days=800))
    refused(offline, lambda: import_todo(offline, todo, now=now), "valid until 2029-07-09 .* at most 365 days ahead")
    exported("root", now - timedelta(days=400))
    refused(offline, lambda: import_todo(offline, todo, now=now), "that must be in the future")
    exported("root", now)
    first = todo.read_bytes()
    import_todo(offline, todo, now=now)
    exported("root", now)
    import_todo(offline, todo, now=now)
    todo.write_bytes(first)
    refused(offline, lambda: import_todo(offline, todo, now=now), "holds version 2 of root, .* has version 3 now")
    stick_access = Access(offline_keys=stick, passphrase=lambda _: WORD, now=now)
    exported("targets", now)
    early = todo.read_bytes()
    add_family(offline, "demo", access=stick_access)
    todo.write_bytes(early)
    refused(offline, lambda: import_todo(offline, todo, now=now), "holds version 2 of targets, .* has version 2 now")
    # Even the keys of targets do not drop a family, which devices would refuse, by a file from before it was added.
    todo.write_bytes(early.replace(b'"version": 2', b'"version": 3'))
    text = json.loads(todo.read_bytes())
    text["metadata"]["signatures"] = []
    todo.write_text(json.dumps(text))
    sign_todo(todo, [stick / f"targets-{number}.pem" for number in (1, 2)], passphrase=STICK.passphrase)
    refused(offline, lambda: import_todo(offline, todo, now=now), r"would drop families \(demo\)")


def test_two_operators_take_turns(repository, tmp_path):
    add_family(repository, "demo")
    todo = tmp_path / "todo.json"
    todo.write_bytes(export(repository, "root"))
    with exclusive(repository):
        for call in (
            lambda: add_family(repository, "other"),
            lambda: rotate(repository, "timestamp"),
            lambda: revoke(repository, "0123"),
            lambda: export(repository, "root"),
            lambda: import_todo(repository, todo),
            lambda: refresh(repository),
            lambda: verify(repository),
        ):
            with pytest.raises(RepositoryError, match="is locked: another process is publishing there"):
                call()
    import_todo(repository, todo)


def test_keys_at_hand_sign_an_export_already(repository, tmp_path):
    for number in (1, 2):
        (repository / "keys" / f"root-{number}.pem").rename(tmp_path / f"root-{number}.pem")
    todo = tmp_path / "todo.json"
    todo.write_bytes(export(repository, "root"))
    sign_todo(todo, [tmp_path / "root-2.pem"])
    assert import_todo(repository, todo) == ("root", "timestamp")


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
