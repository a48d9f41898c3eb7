"""The rollout rule: what the server writes is what a device reads, and everything else is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from seedcnn.bundle import Rollout, bundle_name, check_family, delta_name, release_of, rollout_name
from seedcnn.bundle.rollout import FORMAT, MAX_BYTES, MAX_DELTAS
from seedcnn.errors import UpdateError

CONTENT, PARENT = "0123456789abcdef" * 4, "f" * 64
RULE = Rollout("demo", 7, CONTENT, {PARENT: "demo/7.from-5.delta"})
BAD_FAMILIES = ["", "..", "../x", "a/b", "A", " demo", "-x", ".x", "x" * 65, "rollout", "x\n", "ä"]


def text(**changes: Any) -> bytes:
    """The rule's text with fields changed at will."""
    return json.dumps({**json.loads(RULE.dump()), **changes}).encode()


def test_dump_is_canonical_json_with_these_fields():
    assert RULE.dump().decode() == (
        f'{{"artefact":"demo/7.bundle","content":"{CONTENT}","deltas":{{"{PARENT}":"demo/7.from-5.delta"}},'
        f'"family":"demo","format":"seedcnn-rollout/1","release":7}}'
    )


@pytest.mark.parametrize("deltas", [{}, RULE.deltas, {f"{n:064x}": f"demo/7.from-{n + 1}.delta" for n in range(64)}])
def test_what_is_written_is_read(deltas):
    rule = Rollout("demo", 7, CONTENT, deltas)
    assert Rollout.parse(rule.dump(), "demo") == rule
    assert len(rule.dump()) <= MAX_BYTES


def test_the_longest_rule_is_within_the_cap_of_a_download():
    family, release = "x" * 64, 2**53 - 1
    deltas = {f"{n:064x}": delta_name(family, release, release - 1 - n) for n in range(MAX_DELTAS)}
    rule = Rollout(family, release, CONTENT, deltas)
    assert Rollout.parse(rule.dump(), family) == rule
    assert len(rule.dump()) <= MAX_BYTES


def test_names():
    assert rollout_name("demo") == "rollout/demo.json"
    assert bundle_name("demo", 7) == RULE.artefact == "demo/7.bundle"
    assert delta_name("demo", 7, 5) == "demo/7.from-5.delta"
    for family in ("a", "0.x_y-z", "x" * 64):
        assert check_family(family) == family


@pytest.mark.parametrize("family", BAD_FAMILIES)
def test_no_name_is_made_of_a_family_that_means_something_elsewhere(family):
    names = (check_family, rollout_name, lambda f: bundle_name(f, 1), lambda f: delta_name(f, 2, 1))
    for name in (*names, lambda f: Rollout(f, 1, CONTENT, {})):
        with pytest.raises(ValueError, match="must be 1 to 64 of a-z"):
            name(family)


def test_published_releases_are_recognised_by_their_name():
    for release in (1, 10, 2**53 - 1):
        assert release_of("demo", bundle_name("demo", release)) == release
    others = ["demo/7.from-5.delta", "rollout/demo.json", "other/1.bundle", "demo/x.bundle", "demo/.bundle", "7", ""]
    for name in (*others, "demo/0.bundle", "demo/01.bundle", "demo/-1.bundle", "demo/1.bundle\n", "demo/1_0.bundle"):
        assert release_of("demo", name) is None
    assert release_of("demo.x", "demo-x/1.bundle") is None


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"format": "seedcnn-rollout/2", "more": 1}, "its format is 'seedcnn-rollout/2'; .* reads 'seedcnn-rollout/1'"),
        ({"format": None}, "its format is None"),
        ({"extra": 1}, "its fields are artefact, content, deltas, extra, family"),
        ({"family": "other"}, "it is about family 'other'"),
        ({"family": 3}, "it is about family 3"),
        ({"release": "7"}, "release is '7'; it must be an integer from 1 to"),
        ({"release": True}, "release is True"),
        ({"release": 0}, "release is 0"),
        ({"release": 2**53}, "release is 9007199254740992"),
        ({"release": 7.0}, r"it holds the number 7\.0; only integers are allowed"),
        ({"artefact": "../../etc/passwd"}, r"artefact is '../../etc/passwd'; release 7 is 'demo/7\.bundle'"),
        ({"artefact": "demo/6.bundle"}, r"artefact is 'demo/6\.bundle'"),
        ({"artefact": 7}, "artefact is 7"),
        ({"content": CONTENT[1:]}, "content is '123"),
        ({"content": CONTENT.upper()}, "content is '0123456789ABCDEF"),
        ({"content": 5}, "content is 5; it must be 64 lower-case hexadecimal digits"),
        ({"deltas": []}, r"deltas is \[\]; it must map at most 64 parents to names"),
        ({"deltas": {f"{n:064x}": "demo/7.from-1.delta" for n in range(65)}}, "at most 64 parents"),
        ({"deltas": {"x": "demo/7.from-5.delta"}}, "deltas has 'x': 'demo/7.from-5.delta'; it must be a digest"),
        ({"deltas": {PARENT: "demo/6.from-5.delta"}}, "like 'demo/7.from-1.delta'"),
        ({"deltas": {PARENT: "../7.from-5.delta"}}, "deltas has"),
        ({"deltas": {PARENT: "demo/7.from-05.delta"}}, "deltas has"),
        ({"deltas": {PARENT: "demo/7.from-.delta"}}, "deltas has"),
        ({"deltas": {PARENT: "demo/7.bundle"}}, "deltas has"),
        ({"deltas": {PARENT: 7}}, "deltas has 'f.*': 7"),
    ],
)
def test_every_wrong_field_is_named(changes, match):
    with pytest.raises(UpdateError, match=f"^the rollout rule of 'demo' was refused: .*{match}"):
        Rollout.parse(text(**changes), "demo")


@pytest.mark.parametrize("field", ["family", "artefact", "release", "content", "deltas"])
def test_no_field_may_be_missing(field):
    value = json.loads(RULE.dump())
    del value[field]
    with pytest.raises(UpdateError, match="its fields are"):
        Rollout.parse(json.dumps(value).encode(), "demo")


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "it is not JSON"),
        (b"{", "it is not JSON"),
        (b"\xff", "it is not JSON"),
        (b"[" * 100_000, "it is not JSON"),
        (b"[]", "it is not a JSON object"),
        (b'"text"', "it is not a JSON object"),
        (f'{{"format":"{FORMAT}","format":"{FORMAT}"}}'.encode(), "duplicate key"),
    ],
)
def test_what_is_no_json_object_is_refused(data, match):
    with pytest.raises(UpdateError, match=f"^the rollout rule of 'demo' was refused: .*{match}"):
        Rollout.parse(data, "demo")


@pytest.mark.parametrize(
    ("values", "match"),
    [
        (("demo", 0, CONTENT, {}), "release is 0"),
        (("demo", 1, "x", {}), "content is 'x'"),
        (("demo", 1, CONTENT, {PARENT: "demo/2.from-1.delta"}), "deltas has"),
    ],
)
def test_a_rule_that_no_device_would_read_cannot_be_made(values, match):
    with pytest.raises(ValueError, match=match):
        Rollout(*values)
