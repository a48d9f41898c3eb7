"""Scales of output channels: the same bits everywhere, small updates, and every wrong pair refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seedcnn.bundle import as_scale, encode_grid, encode_raw, encode_seeded, grid_of_step, read_bundle
from seedcnn.bundle.codings import encode_integers
from seedcnn.bundle.delta import apply_delta, read_delta, write_delta
from seedcnn.errors import BundleError, BundleFormatError
from tests.bundle.bundles import explore, tiny_bundle, tiny_tensors, with_manifest
from tests.bundle.c_reader import agree, run
from tests.bundle.deltas import setting, signed
from tests.bundle.make_vectors import told

WEIGHT, SCALE = 6, 7  # of the tensors of the tiny bundle
GRID = grid_of_step(0.03)
FINE = grid_of_step(2.0**-12)


def _pair(scales, q=None, name="w", grid=GRID):
    q = np.arange(-6, 6, dtype=np.int16).reshape(3, 4) if q is None else q
    scale = as_scale(encode_raw(f"{name}.scale", np.asarray(scales, np.float32)))
    return [encode_integers(name, q, grid, scale=scale), scale]


def test_two_rounded_products_in_this_order():
    scales = np.asarray([0.3, 0.0, -1.7], np.float32)
    (weight, scale), step = _pair(scales), np.float32(GRID.step)
    wanted = [
        [np.float32(s * np.float32(np.float32(q) * step)) for q in row]
        for s, row in zip(scales, np.arange(-6, 6).reshape(3, 4), strict=True)
    ]
    bundle = read_bundle(tiny_bundle(tensors=[weight, scale]))
    assert list(bundle.tensors()) == ["w"]
    assert bundle.tensors()["w"].tobytes() == np.asarray(wanted, np.float32).tobytes() == weight.expanded.tobytes()
    assert list(bundle.unscaled()) == ["w", "w.scale"]
    assert np.array_equal(bundle.unscaled()["w"], np.arange(-6, 6).reshape(3, 4).astype(np.float32) * step)


def test_values_go_to_the_nearest_scaled_integer():
    scales = np.asarray([0.5, 2.0, 0.0], np.float32)
    values = np.asarray([[0.1, -0.1], [0.1, 0.31], [5.0, 1.0]], np.float32)
    scale = as_scale(encode_raw("s", scales))
    found = encode_grid("w", values, grid_of_step(0.0625), scale=scale).expanded
    assert found.tolist() == [[0.09375, -0.09375], [0.125, 0.25], [0.0, 0.0]]


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 5), st.integers(1, 9), st.integers(0, 2**32 - 1), st.integers(-40, 40), st.integers(0, 100))
def test_c_gets_the_same_bits(reader, tmp_path_factory, channels, row, seed, power, exponent):
    rng = np.random.default_rng(seed)
    scales = np.float32(2.0**power) * (1 if abs(power) == 40 else rng.uniform(0.5, 1, channels))
    q = rng.integers(-32767, 32768, (channels, row)).astype(np.int16)
    grid = replace(GRID, mantissa=int(rng.integers(2**23, 2**24)), exponent=exponent)
    data = tiny_bundle(tensors=_pair(np.broadcast_to(scales, channels), q, grid=grid))
    place = tmp_path_factory.mktemp("scaled") / "bundle"
    place.write_bytes(data)
    done = run([reader, place])
    assert (done.returncode, done.stdout) == (0, told(data)), done.stderr
    assert np.isfinite(read_bundle(data).tensors()["w"]).all()


@pytest.mark.parametrize("bad", [2.0**-41, -(2.0**41), 1e-44, 3e38])
def test_a_scale_outside_its_range(bad):
    with pytest.raises(BundleFormatError, match=r"'w\.scale' holds .*a scale is 0 or within"):
        _pair([1, bad, 1])
    scale = encode_raw("w.scale", np.asarray([1, bad, 1], np.float32))
    good = _pair([1, 1, 1])
    entry = replace(scale.entry, role="scale")
    with pytest.raises(BundleFormatError, match=r"'w\.scale' holds"):
        tiny_bundle(tensors=[good[0], replace(scale, entry=entry)])
    assert as_scale(encode_raw("s", np.asarray([0, 2.0**-40, -(2.0**40)], np.float32)))


@pytest.fixture
def refused_by_both(reader, tmp_path):
    """Check that both readers refuse a zlib bundle whose manifest is changed."""

    def check(data, change, message):
        changed = with_manifest(data, change)
        with pytest.raises(BundleError, match=message):
            explore(read_bundle(changed))
        agree(reader, tmp_path / "changed", changed)

    return check


def _drop(*path):
    def change(manifest):
        *way, last = path
        place = manifest["tensors"]
        for step in way:
            place = place[step]
        del place[last]

    return change


def _set(index, **fields):
    return lambda manifest: manifest["tensors"][index].update(fields)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_drop(SCALE, "role"), r"which has not the role 'scale'"),
        (_drop(WEIGHT, "scale"), r"'deep\.weight\.scale' has the role 'scale', but it is the scale of no tensor"),
        (_set(WEIGHT, scale="absent"), "has the scale 'absent', which is not in the tensor table"),
        (_set(WEIGHT, scale="head.bias"), "which has not the role 'scale'"),
        (_set(WEIGHT, scale="deep.weight"), "which has not the role 'scale'"),
        (_set(WEIGHT, scale=""), r"tensors\[\]\.scale must be a string"),
        (_set(WEIGHT, scale=7), r"tensors\[\]\.scale must be a string"),
        (_set(WEIGHT, role="scale"), "a scale is not scaled itself"),
        (_set(SCALE, role="norm"), r"tensors\[\]\.role must be one of scale, norms, not 'norm'"),
        (_set(SCALE, role=["scale"]), r"tensors\[\]\.role must be one of scale"),
        (_set(SCALE, scale="deep.weight.scale"), "a scale is not scaled itself"),
        (_set(1, scale="deep.weight.scale"), "which scales another tensor too"),
        (_set(0, scale="deep.weight.scale"), "it must be on a grid"),
        (_set(3, scale="deep.weight.scale"), "it must be on a grid"),
        (_set(WEIGHT, step_exponent=105), r"a step of at least 2\*\*-80"),
        (_set(WEIGHT, shape=[5, 3, 1]), r"has shape \(5, 3, 1\); its scale cannot have shape \(3,\)"),
        (_set(WEIGHT, shape=[]), r"has shape \(\); its scale cannot"),
        (_set(SCALE, shape=[3, 1]), r"its scale cannot have shape \(3, 1\)"),
    ],
)
def test_a_pair_that_does_not_belong_together(tiny_zlib, refused_by_both, change, message):
    refused_by_both(tiny_zlib, change, message)


def test_the_content_says_what_scales_what():
    both = tiny_bundle(tensors=[each for name, at in (("a", 2.0), ("b", 3.0)) for each in _pair([at] * 3, name=name)])

    def crossed(manifest):
        manifest["tensors"][0]["scale"], manifest["tensors"][2]["scale"] = "b.scale", "a.scale"

    other = read_bundle(with_manifest(both, crossed))
    assert (other.tensors()["a"] == read_bundle(both).tensors()["b"]).all()
    assert other.manifest.content_sha256() != read_bundle(both).manifest.content_sha256()


def test_writers_refuse_a_scale_of_another_shape():
    scale = as_scale(encode_raw("s", np.ones(4, np.float32)))
    with pytest.raises(BundleError, match=r"scale 's' has shape \(4,\); it must be \(3,\)"):
        encode_grid("w", np.ones((3, 4)), GRID, scale=scale)
    with pytest.raises(BundleError, match=r"scale 's' has shape \(4,\); it must be \(3,\)"):
        encode_integers("w", np.ones((3, 4), np.int16), GRID, scale=scale)


def _release(release, scales, q):
    scale = as_scale(encode_grid("w.scale", scales, FINE))
    weight = encode_integers("w", q, GRID, scale=scale)
    return read_bundle(tiny_bundle(tensors=[*tiny_tensors(), weight, scale], release=release))


@pytest.fixture(scope="module")
def norms():
    """Two releases that differ in the scales of 64 channels of 576 weights, and the delta between them."""
    rng = np.random.default_rng(0)
    q = np.rint(rng.laplace(0, 1.5, (64, 64, 3, 3))).astype(np.int16)
    scales = rng.uniform(0.5, 1.5, 64)
    old, new = _release(3, scales, q), _release(4, scales * rng.uniform(0.9, 1.1, 64), q)
    return old, new, write_delta(old, new)


def test_an_update_of_scales_names_no_weight(norms):
    old, new, delta = norms
    assert [old.manifest.tensors[change.index].name for change in read_delta(delta).tensors] == ["w.scale"]
    assert len(delta) < 650
    made = read_bundle(apply_delta(old, read_delta(delta)))
    explore(made)
    assert made.tensors()["w"].tobytes() == new.tensors()["w"].tobytes() != old.tensors()["w"].tobytes()
    assert made.manifest.content_sha256() == new.manifest.content_sha256()


def test_integers_and_scales_change_together(norms):
    old, new, _ = norms
    q = np.rint(new.unscaled()["w"] / GRID.step).astype(np.int16)
    q[3, 2, 1, 0] += 1
    third = _release(5, np.full(64, 0.75), q)
    opened = read_delta(write_delta(old, third))
    codings = [(old.manifest.tensors[change.index].name, change.coding) for change in opened.tensors]
    assert codings == [("w", "difference-i8"), ("w.scale", "grid-i16")]
    made = read_bundle(apply_delta(old, opened))
    assert made.tensors()["w"].tobytes() == third.tensors()["w"].tobytes()


@pytest.mark.parametrize(("name", "value"), [("role", "scale"), ("scale", "w.scale")])
def test_a_delta_gives_no_tensor_another_scale(norms, name, value):
    _, _, delta = norms
    with pytest.raises(BundleError, match=f"unknown fields: .*{name}"):
        read_delta(signed(delta, setting("tensors", 0, name, value)))


def test_bundles_with_and_without_scales_are_no_kin():
    q = np.ones((3, 4), np.int16)
    plain = encode_integers("w", q, GRID)
    seeded = tiny_tensors()[3]
    one = read_bundle(tiny_bundle(tensors=[plain, seeded]))
    two = read_bundle(tiny_bundle(tensors=[*_pair([1, 1, 1], q), seeded], release=4))
    with pytest.raises(BundleError, match="names or shapes"):
        write_delta(one, two)


def test_a_seeded_tensor_may_be_a_scale():
    seeded = tiny_tensors()[3].entry.seeded
    scale = as_scale(encode_seeded("w.scale", (3,), replace(seeded, count=3, repeat=1)))
    weight = encode_integers("w", np.ones((3, 2), np.int16), GRID, scale=scale)
    found = read_bundle(tiny_bundle(tensors=[weight, scale])).tensors()["w"]
    assert np.array_equal(found[:, 0], scale.expanded * np.float32(GRID.step))
