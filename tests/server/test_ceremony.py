"""Keys that are elsewhere: what waits for them, what travels to them and back, and what is refused then."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from seedcnn.errors import RepositoryError
from seedcnn.server.ceremony import export, import_todo, sign_todo
from seedcnn.server.families import Access, add_family, revoke, rotate
from seedcnn.server.lock import exclusive
from seedcnn.server.refresh import refresh
from seedcnn.server.repository import publish
from seedcnn.server.verify import verify
from tests.server.client import Client
from tests.server.teams import STICK, WORD, id_of, keys, public_of, refused, state


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


def test_a_team_renews_its_list_elsewhere(repository, tmp_path, make_bundle):
    (team, _), (second, _) = keys(tmp_path, "team", "second")
    add_family(repository, "demo", [team, public_of(second, tmp_path / "p.pem")])
    publish(repository, make_bundle(1), keys=[team])
    todo = tmp_path / "todo.json"
    todo.write_bytes(export(repository, "demo.bundles"))
    sign_todo(todo, [second])
    early = todo.read_bytes()
    assert import_todo(repository, todo) == ("demo.bundles", "snapshot", "timestamp")
    assert Client(repository, tmp_path / "home").release() == 1
    # It renews; a list of other files comes from publish, which checks them.
    todo.write_bytes(export(repository, "demo.bundles").replace(b"demo/1.bundle", b"demo/2.bundle"))
    sign_todo(todo, [second])
    refused(repository, lambda: import_todo(repository, todo), r"holds another list of files than demo\.bundles has")
    # With the list signed by the second key the first one can go.
    todo.write_bytes(early)
    refused(repository, lambda: import_todo(repository, todo), r"version 3 of demo\.bundles, .* has version 3 now")
    revoke(repository, id_of(team))
    assert Client(repository, tmp_path / "home").release() == 1


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
