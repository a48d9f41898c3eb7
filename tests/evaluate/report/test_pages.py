"""The report: every number and picture is in it, every text is escaped, nothing comes from outside."""

from __future__ import annotations

import base64
import io
import re
import resource
from dataclasses import replace
from html import escape
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from seedcnn.data.corruptions import CORRUPTIONS
from seedcnn.evaluate.report import Measured, ModelRow, Sample, format_bytes, write_report
from seedcnn.evaluate.robustness_runs import RobustnessTable

NAMES = (
    "vanilla <ResNet-8>",
    "narrowed & equal MACs",
    'GroupNL "batch", with a rather long name_{x^2} of $more$ words',
)
VOID = {"meta", "img", "link", "br", "wbr"}


def tables():
    rng = np.random.default_rng(0)
    return {
        name: RobustnessTable(
            {corruption: tuple(rng.uniform(20, 80, 5).tolist()) for corruption in CORRUPTIONS},
            severities=(1, 2, 3, 4, 5),
            n=1234,
            constants="cifar",
            seed=77,
            standard_error=0.5,
        )
        for name in NAMES
    }


def rows():
    first = ModelRow(
        NAMES[0],
        Measured(81.25, n=10000, spread=0.39, note="standard error"),
        Measured(60.5, n=1234, spread=1.25),
        parameters=78042,
        macs=12501632,
        nlf_evaluations=0,
        bundle_bytes=64233,
        latency_ms=Measured(0.8, n=300, spread=0.021, note="median"),
    )
    second = replace(first, name=NAMES[1], accuracy=Measured(65.0), corrupted=None, bundle_bytes=None, latency_ms=None)
    third = replace(
        first,
        name=NAMES[2],
        accuracy=Measured(82.5),
        parameters=19511,
        nlf_evaluations=98304,
        bundle_bytes=1_234_567,
        latency_ms=Measured(1.6),
    )
    return [first, second, third]


def samples():
    rng = np.random.default_rng(1)
    pictures = rng.integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)
    said = {NAMES[0]: "frog", NAMES[1]: "deer <b>", NAMES[2]: "frog"}
    return [Sample(picture, "frog", f"contrast, severity {i} & up", said) for i, picture in enumerate(pictures)]


def write(path, **change):
    arguments = {
        "title": "Seeds <on> CIFAR-10 & $more",
        "rows": rows(),
        "robustness": tables(),
        "samples": samples(),
        "settings": {"torch <version>": "2.15 & newer", "digest": "0123456789abcdef" * 8},
        "notes": ["One <script>alert(1)</script> note.", "Another & note."],
    }
    return write_report(path, **(arguments | change))


class Page(HTMLParser):
    """Checks that tags nest; collects texts, pictures, ids and every address."""

    def __init__(self, text):
        super().__init__()
        self.stack, self.tags, self.texts, self.images, self.ids, self.addresses = [], [], [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append(tag)
        if tag not in VOID:
            self.stack.append(tag)
        if tag == "img":
            self.images.append(values["src"])
        if "id" in values:
            self.ids.append(values["id"])
        self.addresses += [values[name] for name in ("src", "href", "xlink:href", "srcset", "data") if name in values]

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.stack.pop()

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if data.strip() and self.stack[-1] != "style":
            self.texts.append(" ".join(data.split()))


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    assert write(path) == path
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_it_parses_and_ids_are_unique(page):
    assert page.stack == []
    assert page.tags.count("h1") == 1
    assert page.tags.count("svg") == 3 + len(CORRUPTIONS) + 2  # the key, a plot per corruption, two bar plots
    assert page.tags.count("table") == 4  # headline, averages, heat map, numbers behind the plots
    assert len(page.ids) == len(set(page.ids))


def test_headline_numbers_ratios_and_spreads(page):
    for text in ("81.25 ± 0.39", "60.50 ± 1.25", "65.00", "82.50", "78,042", "19,511", "12,501,632", "98,304"):
        assert text in page.texts
    for text in ("64,233", "1,234,567", "0.800 ± 0.021", "1.600", "n = 10,000, standard error", "n = 300, median"):
        assert text in page.texts
    # 65 / 81.25, 82.5 / 81.25, 19511 / 78042, 1234567 / 64233, 1.6 / 0.8
    times, minus = "\N{MULTIPLICATION SIGN}", "\N{MINUS SIGN}"
    for text in (f"0.8 {times}, {minus}16.25 points", f"1.02 {times}, +1.25 points", f"0.25 {times}", f"19.2 {times}"):
        assert text in page.texts
    assert f"2 {times}" in page.texts
    assert page.texts.count("not measured") == 3
    assert "no ratio to 0" in page.texts
    assert page.texts.count("reference") == 1


def test_every_robustness_number_is_there(page):
    for table in tables().values():
        for values in table.accuracies.values():
            assert all(f"{value:.2f}" in page.texts for value in values)
        means = [*table.corruption_means.values(), *table.group_means.values()]
        means += [table.mean_over_corruptions, table.mean_over_groups]
        assert all(f"{value:.2f}" in page.texts for value in means)
    assert any("1,234 images each, cifar constants, seed 77" in text for text in page.texts)
    assert {"over corruptions", "over groups", "Noise", "Blur", "Digital"} <= set(page.texts)


def test_every_picture_is_there(page):
    assert len(page.images) == 7
    for sample, source in zip(samples(), page.images, strict=True):
        prefix = "data:image/png;base64,"
        assert source.startswith(prefix)
        with Image.open(io.BytesIO(base64.b64decode(source.removeprefix(prefix)))) as image:
            np.testing.assert_array_equal(np.asarray(image), sample.image)
        assert sample.caption in page.texts


def test_right_and_wrong_are_told_without_colour(page):
    assert page.texts.count("✓") == page.texts.count("(right)") == 7 * 2
    assert page.texts.count("✗") == page.texts.count("(wrong)") == 7


def test_bars_are_labelled(page):
    for text in ("64.2 kB", "1.23 MB", "0.800 ms", "1.600 ms"):
        assert text in page.texts
    assert NAMES[0] in page.texts


def test_every_text_is_escaped(html, page):
    for text in (*NAMES, "Seeds <on> CIFAR-10 & $more", "deer <b>", "torch <version>", "2.15 & newer"):
        assert text in page.texts
        assert escape(text) in html
    assert "One <script>alert(1)</script> note." in page.texts
    assert "script" not in page.tags
    assert "b" in page.tags
    assert not {"resnet-8", "on", "version"} & set(page.tags)


def test_nothing_comes_from_outside(html, page):
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in page.addresses)
    assert not re.search(r"@import|url\((?!#)", html)
    assert "<link" not in html


def test_same_input_same_bytes(html, tmp_path):
    assert write(tmp_path / "again.html").read_text(encoding="utf-8") == html
    other = write(tmp_path / "other.html", notes=["Something else."]).read_text(encoding="utf-8")
    assert other != html


def test_sections_without_content_are_left_out(tmp_path):
    bare = [replace(rows()[1], name="one")]
    path = write(tmp_path / "bare.html", rows=bare, robustness={}, samples=[], settings={}, notes=[])
    page = Page(path.read_text(encoding="utf-8"))
    assert page.stack == []
    assert page.tags.count("h2") == 1
    assert "svg" not in page.tags
    full = Page(write(tmp_path / "full.html").read_text(encoding="utf-8"))
    assert full.tags.count("h2") == 9


def test_a_flat_table_can_be_plotted(tmp_path):
    flat = RobustnessTable({"contrast": (10.0,)}, (5,), 20, "cifar", 0, None)
    row = ModelRow("one", Measured(10.0), Measured(10.0), 1, 1, 0, bundle_bytes=0, latency_ms=Measured(0.0))
    path = write(tmp_path / "flat.html", rows=[row], robustness={"one": flat}, samples=[])
    assert "0 B" in Page(path.read_text(encoding="utf-8")).texts


def test_more_models_than_colours(tmp_path):
    many = [replace(rows()[0], name=f"model {i}") for i in range(14)]
    flat = RobustnessTable({"contrast": (10.0,)}, (5,), 20, "cifar", 0, None)
    path = write(tmp_path / "many.html", rows=many, robustness={row.name: flat for row in many}, samples=[])
    assert Page(path.read_text(encoding="utf-8")).tags.count("svg") == 14 + 1 + 2


def test_lines_of_the_headline_that_no_model_has_are_left_out(tmp_path):
    bare = [ModelRow(name, Measured(80.0), top5=Measured(99.1) if name == NAMES[1] else None) for name in NAMES]
    page = Page(write(tmp_path / "bare.html", rows=bare, robustness={}, samples=[]).read_text(encoding="utf-8"))
    assert {"Accuracy", "Top-5 accuracy", "99.10"} <= set(page.texts)
    assert page.texts.count("not measured") == 2
    assert not {"Corrupted accuracy", "Learnable parameters", "MACs", "NLF evaluations", "Bundle"} & set(page.texts)


def test_what_all_numbers_were_measured_on_is_told_once(tmp_path):
    alike = [ModelRow(name, Measured(80.0 + i, 500, 1.0, "one run")) for i, name in enumerate(NAMES)]
    page = Page(write(tmp_path / "alike.html", rows=alike, robustness={}, samples=[]).read_text(encoding="utf-8"))
    assert page.texts.count("top-1, %; n = 500, one run") == 1
    assert not any(text.startswith("n = 500") for text in page.texts)


@pytest.mark.parametrize("shape", [(1, 1, 3), (96, 20, 3), (97, 300, 3)])
def test_pictures_of_any_size(tmp_path, shape):
    picture = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    path = write(tmp_path / "sized.html", robustness={}, samples=[Sample(picture, "a", "b", {})])
    html = path.read_text(encoding="utf-8")
    assert f'width="{shape[1]}" height="{shape[0]}"' in html
    assert ('<img class="pixels"' in html) == (max(shape) <= 96)
    (source,) = Page(html).images
    with Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))) as image:
        np.testing.assert_array_equal(np.asarray(image), picture)


def test_format_bytes():
    sizes = [0, 999, 1000, 20417, 999_949, 999_950, 1_234_567]
    assert [format_bytes(n) for n in sizes] == ["0 B", "999 B", "1.0 kB", "20.4 kB", "999.9 kB", "1.00 MB", "1.23 MB"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rows": []}, "`rows` has the names"),
        ({"rows": [rows()[0], rows()[0]]}, "none of them twice"),
        ({"robustness": {"other": tables()[NAMES[0]]}}, r"`robustness` has the models \['other'\]"),
        (
            {"robustness": tables() | {NAMES[1]: replace(tables()[NAMES[1]], n=5)}},
            "`robustness` has tables of different",
        ),
        ({"samples": [Sample(np.zeros((32, 32)), "a", "b", {})]}, r"`samples\[0\].image` is float64 \(32, 32\)"),
        ({"samples": [Sample(np.zeros((0, 5, 3), np.uint8), "a", "b", {})]}, r"is uint8 \(0, 5, 3\); it must be"),
        (
            {"samples": [Sample(np.zeros((2, 2, 3), np.uint8), "a", "b", {"x": "a"})]},
            r"`samples\[0\]` has predictions of \['x'\]",
        ),
    ],
)
def test_wrong_arguments(tmp_path, change, words):
    with pytest.raises(ValueError, match=words):
        write(tmp_path / "wrong.html", **change)
    assert not (tmp_path / "wrong.html").exists()


def test_numbers_must_be_finite():
    with pytest.raises(ValueError, match=r"`value` \(=nan\) must be finite"):
        Measured(float("nan"))


def test_a_full_disk_keeps_the_report_that_was_there(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
