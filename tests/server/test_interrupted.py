"""Every command that signs, killed or out of room at any call that touches a file, and repeated."""

from __future__ import annotations

import pytest

from seedcnn.errors import RepositoryError
from seedcnn.server.ceremony import export, sign_todo
from seedcnn.server.families import add_family, rotate
from seedcnn.server.keys import generate_key
from seedcnn.server.repository import init_repository, publish
from tests.server.client import Client
from tests.server.sweeps import interrupt

# The command -> releases that clients may see in between and after; whether a new root may lock them out in between.
COMMANDS = {
    "publish": ({1, 2}, 2, False),
    "hold": ({1}, 1, False),
    "add-family": ({1}, 1, False),
    "timestamp": ({1}, 1, True),
    "snapshot": ({1}, 1, True),
    "rule": ({1}, 1, False),
    "revoke": ({1}, 1, False),
    "import": ({1}, 1, True),
    "prune": ({1}, 1, False),
    "refresh": ({1}, 1, False),
}
# The repetition of a command that was complete when the last flush was interrupted.
COMPLETE = {
    "publish": "release 2 is out",
    "hold": "release 2 is out",
    "add-family": "family 'other' exists already",
    "revoke": "no key has this id",
    "import": "moved on since the export",
}


@pytest.fixture(scope="module")
def start(tmp_path_factory, make_bundle):
    """A repository with a release, a client that has seen it, a bundle, and a todo that gives timestamp a new key."""
    place = tmp_path_factory.mktemp("interrupted") / "start"
    directory = place / "r"
    init_repository(directory)
    team = generate_key(place / "team.pem")
    generate_key(place / "new.pem")
    (place / "keyid").write_text(team.public_key.keyid)
    add_family(directory, "demo", [place / "team.pem"])
    (place / "team.pem").rename(directory / "keys" / "demo.bundles.pem")
    publish(directory, make_bundle(1))
    add_family(directory, "old")
    for release in (1, 2, 3):
        publish(directory, make_bundle(release, family="old"))
    (place / "2.bundle").write_bytes(make_bundle(2, parent=1))
    roots = [directory / "keys" / f"root-{number}.pem" for number in (1, 2)]
    away = [path.rename(place / path.name) for path in roots]
    with pytest.raises(RepositoryError, match="is prepared"):
        rotate(directory, "timestamp")
    (place / "todo.json").write_bytes(export(directory, "root"))
    sign_todo(place / "todo.json", away)
    for path, root in zip(away, roots, strict=True):
        path.rename(root)
    assert Client(directory, place / "home").release() == 1
    return place


def check(start, how, name, step):
    rows = interrupt(start, how, name, step, COMPLETE.get(name))
    releases, last, locked = COMMANDS[name]
    lockouts = 0
    for row in rows:
        allowed = releases | ({"UnsignedMetadataError"} if locked else set())
        assert set(row["between"]) <= allowed, row
        lockouts += "UnsignedMetadataError" in row["between"]
        assert row["after"] == [last, last], row
        # A key that waits for its root stays, unless the command brings it into use.
        assert row["new"] == ([] if name in ("timestamp", "snapshot", "import") else ["timestamp.new.pem"]), row
    return len(rows), lockouts


@pytest.mark.parametrize("how", ["kill", "full"])
@pytest.mark.parametrize("name", ["publish", "timestamp", "revoke"])
def test_interrupted_at_some_calls(start, name, how):
    assert check(start, how, name, 7 if how == "kill" else 3)[0] > 2


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "full"])
@pytest.mark.parametrize("name", COMMANDS)
def test_interrupted_at_every_call(start, name, how, capsys):
    number, lockouts = check(start, how, name, 1)
    with capsys.disabled():
        print(f"\n{name}, {how}: {number} calls, {lockouts} with a new root whose timestamp was not written yet")
    assert number > 2
    assert bool(lockouts) == (COMMANDS[name][2] and how == "kill")
