"""The manifest: every field is checked, and a wrong one is named in the error."""

from __future__ import annotations

import json
from typing import Any

import pytest

from seedcnn.bundle import read_bundle
from seedcnn.bundle.container import FORMAT, read_container
from seedcnn.bundle.head import manifest_of
from seedcnn.bundle.manifest import Manifest
from seedcnn.errors import BundleFormatError

WORD = "0123456789abcdef"
SHA = WORD * 4


@pytest.fixture
def value(tiny: bytes) -> dict[str, Any]:
    return json.loads(read_bundle(tiny).manifest.dump())


def _parse(value: dict[str, Any]) -> Manifest:
    return Manifest.parse(json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode())


def _at(value: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


# In the tensor table of the small bundle: 0 raw, 1 int8, 2 int16, 3 seeded.
TEXTS = [("model",), ("family",), ("graph", "input"), ("graph", "output"), ("integers",)]
TEXTS += [("tensors", 0, "name"), ("tensors", 0, "coding")]
DIGESTS = [("graph", "sha256"), ("canned", "sha256"), ("canned", "pictures_sha256"), ("tensors_sha256",)]
INTEGERS = [
    (("min_release",), 0, 3),
    (("graph", "size"), 1, 64 << 20),
    (("preprocessing", "height"), 1, 4096),
    (("preprocessing", "width"), 1, 4096),
    (("preprocessing", "short_side"), 4, 4096),
    (("canned", "count"), 1, 64),
    (("canned", "exponent"), -60, 60),
    (("canned", "tolerance_e6"), 0, 10**9),
    (("tensors", 1, "step_mantissa"), 1, 2**24 - 1),
    (("tensors", 2, "step_exponent"), 0, 126),
    (("tensors", 3, "tensor_id"), 0, 2**32 - 1),
    (("tensors", 3, "stream"), 0, 2**32 - 1),
    (("tensors", 3, "count"), 1, 14),
    (("tensors", 3, "repeat"), 1, 14),
    (("tensors", 3, "lo_q"), -(2**24), 2**24),
    (("tensors", 3, "span_q"), 0, 2**25),
    (("tensors", 3, "frac_bits"), 0, 60),
]
WRONG = [(path, bad) for path in TEXTS for bad in ("", 7, ["x"], {}, "x" * 257, "é" * 129)]
WRONG += [(path, bad) for path in DIGESTS for bad in ("", SHA[:-1], SHA + "0", SHA.upper(), "g" * 64, 7, [])]
WRONG += [(path, bad) for path, low, high in INTEGERS for bad in (low - 1, high + 1, str(low), [low], {})]
WRONG += [(("release",), bad) for bad in (0, -1, "3", [3], {})]
WRONG += [((*path, "seed"), bad) for path in (("canned",), ("tensors", 3)) for bad in (0, WORD[1:], WORD.upper(), "")]
WRONG += [(("preprocessing", "mean_e8"), bad) for bad in (0, [], [0, 0], [0] * 4, [0, 0, "0"], [0, 0, 10**10 + 1])]
WRONG += [(("preprocessing", "std_e8"), bad) for bad in (1, [1, 1], [1] * 4, [1, 1, 0], [1, 1, [1]])]
WRONG += [(("preprocessing", "channels"), bad) for bad in (0, 2, 4, "3", [3])]
WRONG += [(("preprocessing", name), bad) for name in ("resize", "filter", "orientation") for bad in ("", "x", 1, [])]
WRONG += [(("preprocessing", "background"), bad) for bad in (0, [], [0, 0], [0] * 4, [0, 0, 256], [0, 0, -1])]
WRONG += [
    (("canned", "pictures"), bad)
    for bad in (0, {}, [[]], "x", [[1, 2]], [[1, 2, 3, 4]], [[0, 2, 3]], [[4097, 2, 3]], [[2, 2, 5]], [[2, "2", 3]])
]
WRONG += [(("tensors", 1, "shape"), bad) for bad in (15, [0], [-3, -5], ["3", 5], [1] * 9, [2**27 + 1], [[3], 5])]
WRONG += [(("labels",), bad) for bad in ([], "cat", ["cat", 1], [["cat"]], {}, ["x"] * 100_001)]
WRONG += [(("tensors",), bad) for bad in ({}, "x", 0)]
WRONG += [(("format",), bad) for bad in (1, "", [], {}, "seedcnn-bundle/2")]
WRONG += [(("rng",), bad) for bad in (1, "", [], "seedcnn-rng/2")]


def _names(path: tuple[str | int, ...]) -> str:
    return {"mean_e8": "mean", "std_e8": "std|standard"}.get(str(path[-1]), str(path[-1]))


@pytest.mark.parametrize(("path", "bad"), WRONG, ids=lambda item: f"{item!r:.40}")
def test_a_wrong_value_is_named(value, path, bad):
    _at(value, path[:-1])[path[-1]] = bad
    with pytest.raises(BundleFormatError, match=_names(path)) as caught:
        _parse(value)
    assert len(str(caught.value)) < 400


def _all_fields(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    if isinstance(value, dict):
        items = list(value.items())
    elif path == ("tensors",):
        items = list(enumerate(value))
    else:
        return []
    return [
        p
        for key, item in items
        for p in ([(*path, key)] if isinstance(key, str) else []) + _all_fields(item, (*path, key))
    ]


def test_every_field_is_required(value):
    paths = _all_fields(value)
    assert len(paths) > 40
    for path in paths:
        copy = json.loads(json.dumps(value))
        del _at(copy, path[:-1])[path[-1]]
        with pytest.raises(BundleFormatError, match=str(path[-1])):
            _parse(copy)


def test_an_unknown_field_is_refused_wherever_it_stands(value):
    for path in [
        (),
        ("graph",),
        ("preprocessing",),
        ("canned",),
        *(("tensors", i) for i in range(4)),
    ]:
        copy = json.loads(json.dumps(value))
        _at(copy, path)["surprise"] = 1
        with pytest.raises(BundleFormatError, match="unknown fields: surprise"):
            _parse(copy)


def test_every_checked_integer_may_take_its_bounds(value):
    bound = ("lo_q", "span_q", "count", "repeat", "height", "width")  # by others: the short side, the canned bytes
    free = [(path, low, high) for path, low, high in INTEGERS if path[-1] not in bound]
    for path, low, high in free:
        for bound in (low, high):
            copy = json.loads(json.dumps(value))
            _at(copy, path[:-1])[path[-1]] = bound
            _parse(copy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": 4}, r"4 draws x 3 do not fill shape \(2, 7\)"),
        ({"count": 6}, r"6 draws x 3 do not fill"),
        ({"lo_q": 2**24 - 1}, "must stay within"),
        ({"lo_q": -(2**24)}, "must stay within"),
        ({"span_q": 2**25}, "span_q"),
        ({"step_mantissa": 1}, "unknown fields: step_mantissa"),
        ({"expanded_sha256": SHA}, "unknown fields: expanded_sha256"),
    ],
)
def test_a_seeded_tensor_is_checked_as_a_whole(value, changes, message):
    value["tensors"][3] |= changes
    with pytest.raises(BundleFormatError, match=message):
        _parse(value)


def test_the_sum_of_the_tensors_is_capped(value):
    big = value["tensors"][3] | {"shape": [2**27], "count": 2**27, "repeat": 1}
    value["tensors"] = [big | {"name": f"t{i}"} for i in range(2)]
    assert len(_parse(value).tensors) == 2
    value["tensors"] = [big | {"name": f"t{i}"} for i in range(3)]
    with pytest.raises(BundleFormatError, match="tensors expand to 1610612736 bytes; at most 1073741824"):
        _parse(value)


def test_the_canned_images_are_capped(value):
    value["preprocessing"] |= {"height": 4096, "width": 4096, "short_side": 4096}
    pictures = sum(height * width * channels for height, width, channels in value["canned"]["pictures"])
    total = 2 * 3 * 4096**2 + pictures
    with pytest.raises(BundleFormatError, match=f"canned images and pictures take {total} bytes; at most 67108864"):
        _parse(value)
    value["preprocessing"] |= {"height": 4, "width": 4}
    value["canned"]["pictures"][0] = [4096, 4096, 4]
    with pytest.raises(BundleFormatError, match="canned images and pictures take 67"):
        _parse(value)


def test_dump_is_the_text_that_was_parsed(tiny):
    container = read_container(tiny, FORMAT)
    text = manifest_of(container.head, container.manifest_size)
    assert Manifest.parse(text).dump() == text


def test_fields_arrive_where_they_belong(tiny):
    manifest = read_bundle(tiny).manifest
    assert (manifest.model, manifest.family, manifest.release, manifest.min_release) == ("tiny", "demo", 3, 1)
    assert manifest.labels == ("cat", "dog", "häß")
    assert (manifest.graph.input, manifest.graph.output, manifest.graph.size) == ("image", "logits", 198)
    assert manifest.preprocessing.mean_e8 == (49_139_968, 48_215_827, 44_653_124)
    assert (manifest.canned.seed, manifest.canned.count, manifest.canned.tolerance_e6) == (77, 2, 1000)
    codings = ["raw-f32", "grid-i8", "grid-i16", "seedcnn-rng/1", "raw-f16", "raw-bf16"]
    codings += ["grid-i16"] * 2
    assert [t.coding for t in manifest.tensors] == codings
    seeded = manifest.tensors[3].seeded
    assert seeded is not None
    assert (seeded.seed, seeded.tensor_id, seeded.stream, seeded.count, seeded.repeat) == (0xFEED, 1, 2, 5, 3)
