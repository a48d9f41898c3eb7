"""Reproducing tables: scales, resuming, teachers, failures, and one row through all steps with real images."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from seedcnn.cli.app import app
from seedcnn.convert import GroupNLConfig, MonoConfig
from seedcnn.errors import ConfigError, DataError
from seedcnn.reproduce import SCALES, Figure, list_tables, reproduce
from seedcnn.reproduce.scales import scaled
from seedcnn.train import TrainConfig, build_model, find_recipe, load_checkpoint
from tests.cli.calls import command, in_process


def test_tables_are_the_recipe_files_with_printed_figures():
    tables = list_tables()
    assert {"groupnl_table6", "groupnl_table7", "monocnn_table1", "dissertation_table4_9"} <= set(tables)
    assert "demo" not in tables
    with pytest.raises(ConfigError, match="unknown table 'groupnl_table66'; did you mean groupnl_table6"):
        next(reproduce("groupnl_table66"))
    with pytest.raises(ConfigError, match="unknown scale 'tiny'"):
        next(reproduce("groupnl_table6", scale="tiny"))
    with pytest.raises(ConfigError, match="has no row with vgg19 in its name; rows: resnet18_vanilla"):
        next(reproduce("groupnl_table6", rows=("vgg19",)))


def test_full_scale_is_the_recipe_to_the_letter():
    config = find_recipe("groupnl_table6:resnet18_groupnl")
    assert scaled(config, SCALES["full"]) == config


def test_the_cpu_scale_is_a_smaller_network_of_the_family():
    config = scaled(find_recipe("groupnl_table6:resnet18_groupnl"), SCALES["cpu"])
    assert (config.model, config.epochs, config.fraction) == ("resnet8_cifar", 8, 1.0)
    assert config.model_options == {"num_classes": 10, "widths": (32, 64, 128), "patch": 2}
    assert config.convert == GroupNLConfig.paper()
    assert sum(p.numel() for p in build_model(config).parameters() if p.requires_grad) == 155_594
    mono = scaled(find_recipe("groupnl_table6:resnet18_mono"), SCALES["cpu"])
    assert isinstance(mono.convert, MonoConfig)
    assert mono.convert.seed_filters == 16
    assert (
        scaled(find_recipe("groupnl_table6:gtsrb_resnet18_vanilla"), SCALES["cpu"]).model_options["num_classes"] == 43
    )
    vgg = scaled(find_recipe("groupnl_table6:vgg11_mono"), SCALES["cpu"])
    assert (vgg.model, vgg.model_options["widths"]) == ("vgg11_cifar", (16, 32, 64, 128, 128))
    assert (vgg.convert.seed_filters, vgg.convert.scope) == (8, "square")
    sixteen = scaled(find_recipe("groupnl_table4:resnet18_r4_g16"), SCALES["cpu"])
    assert (sixteen.convert.nlf_groups, sixteen.convert.reduction_ratio) == (8, 4)  # 32 channels have 8 seeds
    for gpus in ("groupnl_table9:vanilla", "groupnl_table11:x2_vanilla"):
        small = scaled(find_recipe(gpus), SCALES["cpu"])
        assert (small.precision, small.strategy) == ("fp32", "ddp")
    with pytest.raises(ConfigError, match="mobilenetv9 has no small scale; only names with a prefix resnet, vgg11"):
        scaled(TrainConfig("mobilenetv9"), SCALES["cpu"])
    with pytest.raises(ConfigError, match="on ImageNet has no small scale"):
        scaled(find_recipe("groupnl_imagenet:vanilla_10"), SCALES["cpu"])


@pytest.mark.parametrize(
    ("table", "network", "depths", "fraction"),
    [("cb:table4_1", "crnet_cb", (1, 1, 2, 1), 1.0), ("cib:table4_5", "crnet_cib", (2, 2, 2), 0.5)],
)
def test_small_crnets_keep_what_the_tables_compare(table, network, depths, fraction):
    counts = {}
    for shape in ("exp4_g2", "exp6_g2", "exp4_g4"):
        for strategy in ("c1dw_c1dw", "gc_c1dw", "gc_gc", "c1dw_gc"):
            full = find_recipe(f"dissertation_crnet_{table}_{shape}_{strategy}")
            small = scaled(full, SCALES["cpu"])
            assert (small.model, small.epochs, small.fraction) == (network, 8, fraction)
            assert small.model_options == {**full.model_options, "depths": depths, "patch": 2}
            counts[shape, strategy] = [
                sum(p.numel() for p in build_model(config).parameters()) for config in (full, small)
            ]
    order = [sorted(counts, key=lambda row: counts[row][which]) for which in (0, 1)]
    assert order[0] == order[1]  # the small networks differ in size like the published ones
    model = build_model(scaled(find_recipe(f"dissertation_crnet_{table}_exp4_g2_gc_gc"), SCALES["cpu"]))
    assert model.stem(torch.rand(1, 3, 32, 32)).shape[2:] == (16, 16)


def test_rows_that_cannot_be_run_say_why(tmp_path):
    missing = (
        r"no row of groupnl_table6 can be run at scale cpu; gtsrb_resnet18_vanilla: it needs the directory of gtsrb"
    )
    with pytest.raises(ConfigError, match=missing):
        next(reproduce("groupnl_table6", rows=("gtsrb",), out=tmp_path))
    with pytest.raises(ConfigError, match="imagenet_x8_vanilla: resnet101 on ImageNet has no small scale"):
        next(reproduce("groupnl_table11", rows=("imagenet",), out=tmp_path))
    with pytest.raises(ConfigError, match="unknown data 'gtrsb'; did you mean gtsrb"):
        next(reproduce("groupnl_table6", data={"gtrsb": tmp_path}, out=tmp_path))
    with pytest.raises(ConfigError, match="there are no seeds"):
        next(reproduce("groupnl_table6", seeds=(), out=tmp_path))
    assert not list(tmp_path.iterdir())


def test_schedules_shrink_with_the_epochs():
    config = find_recipe("dissertation_table4_9:r3")
    assert config.decay_epochs == (60, 90)
    small = scaled(config, SCALES["cpu"])
    assert (small.epochs, small.decay_epochs, small.schedule) == (8, (4, 6), "multistep")
    warm = replace(config, warmup_epochs=6.0, schedule="cosine", decay_epochs=())
    assert scaled(warm, SCALES["cpu"]).warmup_epochs == pytest.approx(6 * 8 / config.epochs)
    cool = scaled(replace(config, sampling=None, schedule="cosine", decay_epochs=(), cooldown_epochs=30), SCALES["cpu"])
    assert cool.cooldown_epochs == 2
    one = scaled(replace(config, sampling=None), SCALES["smoke"])
    assert (one.epochs, one.schedule, one.decay_epochs) == (1, "constant", ())


def test_figures():
    two = Figure(95.0, (94.0, 95.0))
    assert (two.mean, two.difference) == (94.5, -0.5)
    assert two.std == pytest.approx(np.sqrt(0.5))
    assert Figure(95.0, ()).mean is None
    assert Figure(95.0, ()).difference is None
    assert Figure(None, (1.0,)).difference is None
    assert Figure(None, (1.0,)).std is None


def test_a_row_through_the_chain_and_again(tmp_path, cifar10):
    said = []
    options = {
        "scale": "smoke",
        "rows": ("resnet18_vanilla", "gtsrb_resnet18_v"),
        "out": tmp_path,
        "progress": said.append,
    }
    (row, other) = reproduce("groupnl_table6", **options)
    assert (other.recipe, other.figures) == ("groupnl_table6:gtsrb_resnet18_vanilla", {})
    assert other.failed == ("it needs the directory of gtsrb: --data gtsrb=DIRECTORY",)
    assert row.recipe == "groupnl_table6:resnet18_vanilla"
    assert row.failed == ()
    assert row.figures["top1"].printed == 95.04
    (value,) = row.figures["top1"].values
    assert 5 < value < 60
    where = tmp_path / "groupnl_table6" / "smoke"
    saved = load_checkpoint(where / "groupnl_table6.resnet18_vanilla-0.ckpt")
    assert saved.config == scaled(find_recipe("groupnl_table6:resnet18_vanilla"), SCALES["smoke"])
    stamp = (where / "groupnl_table6.resnet18_vanilla-0.ckpt").stat().st_mtime_ns
    assert list(reproduce("groupnl_table6", **options)) == [row, other]
    assert (where / "groupnl_table6.resnet18_vanilla-0.ckpt").stat().st_mtime_ns == stamp
    result = where / "groupnl_table6.resnet18_vanilla-0.json"
    result.write_text(json.dumps({"config": "another", "figures": {"top1": 99.0}}))
    with pytest.raises(DataError, match="belongs to another config of that row"):
        list(reproduce("groupnl_table6", **options))


def test_the_command(tmp_path, cifar10):
    arguments = [
        "reproduce",
        "groupnl_table7",
        "--scale",
        "smoke",
        "--rows",
        "resnet18_groupnl",
        "--out",
        str(tmp_path),
    ]
    result = CliRunner().invoke(app, [*arguments, "--json"])
    if isinstance(result.exception, DataError) and "frost" in str(result.exception):
        pytest.skip(f"the frost images are not available: {result.exception}")
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)["rows"]
    assert row["figures"]["Noise"]["printed"] == 57.55
    groups = [row["figures"][name]["mean"] for name in ("Noise", "Blur", "Weather", "Digital")]
    assert row["figures"]["mean"]["mean"] == pytest.approx(np.mean(groups))
    printed = CliRunner().invoke(app, arguments).stdout
    for words in ("57.55", "74.11", "Scale smoke: as cpu, with one epoch"):
        assert words in printed
    wrong = CliRunner().invoke(app, [*arguments, "--data", "gtsrb"])
    assert "--data gtsrb: it must be NAME=DIRECTORY" in str(wrong.exception)


def test_a_diverged_run_is_a_row_that_failed(tmp_path, cifar10):
    recipe = tmp_path / "r.py"
    recipe.write_text("")
    from seedcnn.reproduce.table import _one, _Run

    class Diverging(_Run):
        def config(self, recipe: str, seed: int) -> TrainConfig:
            return replace(super().config(recipe, seed), lr=1e30)

    run = Diverging("smoke", tmp_path, {}, None, lambda _: None)
    found = _one(run, "groupnl_table6:resnet18_groupnl", 0, ["top1"])
    assert "loss" in found["failed"]
    assert "figures" not in found
    assert _one(run, "groupnl_table6:resnet18_groupnl", 0, ["top1"]) == found


@pytest.mark.slow
def test_several_processes_deal_out_the_trainings(tmp_path, start_group, cifar10, one_thread):
    """Each run is trained by one process, as by a single one; a finished run is not repeated."""
    rows = ["--rows", "resnet18_vanilla,resnet18_groupnl"]
    arguments = ["reproduce", "groupnl_table6", "--scale", "smoke", *rows, "--json", "--out"]
    for process in start_group(2, command, tmp_path / "told", [*arguments, tmp_path / "two"]):
        process.join()
        assert process.exitcode == 0
    alone = in_process(*arguments, tmp_path / "one")
    assert (tmp_path / "told.0.out").read_text() == alone.stdout
    assert (tmp_path / "told.1.out").read_text() == (tmp_path / "told.1.err").read_text() == ""
    one, two = (sorted(path.name for path in (tmp_path / name).rglob("*.*")) for name in ("one", "two"))
    assert one == two
    for path in (tmp_path / "one").rglob("*.ckpt"):
        other = load_checkpoint(tmp_path / "two" / path.relative_to(tmp_path / "one"))
        assert all(torch.equal(value, other.model[name]) for name, value in load_checkpoint(path).model.items())
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "two").rglob("*.*")}
    assert in_process(*arguments, tmp_path / "two").stdout == alone.stdout
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "two").rglob("*.*")}
