"""Several processes: what they exchange, what each sees, and what is refused."""

from __future__ import annotations

import json

import pytest
import torch

from seedcnn.convert import GroupNLConfig, MonoConfig
from seedcnn.errors import ConfigError
from seedcnn.train import load_checkpoint
from seedcnn.train.distributed import open_processes
from tests.train.runs import changed, coloured, count_bytes, run, work


@pytest.mark.parametrize(
    "convert",
    [None, GroupNLConfig(nlf_groups=2), GroupNLConfig(nlf_groups=2, sparse=True), MonoConfig()],
    ids=["vanilla", "groupnl", "sparse", "mono"],
)
def test_only_learnable_gradients_are_exchanged(tmp_path, start_group, convert):
    """Two gloo processes: four bytes a learnable parameter and step, nothing else; each sees pictures of its own."""
    config = changed(convert=convert, model_options={"widths": (8, 8, 16), "patch": 8})
    for process in start_group(2, count_bytes, tmp_path / "told", config):
        process.join()
        assert process.exitcode == 0
    told = [json.loads((tmp_path / f"told.{rank}.json").read_text()) for rank in range(2)]
    for each in told:
        assert each["steps"] == 3  # 96 pictures, 2 processes, batches of 16
        assert each["sent"] == 4 * each["learnable"] * each["steps"]
    assert told[0]["sums"] == told[1]["sums"]
    assert len(set(told[0]["seen"]) | set(told[1]["seen"])) == 96  # no picture twice


def test_a_loss_that_is_not_finite_stops_all_processes(tmp_path, start_group):
    """And a checkpoint of an older run is not taken for this one's if torchrun starts the group again."""
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


def test_what_one_machine_does_not_have_is_refused(tmp_path):
    if torch.cuda.device_count() < 2:
        with pytest.raises(ConfigError, match="strategy 'dp' needs several GPUs"):
            run(tmp_path / "a.ckpt", changed(strategy="dp"))
    with pytest.raises(ConfigError, match="sync_bn needs GPUs"):
        run(tmp_path / "a.ckpt", changed(sync_bn=True))
    with pytest.raises(ConfigError, match=r"device \(='tpu'\) must be auto, cpu or cuda"), open_processes("tpu"):
        pass


def test_errors_of_the_first_process_reach_all(tmp_path, start_group):
    """An architecture that does not fit is found by the first process, which alone reads the checkpoint."""
    run(tmp_path / "a.ckpt", changed(epochs=1), data=coloured(32))
    for process in start_group(2, work, tmp_path / "a.ckpt", changed(epochs=1), options={"resume": True}):
        process.join()
        assert process.exitcode == 3
    for rank in range(2):
        assert "of a run of 1 processes, this one has 2" in (tmp_path / f"a.ckpt.{rank}.error").read_text()
