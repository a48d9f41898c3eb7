"""The rollout rule: what the server writes is what a device reads, and everything else is refused."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from seedcnn.bundle import Artefact, Probation, Rollout, bundle_name, check_family, delta_name, release_of, rollout_name
from seedcnn.bundle.rollout import FORMAT, MAX_BYTES, MAX_DELTAS, bucket, check_cohort, check_device_id
from seedcnn.errors import UpdateError

CONTENT, PARENT, SALT = "0123456789abcdef" * 4, "f" * 64, "00112233445566778899aabbccddeeff"
OFFER = Artefact("demo", 7, CONTENT, {PARENT: "demo/7.from-5.delta"})
BASE = Artefact("demo", 5, PARENT, {CONTENT: "demo/5.from-7.delta"})
RULE = Rollout(
    OFFER,
    3,
    BASE,
    SALT,
    50,
    1_790_000_000,
    ("lab", "roof"),
    1_790_000_100,
    1_790_259_200,
    Probation(100, 3600, 1, 50, 20),
)
PROBATION = json.loads(RULE.dump())["probation"]
BAD_FAMILIES = ["", "..", "../x", "a/b", "A", " demo", "-x", ".x", "x" * 65, "rollout", "x\n", "ä"]


def text(**changes: Any) -> bytes:
    """The rule's text with fields changed at will."""
    return json.dumps({**json.loads(RULE.dump()), **changes}).encode()


def test_dump_is_canonical_json_with_these_fields():
    assert RULE.dump().decode() == (
        f'{{"artefact":"demo/7.bundle","base":{{"artefact":"demo/5.bundle","content":"{PARENT}",'
        f'"deltas":{{"{CONTENT}":"demo/5.from-7.delta"}},"release":5}},"cohorts":["lab","roof"],"content":"{CONTENT}",'
        f'"deadline":1790259200,"deltas":{{"{PARENT}":"demo/7.from-5.delta"}},"family":"demo",'
        f'"format":"seedcnn-rollout/2","not_before":1790000100,"per_mille":50,"probation":{{"answers":100,'
        f'"latency_ms":50,"max_bad":1,"max_late_per_mille":20,"seconds":3600}},"release":7,'
        f'"salt":"{SALT}","serial":3,"signed_at":1790000000}}'
    )


@pytest.mark.parametrize("deltas", [{}, OFFER.deltas, {f"{n:064x}": f"demo/7.from-{n + 1}.delta" for n in range(64)}])
@pytest.mark.parametrize("base", [None, BASE, OFFER])
def test_what_is_written_is_read(deltas, base):
    rule = replace(RULE, offer=replace(OFFER, deltas=deltas), base=base)
    assert Rollout.parse(rule.dump(), "demo") == rule
    plain = Rollout(replace(OFFER, deltas=deltas), 1, base, SALT, 1000, 0)
    assert Rollout.parse(plain.dump(), "demo") == plain


def test_the_longest_rule_is_within_the_cap_of_a_download():
    family, release = "x" * 64, 2**53 - 1
    deltas = {f"{n:064x}": delta_name(family, release, release - 1 - n) for n in range(MAX_DELTAS)}
    longest = Artefact(family, release, CONTENT, deltas)
    cohorts = tuple(f"{n:064x}" for n in range(64))
    rule = replace(RULE, offer=longest, base=longest, cohorts=cohorts, serial=2**53 - 1)
    assert Rollout.parse(rule.dump(), family) == rule
    assert len(rule.dump()) <= MAX_BYTES


def test_devices_choose_as_the_documentation_says():
    text = (Path(__file__).parents[2] / "docs" / "rollouts.md").read_text("utf-8")
    rows = re.findall(r"^\| `([0-9a-f]{32})` \| `([^`]+)` \| (\d+) \|$", text, re.MULTILINE)
    assert len(rows) >= 8
    for salt, device, number in rows:
        assert bucket(salt, device) == int(number)
        digest = int(hashlib.sha256((salt + device).encode()).hexdigest(), 16)
        assert digest % 1000 == int(number)


def test_the_dial_reaches_its_share_and_leaves_nobody_behind():
    names = [f"camera-{n}" for n in range(20_000)]
    reached: set[str] = set()
    for dial in (0, 10, 50, 250, 1000):
        rule = replace(RULE, per_mille=dial, cohorts=())
        now = {name for name in names if rule.selects(name)}
        assert reached <= now
        assert abs(len(now) / len(names) - dial / 1000) < 0.01
        reached = now
    other = replace(RULE, per_mille=500, cohorts=(), salt=SALT[::-1])
    both = sum(other.selects(name) and replace(other, salt=SALT).selects(name) for name in names)
    assert abs(both / len(names) - 0.25) < 0.02  # another salt is another choice


def test_a_device_outside_the_dial_runs_the_base_or_what_it_has():
    inside = next(name for name in map(str, range(1000)) if bucket(SALT, name) < 50)
    outside = next(name for name in map(str, range(1000)) if bucket(SALT, name) >= 50)
    started = RULE.not_before
    for rule, way in ((RULE, BASE), (replace(RULE, base=None), None)):
        assert rule.wanted(inside, "lab", started) == OFFER
        assert rule.wanted(inside, "lab", started - 1) == way
        assert rule.wanted(inside, "street", started) == way
        assert rule.wanted(inside, "", started) == way
        assert rule.wanted(outside, "lab", started) == way
    assert replace(RULE, cohorts=()).wanted(inside, "", started) == OFFER


@pytest.mark.parametrize("name", ["", " ", "a b", "-a", "x" * 65, "ä", "a\n", "a/b"])
def test_names_of_devices_and_cohorts(name):
    assert check_device_id("Cam:01_a.b-c") == "Cam:01_a.b-c"
    assert check_cohort("lab-1") == "lab-1"
    for check in (check_device_id, check_cohort, lambda name: bucket(SALT, name)):
        with pytest.raises(ValueError, match="must be 1 to 64 of"):
            check(name)


def test_names():
    assert rollout_name("demo") == "rollout/demo.json"
    assert bundle_name("demo", 7) == OFFER.target == "demo/7.bundle"
    assert delta_name("demo", 7, 5) == "demo/7.from-5.delta"
    for family in ("a", "0.x_y-z", "x" * 64):
        assert check_family(family) == family


@pytest.mark.parametrize("family", BAD_FAMILIES)
def test_no_name_is_made_of_a_family_that_means_something_elsewhere(family):
    names = (check_family, rollout_name, lambda f: bundle_name(f, 1), lambda f: delta_name(f, 2, 1))
    for name in (*names, lambda f: Artefact(f, 1, CONTENT, {})):
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
        ({"format": "seedcnn-rollout/1", "more": 1}, "its format is 'seedcnn-rollout/1'; .* reads 'seedcnn-rollout/2'"),
        ({"format": None}, "its format is None"),
        ({"extra": 1}, "its fields are artefact, base, cohorts, content, deadline, deltas, extra, family"),
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
        ({"serial": 0}, "serial is 0; it must be an integer from 1 to"),
        ({"serial": True}, "serial is True"),
        ({"base": None}, "base: the fields are missing: None is no object"),
        ({"base": {"release": 5}}, "base: the fields are release; not exactly those of"),
        ({"base": {**BASE.to_json(), "release": 6, "deltas": {}}}, r"base: artefact is 'demo/5\.bundle'; release 6 is"),
        ({"base": {**BASE.to_json(), "content": "x"}}, "base: content is 'x'"),
        ({"salt": SALT[1:]}, "salt is '0112233.*it must be 32 lower-case hexadecimal digits"),
        ({"salt": 5}, "salt is 5"),
        ({"per_mille": 1001}, "per_mille is 1001; it must be an integer from 0 to 1000"),
        ({"per_mille": -1}, "per_mille is -1"),
        ({"per_mille": "50"}, "per_mille is '50'"),
        ({"cohorts": "lab"}, "cohorts is 'lab'; it must be a list of names"),
        ({"cohorts": [3]}, r"cohorts is \[3\]"),
        ({"cohorts": ["roof", "lab"]}, "at most 64 names in ascending order"),
        ({"cohorts": ["lab", "lab"]}, "at most 64 names in ascending order"),
        ({"cohorts": [f"{n:03}" for n in range(65)]}, "at most 64 names in ascending order"),
        ({"cohorts": ["La b"]}, "`cohort` \\(='La b'\\) must be 1 to 64 of a-z"),
        ({"not_before": -1}, "not_before is -1"),
        ({"signed_at": 2**53 - 1}, "signed_at is 9007199254740991; it must be an integer from 0 to 253402300799"),
        ({"deadline": 1}, r"deadline is 1; it must be after signed_at \(1790000000\)"),
        ({"probation": []}, "probation's fields are missing"),
        ({"probation": {"answers": 1}}, "probation's fields are answers; not exactly those of"),
        ({"probation": {**PROBATION, "answers": -1}}, r"probation\.answers is -1"),
        ({"probation": {**PROBATION, "seconds": 86400 * 31}}, r"probation\.seconds is 2678400; .* from 0 to 2592000"),
        ({"probation": {**PROBATION, "max_bad": "1"}}, r"probation\.max_bad is '1'"),
        ({"probation": {**PROBATION, "latency_ms": 10**9}}, r"probation\.latency_ms is 1000000000"),
        ({"probation": {**PROBATION, "max_late_per_mille": 1001}}, r"probation\.max_late_per_mille is 1001"),
    ],
)
def test_every_wrong_field_is_named(changes, match):
    with pytest.raises(UpdateError, match=f"^the rollout rule of 'demo' was refused: .*{match}"):
        Rollout.parse(text(**changes), "demo")


@pytest.mark.parametrize("field", [field for field in json.loads(RULE.dump()) if field != "format"])
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
        Artefact(*values)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"base": Artefact("other", 1, CONTENT, {})}, "base.family is 'other'; it must be 'demo'"),
        ({"per_mille": 2000}, "per_mille is 2000"),
        ({"deadline": 1_790_000_050}, "it must be after signed_at"),
        ({"cohorts": ("b", "a")}, "in ascending order"),
    ],
)
def test_nor_a_rule_that_contradicts_itself(changes, match):
    with pytest.raises(ValueError, match=match):
        replace(RULE, **changes)
