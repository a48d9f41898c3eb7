"""The rule for pictures in Python and in C: the same bytes, and the same rules refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seedcnn.bundle import CannedPictures, Preprocessing, read_bundle
from seedcnn.bundle.manifest import Manifest
from seedcnn.bundle.preprocessing import FILTERS, MODES
from seedcnn.bundle.reader import draw_picture
from seedcnn.errors import BundleFormatError, ImageError
from seedcnn.runtime.pictures import canned_pictures, prepare
from tests.bundle.bundles import replace_one, tiny_bundle, with_manifest
from tests.bundle.c_reader import agree, run

SEED = 77
SIZES = [(1, 1), (1, 7), (9, 2), (14, 14), (37, 53), (300, 3), (5, 700), (401, 256)]
COLOURS = {1: {"channels": 1, "mean": 0.5, "std": 0.25}, 3: {"mean": (0.4, 0.5, 0.6), "std": 0.25}}
BACKGROUNDS = [(255, 255, 255), (0, 0, 0), (250, 128, 3)]
SHORT = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _digest(rule: Preprocessing, pictures: Sequence[tuple[int, int, int]]) -> str:
    digest = hashlib.sha256()
    for index, each in enumerate(pictures):
        digest.update(prepare(draw_picture(SEED, index, *each), rule).tobytes())
    return digest.hexdigest()


def _pictures(rule: Preprocessing, sizes: list[tuple[int, int]]) -> CannedPictures:
    found = tuple((height, width, channels) for height, width in sizes for channels in (1, 2, 3, 4))
    return CannedPictures(found, _digest(rule, found))


def _zlib_bundle(rule: Preprocessing, pictures: CannedPictures) -> bytes:
    return tiny_bundle(compression="zlib", preprocessing=rule, canned_pictures=pictures)


def _rules() -> list[Preprocessing]:
    rules = []
    for number, filter in enumerate(FILTERS):
        for channels, colours in COLOURS.items():
            options = {"filter": filter, "background": BACKGROUNDS[(number + channels) % 3], **colours}
            rules += [
                Preprocessing.crop((14, 11), short_side=17 + number, **options),
                Preprocessing.crop((3, 14), short_side=14, **options),
                Preprocessing.squash((14, 23), **options),
                Preprocessing.pad((14, 23), fill=(9, 0, 255)[:channels], **options),
            ]
    return rules


@pytest.mark.parametrize("rule", _rules(), ids=lambda rule: f"{rule.resize}-{rule.filter}-{rule.channels}")
def test_every_way_and_filter(reader, tmp_path, rule):
    for size in SIZES:
        pictures = _pictures(rule, [size])
        place = tmp_path / "x.bundle"
        place.write_bytes(_zlib_bundle(rule, pictures))
        done = run([reader, place])
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == f"pictures {pictures.sha256}"


@pytest.mark.parametrize("background", BACKGROUNDS)
@pytest.mark.parametrize("channels", [1, 3])
def test_no_resizing(reader, tmp_path, channels, background):
    rule = Preprocessing.exact((14, 9), background=background, **COLOURS[channels])
    agree(reader, tmp_path / "x", _zlib_bundle(rule, canned_pictures(SEED, rule)))
    wrong = tuple((height, 8, channels) for height, _, channels in canned_pictures(SEED, rule).sizes)
    agree(reader, tmp_path / "x", _zlib_bundle(rule, CannedPictures(wrong)))
    assert "refuses" in run([reader, tmp_path / "x"]).stderr


@pytest.mark.parametrize("filter", FILTERS)
def test_large_inputs(reader, tmp_path, filter):
    """The canned pictures of a usual network, and sides where the weights of bicubic lose bits."""
    usual, wide = Preprocessing.crop(224, filter=filter), Preprocessing.squash((40, 4096), filter=filter)
    for rule in (usual, wide):
        sizes = canned_pictures(SEED, rule).sizes[::2]
        agree(reader, tmp_path / "x", _zlib_bundle(rule, CannedPictures(sizes, _digest(rule, sizes))))
    narrow = Preprocessing.crop((9, 8), short_side=4090, filter=filter)  # the long side is scaled to 65,440
    data = _zlib_bundle(narrow, _pictures(narrow, [(1, 16), (48, 3)]))
    agree(reader, tmp_path / "x", data)
    assert run([reader, tmp_path / "x"]).returncode == 0


def test_a_scaled_side_over_the_limit_is_refused(reader, tmp_path):
    rule = Preprocessing.crop(4, short_side=4096)
    for sizes, wanted in (((1, 15), 0), ((1, 16), 1), ((16, 1), 1), ((15, 1), 0)):
        pictures = CannedPictures(((*sizes, 3),)) if wanted else _pictures(rule, [sizes])
        agree(reader, tmp_path / "x", _zlib_bundle(rule, pictures))
        assert run([reader, tmp_path / "x"]).returncode == wanted


@pytest.mark.parametrize("resize", MODES)
def test_one_wrong_digest_is_refused(reader, tmp_path, resize):
    rules = {rule.resize: rule for rule in _rules()} | {"none": Preprocessing.exact(6)}
    pictures = canned_pictures(SEED, rules[resize])
    for at in (0, 31, 63):
        other = "0" if pictures.sha256[at] != "0" else "1"
        changed = pictures._replace(sha256=pictures.sha256[:at] + other + pictures.sha256[at + 1 :])
        agree(reader, tmp_path / "x", _zlib_bundle(rules[resize], changed))
        done = run([reader, tmp_path / "x"])
        assert done.returncode == 1
        assert done.stderr == "refused: the canned pictures do not become the bytes that are stated\n"


VALUES = st.one_of(
    st.integers(-2, 20),
    st.sampled_from([255, 256, 4096, 4097, 10**10, 10**10 + 1, -(10**10), 2**53 - 1]),
    st.sampled_from([*MODES, *FILTERS, "exif", "stored", "", "Bilinear", "lanczos"]),
    st.lists(st.sampled_from([-1, 0, 1, 128, 255, 256, 10**10]), max_size=4),
    st.sampled_from([{}, [[1]], ["1", "1", "1"], [1, 1, "1"]]),
)


def _sealed(value: dict[str, Any]) -> dict[str, Any]:
    """The manifest with the digests that its rule gives, as long as the rule is one."""
    try:
        rule = Preprocessing.from_json(value["preprocessing"])
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        value["canned"]["pictures_sha256"] = _digest(rule, Manifest.parse(text).canned.pictures.sizes)
    except (BundleFormatError, ImageError):
        pass
    return value


@SHORT
@given(
    resize=st.sampled_from(MODES),
    sizes=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), max_size=2),
    changes=st.lists(st.tuples(st.integers(0, 99), VALUES), min_size=1, max_size=2),
    names=st.lists(st.sampled_from(["short_side", "fill", "filter", "channels", "surprise"]), max_size=1),
    given=VALUES,
)
def test_c_and_python_refuse_the_same_rules(reader, tmp_path, resize, sizes, changes, names, given):
    """Fields of the rule and of the pictures change, appear and go, and the digests follow where there is a rule."""
    rule = {rule.resize: rule for rule in _rules()[1:4]} | {"none": Preprocessing.exact((14, 11))}
    data = _zlib_bundle(rule[resize], CannedPictures() if resize == "none" else _pictures(rule[resize], sizes))

    def change(value: dict[str, Any]) -> None:
        parts = {"preprocessing": value["preprocessing"], "pictures": value["canned"]["pictures"]}
        for pick, junk in changes[: 2 - len(names)]:
            replace_one(parts, pick, deepcopy(junk))
        value["preprocessing"], value["canned"]["pictures"] = parts["preprocessing"], parts["pictures"]
        for name in names:
            if isinstance(value["preprocessing"], dict):
                value["preprocessing"].pop(name, None)
                if given != 0:
                    value["preprocessing"][name] = deepcopy(given)
        _sealed(value)

    agree(reader, tmp_path / "changed", with_manifest(data, change))


BYTES = st.integers(0, 255) | st.sampled_from([0, 255, 255, 256, -1])
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "height": st.integers(0, 20),
    "width": st.integers(1, 20) | st.sampled_from([700, 4097]),
    "short_side": st.integers(10, 40) | st.sampled_from([4096, 4097]),
    "resize": st.sampled_from(MODES),
    "filter": st.sampled_from([*FILTERS, "lanczos"]),
    "orientation": st.sampled_from(["exif", "stored", "upright"]),
    "background": st.lists(BYTES, min_size=3, max_size=3),
    "fill": st.lists(BYTES, min_size=3, max_size=3),
    "mean_e8": st.lists(st.sampled_from([0, 10**10, -(10**10), 10**10 + 1]), min_size=3, max_size=3),
    "std_e8": st.lists(st.sampled_from([1, 10**10, 0]), min_size=3, max_size=3),
}


@SHORT
@given(
    resize=st.sampled_from(MODES[:3]),
    sizes=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=2),
    fields=st.lists(
        st.sampled_from(sorted(FIELDS)).flatmap(lambda name: st.tuples(st.just(name), FIELDS[name])), max_size=2
    ),
)
def test_c_and_python_take_the_same_rules(reader, tmp_path, resize, sizes, fields):
    """Fields of the rule get values that are within their limits or just outside."""
    rule = {rule.resize: rule for rule in _rules() if rule.channels == 3}[resize]
    data = _zlib_bundle(rule, _pictures(rule, sizes))

    def change(value: dict[str, Any]) -> None:
        value["preprocessing"].update({name: new for name, new in fields if name in value["preprocessing"]})
        _sealed(value)

    agree(reader, tmp_path / "changed", with_manifest(data, change))


def test_the_manifest_of_the_tests_is_sealed_as_written():
    rule = _rules()[0]
    value = json.loads(read_bundle(_zlib_bundle(rule, canned_pictures(SEED, rule))).manifest.dump())
    assert _sealed(json.loads(json.dumps(value))) == value
