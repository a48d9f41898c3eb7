"""The engine: it learns, it is reproducible, it resumes, it stops with a reason."""

from __future__ import annotations

import dataclasses
import io
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from seedcnn.convert import GroupNLConfig
from seedcnn.errors import ConfigError, TrainingError
from seedcnn.train import (
    TrainConfig,
    TrainData,
    TrainProgress,
    build_model,
    find_recipe,
    list_recipes,
    load_checkpoint,
    load_model,
    override,
    train,
)

SMALL = TrainConfig(
    model="resnet8_cifar",
    model_options={"widths": (8, 8, 16), "patch": 4},
    convert=GroupNLConfig(nlf_groups=2, normalize="batch"),
    epochs=3,
    batch_size=32,
    lr=0.1,
    warmup_epochs=0.5,
)


def coloured(n=256, seed=0):
    """Pictures whose class is their colour: something to learn in seconds."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, n)
    colours = np.random.default_rng(99).integers(40, 215, (10, 3))
    images = colours[labels][:, None, None, :] + rng.integers(-40, 41, (n, 32, 32, 3))
    return TrainData(images.clip(0, 255).astype(np.uint8), labels.astype(np.int64), (0.5,) * 3, (0.25,) * 3)


def quiet(config, data):
    return TrainProgress("test", config.epochs, len(data.images) // config.batch_size, quiet=True)


def run(tmp_path, config=SMALL, name="a.ckpt", **kwargs):
    data = coloured()
    return train(config, data, tmp_path / name, progress=quiet(config, data), **kwargs)


def same(a, b):
    assert a.keys() == b.keys()
    return all(torch.equal(a[name], b[name]) for name in a)


def test_it_learns_and_keeps_a_history(tmp_path):
    _, checkpoint = run(tmp_path, dataclasses.replace(SMALL, epochs=6))
    assert len(checkpoint.history) == 6
    assert checkpoint.history[-1]["loss"] < 0.5 * checkpoint.history[0]["loss"]
    assert checkpoint.history[-1]["accuracy"] > 60
    assert checkpoint.history[-1]["images_per_s"] > 0


def test_same_config_same_weights_other_seed_other_weights(tmp_path):
    first, second = (run(tmp_path, name=f"{i}.ckpt")[0].state_dict() for i in range(2))
    assert same(first, second)
    other = run(tmp_path, dataclasses.replace(SMALL, seed=1), name="other.ckpt")[0].state_dict()
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])
    assert first["stages.0.0.conv1.seed"] != other["stages.0.0.conv1.seed"]


@pytest.mark.parametrize(
    "change",
    [
        {"lr": 0.01},
        {"batch_size": 16},
        {"momentum": 0.5},
        {"weight_decay": 0.1},
        {"schedule": "step"},
        {"warmup_epochs": 2.0},
        {"warmup_lr": 0.05},
        {"min_lr": 0.05},
        {"label_smoothing": 0.2},
        {"augment": False},
        {"optimizer": "adamw"},
        {"convert": None},
        {"model_options": {"widths": (8, 16, 16), "patch": 4}},
    ],
    ids=str,
)
def test_every_field_has_an_effect(tmp_path, change):
    base = run(tmp_path, dataclasses.replace(SMALL, epochs=2))[1].history
    assert (
        run(tmp_path, dataclasses.replace(SMALL, epochs=2, **change), name="b.ckpt")[1].history[-1]["loss"]
        != (base[-1]["loss"])
    )


KILLED = """
import sys
sys.path.insert(0, {tests!r})
import torch
from test_train import SMALL, coloured, quiet
from seedcnn.train import train
torch.set_num_threads(1)
import dataclasses
config = dataclasses.replace(SMALL, epochs=40)
data = coloured()
train(config, data, {path!r}, resume=True, progress=quiet(config, data))
"""


def test_kill_and_resume_gives_the_weights_of_an_unbroken_run(tmp_path):
    """A real kill -9 between two epochs, anywhere in an epoch."""

    def start(path):
        code = KILLED.format(tests=str(Path(__file__).parent), path=str(path))
        return subprocess.Popen([sys.executable, "-c", code])

    broken, whole = tmp_path / "broken.ckpt", tmp_path / "whole.ckpt"
    process = start(broken)
    deadline = time.monotonic() + 120
    while not broken.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = load_checkpoint(broken).epoch
    assert 0 < done < 40
    assert start(broken).wait() == 0
    assert start(whole).wait() == 0
    a, b = load_checkpoint(broken), load_checkpoint(whole)
    assert a.epoch == b.epoch == 40
    assert same(a.model, b.model)
    assert same(a.optimizer, b.optimizer)


def test_resume_of_another_config_is_refused(tmp_path):
    run(tmp_path)
    with pytest.raises(TrainingError, match="another config"):
        run(tmp_path, dataclasses.replace(SMALL, lr=0.2), resume=True)


def test_fine_tuning_starts_from_the_weights(tmp_path):
    run(tmp_path)
    tuned = dataclasses.replace(SMALL, epochs=1, lr=1e-9, warmup_lr=1e-10, init_from=str(tmp_path / "a.ckpt"))
    _, checkpoint = run(tmp_path, tuned, name="tuned.ckpt")
    before = load_checkpoint(tmp_path / "a.ckpt").model
    torch.testing.assert_close(checkpoint.model["conv1.weight"], before["conv1.weight"])
    assert checkpoint.model["stages.0.0.conv1.seed"] == before["stages.0.0.conv1.seed"]


def test_a_prepared_network_is_trained_instead_of_a_fresh_one(tmp_path):
    prepared = build_model(SMALL)
    torch.nn.init.constant_(prepared.conv1.weight, 0.125)
    slow = dataclasses.replace(SMALL, epochs=1, lr=1e-9, warmup_lr=1e-10)
    model, _ = run(tmp_path, slow, model=prepared)
    assert model is prepared
    torch.testing.assert_close(model.conv1.weight, torch.full_like(model.conv1.weight, 0.125))


def test_load_model_gives_the_trained_network(tmp_path):
    model, checkpoint = run(tmp_path)
    torch.manual_seed(123)
    expected_next = torch.rand(1)
    torch.manual_seed(123)
    loaded, again = load_model(tmp_path / "a.ckpt")
    assert torch.equal(torch.rand(1), expected_next)  # loading draws nothing from the global generator
    x = torch.rand(2, 3, 32, 32)
    assert not loaded.training
    torch.testing.assert_close(loaded(x), model.eval()(x))
    assert again.config.to_dict() == checkpoint.config.to_dict()


def test_a_loss_that_is_not_finite_stops_with_the_step(tmp_path):
    with pytest.raises(TrainingError, match=r"loss is (nan|inf) in epoch \d+, step \d+ of 8 \(pictures"):
        run(tmp_path, dataclasses.replace(SMALL, lr=1e12, warmup_epochs=0.0, convert=None))


def test_checkpoints_that_cannot_be_read_or_written(tmp_path):
    with pytest.raises(TrainingError, match="there is no checkpoint"):
        load_checkpoint(tmp_path / "none.ckpt")
    (tmp_path / "bad.ckpt").write_bytes(b"not a checkpoint at all")
    with pytest.raises(TrainingError, match="is not a checkpoint of seedcnn"):
        load_checkpoint(tmp_path / "bad.ckpt")
    run(tmp_path)
    whole = (tmp_path / "a.ckpt").read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TrainingError, match="is damaged"):
        load_checkpoint(tmp_path / "cut.ckpt")
    with pytest.raises(TrainingError, match="cannot be written"):
        run(tmp_path, dataclasses.replace(SMALL, epochs=1), name="a.ckpt/inside.ckpt")
    other = dataclasses.replace(SMALL, convert=None, init_from=str(tmp_path / "a.ckpt"))
    with pytest.raises(TrainingError, match="does not fit the network"):
        run(tmp_path, other, name="b.ckpt")


def test_more_wrong_input(tmp_path):
    with pytest.raises(ConfigError, match=r"batch_size \(=1000\).*256"):
        run(tmp_path, dataclasses.replace(SMALL, batch_size=1000))
    with pytest.raises(ConfigError, match=r"epochs \(=0\)"):
        dataclasses.replace(SMALL, epochs=0)
    with pytest.raises(ConfigError, match=r"lr \(=-1"):
        dataclasses.replace(SMALL, lr=-1)
    with pytest.raises(ConfigError, match=r"warmup_epochs \(=9\)"):
        dataclasses.replace(SMALL, warmup_epochs=9)


def test_config_round_trip():
    assert TrainConfig.from_dict(SMALL.to_dict()) == SMALL
    with pytest.raises(ConfigError, match="no field colour"):
        TrainConfig.from_dict({**SMALL.to_dict(), "colour": 1})


def test_overrides():
    changed = override(
        SMALL, ["epochs=7", "lr=1", "convert.reduction_ratio=4", "model_options.patch=2", "schedule=step"]
    )
    assert (changed.epochs, changed.lr, changed.schedule) == (7, 1.0, "step")
    assert changed.convert.reduction_ratio == 4
    assert changed.model_options == {"widths": (8, 8, 16), "patch": 2}
    for assignment, words in {
        "epoch=3": "no field 'epoch'; did you mean epochs",
        "epochs": "must look like field=value",
        "epochs=many": "epochs is a int, not 'many'",
        "convert.ratio=2": "no field 'ratio'; did you mean",
        "lr.x=2": "has no fields",
    }.items():
        with pytest.raises(ConfigError, match=words):
            override(SMALL, [assignment])


def test_recipes_are_found_by_name_and_path(tmp_path):
    listed = list_recipes()
    assert {"demo:vanilla", "demo:narrow", "demo:groupnl", "demo:finetune"} <= set(listed)
    assert all(summary for summary in listed.values())
    assert find_recipe("demo:groupnl").convert == GroupNLConfig(normalize="batch")
    path = tmp_path / "mine.py"
    path.write_text("from seedcnn.train import TrainConfig\ndef run():\n    return TrainConfig(model='vgg11_cifar')\n")
    assert find_recipe(f"{path}:run").model == "vgg11_cifar"
    with pytest.raises(ConfigError, match="did you mean demo:groupnl"):
        find_recipe("demos:groupnl")
    with pytest.raises(ConfigError, match="has no recipe 'walk'; it has run"):
        find_recipe(f"{path}:walk")


def test_progress_without_a_terminal_writes_one_line_an_epoch(tmp_path, capsys):
    data = coloured()
    train(dataclasses.replace(SMALL, epochs=2), data, tmp_path / "p.ckpt", name="lines")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    for word in ("lines: epoch 2/2", "loss", "train accuracy", "images/s", "0 s left"):
        assert word in lines[1]


def test_progress_on_a_terminal_is_a_bar(tmp_path):
    config, data, stream = dataclasses.replace(SMALL, epochs=1), coloured(), io.StringIO()
    console = Console(file=stream, force_terminal=True, width=160)
    train(config, data, tmp_path / "p.ckpt", progress=TrainProgress("bar", 1, 8, console=console))
    text = stream.getvalue()
    for word in ("bar", "epoch 1/1", "loss", "acc", "images/s"):
        assert word in text
