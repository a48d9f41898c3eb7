"""The first sentences of a report: which model to take, made from the numbers, and honest about their errors."""

from __future__ import annotations

import numpy as np

from seedcnn.evaluate.answers import Answers
from seedcnn.evaluate.report import Measured, ModelRow, write_report
from seedcnn.evaluate.report import advice as say


def row(name, accuracy, corrupted, size, time, *, seeded=False, error=0.4):
    """A model with everything measured; its latency spreads by 4 %."""
    return ModelRow(
        name,
        Measured(accuracy, 10_000, error),
        Measured(corrupted, 2000, 2 * error),
        300_000,
        12_000_000,
        0,
        size,
        Measured(time, 1000, 0.04 * time),
        seeded=seeded,
    )


def advice(*arguments, **options):
    """The sentences, with a hyphen for the minus sign."""
    return [sentence.replace("\N{MINUS SIGN}", "-") for sentence in say(*arguments, **options)]


VANILLA = row("vanilla", 77.4, 61.2, 80_000, 0.77)
NARROW = row("narrowed", 74.7, 61.8, 57_000, 0.51)
SMALL = row("small", 73.5, 56.7, 36_000, 0.33)


def test_accuracy_and_costs_may_have_different_answers():
    first, narrow, errors = advice([VANILLA, NARROW, SMALL])
    assert first == (
        "Take vanilla if accuracy comes first: 77.40 ± 0.40 %, the most accurate. Take small if bundle bytes and "
        "latency come first: it takes 0.45 of the bundle bytes and 0.43 of the latency, at -3.90 ± 0.57 points and, "
        "corrupted, -4.50 ± 1.13 points."
    )
    assert narrow == (
        "narrowed beside vanilla: -2.70 ± 0.57 points and, corrupted, +0.60 ± 1.13 points (within the error); "
        "0.71 of the bundle bytes and 0.66 of the latency."
    )
    assert "Another training of the same network can differ by more." in errors


def test_a_cheaper_model_within_the_error_is_taken():
    grown = row("grown", 77.0, 61.0, 40_000, 0.5, seeded=True)
    first, *others = advice([VANILLA, grown])
    assert first == (
        "Take grown: 77.00 ± 0.40 %, within the error of the best, vanilla (77.40 %), and it takes 0.50 of the bundle "
        "bytes and 0.65 of the latency of vanilla."
    )
    assert others[0].startswith("vanilla beside grown: +0.40 ± 0.57 points (within the error)")


def test_one_model_may_be_the_answer_to_both():
    first, *_ = advice([VANILLA, row("better", 80, 63, 50_000, 0.4)])
    assert first == "Take better: 80.00 ± 0.40 %, the most accurate, and it costs least."


def test_seeds_that_a_plain_network_beats_are_not_taken():
    grown = row("grown", 75.4, 61.0, 61_000, 0.8, seeded=True)
    said = advice([NARROW, grown])
    assert said[0].startswith(
        "Take narrowed: 74.70 ± 0.40 %, within the error of the best, grown (75.40 %), and it takes "
    )
    assert "it does not pay: narrowed, without seeds, is as good and no dearer." in said[1]
    plain = advice([NARROW, row("grown", 75.4, 61.0, 61_000, 0.8)])
    assert not any("does not pay" in each for each in plain)


def test_differences_within_the_spread_of_the_latency_count_as_none():
    same = row("same", 77.0, 61.0, 40_000, 0.79)
    assert "0.50 of the bundle bytes and the same latency within the spread" in advice([VANILLA, same])[0]


def test_corruption_can_rule_a_model_out():
    fragile = row("fragile", 77.4, 50.0, 20_000, 0.2)
    assert advice([VANILLA, fragile])[0].startswith("Take vanilla if accuracy comes first: ")


def test_the_spread_between_trainings_makes_differences_unsure():
    first, *_, errors = advice([VANILLA, row("near", 75.9, 61, 40_000, 0.4)], training=0.7)
    assert first.startswith("Take near: 75.90 ± 0.40 %, within the error of the best, vanilla")
    assert "over trainings, which differ by 0.7 points (standard deviation)" in errors
    assert advice([VANILLA, row("near", 75.9, 61, 40_000, 0.4)])[0].startswith("Take vanilla if accuracy comes first")


def test_without_costs_it_says_so_and_parameters_stand_in_for_them():
    rows = [ModelRow(name, Measured(value, 100, 4.0)) for name, value in (("a", 50), ("b", 52), ("c", 51))]
    first, *others = advice(rows)
    assert (
        first == "Take b: 52.00 ± 4.00 %, the most accurate; a and c are within the error of it. No cost was measured."
    )
    assert others[0] == "c beside b: -1.00 ± 5.66 points (within the error)."
    counted = [
        ModelRow("a", Measured(50, 100, 4.0), None, 100, 2000),
        ModelRow("b", Measured(51, 100, 4.0), None, 50, 900),
    ]
    assert advice(counted)[0] == "Take b: 51.00 ± 4.00 %, the most accurate, and it costs least."
    assert "2.00 of the parameters and 2.22 of the MACs" in advice(counted)[1]


def test_answers_to_the_same_images_make_the_error_smaller():
    labels = np.arange(1000) % 2
    logits = np.eye(2, dtype=np.float32)[np.where(np.arange(1000) < 300, 1 - labels, labels)]
    other = logits.copy()
    other[:20] = other[:20, ::-1]  # right where the first is wrong
    answers = {name: Answers(each, labels, ("x", "y")) for name, each in (("a", logits), ("b", other))}
    rows = [ModelRow(name, Measured(each.top1, each.n, each.standard_error)) for name, each in answers.items()]
    assert "is within the error" in advice(rows)[0]
    assert "no other comes within the error" in advice(rows, answers)[0]


def test_many_models_are_not_all_listed_and_one_needs_no_choice(tmp_path):
    many = [row(f"m{index}", 70 - index, 50, 1000 + index, 1.0) for index in range(9)]
    assert advice(many)[-2] == "The table has the other 4."
    assert advice([VANILLA]) == []
    texts = {}
    for rows in ([VANILLA], [VANILLA, row("<b>", 60, 50, 10, 0.1)]):
        path = tmp_path / f"{len(rows)}.html"
        write_report(path, title="t", rows=rows, robustness={}, samples=[], settings={}, notes=[], training=0.5)
        texts[len(rows)] = path.read_text()
    assert "Which to take" not in texts[1]
    assert '<p class="first">Take vanilla if accuracy comes first: 77.40\u00a0±\u00a00.40\u00a0%' in texts[2]
    assert "Take &lt;b&gt; if bundle bytes" in texts[2]
    assert "differ by 0.5 points" in texts[2]
