"""A killed and resumed run ends with the same bits as an unbroken one, with one process and with two."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from seedcnn.convert import GroupNLConfig
from seedcnn.errors import ConfigError, TrainingError
from seedcnn.train import TrainConfig, load_checkpoint, save_checkpoint
from seedcnn.train.config import differences
from tests.few import few
from tests.train.runs import EVERYTHING, SMALL, changed, run, same, work


def wait_for(path, processes):
    deadline = time.monotonic() + 250
    while not path.exists():
        assert all(process.exitcode is None for process in processes), "a process ended before its first checkpoint"
        assert time.monotonic() < deadline
        time.sleep(0.002)


def kill_all(processes):
    for process in processes:
        process.kill()
    for process in processes:
        process.join()
        assert process.exitcode == -signal.SIGKILL


def finish(processes):
    for process in processes:
        process.join()
        assert process.exitcode == 0


def check_same(broken, whole):
    a, b = load_checkpoint(broken), load_checkpoint(whole)
    assert a.epoch == b.epoch == EVERYTHING.epochs
    for part in ("model", "ema", "optimizer", "rng"):
        assert getattr(a, part)
        assert same(getattr(a, part), getattr(b, part)), part
    for ours, theirs in zip(a.history, b.history, strict=True):
        assert all(ours[name] == theirs[name] for name in ("loss", "accuracy", "lr", "batches"))


FAST = dataclasses.replace(
    EVERYTHING, optimizer="muon+sgd", schedule="linear", augment="shift2", flip="alternating", whiten_stem=True
)


ROBUST = dataclasses.replace(EVERYTHING, augment="crop+prime", noise=0.1, lowpass="stem+strides")


@pytest.mark.parametrize(
    ("config", "world"),
    few([(config, world) for config in (EVERYTHING, FAST, ROBUST) for world in (1, 2)], [0, 3, 5]),
    ids=[f"{name}, {world}" for name in ("adamw", "muon+sgd", "prime and filters") for world in ("one", "two")],
)
def test_kill_and_resume_gives_the_weights_of_an_unbroken_run(tmp_path, start_group, world, config):
    """A real kill -9, anywhere after the first checkpoint, which is written after the first update.

    A single process gets ``resume``; two processes resume because of torchrun's count of restarts.
    """
    broken, whole = tmp_path / "broken.ckpt", tmp_path / "whole.ckpt"
    processes = start_group(world, work, broken, config, options={"save_steps": 1})
    wait_for(broken, processes)
    kill_all(processes)
    stopped = load_checkpoint(broken)
    assert (stopped.epoch, stopped.step) < (EVERYTHING.epochs, 0)
    assert stopped.world == world
    finish(start_group(world, work, broken, config, options={"resume": world == 1}, restarts=world - 1))
    finish(start_group(world, work, whole, config, options={}))
    check_same(broken, whole)


def interrupt(network):
    """A validation function that stops the run between the last update of an epoch and its checkpoint."""
    raise KeyboardInterrupt


def test_a_run_that_stops_early_goes_on(tmp_path):
    config = changed(epochs=3)
    whole = run(tmp_path / "a.ckpt", config)[0]
    _, first = run(tmp_path / "b.ckpt", config, until=1)
    assert first.epoch == 1
    parts, last = run(tmp_path / "b.ckpt", config, until=3, resume=True)
    assert last.epoch == 3
    assert same(whole.state_dict(), parts.state_dict())
    for until in (0, 4):
        with pytest.raises(ConfigError, match=f"until .={until}. must be an epoch of the config, 1 to 3"):
            run(tmp_path / "c.ckpt", config, until=until)


def test_a_checkpoint_within_an_epoch_goes_on_there(tmp_path):
    config, path = dataclasses.replace(EVERYTHING, epochs=2), tmp_path / "broken.ckpt"
    whole = run(tmp_path / "whole.ckpt", config)[1]
    with pytest.raises(KeyboardInterrupt):
        run(path, config, save_steps=1, validate=interrupt)
    saved = load_checkpoint(path)
    assert (saved.epoch, saved.step, saved.partial["seen"]) == (0, 10, 80)  # two of three updates
    again = run(path, config, resume=True)[1]
    assert same(again.model, whole.model)
    assert same(again.ema, whole.ema)
    assert [row["loss"] for row in again.history] == [row["loss"] for row in whole.history]


def test_another_number_of_processes_is_refused(tmp_path):
    _, state = run(tmp_path / "a.ckpt", changed(epochs=1))
    save_checkpoint(tmp_path / "two.ckpt", dataclasses.replace(state, world=2))
    with pytest.raises(TrainingError, match="is from a run with 2 processes; this run has 1"):
        run(tmp_path / "two.ckpt", changed(epochs=1), resume=True)


def test_another_config_is_refused(tmp_path):
    run(tmp_path / "a.ckpt", changed(epochs=1))
    with pytest.raises(TrainingError, match=r"another config \(lr is .* there and 0\.2 here\); resume it with its own"):
        run(tmp_path / "a.ckpt", changed(epochs=1, lr=0.2), resume=True)


def test_two_configs_differ_by_field():
    one = TrainConfig("resnet8_cifar", {"patch": 2}, convert=GroupNLConfig(), epochs=3)
    assert differences(one, one) == {}
    other = dataclasses.replace(one, epochs=4, model_options={"patch": 4}, convert=GroupNLConfig(phi_range=(0, 1)))
    assert differences(one, other) == {
        "model_options.patch": (2, 4),
        "convert.phi_range": ([-0.5, 0.5], [0.0, 1.0]),
        "epochs": (3, 4),
    }
    plain = dataclasses.replace(one, convert=None, model_options={})
    found = differences(one, plain)
    assert found["convert.method"] == ("groupnl", "not set")
    assert found["convert"] == ("not set", None)
    assert found["model_options.patch"] == (2, "not set")


WORKER = """
import os, signal, sys
sys.path.insert(0, {root!r})
import torch
from torch.nn.modules.module import register_module_forward_hook
from tests.train.runs import EVERYTHING, run

torch.set_num_threads(1)
attempt, rank = (int(os.environ[name]) for name in ("TORCHELASTIC_RESTART_COUNT", "RANK"))
batches = 0

def die(module, arguments, output):
    global batches
    batches += module.training and type(module).__name__ == "ResNetCifar"
    if batches == {{(0, 0): 8, (1, 1): 9}}.get((attempt, rank)):
        os.kill(os.getpid(), signal.SIGKILL)

register_module_forward_hook(die)
run({path!r}, EVERYTHING, save_steps=1)
print("done after restarts:", attempt, flush=True)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_torchrun_starts_a_group_again_and_it_goes_on(tmp_path, start_group):
    """One process kills itself in the second epoch and the other one later, like kill -9 from outside."""
    path, whole = tmp_path / "elastic.ckpt", tmp_path / "whole.ckpt"
    script = tmp_path / "worker.py"
    script.write_text(WORKER.format(root=str(Path(__file__).parents[2]), path=str(path)))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launcher, "--max-restarts=2", script], text=True, capture_output=True, timeout=800, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("done after restarts: 2") == 2
    finish(start_group(2, work, whole, EVERYTHING, options={}))
    check_same(path, whole)


def test_a_run_that_is_done_is_left_as_it_is(tmp_path):
    first = run(tmp_path / "a.ckpt")[1]
    before = (tmp_path / "a.ckpt").read_bytes()
    again = run(tmp_path / "a.ckpt", SMALL, resume=True)[1]
    assert same(first.model, again.model)
    assert (tmp_path / "a.ckpt").read_bytes() == before
