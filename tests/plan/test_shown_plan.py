"""A plan in a notebook: two tables, and a short line."""

from __future__ import annotations

from seedcnn.evaluate import cost
from seedcnn.plan import Budget, plan

SIZE = (3, 8, 8)


def test_a_plan_is_tables_and_a_short_line(small, one_thread):
    whole = cost(small, SIZE).macs
    budget = Budget("macs", 0.6 * whole)
    found = plan(small, budget, input_size=SIZE, forms=("dws", "abs-r2"), latency=False)
    replaced = f"{len(found.overrides)} of {len(found.layers)} layers replaced"
    costs = f"{whole:,} MACs -> {found.predicted.macs:,} MACs predicted"
    assert repr(found) == f"Plan({budget}: {replaced}, {costs})"
    html = found._repr_html_()
    assert replaced in html
    assert f'<td>predicted</td><td style="text-align: right">{found.predicted.macs:,}</td>' in html
    for layer in found.layers:
        assert f"<td>{layer.name}</td><td>{layer.layer.replace('>', '&gt;')}</td><td>{layer.form}</td>" in html
    assert "->" not in html
    for name, reason in found.left.items():
        assert f"<td>{name}</td><td>stays: {reason}</td>" in html
