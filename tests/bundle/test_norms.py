"""The table of norms: both readers read past it, every wrong one is refused by both, and a delta carries changes."""

from __future__ import annotations

import numpy as np
import pytest

from seedcnn.bundle import encode_grid, grid_of_step, read_bundle
from seedcnn.bundle.adaptable import Site
from seedcnn.bundle.codings import as_norms
from seedcnn.bundle.delta import apply_delta, read_delta, write_delta
from seedcnn.errors import BundleError
from tests.bundle.bundles import explore, tiny_bundle, tiny_tensors, with_manifest
from tests.bundle.c_reader import agree, run
from tests.bundle.make_vectors import told

# head.bias [5], conv.weight [3, 5], head.weight [5, 3], conv.phase, norm.half [5], ...
SITES = (Site("z", 5, ((2, 0, 0),)), Site("y", 7, ((2, 4, 1), (2, 0, 2))))
NORMS = 8


def norms(values=None, total=12):
    values = np.arange(2 * total, dtype=np.float32).reshape(2, total) / 8 if values is None else values
    return as_norms(encode_grid("norms", values, grid_of_step(0.125)))


def bundle(sites=SITES, values=None, **changes):
    return tiny_bundle(tensors=[*tiny_tensors(), norms(values)], norms=sites, **changes)


def test_both_readers_read_past_it(reader, tmp_path):
    data = bundle()
    opened = read_bundle(data)
    assert opened.manifest.norms == SITES
    assert "norms" not in opened.tensors()
    assert opened.unscaled()["norms"].tolist() == (np.arange(24).reshape(2, 12) / 8).tolist()
    (tmp_path / "bundle").write_bytes(data)
    done = run([reader, tmp_path / "bundle"])
    assert (done.returncode, done.stdout) == (0, told(data)), done.stderr


def test_it_is_part_of_the_content():
    other = (SITES[0], Site("x", 7, SITES[1].places))
    assert read_bundle(bundle()).manifest.content_sha256() != read_bundle(bundle(other)).manifest.content_sha256()


def _site(index, **fields):
    return lambda manifest: manifest["norms"][index].update(fields)


def _tensor(**fields):
    return lambda manifest: manifest["tensors"][NORMS].update(fields)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.pop("norms"), "has the role 'norms', but there is no table of norms"),
        (lambda m: m.update(norms=[]), "norms is empty; leave it out"),
        (lambda m: m.update(norms=[7]), r"norms\[\] must be an object"),
        (lambda m: m["tensors"][NORMS].pop("role"), "0 tensors have the role 'norms'"),
        (lambda m: m["tensors"][0].update(role="norms"), "2 tensors have the role 'norms'"),
        (_tensor(shape=[2, 2, 6]), r"the norms need \(2, 12\)"),
        (_tensor(shape=[12, 2]), r"the norms need \(2, 12\)"),
        (_site(0, channels=6), r"the norms need \(2, 13\)"),
        (_site(0, channels=0), "channels must be an integer"),
        (_site(0, value=""), "value must be a string"),
        (_site(0, value="y"), "duplicate value"),
        (_site(0, places=[]), "places must hold one triple or more, not 0"),
        (_site(0, places=[2, 0]), "places must hold one triple or more, not 2"),
        (_site(0, places=[2, 0, 0] * 5), "a list of at most 12"),
        (_site(0, places=[2, "0", 0]), "places must hold integers"),
        (_site(0, places=[2, -1, 0]), "places must hold integers"),
        (_site(0, places=[2, 9, 0]), "names tensor 9; there are 9"),
        (_site(0, places=[2, 3, 0]), "names tensor 'conv.phase', no learned one"),
        (_site(0, places=[7, 0, 0]), "names tensor 'deep.weight.scale', no learned one"),
        (_site(0, places=[2, 8, 0]), "names tensor 'norms', no learned one"),
        (_site(0, places=[1, 0, 0]), "of 5 channels cannot scale and shift"),
        (_site(0, places=[2, 0, 1]), "of 5 channels cannot scale and shift"),
        (_site(0, places=[0, 0, 0]), "of 5 channels cannot scale and shift"),
        (_site(0, more=1), "unknown fields: more"),
    ],
)
def test_a_wrong_table_is_refused_by_both(reader, tmp_path, change, message):
    changed = with_manifest(bundle(), change)
    with pytest.raises(BundleError, match=message):
        explore(read_bundle(changed))
    agree(reader, tmp_path / "changed", changed)


def test_a_delta_carries_new_statistics_and_no_new_table():
    parent = bundle()
    values = np.arange(24, dtype=np.float32).reshape(2, 12) / 8
    values[0, 3] += 0.25
    child = bundle(values=values, release=4)
    delta = write_delta(read_bundle(parent), read_bundle(child))
    assert len(delta) < 700
    made = read_bundle(apply_delta(read_bundle(parent), read_delta(delta)))
    assert made.manifest.content_sha256() == read_bundle(child).manifest.content_sha256()
    assert made.unscaled()["norms"][0, 3] == np.float32(0.625)
    other = bundle((SITES[0], Site("x", 7, SITES[1].places)), release=4)
    with pytest.raises(BundleError, match="differ in norms"):
        write_delta(read_bundle(parent), read_bundle(other))
