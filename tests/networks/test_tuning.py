"""Tuning: the price of a bit that keeps to a bound, found by trials that train."""

from __future__ import annotations

import math
import re
import shutil
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from seedcnn.bundle import Preprocessing, read_bundle
from seedcnn.bundle.delta import apply_delta, read_delta
from seedcnn.convert import GroupNLConfig
from seedcnn.data.sets.own import load_folder
from seedcnn.errors import ConfigError, DataError, ExportError
from seedcnn.networks import open_checkpoint, pack_checkpoint, tune
from seedcnn.networks.tuning import _KEPT, Goal, Tuned, seek_price, tuned_config
from seedcnn.pack import PackRequest
from seedcnn.train import TrainConfig, load_checkpoint, own_config, train
from tests.cli.calls import in_process
from tests.own.photos import write_photos


def law(weight, *, bytes_at_1=30_000, drop_at_1=1.0):
    """A network whose bytes fall and whose loss grows with the price."""
    return Tuned(weight, round(4_000 + bytes_at_1 * weight**-0.4), drop_at_1 * weight**0.8, 0.1)


@pytest.mark.parametrize("most", [12_000, 16_000, 32_000, 64_000, 128_000])
def test_bytes_are_met_closely(most):
    tried = []
    found = seek_price(Goal(most_bytes=most), lambda weight: tried.append(weight) or law(weight))
    assert 0.9 * most <= found.size <= most
    assert len(tried) <= 6


@pytest.mark.parametrize("drop", [0.3, 0.5, 1.0, 3.0])
def test_a_drop_is_met_and_used(drop):
    found = seek_price(Goal(max_drop=drop), law)
    assert found.drop + found.error <= drop
    best = (drop - 0.1) ** (1 / 0.8)
    assert found.weight > best / 2


def test_what_cannot_be_met_is_told_with_the_least():
    with pytest.raises(ExportError, match=r"no price of bits keeps to 3,000 bytes: the least was [\d,]+ bytes"):
        seek_price(Goal(most_bytes=3_000), law)
    with pytest.raises(ExportError, match=r"keeps to 0\.05 points: the least was .* points lost on training images"):
        seek_price(Goal(max_drop=0.05), law)


def test_a_bound_that_is_met_at_once_is_not_wasted():
    """A bundle far below the bound is no answer: lower prices are tried."""
    found = seek_price(Goal(most_bytes=10**6), law)
    assert found.weight < 0.1


@pytest.mark.parametrize("bound", [{}, {"most_bytes": 1, "max_drop": 1.0}, {"most_bytes": 0}, {"max_drop": 101.0}])
def test_wrong_goals(bound):
    with pytest.raises(ConfigError):
        Goal(**bound)


def test_the_config_of_a_trial_keeps_the_data_and_nothing_of_the_optimizer():
    config = TrainConfig(
        "air_cifar",
        optimizer="muon+sgd",
        muon_lr=0.16,
        ema=0.99,
        precision="fp16",
        augment="shift2",
        flip="alternating",
        lr_base_batch=256,
        whiten_stem=True,
        convert=GroupNLConfig(),
    )
    found = tuned_config(config, "a.ckpt", 3, 0.4)
    assert (found.optimizer, found.ema, found.precision, found.rate.weight) == ("adam", 0.0, "fp32", 0.4)
    assert (found.augment, found.flip, found.convert) == ("shift2", "alternating", GroupNLConfig())
    assert TrainConfig.from_dict(found.to_dict()) == found


def test_every_field_of_a_config_is_kept_or_replaced():
    """A field that is added to TrainConfig must be decided here, too."""
    replaced = "epochs lr optimizer weight_decay schedule warmup_epochs init_from rate"
    default = (
        "opt_eps momentum muon_lr muon_momentum warmup_lr min_lr cooldown_epochs lr_noise whiten_stem pretrained "
        "lr_base_batch decay_epochs decay_rate decay_norms grad_accumulation clip_grad ema compile sync_bn strategy "
        "sampling distill update"
    )
    assert {each.name for each in fields(TrainConfig)} == {*_KEPT, *replaced.split(), *default.split()}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Pictures, and a checkpoint of a network that was trained on them."""
    place = tmp_path_factory.mktemp("tuning")
    write_photos(place / "photos", 16)
    data = load_folder(place / "photos", preprocessing=Preprocessing.crop(32))
    config = own_config("air_cifar", data)
    options = {"widths": (8, 16, 16), "num_classes": len(data.classes)}
    train(replace(config, model_options=options, epochs=8, convert=GroupNLConfig()), data, place / "a.ckpt")
    return place


@pytest.fixture
def trained(place, tmp_path):
    """A copy of the checkpoint, beside which trials are kept."""
    return Path(shutil.copy(place / "a.ckpt", tmp_path / "a.ckpt"))


REQUEST = PackRequest("family", 1)


def test_a_network_is_tuned_to_a_number_of_bytes(trained, tmp_path):
    """The trials are kept, so a second call trains nothing; the bundle is smaller than that of a search."""
    told = []
    result, checkpoint = tune(trained, REQUEST, epochs=1, most_bytes=20_000, progress=told.append)
    assert len(result.data) <= 20_000
    assert result.before.top1 == pytest.approx(100 * result.before.correct.mean())
    before = {path: path.stat().st_mtime_ns for path in checkpoint.parent.glob("*.ckpt")}
    again, same = tune(trained, REQUEST, epochs=1, most_bytes=20_000)
    assert (again.data, same) == (result.data, checkpoint)
    assert set(before) == set(checkpoint.parent.glob("*.ckpt"))
    assert any("a price of 0.3 a bit" in line for line in told)
    assert load_checkpoint(checkpoint).steps
    packed = pack_checkpoint(checkpoint, family="family", release=1)
    assert packed.data == result.data


def test_what_the_norms_take_counts_in_every_trial(trained):
    told = []
    found, _ = tune(trained, replace(REQUEST, adaptable=True), epochs=1, most_bytes=20_000, progress=told.append)
    sizes = [int(size.replace(",", "")) for line in told for size in re.findall(r"a bit: ([\d,]+) bytes", line)]
    assert found.adapts.size > 100
    assert min(abs(len(found.data) - size) for size in sizes) < 50  # the accuracy measured is not the same


@pytest.mark.slow
def test_the_bundle_is_compared_with_the_network_before(trained):
    result, checkpoint = tune(trained, replace(REQUEST, max_accuracy_drop=60.0), epochs=1)
    original, tuned = open_checkpoint(trained).module, open_checkpoint(checkpoint).module
    assert any(not torch.equal(a, b) for a, b in zip(original.parameters(), tuned.parameters(), strict=True))
    plain = pack_checkpoint(trained, family="family", release=1, step=0)
    assert result.before.top1 == plain.before.top1
    assert math.isfinite(result.grid.max_rel)


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        ({"step": 0.1}, {}, "`step` contradicts `tune`"),
        ({"int8": True}, {}, "`int8` contradicts `tune`"),
        ({}, {"epochs": 0}, "`tune` is 0; it must be at least 1 epoch"),
        ({}, {"most_bytes": 0}, "`bytes` is 0; it must be at least 1"),
    ],
)
def test_wrong_options_are_told_before_any_work(trained, change, options, words):
    with pytest.raises(ConfigError, match=words):
        tune(trained, replace(REQUEST, **change), **{"epochs": 1} | options)
    assert not list(trained.parent.glob("*.tuned-*"))


def test_a_checkpoint_whose_pictures_are_gone_is_refused(tmp_path):
    write_photos(tmp_path / "photos", 8)
    data = load_folder(tmp_path / "photos", preprocessing=Preprocessing.crop(32))
    train(replace(own_config("air_cifar", data), epochs=1), data, tmp_path / "a.ckpt")
    (tmp_path / "photos").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="photos"):
        tune(tmp_path / "a.ckpt", REQUEST, epochs=1, most_bytes=20_000)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--bytes", "20000"], "--bytes goes with --tune EPOCHS"),
        (["--tune", "1", "--bytes", "9", "--max-accuracy-drop", "1"], "--bytes contradicts --max-accuracy-drop"),
        (["--tune", "1", "--weights", "a.pt"], "--weights has no effect with --tune"),
        (["--tune", "1", "--step", "0.1"], "`step` contradicts `tune`"),
    ],
)
def test_wrong_options_of_the_command(trained, tmp_path, options, words):
    (tmp_path / "a.pt").touch()
    done = in_process(
        "pack", trained, "--family", "f", "--release", 1, "--out", tmp_path / "a.bundle", *options, expect=1
    )
    assert words in " ".join(done.stderr.split())
    assert not (tmp_path / "a.bundle").exists()


@pytest.mark.slow
def test_the_command_writes_the_bundle_and_names_the_tuned_network(trained, tmp_path):
    out = tmp_path / "a.bundle"
    done = in_process(
        "pack", trained, "--family", "f", "--release", 1, "--out", out, "--tune", 1, "--bytes", 20_000, "--sizes"
    )
    assert out.stat().st_size <= 20_000
    assert "the tuned network is" in done.stderr
    assert "the grid it was trained on" in " ".join(done.stdout.split())


def test_an_update_that_pays_for_differences_is_a_small_delta(trained, tmp_path):
    """Trained on the grid, packed; trained on from there with the price on differences, packed with its parent."""
    saved = load_checkpoint(trained)
    data = load_folder(Path(saved.source.partition(":")[2]), preprocessing=saved.preprocessing)
    first = tuned_config(saved.config, trained, 2, 0.1)
    train(first, data, tmp_path / "first.ckpt")
    parent = pack_checkpoint(tmp_path / "first.ckpt", family="family", release=1)
    (tmp_path / "first.bundle").write_bytes(parent.data)
    sizes = {}
    for price in (0.0, 20.0):
        rate = replace(first.rate, steps="start", weight=price, lr=0.5)
        config = replace(first, init_from=str(tmp_path / "first.ckpt"), rate=rate, epochs=6)
        train(config, data, tmp_path / f"{price}.ckpt")
        found = pack_checkpoint(
            tmp_path / f"{price}.ckpt", family="family", release=2, parent=tmp_path / "first.bundle"
        )
        again = apply_delta(read_bundle(parent.data), read_delta(found.delta))
        content = read_bundle(found.data).manifest.content_sha256()
        assert read_bundle(again).manifest.content_sha256() == content
        sizes[price] = len(found.delta)
    assert sizes[20.0] < sizes[0.0]
    assert sizes[20.0] < 0.7 * len(parent.data)


def test_a_tuned_network_goes_on_on_its_grid(trained, tmp_path):
    """What the documentation says about heads: two options, and the checkpoint is named once."""
    saved = load_checkpoint(trained)
    data = load_folder(Path(saved.source.partition(":")[2]), preprocessing=saved.preprocessing)
    train(tuned_config(saved.config, trained, 1, 0.1), data, tmp_path / "tuned.ckpt")
    going = ("--set", "epochs=1", "--set", "optimizer=adam", "--set", "rate.steps=start", "--set", "lr=0.01")
    out = tmp_path / "more.ckpt"
    done = in_process("train", tmp_path / "tuned.ckpt", "--update", "norms+head", *going, "--out", out)
    assert f"goes on from {tmp_path / 'tuned.ckpt'} with augment=" in " ".join((done.stderr + done.stdout).split())
    before, after = load_checkpoint(tmp_path / "tuned.ckpt"), load_checkpoint(out)
    assert after.steps == before.steps
    assert after.config.rate.steps == "start"
    assert after.config.init_from == str(tmp_path / "tuned.ckpt")


@pytest.mark.parametrize("option", [("--calibration", "x"), ("--calibration-pictures", 7), ("--plot", "x.svg")])
def test_options_of_a_search_are_refused(trained, tmp_path, option):
    asked = ("--family", "f", "--release", 1, "--out", tmp_path / "a.bundle", "--tune", 1, "--bytes", 20_000)
    done = in_process("pack", trained, *asked, *option, expect=1)
    assert f"{option[0]} has no effect with --tune" in done.stderr
