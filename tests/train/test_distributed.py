"""Several processes: what they exchange, which images each sees, and what is refused."""

from __future__ import annotations

import json
import time

import pytest
import torch
from torch import distributed

from seedcnn.convert import GroupNLConfig, MonoConfig
from seedcnn.errors import ConfigError, ProcessError
from seedcnn.processes import _meet, open_processes
from seedcnn.train import load_checkpoint
from tests.conftest import torchrun_environment
from tests.train.runs import changed, coloured, count_bytes, meet, run, work


@pytest.mark.parametrize(
    "convert",
    [None, GroupNLConfig.paper(nlf_groups=2), GroupNLConfig.paper(nlf_groups=2, sparse=True), MonoConfig()],
    ids=["vanilla", "groupnl", "sparse", "mono"],
)
def test_only_learnable_gradients_are_exchanged(tmp_path, start_group, convert):
    """Two gloo processes exchange four bytes per learnable parameter and step; each sees images of its own."""
    config = changed(convert=convert, model_options={"widths": (8, 8, 16), "patch": 8})
    for process in start_group(2, count_bytes, tmp_path / "told", config):
        process.join()
        assert process.exitcode == 0
    told = [json.loads((tmp_path / f"told.{rank}.json").read_text()) for rank in range(2)]
    for each in told:
        assert each["steps"] == 3  # 96 images, 2 processes, batches of 16
        assert each["sent"] == 4 * each["learnable"] * each["steps"]
    assert told[0]["sums"] == told[1]["sums"]
    assert len(set(told[0]["seen"]) | set(told[1]["seen"])) == 96  # no image twice


def test_a_loss_that_is_not_finite_stops_all_processes(tmp_path, start_group):
    """After a restart by torchrun, a checkpoint of an older run is not mistaken for that of this run."""
    run(tmp_path / "a.ckpt", changed(epochs=1))
    config = changed(convert=None, lr=1e12, warmup_epochs=0.0)
    for process in start_group(2, work, tmp_path / "a.ckpt", config, options={}):
        process.join()
        assert process.exitcode == 3
    for rank in range(2):
        text = (tmp_path / f"a.ckpt.{rank}.error").read_text()
        assert "loss of process" in text
        assert "a.stopped.ckpt" in text
    stopped, fresh = load_checkpoint(tmp_path / "a.stopped.ckpt"), load_checkpoint(tmp_path / "a.ckpt")
    assert (stopped.world, fresh.world, fresh.epoch, fresh.config) == (2, 2, 0, config)
    assert all(len(pictures) == 16 for pictures in stopped.partial["pictures"].values())


@pytest.mark.parametrize("late", [0, 1])
def test_a_group_that_is_started_again_finds_itself_in_the_store_of_the_first(tmp_path, start, late):
    """torchrun keeps one store for all starts; the first process must not use the addresses of an earlier start.

    In the second start the process that is on time dies before the other one arrives.
    """
    store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)

    def begin(rank, attempt, restarts, delay=0.0):
        environment = torchrun_environment(store.port, rank, 2, restarts) | {"TORCHELASTIC_USE_AGENT_STORE": "True"}
        return start(meet, tmp_path / f"{attempt}", environment, delay)

    for process in [begin(rank, 0, 0) for rank in range(2)]:
        process.join()
        assert process.exitcode == 0
    alone = begin(1 - late, 1, 1)
    deadline = time.monotonic() + 100
    while store.add(f"seedcnn/start/{1 - late}", 0) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    alone.kill()
    alone.join()
    # Only the machine of the first process counts the restart.
    for process in [begin(rank, 2, 2 * (1 - rank), delay=1.0 if rank == late else 0.0) for rank in range(2)]:
        process.join()
        assert process.exitcode == 0
    told = [[json.loads((tmp_path / f"{n}.{rank}.json").read_text()) for rank in range(2)] for n in (0, 2)]
    assert told[0] == [{"ranks": [0, 1], "restarted": False}] * 2
    assert told[1] == [{"ranks": [0, 1], "restarted": True}] * 2
    assert not list(tmp_path.glob("1.*"))


def test_a_process_that_does_not_come():
    store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    with pytest.raises(ProcessError, match=r"processes \[1, 2\] of 3 did not arrive within 0 s"):
        _meet(store, 0, 3, patience=0.1)


def test_what_one_machine_does_not_have_is_refused(tmp_path):
    if torch.cuda.device_count() < 2:
        with pytest.raises(ConfigError, match="strategy 'dp' needs several GPUs"):
            run(tmp_path / "a.ckpt", changed(strategy="dp"))
    with pytest.raises(ConfigError, match="sync_bn needs GPUs"):
        run(tmp_path / "a.ckpt", changed(sync_bn=True))
    with pytest.raises(ConfigError, match=r"device \(='tpu'\) must be auto, cpu or cuda"), open_processes("tpu"):
        pass


def test_errors_of_the_first_process_reach_all(tmp_path, start_group):
    """The first process, which alone reads the checkpoint, finds an architecture that does not fit."""
    run(tmp_path / "a.ckpt", changed(epochs=1), data=coloured(32))
    for process in start_group(2, work, tmp_path / "a.ckpt", changed(epochs=1), options={"resume": True}):
        process.join()
        assert process.exitcode == 3
    for rank in range(2):
        assert "is from a run with 1 process; this run has 2" in (tmp_path / f"a.ckpt.{rank}.error").read_text()
