"""A packed network in a notebook: a table with the grids that were tried, and a short line without bytes."""

from __future__ import annotations

from seedcnn.bundle import read_bundle
from seedcnn.export import BundleInfo
from seedcnn.pack import Parent, Search, pack, preprocessing_of
from tests.pack.trained import small_trained

RULE = preprocessing_of((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def test_a_packed_network_is_a_table_and_a_short_line():
    network, images, labels = small_trained()
    info = BundleInfo("small", "parts", 1, RULE, [f"class {index}" for index in range(int(labels.max()) + 1)])
    searched = pack(network, info, images, labels, search=Search(images, labels, 1.0))
    text = repr(searched)
    assert text.startswith(f"PackResult({len(searched.data):,} bytes, ")
    assert text.endswith(f"points), n={len(labels):,})")
    assert len(text) < 160
    html = searched._repr_html_()
    assert f"<td>bundle, bytes</td><td>{len(searched.data):,}</td>" in html
    assert f"<summary>{len(searched.tried)} grids tried</summary>" in html
    assert "delta" not in html
    child = BundleInfo("small", "parts", 2, RULE, info.labels)
    found = pack(network, child, images, labels, parent=Parent(read_bundle(searched.data)))
    assert f"<td>delta from the parent, bytes</td><td>{len(found.delta):,}</td>" in found._repr_html_()
    assert "grids tried" not in found._repr_html_()
