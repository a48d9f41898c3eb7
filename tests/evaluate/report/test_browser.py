"""The report in a real browser: on a phone and a desk, by day and by night, all of it is there and can be read."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import escape, unescape

import numpy as np
import pytest

from seedcnn.data.corruptions import CORRUPTIONS
from seedcnn.evaluate.accuracies import Accuracy
from seedcnn.evaluate.papers import PaperRow
from seedcnn.evaluate.report import Measured, ModelRow, Sample, write_report
from seedcnn.evaluate.robustness_runs import RobustnessTable, SeededRobustness
from seedcnn.evaluate.styles import StyleTable

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NAMES = (
    *("vanilla", "narrowed", "groupnl", "groupnl batch", "groupnl sparse", "mono", "ghost", "sinefm", "copied seeds"),
    "checkpoints/a_rather_long_file_name.epoch-200.bundle",
    "depthwise-separable",
)
WIDTHS = (400, 1400)
SCHEMES = {"dark": 0, "light": 1}  # Chromium's numbers
SIZES = ((32, 32), (32, 32), (1, 1), (64, 64), (96, 40), (97, 300), (240, 320), (32, 32), (32, 32), (28, 28), (8, 64))

# Frames of their own width, because a browser window cannot be as narrow as a phone.
PAGE = """<!doctype html><meta charset="utf-8"><body><script>
const found = {};
const box = e => e.getBoundingClientRect();
const solid = c => { const n = c.match(/[\\d.]+/g).map(Number); return n.length > 3 && n[3] === 0 ? null : n; };
const luminance = c => c.slice(0, 3).map(v => v / 255)
  .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
function ground(e) {
  for (let at = e; at; at = at.parentElement) {
    const colour = solid(at.ownerDocument.defaultView.getComputedStyle(at).backgroundColor);
    if (colour) return colour;
  }
  return [255, 255, 255];
}
function contrast(e) {
  const style = e.ownerDocument.defaultView.getComputedStyle(e);
  const [low, high] = [solid(e instanceof e.ownerDocument.defaultView.SVGElement ? style.fill : style.color), ground(e)]
    .map(luminance).sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}
function pixels(img) {
  const canvas = document.createElement('canvas');
  canvas.width = img.naturalWidth; canvas.height = img.naturalHeight;
  const pen = canvas.getContext('2d');
  pen.drawImage(img, 0, 0);
  const data = pen.getImageData(0, 0, canvas.width, canvas.height).data;
  return [0, 1, 2].map(channel => data.reduce((sum, v, i) => i % 4 === channel ? sum + v : sum, 0));
}
function look(frame) {
  const d = frame.contentDocument, w = frame.contentWindow, all = q => Array.from(d.querySelectorAll(q));
  all('details').forEach(e => e.open = true);
  const texts = all('body *').filter(e => Array.from(e.childNodes).some(n => n.nodeType === 3 && n.data.trim())
    && !e.closest('style, .unseen'));
  const name = e => e.tagName + ' ' + e.textContent.trim().slice(0, 60);
  found[w.innerWidth] = {
    dark: w.matchMedia('(prefers-color-scheme: dark)').matches,
    scroll: d.documentElement.scrollWidth,
    wide: all('body *').filter(e => box(e).right > w.innerWidth + 1 && !e.closest('.box')).map(name),
    spilt: all('th, td, li, figcaption, dd').filter(e => e.scrollWidth > e.clientWidth + 1).map(name),
    unseen: texts.filter(e => !(box(e).width > 0 && box(e).height > 0)).map(name),
    pale: texts.filter(e => contrast(e) < 4.5).map(e => name(e) + ' ' + contrast(e).toFixed(2)),
    boxes: all('.box').map(e => [e.clientWidth, e.scrollWidth]),
    images: all('img').map(e => [e.complete, e.naturalWidth, e.naturalHeight, box(e).width > 20 && box(e).height > 20,
      e.naturalWidth ? pixels(e) : null]),
    drawings: all('svg').map(e => box(e).width > 20 && box(e).height > 10),
    outside: all('svg text').filter(e => { const a = box(e), b = box(e.ownerSVGElement);
      return a.left < b.left - 1 || a.right > b.right + 1 || a.top < b.top - 1 || a.bottom > b.bottom + 1; }).map(name),
    lines: all('.large svg').map(e => Array.from(e.querySelectorAll('[id*="line2d"] > path'))
      .filter(p => p.style.stroke.includes('series') && box(p).width > 50).length),
    text: d.body.innerText,
  };
  if (Object.keys(found).length === $frames) {
    const pre = document.createElement('pre');
    pre.textContent = JSON.stringify(found);
    document.body.replaceChildren(pre);
  }
}
</script>$body</body>"""


def seeded(start):
    rng = np.random.default_rng(start)
    n, tables = 200, []
    for seed in (0, 1):
        right = {kind: rng.random((5, n)) < rng.uniform(0.2, 0.9, (5, 1)) for kind in CORRUPTIONS}
        rows = {kind: tuple((100 * mask.mean(axis=1)).tolist()) for kind, mask in right.items()}
        tables.append(RobustnessTable(rows, (1, 2, 3, 4, 5), n, "cifar", seed, 1.0, 85.5, right, rng.random(n) < 0.9))
    return SeededRobustness(tuple(tables))


def model_row(index):
    return ModelRow(
        NAMES[index],
        Measured(81.25 + index, 10000, 0.39, "standard error"),
        Measured(55.5 + index, 200, 0.12, "2 seeds"),
        78042 + index,
        12501632 + index,
        98304 * index,
        None if index == 4 else 64233 + index,
        Measured(0.8 + index / 8, 300, 0.021, "median"),
        Measured(98.01 + index / 10, 10000),
    )


def style_table(index):
    shares = {"apple": 71.5, "facebook": 61.25, "google": 80.75, "samsung": 66.0, "lg": 90.5}
    styles = {name: Accuracy(v + index / 4, 900, 1.35, np.zeros(900, bool)) for name, v in shares.items()}
    return StyleTable(styles, ("apple", "facebook", "google", "samsung"))


def paper_rows():
    groups = {"Noise": 52.6, "Blur": 72.78, "Weather": 84.55, "Digital": 80.7, "mean": 72.58}
    styles = {"apple": 93.66, "facebook": 87.64, "google": 83.2, "samsung": 80.28, "mean": 86.19}
    first = PaperRow(
        "Table 7(a)", "GroupNL", "cifar10-c", "resnet18_cifar", "vanilla", groups, "A note.", {"mean": 9.1}
    )
    return [first, PaperRow("Table 8(a)", "GroupNL", "icons50", "resnet18_cifar", "vanilla", styles)]


@pytest.fixture(scope="module")
def content():
    rng = np.random.default_rng(5)
    said = {name: "automobile" if index % 3 else "frog" for index, name in enumerate(NAMES)}
    pictures = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]
    return {
        "title": "Eleven forms of one network, with_a_name_that_hardly_breaks_anywhere_at_all",
        "rows": [model_row(index) for index in range(len(NAMES))],
        "robustness": {name: seeded(index) for index, name in enumerate(NAMES)},
        "samples": [Sample(each, "frog", f"gaussian noise, severity {i}", said) for i, each in enumerate(pictures)],
        "settings": {"digest": "0123456789abcdef" * 8, "torch": "2.15"},
        "notes": ["One note, of a single sentence."],
        "styles": {name: style_table(index) for index, name in enumerate(NAMES)},
        "papers": {name: paper_rows() for name in NAMES[:3]},
    }


@pytest.fixture(scope="module", params=SCHEMES)
def seen(request, content, tmp_path_factory):
    """What the browser finds, by width."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on the path")
    folder = tmp_path_factory.mktemp("browser")
    html = escape(write_report(folder / "report.html", **content).read_text(encoding="utf-8"))
    style = "border:0;height:900px;width"
    frames = [f'<iframe style="{style}:{width}px" onload="look(this)" srcdoc="{html}"></iframe>' for width in WIDTHS]
    page = PAGE.replace("$frames", str(len(WIDTHS))).replace("$body", "".join(frames))
    (folder / "frames.html").write_text(page, encoding="utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    command += [f"--blink-settings=preferredColorScheme={SCHEMES[request.param]}", "--window-size=1600,1000"]
    command += ["--virtual-time-budget=20000", "--dump-dom", (folder / "frames.html").as_uri()]
    dom = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    found = re.search(r"<pre>(.*)</pre>", dom, flags=re.DOTALL)
    assert found is not None, dom[-2000:]
    by_width = {int(width): values for width, values in json.loads(unescape(found[1])).items()}
    assert set(by_width) == set(WIDTHS)
    assert {values["dark"] for values in by_width.values()} == {request.param == "dark"}
    return by_width


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_overflows(seen, width):
    assert seen[width]["scroll"] <= width
    assert seen[width]["wide"] == []
    assert seen[width]["spilt"] == []
    # headline, averages, heat map, numbers, styles, two of papers: laid out, and what is wider scrolls in its box
    assert len(seen[width]["boxes"]) == 7
    assert all(inner >= outer >= 100 for outer, inner in seen[width]["boxes"])
    assert any(inner > outer for outer, inner in seen[width]["boxes"])


@pytest.mark.parametrize("width", WIDTHS)
def test_every_picture_is_decoded_to_its_pixels(seen, content, width):
    expected = [
        [True, s.image.shape[1], s.image.shape[0], True, s.image.sum(axis=(0, 1)).tolist()] for s in content["samples"]
    ]
    assert seen[width]["images"] == expected


@pytest.mark.parametrize("width", WIDTHS)
def test_every_drawing_is_laid_out_with_its_lines_and_words(seen, width):
    assert len(seen[width]["drawings"]) == len(NAMES) + len(CORRUPTIONS) + 2
    assert all(seen[width]["drawings"])
    assert seen[width]["outside"] == []
    assert seen[width]["lines"] == [len(NAMES)] * len(CORRUPTIONS)


@pytest.mark.parametrize("width", WIDTHS)
def test_every_text_is_laid_out_and_can_be_read(seen, width):
    assert seen[width]["unseen"] == []
    assert seen[width]["pale"] == []


def numbers(content):
    """Every number of the input, as it is to be printed."""
    for row in content["rows"]:
        yield from (f"{row.accuracy.value:.2f}", f"{row.corrupted.value:.2f}", f"{row.top5.value:.2f}")
        yield from (f"{row.parameters:,}", f"{row.macs:,}", f"{row.nlf_evaluations:,}", f"{row.latency_ms.value:.3f}")
        yield from [] if row.bundle_bytes is None else [f"{row.bundle_bytes:,}"]
    for result in content["robustness"].values():
        for kind in CORRUPTIONS:
            rows = np.array([table.accuracies[kind] for table in result.tables])
            yield from (f"{value:.2f}" for value in [*rows.mean(axis=0), rows.mean()])
            yield from (f"{value:.2f}" for value in rows.std(axis=0, ddof=1))
            yield f"{result.corruption_mean(kind):.1f}"
        for summary in result.summary().values():
            yield from (f"{value:.2f}" for value in (summary.mean, summary.std, *summary.interval))
    for table in content["styles"].values():
        yield from (f"{each.top1:.2f}" for each in table.accuracies.values())
        yield f"{table.mean_held_out:.2f}"
    for rows in content["papers"].values():
        yield from (f"{value:.2f}" for row in rows for value in row.values.values())


@pytest.mark.parametrize("width", WIDTHS)
def test_every_number_and_name_is_there(seen, content, width):
    text = seen[width]["text"]
    printed = set(re.findall(r"\d[\d,]*\.?\d*", text))
    expected = set(numbers(content))
    assert len(expected) > 1000
    assert expected <= printed
    words = [content["title"], *content["notes"], *content["settings"].values(), *NAMES, *CORRUPTIONS]
    assert [word for word in words if word.replace("_", " ") not in text.replace("_", " ")] == []
    assert text.count("frog") >= len(SIZES) * (1 + len(NAMES) // 3)
