"""The report's tables: heat map, averages over seeds, styles and the papers' rows, cell by cell."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from html import unescape
from importlib import resources

import numpy as np
import pytest
from markupsafe import escape

from seedcnn.data.corruptions import CORRUPTIONS, GROUPS
from seedcnn.evaluate.accuracies import Accuracy
from seedcnn.evaluate.papers import PaperRow
from seedcnn.evaluate.report import Measured, ModelRow, write_report
from seedcnn.evaluate.report.robustness import HEAT_STEPS
from seedcnn.evaluate.robustness_runs import RobustnessTable, SeededRobustness
from seedcnn.evaluate.styles import StyleTable

NAMES = ("vanilla", "grown_a")
N = 40
SHOWN = {"gaussian_noise": "gaussian noise", "contrast": "contrast", "pixelate": "pixelate"}


def seeded(start, kinds=tuple(CORRUPTIONS), severities=(1, 2, 3, 4, 5), seeds=(3, 4)):
    """Answers at random; those to corruptions that draw nothing are the same for every seed."""
    rng = np.random.default_rng(start)
    clean = rng.random(N) < 0.9
    tables, fixed = [], {}
    for seed in seeds:
        drawn = {kind: rng.random((len(severities), N)) < rng.uniform(0.3, 0.8) for kind in kinds}
        right = {k: drawn[k] if CORRUPTIONS[k].draw is not None else fixed.setdefault(k, drawn[k]) for k in kinds}
        rows = {kind: tuple((100 * mask.mean(axis=1)).tolist()) for kind, mask in right.items()}
        share = 100 * float(clean.mean())
        tables.append(RobustnessTable(rows, severities, N, "cifar", seed, 1.0, share, right, clean))
    return SeededRobustness(tuple(tables))


def accuracy(share, n):
    return Accuracy(share, n, 0.5, np.zeros(n, bool))


def write(path, **change):
    arguments = {
        "title": "Tables",
        "rows": [ModelRow(name, Measured(90.0 - i)) for i, name in enumerate(NAMES)],
        "robustness": {},
        "samples": [],
        "settings": {},
        "notes": [],
    }
    return write_report(path / "report.html", **(arguments | change)).read_text(encoding="utf-8")


def table(html, label):
    """The lines of the table in the box of this label: each a list of texts, small print behind a bar."""
    content = html.split(f'aria-label="{label}">', 1)[1].split("</table>", 1)[0]

    def text(cell):
        return unescape(re.sub("<[^>]+>", "", cell.replace("<small>", "|")))

    lines = re.findall("<tr.*?</tr>", content)
    return [[text(cell) for cell in re.findall("<t[hd].*?</t[hd]>", line)] for line in lines]


def mean(values):
    return sum(values) / len(values)


@pytest.fixture(scope="module")
def results():
    return {name: seeded(index) for index, name in enumerate(NAMES)}


@pytest.fixture(scope="module")
def html(results, tmp_path_factory):
    return write(tmp_path_factory.mktemp("tables"), robustness=results)


def test_heat_map_has_every_mean_and_the_group_means(html, results):
    expected = [["Corruption", *NAMES]]
    for group in GROUPS:
        kinds = [kind for kind, each in CORRUPTIONS.items() if each.group == group]
        by_model = [[results[name].corruption_mean(kind) for kind in kinds] for name in NAMES]
        expected.append([f"{group}|mean of {len(kinds)}", *(f"{mean(column):.1f}" for column in by_model)])
        for index, kind in enumerate(kinds):
            expected.append([kind.replace("_", " "), *(f"{column[index]:.1f}" for column in by_model)])
    for what in ("groups", "corruptions"):
        values = [mean([getattr(each, f"mean_over_{what}") for each in results[name].tables]) for name in NAMES]
        expected.append([f"Mean|over {what}", *(f"{value:.1f}" for value in values)])
    assert table(html, "Mean accuracy by corruption and model") == expected
    assert "mean over severities and 2 seeds" in html


def test_the_ground_grows_with_the_number(html):
    found = re.findall(r'<td class="h(\d+)"><span class="main">([\d.]+)</span>', html)
    assert len(found) == 2 * (19 + 4 + 2)
    steps = [int(step) for step, _ in sorted(found, key=lambda pair: float(pair[1]))]
    assert steps[0] == 0
    assert max(steps) <= HEAT_STEPS - 1
    # Numbers are rounded to 0.1, so neighbours may share a number and not a step.
    assert all(later >= earlier - 1 for earlier, later in itertools.pairwise(steps))
    assert len(set(steps)) > 6


def test_equal_numbers_have_one_ground(tmp_path):
    flat = RobustnessTable({"contrast": (50.0,), "pixelate": (50.0,)}, (5,), 20, "cifar", 0, None)
    html = write(tmp_path, robustness=dict.fromkeys(NAMES, flat))
    assert set(re.findall(r'<td class="h(\d+)">', html)) == {"0"}


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_grounds_are_ordered_and_the_text_on_them_is_readable():
    style = resources.files("seedcnn.evaluate.report").joinpath("report.html.j2").read_text("utf-8")
    for theme in re.findall(r":root \{(.*?)\}", style, flags=re.DOTALL):
        colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", theme))
        heat = [luminance(colours[f"heat-{step}"]) for step in range(HEAT_STEPS)]
        ink = luminance(colours["ink"])
        ordered = sorted(heat, reverse=ink < heat[0])
        assert heat == ordered
        for ground in heat:
            low, high = sorted((ink, ground))
            assert (high + 0.05) / (low + 0.05) >= 4.5
    assert style.count(":root {") == 2


def test_averages_over_seeds_with_intervals(html, results):
    lines = table(html, "Averages and errors")
    summaries = [results[name].summary() for name in NAMES]
    assert [line[0] for line in lines] == [
        "Average",
        "Accuracy|mean over corruptions, %",
        "Accuracy|mean over groups, %",
        "Mean corruption error|standard 15, %",
        "Mean corruption error|all 19, %",
        "mCE|standard 15, AlexNet = 100",
        "mCE|all 19, AlexNet = 100",
        "Relative mCE|standard 15, AlexNet = 100",
        "Relative mCE|all 19, AlexNet = 100",
    ]
    for line, figure in zip(lines[1:], summaries[0], strict=True):
        for cell, summary in zip(line[1:], (each[figure] for each in summaries), strict=True):
            low, high = summary.interval
            assert cell == f"{summary.mean:.2f} ± {summary.std:.2f}|[{low:.2f}, {high:.2f}]"
    for words in ("2 seeds (3, 4)", "95 % of a bootstrap over images", "it is a weighting, not comparable"):
        assert words in html


def test_a_part_of_the_corruptions_has_no_mce(tmp_path, results):
    cut = {name: seeded(i, kinds=tuple(SHOWN), seeds=(5,)).tables[0] for i, name in enumerate(NAMES)}
    bare = {name: replace(each, right=None) for name, each in cut.items()}
    html = write(tmp_path, robustness=bare)
    lines = table(html, "Averages and errors")
    assert lines[1][0] == "Accuracy|mean over corruptions, %, 3 measured"
    assert lines[1][1] == f"{cut['vanilla'].mean_over_corruptions:.2f}"
    assert len(lines) == 3
    assert "No mCE" in html
    assert "bootstrap" not in html
    assert "seed 5" in html


def test_numbers_behind_the_plots_are_mean_and_deviation_over_seeds(html, results):
    lines = {line[0]: line[1:] for line in table(html, "Accuracy by corruption and severity")}
    for kind, words in SHOWN.items():
        for index in range(5):
            for cell, name in zip(lines[f"{words}|severity {index + 1}"], NAMES, strict=True):
                values = [each.accuracies[kind][index] for each in results[name].tables]
                spread = f" ± {np.std(values, ddof=1):.2f}" if kind == "gaussian_noise" else ""
                assert cell == f"{mean(values):.2f}{spread}"
    for cell, name in zip(lines["Noise|group mean"], NAMES, strict=True):
        values = [each.group_means["Noise"] for each in results[name].tables]
        assert cell == f"{mean(values):.2f} ± {np.std(values, ddof=1):.2f}"
    assert "Mean ± standard deviation over 2 seeds" in html


def test_plots_show_the_mean_over_seeds(html, results):
    values = mean([np.array(each.accuracies["contrast"]) for each in results["vanilla"].tables])
    assert f"vanilla: {', '.join(f'{value:.1f}' for value in values)}; grown_a" in html
    assert "the lines are the mean over seeds" in html
    assert "the accuracy on the same images, uncorrupted" in html


def test_lines_start_where_clean_accuracy_is_known(tmp_path):
    tables = {name: replace(seeded(0, ("contrast",), seeds=(0,)).tables[0], clean=None) for name in NAMES}
    assert "The first point is the accuracy of the first table." in write(tmp_path, robustness=tables)


def test_one_seed_of_tables_and_of_seeded_results_is_the_same_page(tmp_path):
    single = {name: seeded(i, ("contrast", "snow"), seeds=(9,)) for i, name in enumerate(NAMES)}
    plain = {name: each.tables[0] for name, each in single.items()}
    assert write(tmp_path, robustness=single) == write(tmp_path, robustness=plain)


def test_seeds_must_match(tmp_path):
    mixed = {name: seeded(0, ("contrast",), seeds=(i,)) for i, name in enumerate(NAMES)}
    with pytest.raises(ValueError, match="constants or seeds; they must be the same"):
        write(tmp_path, robustness=mixed)


def test_styles(tmp_path):
    first = {"apple": accuracy(80.0, 1046), "google": accuracy(70.5, 1270), "lg": accuracy(91.0, 409)}
    second = first | {"lg": accuracy(92.25, 400)}
    held = ("google", "apple")
    html = write(tmp_path, styles={NAMES[0]: StyleTable(first, held), NAMES[1]: StyleTable(second, held)})
    assert table(html, "Accuracy by style") == [
        ["Style", *NAMES],
        ["apple|n = 1,046, held out", "80.00 ± 0.50", "80.00 ± 0.50"],
        ["google|n = 1,270, held out", "70.50 ± 0.50", "70.50 ± 0.50"],
        ["lg", "91.00 ± 0.50|n = 409", "92.25 ± 0.50|n = 400"],
        ["Mean|over the 2 held out", "75.25 ± 0.35", "75.25 ± 0.35"],
    ]


def test_styles_that_not_every_model_has(tmp_path):
    one = StyleTable({"apple": accuracy(80.0, 10), "lg": accuracy(90.0, 20)}, ("apple",))
    two = StyleTable({"lg": accuracy(70.0, 20)}, ("lg",))
    lines = table(write(tmp_path, styles={NAMES[0]: one, NAMES[1]: two}), "Accuracy by style")
    assert lines[1:] == [
        ["apple|n = 10, held out", "80.00 ± 0.50", "not measured"],
        ["lg|n = 20", "90.00 ± 0.50", "70.00 ± 0.50|held out"],
        ["Mean|over held-out styles", "80.00 ± 0.50|of apple", "70.00 ± 0.50|of lg"],
    ]
    lines = table(write(tmp_path, styles={NAMES[1]: StyleTable({"lg": accuracy(70.0, 20)})}), "Accuracy by style")
    assert lines[1:] == [["lg|n = 20", "not measured", "70.00 ± 0.50"]]


CORRUPTED = PaperRow(
    "Table 7(a)",
    "GroupNL",
    "cifar10-c",
    "resnet18_cifar",
    "vanilla",
    {"Noise": 52.6, "Blur": 72.78, "Weather": 84.55, "Digital": 80.7, "mean": 72.58},
    "A note <i>.",
    {"Noise": 1.5},
)
CLEAN = PaperRow("Table 6", "GroupNL", "cifar10", "resnet18_cifar", "vanilla", {"top1": 95.04})
STYLES = PaperRow("Table 8(a)", "GroupNL", "icons50", "resnet18_cifar", "vanilla", {"apple": 93.66, "mean": 86.19})


def test_paper_rows_beside_ours(html, results, tmp_path):
    html = write(tmp_path, robustness=results, papers={"grown_a": [CORRUPTED, CLEAN]})
    name, *cells = table(html, "Printed and ours, cifar10-c")[1]
    assert name == "grown_a|GroupNL, Table 7(a): resnet18_cifar, vanilla"
    tables = results["grown_a"].tables

    def beside(printed, ours, word=""):
        gap = ours - printed
        return f"ours {ours:.2f}, {'+' if gap > 0 else chr(0x2212)}{abs(gap):.2f}{word}"

    noise = beside(52.6, mean([each.group_means["Noise"] for each in tables]))
    groups = beside(72.58, mean([each.mean_over_groups for each in tables]), " (over groups)")
    kinds = beside(72.58, mean([each.mean_over_corruptions for each in tables]), " (over corruptions)")
    assert cells[0] == f"52.60 ± 1.50|{noise}"
    assert cells[-1] == f"72.58|{groups}|{kinds}"
    assert table(html, "Printed and ours, cifar10") == [
        ["Model", "top1"],
        ["grown_a|GroupNL, Table 6: resnet18_cifar, vanilla", "95.04|ours 89.00, \N{MINUS SIGN}6.04"],
    ]
    assert "<li>GroupNL, Table 7(a) (vanilla): A note &lt;i&gt;.</li>" in html


def test_ours_stands_beside_the_same_quantity_only(tmp_path):
    noise = tuple(kind for kind, each in CORRUPTIONS.items() if each.group == "Noise")
    results = {name: seeded(0, (*noise, "contrast")) for name in NAMES}
    styles = {"vanilla": StyleTable({"apple": accuracy(90.0, 9), "lg": accuracy(50.0, 9)}, ("apple", "lg"))}
    html = write(tmp_path, robustness=results, papers={"vanilla": [CORRUPTED, STYLES]}, styles=styles)
    *_, blur, weather, digital, average = table(html, "Printed and ours, cifar10-c")[1]
    assert blur == "72.78|ours not measured"
    assert (weather, digital, average) == tuple(f"{v}|ours not measured" for v in ("84.55", "80.70", "72.58"))
    assert "52.60 ± 1.50|ours" in table(html, "Printed and ours, cifar10-c")[1][1]
    line = table(html, "Printed and ours, icons50")[1]
    assert line[1:] == ["93.66|ours 90.00, \N{MINUS SIGN}3.66", "86.19|ours not measured"]
    part = {name: seeded(0, severities=(1, 5)) for name in NAMES}
    html = write(tmp_path, robustness=part, papers={"vanilla": [CORRUPTED]})
    assert all("ours not measured" in cell for cell in table(html, "Printed and ours, cifar10-c")[1][1:])


def test_styles_and_paper_rows_are_escaped(tmp_path):
    """Names of every origin, with all that means something in HTML."""
    odd = '<b>R&D</b> "it\'s"'
    paper = PaperRow(f"1 {odd}", f"2 {odd}", f"3 {odd}", f"4 {odd}", f"5 {odd}", {f"6 {odd}": 9.5}, f"7 {odd}")
    styles = {odd: StyleTable({f"8 {odd}": accuracy(80.0, 9)}, (f"8 {odd}",))}
    html = write(tmp_path, rows=[ModelRow(odd, Measured(9.0))], styles=styles, papers={odd: [paper]})
    assert "<b>" not in html
    assert all(html.count(f"{number} &lt;b&gt;R&amp;D&lt;/") >= 1 for number in range(1, 9))
    text = unescape(re.sub("<[^>]+>", "", html))
    assert all(f"{number} {odd}" in text for number in range(1, 9))
    assert table(html, f"Printed and ours, 3 {escape(odd)}")[0] == ["Model", f"6 {odd}"]


def test_equal_to_the_paper_has_no_sign(tmp_path):
    same = replace(CLEAN, values={"top1": 90.0})
    html = write(tmp_path, papers={"vanilla": [same]})
    assert table(html, "Printed and ours, cifar10")[1][1] == "90.00|ours 90.00, 0.00"


@pytest.mark.parametrize("what", ["styles", "papers"])
def test_styles_and_papers_are_of_known_models(tmp_path, what):
    given = {"other": StyleTable({"apple": accuracy(80.0, 10)}) if what == "styles" else [CLEAN]}
    with pytest.raises(ValueError, match=rf"`{what}` has the models \['other'\]; each must be one of `rows`"):
        write(tmp_path, **{what: given})
