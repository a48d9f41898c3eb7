"""The statistics and the candidates of ``benchmarks/worth*.py``; the runs themselves take hours."""

from __future__ import annotations

import base64
import json
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pytest

from seedcnn.convert import GOALS

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


class Scripts(NamedTuple):
    """The three scripts."""

    runs: ModuleType
    candidates: ModuleType
    report: ModuleType


@pytest.fixture(scope="module")
def worth():
    """The scripts import each other by their bare names, as scripts beside each other do."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import worth
        import worth_candidates
        import worth_report

        yield Scripts(worth, worth_candidates, worth_report)
    finally:
        sys.path.remove(str(BENCHMARKS))


def test_a_paired_difference(worth):
    # Differences 1, 2, 3: mean 2, standard deviation 1, t = 2 sqrt(3) with 2 degrees of freedom, p = 1 - t/sqrt(t^2+2).
    found = worth.report.paired({0: 81.0, 1: 82.0, 2: 84.0, 5: 0.0}, {0: 80.0, 1: 80.0, 2: 81.0, 4: 0.0})
    assert (found.mean, found.n) == (pytest.approx(2), 3)
    assert found.error == pytest.approx(3**-0.5)
    assert found.p == pytest.approx(1 - (12 / 14) ** 0.5)
    wider = worth.report.paired({0: 81.0, 1: 82.0, 2: 84.0}, {0: 80.0, 1: 80.0, 2: 81.0}, pictures=2 / 3)
    assert wider.error == pytest.approx(1)
    assert wider.p > found.p
    assert worth.report.paired({0: 81.0}, {0: 80.0}) is None


def _row(family, control, cost, answers):
    packed = {seed: base64.b64encode(np.packbits(bits)).decode() for seed, bits in answers.items()}
    clean = {seed: 100 * float(np.mean(bits)) for seed, bits in answers.items()}
    return {"family": family, "control": control, "bytes": cost, "clean": clean, "correct": packed}


def test_seed_forms_meet_the_best_control_that_is_no_dearer(worth):
    bits = np.random.default_rng(0).random((3, 10_000))
    rows = {
        "form": _row("abs", False, 100, dict(enumerate(bits < 0.80))),
        "narrow": _row("vanilla", True, 102, dict(enumerate(bits < 0.78))),
        "narrower": _row("vanilla", True, 50, dict(enumerate(bits < 0.70))),
        "wide": _row("vanilla", True, 103, dict(enumerate(bits < 0.90))),
        "copies": _row("dws+seeds", True, 99, dict(enumerate(bits < 0.60))),
    }
    assert worth.report.front(rows.items(), "bytes", "clean") == ["narrower", "form", "wide"]
    found = worth.report.against_controls(rows, "bytes", "clean")
    assert [(row["kind"], row["control"]) for row in found] == [
        ("narrowed", "narrow"),
        ("duplication, CReLU", "copies"),
    ]
    assert found[0]["difference"] == pytest.approx(2, abs=0.5)
    # Two in a hundred answers differ: over the pictures alone a standard error of sqrt(.02 / 10,000) points of 100.
    assert found[0]["error"] >= 0.08
    assert found[0]["p"] < 0.05


def test_gains_over_the_narrowed_network_at_equal_cost(worth):
    def row(family, cost, accuracy):
        return {"family": family, "bytes": cost, "clean": {0: accuracy, 1: accuracy}}

    rows = {"vanilla 16": row("vanilla", 100, 70.0), "vanilla 32": row("vanilla", 400, 80.0)}
    assert worth.report.gains({"vanilla 16": rows["vanilla 16"]} | {"a 16": row("a", 1, 1.0)}, "bytes", "clean") == {}
    rows |= {
        "a 16": row("a", 200, 77.0),  # half way up the curve
        "a 32": row("a", 1600, 90.0),  # beyond its end
        "b 16": row("b", 50, 70.0),  # before its beginning
        "c": row("c", 100, 99.0) | {"clean": {}},
    }
    found = worth.report.gains(rows, "bytes", "clean")
    assert found == {"a 16": pytest.approx(2), "a 32": pytest.approx(0), "b 16": pytest.approx(5)}
    assert worth.report.leader(found) == "a"
    assert worth.report.leader({"b 16": 5.0}) is None


def test_unseen_vendors_count_when_all_four_were_held_out(worth, tmp_path):
    (tmp_path / "runs").mkdir()
    styles = worth.report.HELD_OUT_STYLES
    for seed, count in ((0, len(styles)), (1, len(styles) - 1)):
        for index, style in enumerate(styles[:count]):
            run = {"form": "abs", "seed": seed, "style": style, "top1": 70.0 + index}
            (tmp_path / "runs" / f"icons-{style}-{seed}.json").write_text(json.dumps(run))
    found = worth.report._unseen_vendors(tmp_path)
    assert found == {"abs": {f"{style} 0": 70.0 + index for index, style in enumerate(styles)}}
    other = {name: value - 1 - (name == "apple 0") for name, value in found["abs"].items()}
    assert worth.report.paired(found["abs"], other).mean == pytest.approx(1.25)
    assert "std" not in worth.report._summary(other, vendors=True)


@pytest.mark.parametrize(
    ("goal", "gained"), [("latency", "clean / best"), ("bytes", "clean / bytes"), ("robustness", "corrupted / best")]
)
def test_what_is_recommended_is_what_the_records_put_first(worth, goal, gained):
    table = json.loads((BENCHMARKS.parent / "results" / "worth" / "table.json").read_text())
    first = worth.report.leader(table["gains"][gained])
    configs = {form.rpartition(" ")[0]: each.convert for form, each in worth.candidates.CANDIDATES.items()}
    assert GOALS[goal] == configs[first]


def test_every_candidate_has_a_rate_and_whole_widths(worth):
    candidates = worth.candidates.CANDIDATES
    families = worth.candidates.FAMILIES
    assert {each.family for each in candidates.values()} == set(families)
    assert all(candidates[form].family == family for family, form in families.items())
    assert all(width % 16 == 0 for each in candidates.values() for width in each.widths)
    kinds = [family for kind in worth.candidates.CONTROLS.values() for family in kind]
    assert {each.family for each in candidates.values() if each.control} == set(kinds)
    for form in ("vanilla 32/64/128", "dws, then dws+abs in stage 3 64/128/256"):
        json.dumps(worth.runs.Run("screen", form, 0.1, 0).config().to_dict())


def test_names_of_runs_differ(worth):
    runs = [worth.runs.Run("screen", form, 0.1, 0).name for form in worth.candidates.CANDIDATES]
    assert len(set(runs)) == len(runs)
    assert worth.runs.Run("icons", "dws 32/64/128", 0.4, 1, "apple").name == "icons-apple-dws-32-64-128-lr0.4-1"


def test_a_rate_is_sought_until_it_lies_inside(worth):
    assert list(worth.runs.tune(lambda lr: -abs(np.log2(lr / 0.8)))) == [0.1, 0.2, 0.4, 0.8, 1.6]
    assert list(worth.runs.tune(lambda lr: -abs(np.log2(lr / 0.2)))) == [0.1, 0.2, 0.4]
    assert list(worth.runs.tune(lambda lr: -abs(np.log2(lr / 0.05)))) == [0.1, 0.2, 0.4, 0.05, 0.025]


def test_the_validation_part_is_not_trained_on(worth, cifar10):
    found = worth.runs.pictures(cifar10, "screen")
    assert (len(found.train.images), len(found.images)) == (45_000, 5_000)

    def digests(images):
        return Counter(picture.tobytes() for picture in images)

    assert digests(found.train.images) + digests(found.images) == digests(cifar10.train_images)
    last = worth.runs.pictures(cifar10, "final")
    assert last.train.images is cifar10.train_images
    assert last.images is cifar10.test_images
