"""A run that could not be saved fails before its first batch, and what can be saved is."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from seedcnn.cli.app import app
from seedcnn.errors import ConfigError, TrainingError
from seedcnn.files import prepare_output
from seedcnn.train import TrainData, load_checkpoint
from seedcnn.train.checkpoint import table_of
from tests.train.runs import SMALL, coloured, run, same

ONE = dataclasses.replace(SMALL, epochs=1, warmup_epochs=0, convert=None)


class Twice(nn.Module):
    """One layer under two names."""

    def __init__(self):
        super().__init__()
        self.stem, self.block, self.fc = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 10)
        self.again = self.block

    def forward(self, x):
        return self.fc(self.again(self.block(self.stem(x)).relu()).relu().mean((2, 3)))


class Tied(Twice):
    """Two layers with one weight, and one bias that is a view of the other."""

    def __init__(self):
        super().__init__()
        self.again = nn.Conv2d(8, 8, 3)
        self.again.weight = self.block.weight
        self.again.bias = nn.Parameter(self.block.bias.data[:])


@pytest.mark.parametrize("network", [Twice, Tied])
@pytest.mark.parametrize("channels_last", [True, False])
def test_tensors_that_share_memory_are_saved(tmp_path, network, channels_last):
    model, checkpoint = run(
        tmp_path / "a.ckpt", dataclasses.replace(ONE, channels_last=channels_last, lr=0.01), model=network()
    )
    saved = load_checkpoint(tmp_path / "a.ckpt")
    assert same(saved.model, checkpoint.model)
    other = network()
    other.load_state_dict(saved.weights)
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(other.eval()(x), model(x))


class Counting(nn.Module):
    """A network that counts its batches."""

    def __init__(self):
        super().__init__()
        self.batches = 0
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))

    def forward(self, x):
        self.batches += self.training
        return self.body(x)


@pytest.mark.parametrize("place", ["a directory", "a file for a directory", "a table that is a directory"])
def test_a_path_that_cannot_be_written_is_told_before_the_first_batch(tmp_path, place):
    path = tmp_path / "a.ckpt"
    if place == "a directory":
        path.mkdir()
    elif place == "a table that is a directory":
        (tmp_path / "a.csv").mkdir()
    else:
        (tmp_path / "file").write_text("")
        path = tmp_path / "file" / "a.ckpt"
    model = Counting()
    with pytest.raises(TrainingError, match=r"a\.(ckpt|csv) cannot be written: "):
        run(path, ONE, model=model)
    assert model.batches == 0


def test_names_of_a_run_s_files_keep_their_dots(tmp_path):
    assert table_of(tmp_path / "v1.2") == tmp_path / "v1.2.csv"
    assert table_of(tmp_path / "v1.2.ckpt") == tmp_path / "v1.2.csv"
    run(tmp_path / "model.csv", ONE)
    assert load_checkpoint(tmp_path / "model.csv").epoch == 1
    assert (tmp_path / "model.csv.csv").read_text().startswith("epoch,")


def test_the_command_refuses_a_checkpoint_named_like_a_table():
    result = CliRunner().invoke(app, ["train", "demo:vanilla", "--out", "model.csv"])
    assert isinstance(result.exception, ConfigError)
    assert str(result.exception).startswith("--out model.csv: a checkpoint is no table")


def test_a_last_batch_of_one_trains_through_a_norm_of_one_value(tmp_path):
    data = coloured(33)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 10)
    )
    trained, checkpoint = run(tmp_path / "a.ckpt", dataclasses.replace(ONE, drop_last=False), model=model, data=data)
    assert checkpoint.history[0]["batches"] == 3
    assert model[2].num_batches_tracked == 2  # the last batch has no statistics of its own
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert isinstance(data, TrainData)
    assert torch.isfinite(trained(torch.randn(2, 3, 32, 32))).all()


def test_preparing_leaves_nothing_behind(tmp_path):
    prepare_output(tmp_path / "new" / "a.bundle")
    assert list((tmp_path / "new").iterdir()) == []
    with pytest.raises(IsADirectoryError):
        prepare_output(tmp_path / "new")
