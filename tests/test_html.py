"""Tables for notebooks: all text is escaped, numbers stand on the right."""

from __future__ import annotations

import pytest

from seedcnn.html import folded, paragraph, table


def test_all_text_is_escaped():
    evil = "<script>alert('&')</script>"
    for html in (paragraph(evil), table((evil,), [(evil,)]), folded(evil, "")):
        assert "<script" not in html
        assert "&lt;script&gt;alert(&#x27;&amp;&#x27;)&lt;/script&gt;" in html


def test_a_table():
    assert table(("name", "n"), [("a", 1234), ("b", None)]) == (
        "<table><thead><tr><th>name</th><th>n</th></tr></thead><tbody>"
        '<tr><td>a</td><td style="text-align: right">1,234</td></tr><tr><td>b</td><td></td></tr></tbody></table>'
    )
    assert "<td>True</td>" in table(("right",), [(True,)])
    assert folded("more", table(("a",), [])).startswith("<details><summary>more</summary><table>")


def test_rows_fit_under_the_heads():
    with pytest.raises(ValueError, match="a row of 1 cells does not fit under 2 heads"):
        table(("a", "b"), [("a",)])
