"""``seedcnn repo``'s commands about keys, as they are typed."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from seedcnn.cli.repo import app
from seedcnn.errors import ConfigError, RepositoryError
from seedcnn.server.keys import generate_key


def invoke(*arguments, code=0):
    result = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "word").write_text("open sesame\nand more\n")
    generate_key(tmp_path / "team.pem")
    return tmp_path


def test_from_nothing_to_a_replaced_key_with_offline_keys(place, make_bundle):
    (place / "1.bundle").write_bytes(make_bundle(1))
    word = ("--passphrase-file", "word")
    said = invoke("init", "fleet", "--offline-keys", "STICK", *word).output
    assert "The keys of root and targets are in STICK, encrypted; two of three must sign." in said
    said = invoke("add-family", "fleet", "demo", "--key", "team.pem", "--offline-keys", "STICK", *word).output
    assert said.startswith("Added family demo: 1 of ")
    assert "move it" not in said
    assert (
        "Signed, and held, demo/1.bundle"
        in invoke("publish", "fleet", "1.bundle", "--key", "team.pem", "--hold").output
    )
    assert "Published demo/1.bundle" in invoke("publish", "fleet", "1.bundle").output
    with pytest.raises(RepositoryError, match="rotating timestamp is prepared, not done"):
        invoke("rotate", "fleet", "timestamp")
    (place / "todo.json").write_text(invoke("export", "fleet", "root").output)
    said = invoke("sign", "todo.json", "--key", "STICK/root-2.pem", "--key", "STICK/root-3.pem", *word).output
    lines = said.splitlines()
    assert lines[0].startswith("root version 2, valid until ")
    assert [line.split(":")[0].strip() for line in lines[1:5]] == ["root", "snapshot", "targets", "timestamp"]
    assert lines[-1].startswith("signed by ")
    assert lines[-1].endswith("; 2 must sign")
    assert invoke("import", "fleet", "todo.json").output == "Signed anew: root, timestamp\n"
    assert invoke("verify", "fleet").output == "Every signature and every file is as it should be\n"
    team = json.loads(invoke("keys", "fleet", "--json").output)[4]["keys"][0]["id"]
    generate_key(place / "new.pem")
    said = invoke("revoke", "fleet", team[:8], "--replace-with", "new.pem", "--offline-keys", "STICK", *word).output
    assert said == f"Revoked {team[:8]}, which signed demo.bundles; devices follow at their next update\n"


def test_keys_warns_and_its_exit_code_says_so(place):
    invoke("init", "fleet")
    invoke("add-family", "fleet", "demo")
    for warn, code in (("2d", 0), ("60h", 0), ("80h", 1), ("31d", 1)):
        result = invoke("keys", "fleet", "--warn", warn, code=code)
        assert ("Attention: timestamp expires in 2.9 days" in result.output) == bool(code)
        assert ("Attention: demo.rule expires in 29.9 days" in result.output) == (warn == "31d")
    text = invoke("keys", "fleet").output
    for words in ("root", "2 of 3", "keys/root-1.pem", "demo.bundles", "1 of 1", "keys/demo.rule.pem", "2.9", "364.9"):
        assert words in text
    rows = json.loads(invoke("keys", "fleet", "--json").output)
    assert [row["role"] for row in rows] == ["root", "targets", "snapshot", "timestamp", "demo.bundles", "demo.rule"]
    assert rows[0]["threshold"] == 2
    assert [key["place"] for key in rows[3]["keys"]] == ["keys/timestamp.pem"]
    assert (rows[3]["days"], len(rows[3]["keys"][0]["id"])) == (2.9, 64)


def test_verify_ends_with_1(place, make_bundle):
    (place / "1.bundle").write_bytes(make_bundle(1))
    invoke("init", "fleet")
    invoke("add-family", "fleet", "demo")
    invoke("publish", "fleet", "1.bundle")
    next((place / "fleet" / "public" / "targets" / "demo").iterdir()).unlink()
    assert "1.bundle is not what was signed: No such file or directory" in invoke("verify", "fleet", code=1).output


def test_prune_and_publish_say_what_goes(place, make_bundle):
    invoke("init", "fleet")
    invoke("add-family", "fleet", "demo")
    for release in (1, 2, 3, 4):
        (place / f"{release}.bundle").write_bytes(make_bundle(release))
        said = invoke("publish", "fleet", f"{release}.bundle").output
    assert "  no longer signed (--keep 3): 1\n" in said
    assert "Withdrew releases 2, 3 of demo; their files go in six days" in invoke("prune", "fleet", "--keep", 1).output
    said = invoke("prune", "fleet", "--keep", 0).output
    assert "Attention: release 4 of 'demo' stays: its rule names it" in said
    assert "No release was withdrawn" in said


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["init", "fleet", "--offline-keys", "STICK"], "--offline-keys encrypts the keys; give a passphrase with"),
        (["init", "fleet", "--passphrase-file", "word"], "has no effect without --offline-keys"),
        (["init", "fleet", "--offline-keys", "STICK", "--passphrase-file", "empty"], "its first line is empty"),
        (["init", "fleet", "--offline-keys", "STICK", "--passphrase-file", "none"], "none cannot be read: No such"),
        (["keys", "fleet", "--warn", "2"], "--warn 2: it must be a number and a unit, such as 90s, 30m, 6h or 2d"),
        (["keys", "fleet", "--warn", "0d"], "--warn 0d: it must be"),
        (["refresh", "fleet", "--every", "daily"], "--every daily: it must be"),
    ],
)
def test_options_that_cannot_be(place, arguments, match):
    (place / "empty").touch()
    with pytest.raises(ConfigError, match=match):
        invoke(*arguments)
    assert not (place / "fleet").exists()
    assert not (place / "STICK").exists()


def test_a_stick_that_holds_keys_is_refused_and_an_interrupted_init_goes_on(place):
    word = ("--passphrase-file", "word")
    invoke("init", "one", "--offline-keys", "STICK", *word)
    before = {path: path.read_bytes() for path in (place / "STICK").iterdir()}
    with pytest.raises(RepositoryError, match=r"STICK already holds keys \(root-1\.pem, .*\); keys are never"):
        invoke("init", "two", "--offline-keys", "STICK", *word)
    (place / "file").touch()
    with pytest.raises(RepositoryError, match="file cannot be written: "):
        invoke("init", "two", "--offline-keys", "file", *word)
    assert {path: path.read_bytes() for path in (place / "STICK").iterdir()} == before
    # Killed after two keys were on the stick: the same command takes them over.
    (place / "three").mkdir()
    (place / "three" / ".seedcnn-offline.json").write_text(json.dumps(str(place / "OTHER")))
    (place / "OTHER").mkdir()
    made = generate_key(place / "OTHER" / "root-1.pem", b"open sesame").public_key.keyid
    (place / "word-2").write_text("other")
    with pytest.raises(RepositoryError, match="the passphrase is wrong"):
        invoke("init", "three", "--offline-keys", "OTHER", "--passphrase-file", "word-2")
    invoke("init", "three", "--offline-keys", "OTHER", *word)
    assert made in json.loads((place / "three" / "root.json").read_bytes())["signed"]["roles"]["root"]["keyids"]
    assert not (place / "three" / ".seedcnn-offline.json").exists()
