"""The report's plots: every line can be told apart, in the legend as in the plots, and each model keeps its colour."""

from __future__ import annotations

import re

import pytest

from seedcnn.evaluate.report.plots import MARKERS, SERIES, bar_plot, key_symbol, severity_plot


def test_the_legend_tells_sixty_lines_apart():
    symbols = [key_symbol(index) for index in range(60)]
    assert len(set(symbols)) == 60
    lines = [re.search(r'stroke="([^"]+)".*stroke-dasharray="([^"]+)"', symbol).groups() for symbol in symbols]
    assert len(set(lines)) == 60
    assert len({colour for colour, _ in lines[:SERIES]}) == len(set(MARKERS)) == SERIES == 12


@pytest.mark.parametrize("large", [False, True])
def test_a_plot_draws_the_lines_of_its_legend(large):
    lines = {f"model {index}": [50.0 - index, 40.0 - index] for index in range(14)}
    svg = severity_plot("s0", "fog", (1, 2), lines, (0, 100), dict.fromkeys(lines, 60.0), large=large)
    drawn = re.findall(r'<g id="s0-line2d_\d+">\s*<path d="M [^"]*"[^>]*style="([^"]*stroke: var\(--series[^"]*)"', svg)
    assert len(drawn) == 14
    for style, index in zip(drawn, range(14), strict=True):
        legend = key_symbol(index)
        assert re.search(r"stroke: (var\(--series-\d+\))", style)[1] == re.search(r'stroke="([^"]+)"', legend)[1]
        dashes = re.search(r"stroke-dasharray: ([\d., ]+)", style)
        known = re.search(r'stroke-dasharray="([^"]+)"', legend)[1]
        assert (dashes is None) == (known == "none")
        if dashes is not None:
            ratio = {round(float(a) / float(b), 3) for a, b in zip(dashes[1].split(","), known.split(), strict=True)}
            assert len(ratio) == 1
    assert "model 13: 37.0, 27.0" in svg


def test_severities_are_drawn_in_their_order():
    args = ("s0", "fog"), ({"a": [10.0, 50.0]}, (0, 100), {"a": 60.0}), ({"a": [50.0, 10.0]}, (0, 100), {"a": 60.0})
    assert severity_plot(*args[0], (5, 1), *args[1]) == severity_plot(*args[0], (1, 5), *args[2])


def test_a_bar_has_the_colour_of_its_model():
    svg = bar_plot("b0", "Size", {"a": 1.0, "c": 3.0}, {"a": "1 B", "c": "3 B"}, {"c": 0.5}, {"a": 0, "b": 1, "c": 2})
    assert set(re.findall(r"var\(--series-\d+\)", svg)) == {"var(--series-1)", "var(--series-3)"}
    assert "Size. a: 1 B; c: 3 B" in svg
