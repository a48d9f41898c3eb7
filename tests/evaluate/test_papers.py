"""The papers' rows: some by hand, and their averages computed anew, which shows what the notes say."""

from __future__ import annotations

import json
import statistics

import pytest

from seedcnn.convert import METHODS
from seedcnn.data.corruptions import CORRUPTIONS, GROUPS
from seedcnn.data.sets.icons50 import HELD_OUT_STYLES
from seedcnn.errors import ConfigError
from seedcnn.evaluate.papers import DATASETS, UNSTATED, PaperRow, paper_rows, paper_tables
from seedcnn.models import list_models

ROWS = [row for table in paper_tables() for row in table.rows]


def only(dataset, model, method):
    (row,) = paper_rows(dataset, model, method)
    return row


def table(paper, name):
    (found,) = [each for each in paper_tables() if (each.paper, each.table) == (paper, name)]
    return {row.method: row for row in found.rows}


def test_the_tables():
    found = [(each.paper, each.table, len(each.rows)) for each in paper_tables()]
    parts = [("GroupNL", f"Table {number}({part})", 5) for number in (7, 8) for part in "abcd"]
    assert found == [
        ("GroupNL", "Table 1", 5),
        ("GroupNL", "Table 6", 25),
        *parts,
        ("MonoCNN", "Table 1", 36),
        ("MonoCNN", "Table 7", 5),
        ("MonoCNN", "Table 8", 5),
    ]
    assert {row.dataset for row in ROWS} == set(DATASETS)
    assert {row.model for row in ROWS} <= {*list_models(), UNSTATED}
    assert {row.method for row in ROWS} <= {"vanilla", *METHODS}
    keys = [(row.paper, row.table, row.dataset, row.model, row.method) for row in ROWS]
    assert len(set(keys)) == len(keys)


def test_each_data_set_has_its_values():
    expected = {
        **{dataset: ["top1"] for dataset in ("cifar10", "cifar100", "gtsrb")},
        "cifar10-c": [*GROUPS, "mean"],
        "icons50": [*HELD_OUT_STYLES, "mean"],
    }
    for row in ROWS:
        assert list(row.values) == expected[row.dataset]
        assert list(row.spread) == (expected[row.dataset] if row.paper == "MonoCNN" else [])
        assert all(5 < value < 100 for value in row.values.values())
        assert all(0 < value < 13 for value in row.spread.values())
        assert row.note


@pytest.mark.parametrize(
    ("asked", "values", "spread"),
    [
        (("gtsrb", "resnet18_cifar", "groupnl"), {"top1": 98.31}, {}),
        (("cifar100", "vgg11_cifar", "shift"), {"top1": 8.84}, {"top1": 0.46}),
        (("cifar100", "resnet34_cifar", "mono"), {"top1": 75.63}, {"top1": 0.52}),
        (("cifar10", "resnet18_cifar", "lbc"), {"top1": 93.05}, {"top1": 0.1}),
        (("cifar10", "resnet18_cifar", "pnn"), {"top1": 92.45}, {"top1": 0.18}),
        (
            ("cifar10-c", "resnet18_cifar", "groupnl"),
            {"Noise": 57.55, "Blur": 72.96, "Weather": 85.25, "Digital": 80.68, "mean": 74.11},
            {},
        ),
        (
            ("cifar10-c", "vgg11_cifar", "sinefm"),
            {"Noise": 62.31, "Blur": 72.46, "Weather": 82.46, "Digital": 82.61, "mean": 74.96},
            {},
        ),
        (
            ("icons50", "resnet101_cifar", "ghost"),
            {"apple": 93.5, "facebook": 88.53, "google": 83.62, "samsung": 84.5, "mean": 87.54},
            {},
        ),
        (
            ("icons50", UNSTATED, "mono"),
            {"apple": 93.52, "facebook": 86.48, "google": 82.42, "samsung": 84.4, "mean": 86.71},
            {"apple": 0.59, "facebook": 0.66, "google": 1.61, "samsung": 0.87, "mean": 4.84},
        ),
        (
            ("cifar10-c", UNSTATED, "ghost"),
            {"Noise": 58.48, "Blur": 67.53, "Weather": 81.57, "Digital": 78.1, "mean": 71.42},
            {"Noise": 5.93, "Blur": 9.95, "Weather": 7.35, "Digital": 7.61, "mean": 9.08},
        ),
    ],
)
def test_rows_by_hand(asked, values, spread):
    row = only(*asked)
    assert (row.values, row.spread) == (values, spread)


def test_a_network_may_have_several_rows():
    rows = paper_rows("cifar10", "resnet18_cifar", "vanilla")
    assert [(row.paper, row.table, row.values["top1"]) for row in rows] == [
        ("GroupNL", "Table 6", 95.04),
        ("MonoCNN", "Table 1", 95.19),
    ]
    # GroupNL's Table 1 is the ResNet-101 column of its Table 6.
    for method in ("vanilla", "mono", "ghost", "sinefm", "groupnl"):
        first, second = paper_rows("cifar10", "resnet101_cifar", method)
        assert (first.table, second.table) == ("Table 1", "Table 6")
        assert first.values == second.values
        assert "300 epochs" in first.note


def test_none_stands_for_all_and_absent_rows_for_nothing():
    assert paper_rows("cifar10-c") == [row for row in ROWS if row.dataset == "cifar10-c"]
    assert len(paper_rows("gtsrb", method="mono")) == 1
    assert {row.model for row in paper_rows("icons50", None, "vanilla")} == {
        "resnet18_cifar",
        "resnet34_cifar",
        "resnet101_cifar",
        "vgg11_cifar",
        UNSTATED,
    }
    assert paper_rows("cifar10-c", "resnet20_cifar", "groupnl") == []
    assert paper_rows("gtsrb", "resnet18_cifar", "dws") == []


def near(value, printed):
    """Whether a number prints as it is printed: rounded, or cut, as in one row of GroupNL's Table 8(a)."""
    return -0.00501 < value - printed < 0.00999


def test_recomputed_means_weigh_the_groups():
    sizes = {group: sum(c.group == group for c in CORRUPTIONS.values()) for group in GROUPS}
    assert sizes == {"Noise": 4, "Blur": 5, "Weather": 5, "Digital": 5}
    row = PaperRow("", "", "", "", "", {"Noise": 10.0, "Blur": 20.0, "Weather": 30.0, "Digital": 40.0, "mean": 1.0})
    assert row.recomputed_means() == {"mean_over_corruptions": (40 + 100 + 150 + 200) / 19, "mean_over_groups": 25.0}
    assert only("gtsrb", "resnet18_cifar", "mono").recomputed_means() == {}
    assert only("icons50", "resnet18_cifar", "mono").recomputed_means() == {}


OTHER_MEAN = [("Table 7(c)", method) for method in ("vanilla", "mono", "groupnl")]


@pytest.mark.parametrize("row", paper_rows("cifar10-c"), ids=lambda row: f"{row.paper}-{row.table}-{row.method}")
def test_which_mean_a_row_prints(row):
    printed, means = row.values["mean"], row.recomputed_means()
    by_groups = near(means["mean_over_groups"], printed)
    by_corruptions = near(means["mean_over_corruptions"], printed)
    if (row.paper, row.table, row.method) == ("GroupNL", "Table 7(a)", "vanilla"):
        assert (by_groups, by_corruptions) == (False, False)
        for value in means.values():
            assert f"{value + 1e-9:.2f}" in row.note
        assert "72.58" in row.note
    elif row.paper == "GroupNL" and (row.table, row.method) in OTHER_MEAN:
        assert (by_groups, by_corruptions) == (False, True)
        assert "This row's mean is over the 19 corruptions" in row.note
    else:
        assert (by_groups, by_corruptions) == (True, False)
        assert "over the 19 corruptions." not in row.note


def test_on_one_footing_ghost_is_first_in_table_7c():
    rows = table("GroupNL", "Table 7(c)")
    assert max(rows, key=lambda method: rows[method].values["mean"]) == "groupnl"
    for kind in ("mean_over_groups", "mean_over_corruptions"):
        assert max(rows, key=lambda method: rows[method].recomputed_means()[kind]) == "ghost"
    for row in rows.values():
        assert "By either kind alone GhostNet is first" in row.note
    others = [table("GroupNL", f"Table 7({part})") for part in "abd"]
    assert not any("GhostNet is first" in row.note for rows in others for row in rows.values())


@pytest.mark.parametrize("row", paper_rows("icons50"), ids=lambda row: f"{row.paper}-{row.table}-{row.method}")
def test_the_mean_of_styles_is_that_of_four(row):
    assert near(statistics.mean(row.values[style] for style in HELD_OUT_STYLES), row.values["mean"])


def test_rows_with_uncertain_columns_say_so():
    uncertain = [(row.table, row.method) for row in ROWS if "inferred" in row.note]
    assert uncertain == [("Table 8(a)", "vanilla"), ("Table 8(d)", "mono"), ("Table 8(d)", "sinefm")]


@pytest.mark.parametrize("dataset", ["cifar10-c", "icons50"])
def test_the_spread_of_a_mean_in_monocnn_is_not_of_runs(dataset):
    for row in paper_rows(dataset, UNSTATED):
        columns = [value for key, value in row.values.items() if key != "mean"]
        across = statistics.stdev(columns), statistics.pstdev(columns)
        assert min(abs(row.spread["mean"] - each) for each in across) < 0.06
        assert "deviation across the four" in row.note


def test_dict():
    row = only("cifar10-c", "resnet101_cifar", "groupnl")
    content = json.loads(json.dumps(row.to_dict()))
    assert {key: content[key] for key in ("paper", "table", "dataset", "model", "method")} == {
        "paper": "GroupNL",
        "table": "Table 7(c)",
        "dataset": "cifar10-c",
        "model": "resnet101_cifar",
        "method": "groupnl",
    }
    assert content["values"]["mean"] == 75.04
    assert content["mean_over_groups"] == pytest.approx(74.185)
    assert content["mean_over_corruptions"] == pytest.approx(75.0421, abs=1e-4)
    assert content["spread"] == {}


def test_rows_are_nobodys_to_change():
    only("gtsrb", "resnet18_cifar", "mono").values["top1"] = 0.0
    assert only("gtsrb", "resnet18_cifar", "mono").values["top1"] == 97.66


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (("cifar-10c", None, None), "unknown data set 'cifar-10c'; did you mean cifar10-c, .*known: cifar10, cifar100"),
        (("cifar10", "resnet18", None), "unknown model 'resnet18'; did you mean resnet18_cifar"),
        (("cifar10", None, "grupnl"), "unknown method 'grupnl'; did you mean groupnl.*known: vanilla, "),
        (("imagenet", None, None), "unknown data set 'imagenet'; .*known: cifar10"),
    ],
)
def test_unknown_names(asked, words):
    with pytest.raises(ConfigError, match=words):
        paper_rows(*asked)
