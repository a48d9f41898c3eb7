"""A bundle that is signed and yet cannot be used is fetched twice, and then not again."""

from __future__ import annotations

import json

import pytest

from seedcnn.device.bad import bad_files, find_bad, forget_bad, is_own_fault, note_bad
from seedcnn.device.main import main
from seedcnn.device.status import status
from seedcnn.errors import BundleError, DeviceError, SelfTestError, UpdateError
from tests.device.attacker import rule, sign_targets
from tests.device.hostile import Request, hostile


def good(request: Request) -> None:
    request.serve()


def refused(device, fleet, words: str, fetched: int) -> None:
    """The update is refused with these words after this many requests for bundles."""
    with hostile(fleet.directory / "public", good, ".bundle") as (server, url), pytest.raises(UpdateError, match=words):
        device.update(url)
    assert len(server.spoiled) == fetched
    assert device.release() == 1
    assert not list(device.home.glob("download/*"))


def test_two_tries_and_then_only_another_bundle(device, fleet, capsys):
    fleet.publish(2, logit_error=0.5)
    digest = fleet.artefact(2).name.partition(".")[0]
    for count in (1, 2):
        refused(device, fleet, "canned image 3 is off by 0.5", 1)
        assert [(each.sha256, each.count) for each in bad_files(device.home)] == [(digest, count)]
    entries = len(device.states())
    for _ in range(2):
        refused(
            device,
            fleet,
            f"its bundle {digest} has failed or was taken back here and is not fetched again.*canned image 3",
            0,
        )
    assert len(device.states()) == entries + 2  # the second time it is the same refusal

    (listed,) = status(device.home)["bad"]
    assert (listed["sha256"], listed["count"], listed["release"]) == (digest, 2, 2)
    assert main(["--home", str(device.home), "status", "--verbose"]) == 0
    assert f"bad        {digest} of release 2, 2 times, " in capsys.readouterr().out

    assert main(["--home", str(device.home), "forget-bad", digest[:8]]) == 0
    assert capsys.readouterr().out == f"forgotten: {digest} of release 2\n"
    refused(device, fleet, "canned image 3 is off by 0.5", 1)
    fleet.publish(3)
    assert device.update().release == 3


@pytest.mark.parametrize(
    "spoil",
    [
        lambda make: make(2)[:-3],
        lambda make: make(2, family="other"),
        lambda make: make(3),
        lambda make: make(2).replace(b"seedcnn-bundle/1", b"seedcnn-bundle/2"),
    ],
    ids=["format", "family", "release", "version"],
)
def test_what_counts(device, fleet, make_bundle, spoil):
    sign_targets(fleet.directory, {"demo/2.bundle": spoil(make_bundle), "rollout/demo.json": rule(2)})
    with pytest.raises(UpdateError):
        device.update()
    assert [each.count for each in bad_files(device.home)] == [1]


def test_what_does_not_count(device, fleet):
    fleet.publish(2)
    path = fleet.artefact(2)
    data = path.read_bytes()
    for wrong in (None, data[:100], bytes(len(data))):
        path.write_bytes(wrong) if wrong else path.unlink()
        with pytest.raises(UpdateError):
            device.update()
        path.write_bytes(data)
    assert bad_files(device.home) == ()
    assert device.update().release == 2
    for error in (MemoryError(), OSError(28, "x"), SelfTestError("ORT: Failed to allocate memory"), ImportError("x")):
        assert not is_own_fault(error)
    assert is_own_fault(BundleError("x"))


def test_a_bad_delta_is_fetched_twice_and_the_whole_takes_its_place(device, fleet, make_bundle):
    fleet.publish(2, parent=1, deltas=1)
    (delta,) = (fleet.directory / "public" / "targets").rglob("*.delta")
    for _ in range(2):
        note_bad(device.home, delta.name.partition(".")[0], 2, "it lies")
    with hostile(fleet.directory / "public", good, ".delta") as (server, url):
        result = device.update(url)
    assert "its delta failed: it has failed 2 times and is not fetched again: it lies" in result.message
    assert server.spoiled == []
    assert device.release() == 2


def test_the_list_is_bounded_and_strict_and_of_this_software(tmp_path, caplog):
    for number in range(40):
        note_bad(tmp_path, f"{number:064x}", number, "why" * 1000)
    assert [each.release for each in bad_files(tmp_path)] == list(range(24, 40))
    assert (tmp_path / "bad.json").stat().st_size < 16 << 10
    note_bad(tmp_path, f"{39:064x}", 39, "again")
    assert find_bad(tmp_path, f"{39:064x}").reason == "again"
    assert find_bad(tmp_path, f"{38:064x}") is None
    for digest in ("", "0" * 8, "f" * 64, f"{39:064x}"[:7]):
        with pytest.raises(DeviceError, match="is not the SHA-256 of one bad file"):
            forget_bad(tmp_path, digest)
    assert forget_bad(tmp_path, f"{39:064x}").count == 2
    path = tmp_path / "bad.json"
    path.write_text(path.read_text().replace('"software": "seedcnn ', '"software": "seedcnn 0.0.0.'))
    assert bad_files(tmp_path) == ()
    for text in (b"[]", b"{", b'{"format": "seedcnn-bad/1", "files": [{"sha256": 1}]}', b'{"format": "x"}'):
        path.write_bytes(text)
        assert bad_files(tmp_path) == ()
    assert "a new list is started" in caplog.text


def test_an_unknown_digest_is_one_sentence(device, capsys):
    assert main(["--home", str(device.home), "forget-bad", "abc"]) == 1
    assert "'abc' is not the SHA-256 of one bad file" in capsys.readouterr().err
    json.dumps(status(device.home))
