"""The recipes of the papers' tables: each builds, and its docstring has the printed value."""

from __future__ import annotations

import importlib.util
import inspect
import json
from functools import cache
from pathlib import Path

import pytest
import torch

from seedcnn.convert import GroupNLConfig
from seedcnn.evaluate.papers import UNSTATED, paper_tables
from seedcnn.recipe_index import list_recipes, recipe_directory
from seedcnn.train import TrainConfig, build_model, find_recipe

ROWS = {
    "dissertation_crnet_cb": 4 * 12,
    "dissertation_crnet_cib": 4 * 12,
    "dissertation_table4_9": 6,
    "dissertation_table4_11": 6,
    "dissertation_table4_13": 4,
    "groupnl_imagenet": 4,
    "groupnl_readme": 6,
    "groupnl_table1": 5,
    "groupnl_table3": 14,
    "groupnl_table4": 12,
    "groupnl_table6": 25,
    "groupnl_table7": 20,
    "groupnl_table8": 20 * 4,
    "groupnl_table9": 5,
    "groupnl_table10": 5 * 2,
    "groupnl_table11": 5 * 2,
    "monocnn_table1": 18 * 2,
    "monocnn_table7": 5,
    "monocnn_table8": 5 * 4,
    "monocnn_fig9": 10,
    "monocnn_fig12": 5,
    "monocnn_fig13": 9,
}
# Our counts where they differ from the printed parameters, in millions. docs/tables.md has the first three.
MISFITS = {
    "monocnn_table1:cifar10_vgg11_pnn": 1.0,  # 1.2 needs a 1x1 from as many channels as it has outputs
    "monocnn_table1:cifar10_vgg11_shift": 1.0,  # 1.1 needs one layer left vanilla
    "monocnn_table1:cifar10_resnet34_ghost": 7.0,  # 7.1 needs a head of 100 classes
}
METHODS = {
    "vanilla": "vanilla",
    "mono": "mono_e2-4-8-16",
    "ghost": "ghost_r2_d3",
    "sinefm": "sinefm_r2_t5",
    "groupnl": "groupnl_r2_g4",
}


@cache
def module_of(table):
    path = recipe_directory() / f"{table}.py"
    spec = importlib.util.spec_from_file_location(f"tested_{table}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def listed():
    return list_recipes()


@cache
def config_of(name):
    return find_recipe(name)


def expected(table):
    return module_of(table).EXPECTED


def every_recipe():
    return [(f"{table}:{name}", printed) for table in ROWS for name, printed in expected(table).items()]


def learnable(config):
    with torch.device("meta"):
        model = build_model(config)
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def decimals(printed):
    return len(repr(printed).partition(".")[2])


@pytest.mark.parametrize("table", ROWS)
def test_a_function_for_each_row(table):
    names = [name.partition(":")[2] for name in listed() if name.startswith(f"{table}:")]
    assert len(names) == ROWS[table]
    assert set(names) == set(expected(table))


def test_no_file_of_a_table_is_left_out():
    assert {path.stem for path in recipe_directory().glob("*.py")} == {*ROWS, "demo", "resnet8"}


@pytest.mark.parametrize("table", ROWS)
def test_every_recipe_says_what_it_reaches_and_how_to_run_it(table):
    for name, printed in expected(table).items():
        summary, _, rest = inspect.getdoc(getattr(module_of(table), name)).partition("\n")
        assert listed()[f"{table}:{name}"] == summary
        figure = printed.get("mean", printed.get("top1"))
        figure = printed["train_hours"] if table == "groupnl_table9" else figure
        if figure is None:
            assert "no number" in summary or "no accuracy" in summary
        else:
            assert f"{figure:.1f} hours" in summary or f"{figure:.2f} " in summary
        assert len(summary) <= 120
        assert "Source: " in rest
        assert f"train {table}:{name}" in rest


@pytest.mark.parametrize("table", ROWS)
def test_every_recipe_is_a_config_that_a_checkpoint_can_hold(table):
    for name in expected(table):
        config = config_of(f"{table}:{name}")
        assert isinstance(config, TrainConfig)
        assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.slow
def test_parameters_are_as_printed():
    counted, sizes = {}, {}
    for name, printed in every_recipe():
        if "params_M" in printed:
            config = config_of(name)
            network = repr((config.model, config.model_options, config.convert))  # tables repeat networks
            if network not in sizes:
                sizes[network] = learnable(config) / 1e6
            counted[name] = (round(sizes[network], decimals(printed["params_M"])), printed["params_M"])
    assert len(counted) == 96 + 14 + 12 + 18
    assert {name: ours for name, (ours, printed) in counted.items() if ours != printed} == MISFITS


def test_table_6_has_the_networks_of_docs_tables():
    data = json.loads((Path(__file__).parents[1] / "models" / "numbers.json").read_text())
    counts = {(network, method): params for network, method, params, _ in data["methods"]}
    for network in ("resnet18", "resnet34", "resnet101", "vgg11"):
        for method, key in METHODS.items():
            key = f"{key}_sparse" if (network, method) == ("resnet101", "groupnl") else key
            ours = learnable(config_of(f"groupnl_table6:{network}_{method}"))
            assert ours == counts[f"{network}_cifar", key], (network, method)


def test_gtsrb_has_its_classes_and_no_mirrored_signs():
    config = config_of("groupnl_table6:gtsrb_resnet18_groupnl")
    assert (config.data, config.model_options, config.augment) == ("gtsrb", {"num_classes": 43}, "none")
    assert config_of("groupnl_table6:resnet18_groupnl").augment == "crop"


def file_of(row):
    """Where a row of `seedcnn.evaluate.papers` is: file and start of the function's name."""
    table = row.table.removeprefix("Table ").partition("(")[0]
    network = row.model.removesuffix("_cifar")
    stem = f"{row.paper.lower()}_table{table}"
    if stem == "groupnl_table1" or row.model == UNSTATED:
        return stem, row.method
    if stem == "groupnl_table6":
        return stem, f"{'gtsrb_' if row.dataset == 'gtsrb' else ''}{network}_{row.method}"
    return stem, f"{row.dataset}_{network}_{row.method}" if stem == "monocnn_table1" else f"{network}_{row.method}"


def test_figures_are_those_of_the_papers_rows():
    seen = set()
    for row in (row for table in paper_tables() for row in table.rows):
        stem, name = file_of(row)
        seen.add(stem)
        if row.dataset == "icons50":
            *companies, _ = row.values
            for company in companies:
                printed = expected(stem)[f"{name}_{company}"]
                assert printed["top1"] == row.values[company]
                assert printed.get("top1_std") == row.spread.get(company)
            assert module_of(stem).MEANS[name] == row.values["mean"]
            continue
        printed = dict(expected(stem)[name])
        for other in ("params_M", "train_hours"):
            printed.pop(other, None)
        assert printed.pop("top1_std", None) == row.spread.get("top1")
        assert printed == row.values
    assert seen == {"groupnl_table1", "groupnl_table6", "groupnl_table7", "groupnl_table8"} | {
        "monocnn_table1",
        "monocnn_table7",
        "monocnn_table8",
    }


@pytest.mark.parametrize(
    ("name", "figures"),
    [
        ("groupnl_table1:sinefm", {"top1": 95.06, "train_hours": 15.4}),
        ("groupnl_table3:resnet18_r8_sparse", {"params_M": 0.05, "flops_M": 7.1, "top1": 87.67}),
        ("groupnl_table3:resnet101_r16_dense", {"params_M": 19.8, "flops_M": 1233, "top1": 93.73}),
        ("groupnl_table4:resnet101_r2_g16", {"params_M": 18.5, "flops_M": 1159, "top1": 95.66}),
        ("groupnl_table4:resnet18_r4_g8", {"params_M": 2.8, "flops_M": 141, "top1": 94.38}),
        ("groupnl_table9:ghost", {"top1": 95.04, "train_hours": 12.7, "accelerated_pct": -37}),
        ("groupnl_table10:x3_vanilla", {}),
        ("groupnl_imagenet:groupnl_300", {"top1": 80.16, "train_hours": 72.11}),
        ("groupnl_imagenet:vanilla_10", {"top1": 52.60, "train_hours": 3.32}),
        ("dissertation_crnet_cb:table4_1_exp6_g2_gc_c1dw", {"params_M": 0.26, "flops_M": 43.19, "top1": 91.80}),
        ("dissertation_crnet_cb:table4_2_exp4_g4_gc_gc", {"params_M": 0.10, "flops_M": 16.07, "top1": 88.21}),
        ("dissertation_crnet_cb:table4_3_exp4_g2_c1dw_gc", {"params_M": 0.17, "flops_M": 25.62, "top1": 67.11}),
        ("dissertation_crnet_cb:table4_4_exp6_g2_gc_c1dw", {"params_M": 0.30, "flops_M": 43.22, "top1": 69.91}),
        ("dissertation_crnet_cib:table4_5_exp4_g2_c1dw_gc", {"params_M": 0.29, "flops_M": 23.90, "top1": 93.11}),
        ("dissertation_crnet_cib:table4_6_exp6_g2_c1dw_c1dw", {"params_M": 0.52, "flops_M": 36.23, "top1": 93.20}),
        ("dissertation_crnet_cib:table4_7_exp4_g4_gc_c1dw", {"params_M": 0.24, "flops_M": 12.63, "top1": 66.22}),
        ("dissertation_crnet_cib:table4_8_exp4_g2_gc_gc", {"params_M": 0.29, "flops_M": 20.52, "top1": 64.48}),
        ("dissertation_table4_9:full", {"top1": 92.53, "top5": 99.78, "train_seconds": 2567}),
        (
            "dissertation_table4_11:r3",
            {
                "top1": 70.45,
                "top5": 91.69,
                "train_seconds": 1693,
                "top1_change_pct": -0.18,
                "top5_change_pct": 0.04,
                "time_change_pct": -34.05,
            },
        ),
        (
            "dissertation_table4_13:r2_2",
            {
                "top1": 71.29,
                "top5": 90.15,
                "train_seconds": 404280,
                "top1_change_pct": -1.19,
                "top5_change_pct": -0.30,
                "time_change_pct": -37.66,
            },
        ),
    ],
)
def test_figures_copied_from_the_papers(name, figures):
    table, _, function = name.partition(":")
    assert expected(table)[function] == figures


@pytest.mark.parametrize(
    ("table", "strategy"), [("groupnl_table9", "dp"), ("groupnl_table10", "dp"), ("groupnl_table11", "ddp")]
)
def test_parallel_runs_scale_the_learning_rate_as_printed(table, strategy):
    printed = {"baseline": 0.1, "x1": 0.1, "x2": 0.2, "x3": 0.3, "x4": 0.4, "x8": 0.8, "imagenet_x8": 0.001}
    pictures = {"baseline": 128, "x1": 128, "x2": 256, "x3": 384, "x4": 512, "x8": 1024, "imagenet_x8": 1024}
    for name, gpus in module_of(table).GPUS.items():
        config = config_of(f"{table}:{name}")
        row = name.rpartition("_")[0] or "x1"
        total = config.batch_size * (gpus if strategy == "ddp" else 1)
        assert total == pictures[row]
        assert config.lr * total / config.lr_base_batch == pytest.approx(printed[row])
        assert config.strategy == (strategy if gpus > 1 else "ddp")  # one GPU has nothing to share
        assert config.precision == ("fp16" if table == "groupnl_table11" else "fp32")


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("groupnl_readme:gnl_resnet101", 26_366_568),
        ("groupnl_imagenet:groupnl_300", 26_366_568),
        ("groupnl_imagenet:vanilla_300", 44_549_160),
        ("groupnl_table11:imagenet_x8_groupnl", 26_366_568),
        ("dissertation_table4_13:full", 3_504_872),
    ],
)
def test_parameters_of_imagenet_networks(name, count):
    assert learnable(config_of(name)) == count


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("mobilenetv3_gnl_large_100", 5_483_032),
        ("mobilenetv2_gnl_100", 3_504_872),
        ("efficientnet_gnl_lite0", 4_652_008),
        ("efficientnetv2_gnl_s", 21_458_488),
        ("efficientnet_gnl_es", 5_438_392),
    ],
)
def test_parameters_of_mobile_networks(name, count):
    with pytest.warns(UserWarning, match="depthwise convolutions"):  # GroupNL does not make these cheaper
        assert learnable(config_of(f"groupnl_readme:{name}")) == count


@pytest.mark.parametrize(
    ("table", "epochs", "sums"),
    [
        ("dissertation_table4_9", 120, {"r1_0_8": 96, "r1_0_618": 74.16, "r2": 90.88, "r2_1": 97.6, "r3": 77.32}),
        ("dissertation_table4_11", 120, {"r1_0_8": 96, "r1_0_618": 74.16, "r2": 90.88, "r2_1": 97.6, "r3": 77.32}),
        ("dissertation_table4_13", 150, {"r1_0_8": 120, "r1_0_618": 92.7, "r2_2": 93}),
    ],
)
def test_sampling_schedules_add_up_as_published(table, epochs, sums):
    assert config_of(f"{table}:full").sampling is None
    for name, total in sums.items():
        config = config_of(f"{table}:{name}")
        assert config.epochs == epochs
        assert float(sum(config.sampling.ratios(epochs))) == pytest.approx(total)


def test_every_teacher_is_the_vanilla_recipe_of_the_same_pictures():
    taught = 0
    for name, _ in every_recipe():
        config = config_of(name)
        assert (config.distill is not None) == (
            name.startswith("monocnn") and "_mono" in name.replace(":mono", "_mono")
        )
        if config.distill is None:
            continue
        taught += 1
        stem = Path(config.distill.teacher).stem
        table = next(table for table in ROWS if stem.startswith(f"{table}_"))
        function = stem.removeprefix(f"{table}_")
        teacher = config_of(f"{table}:{function}")
        assert f"--out {config.distill.teacher}" in inspect.getdoc(getattr(module_of(table), function))
        assert teacher.convert is None
        for field in ("model", "model_options", "data", "hold_out", "fraction", "data_seed"):
            assert getattr(teacher, field) == getattr(config, field)
    assert taught == 6 + 1 + 4 + 5


def test_the_step_schedule_of_the_mobile_networks_is_in_fractions_of_an_epoch():
    config = config_of("groupnl_readme:mobilenetv3_gnl_large_100")
    assert (config.schedule, config.decay_epochs, config.decay_rate) == ("step", (2.4,), 0.973)
    assert (config.ema, config.drop_path, config.model_options["drop_rate"]) == (0.9999, 0.2, 0.2)


def test_only_bottlenecks_are_sparse_in_the_papers_tables():
    for table in ("groupnl_table1", "groupnl_table6", "groupnl_table7", "groupnl_table8", "groupnl_table9"):
        for name in expected(table):
            config = config_of(f"{table}:{name}")
            if isinstance(config.convert, GroupNLConfig):
                assert config.convert.sparse == (config.model == "resnet101_cifar")
