"""Corruptions that were part of the training are marked wherever an accuracy under them stands."""

from __future__ import annotations

import json

import numpy as np
import pytest

from seedcnn.bundle import Preprocessing
from seedcnn.cli._evaluation_tables import print_tables
from seedcnn.data.image_set import ImageSet
from seedcnn.data.sets.named import NamedTest
from seedcnn.evaluate import EvaluateRequest, Opened
from seedcnn.evaluate.report import report_evaluation
from seedcnn.evaluate.robustness_runs import footnote

NOISE = ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise")
KINDS = ("gaussian_noise", "contrast", "speckle_noise")
SENTENCE = "* noise seen in training; the averages contain such rows."


def by_colour(images):
    return images.mean((1, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def models():
    return {
        "plain": Opened(by_colour, "sha256 1", "checkpoint"),
        "noisy": Opened(lambda images: by_colour(255 - images), "sha256 2", "checkpoint", seen=NOISE),
    }


@pytest.fixture(scope="module")
def found(models):
    rng = np.random.default_rng(1)
    images, labels = rng.integers(0, 256, (24, 32, 32, 3), np.uint8), rng.integers(0, 3, 24)
    test = NamedTest("drawn", ImageSet(images, labels, tuple("abc"), "drawn"), Preprocessing.exact(32))
    return EvaluateRequest("drawn", corruptions=KINDS, images=10, seeds=2).measure(models, test)


def test_tables_know_what_was_seen(found):
    assert found.corrupted["plain"].seen == ()
    assert found.corrupted["noisy"].seen == ("gaussian_noise", "speckle_noise")
    plain, noisy = (found.to_dict()[name]["corrupted"]["tables"] for name in ("plain", "noisy"))
    assert [table["seen_in_training"] for table in plain] == [[], []]
    assert [table["seen_in_training"] for table in noisy] == [["gaussian_noise", "speckle_noise"]] * 2
    json.dumps(noisy)


def test_the_printed_table_marks_them(found, capsys):
    print_tables(found)
    told = capsys.readouterr().out
    rows = {line.split("│")[1].split()[0]: line for line in told.splitlines() if line.count("│") == 4}
    for kind in KINDS:
        plain, noisy = rows[kind].split("│")[2:4]
        assert "*" not in plain
        assert ("*" in noisy) == (kind != "contrast")
    assert SENTENCE in " ".join(told.split())


def test_nothing_is_marked_where_nothing_was_seen(found, capsys):
    only = {"plain": found.corrupted["plain"]}
    assert footnote([result.seen for result in only.values()]) == ""
    assert "seen in training" not in found.corrupted["plain"].tables[0]._repr_html_()


def test_notebooks_and_reports_mark_them(found, models, tmp_path):
    html = found.corrupted["noisy"].tables[0]._repr_html_()
    assert "<td>gaussian_noise *</td>" in html
    assert "<td>contrast</td>" in html
    assert SENTENCE in html
    page = report_evaluation(tmp_path / "a.html", found, models).read_text("utf-8")
    assert page.count(SENTENCE) == 2  # below the heat map and below the numbers


def test_averaging_over_mirror_images_keeps_the_mark(models):
    assert models["noisy"].flip_averaged().seen == NOISE


def test_the_sentence_names_what_was_seen():
    assert footnote([(), ()]) == ""
    seen = ("brightness", "contrast", "gaussian_noise")
    assert footnote([seen, ()]) == SENTENCE.replace("noise", "noise, brightness, contrast")
