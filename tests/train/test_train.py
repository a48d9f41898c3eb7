"""The loop learns, is reproducible, stops with a reason, and shows and writes its progress."""

from __future__ import annotations

import csv
import importlib.util
import io
import random
import re

import numpy as np
import pytest
import torch
from rich.console import Console
from torch.nn import functional as F

from seedcnn.data.transforms import normalize, random_crop_flip
from seedcnn.errors import ConfigError, MissingExtraError, TrainingError
from seedcnn.progress import Progress
from seedcnn.train import TrainConfig, TrainData, TrainProgress, build_model, load_checkpoint, train
from tests.train.runs import SMALL, changed, coloured, run, same


def test_it_learns_and_keeps_a_history(tmp_path):
    config = changed(epochs=6, batch_size=32, model_options={"widths": (8, 8, 16), "patch": 4})
    _, checkpoint = run(tmp_path / "a.ckpt", config, data=coloured(256))
    assert len(checkpoint.history) == 6
    assert checkpoint.history[-1]["loss"] < 0.5 * checkpoint.history[0]["loss"]
    assert checkpoint.history[-1]["accuracy"] > 60
    assert checkpoint.history[-1]["images_per_s"] > 0


def test_it_is_the_plain_loop(tmp_path):
    """The same bits as a loop written by hand: order and crops from one generator, SGD, a constant learning rate."""
    config = changed(schedule="constant", warmup_epochs=0.0, lr=0.05, momentum=0.9, weight_decay=0.0)
    data = coloured()
    trained, _ = run(tmp_path / "a.ckpt", config, data=data)
    torch.manual_seed(config.seed)
    model = build_model(config).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    images = torch.from_numpy(data.images).permute(0, 3, 1, 2).contiguous()
    for epoch in range(config.epochs):
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
        order = torch.randperm(96, generator=generator)
        for picked in order.split(16):
            x = normalize(random_crop_flip(images[picked], generator), data.mean, data.std)
            logits = model(x.contiguous(memory_format=torch.channels_last))
            optimizer.zero_grad()
            F.cross_entropy(logits, torch.from_numpy(data.labels)[picked]).backward()
            optimizer.step()
    assert same(trained.state_dict(), model.state_dict())


def test_same_config_same_weights_other_seed_other_weights(tmp_path):
    config = changed(random_erasing=0.5, mixup=0.2)
    random.seed(1)
    first = run(tmp_path / "0.ckpt", config)[0].state_dict()
    random.seed(2)
    np.random.seed(2)
    second = run(tmp_path / "1.ckpt", config)[0].state_dict()
    assert same(first, second)
    other = run(tmp_path / "2.ckpt", changed(seed=1))[0].state_dict()
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])
    assert first["stages.0.0.conv1.seed"] != other["stages.0.0.conv1.seed"]


def test_fine_tuning_starts_from_the_weights(tmp_path):
    run(tmp_path / "a.ckpt")
    tuned = changed(epochs=1, lr=1e-9, warmup_lr=1e-10, init_from=str(tmp_path / "a.ckpt"))
    _, checkpoint = run(tmp_path / "tuned.ckpt", tuned)
    before = load_checkpoint(tmp_path / "a.ckpt").model
    torch.testing.assert_close(checkpoint.model["conv1.weight"], before["conv1.weight"])
    assert checkpoint.model["stages.0.0.conv1.seed"] == before["stages.0.0.conv1.seed"]


def test_a_prepared_network_is_trained_instead_of_a_fresh_one(tmp_path):
    prepared = build_model(SMALL)
    torch.nn.init.constant_(prepared.conv1.weight, 0.125)
    model, _ = run(tmp_path / "a.ckpt", changed(epochs=1, lr=1e-9, warmup_lr=1e-10), model=prepared)
    assert model is prepared
    torch.testing.assert_close(model.conv1.weight, torch.full_like(model.conv1.weight, 0.125))


def test_a_loss_that_is_not_finite_stops_with_the_step_and_a_checkpoint(tmp_path):
    config = changed(lr=1e12, warmup_epochs=0.0, convert=None)
    with pytest.raises(TrainingError, match=r"loss is (nan|inf) in epoch \d+, step \d+ of 6 \(images \[\d+") as told:
        run(tmp_path / "a.ckpt", config)
    assert "8 more" in str(told.value)
    assert "a.stopped.ckpt" in str(told.value)
    stopped = load_checkpoint(tmp_path / "a.stopped.ckpt")
    (pictures,) = stopped.partial["pictures"].values()
    assert len(pictures) == len(set(pictures)) == 16
    assert stopped.step == stopped.partial["seen"] / 16 < 6


def test_what_stood_stays_when_the_loss_is_not_finite(tmp_path):
    run(tmp_path / "a.ckpt", changed(epochs=1))
    before = (tmp_path / "a.ckpt").read_bytes()
    bad = coloured()
    broken = TrainData(bad.images, bad.labels, bad.mean, (1e-45, 1e-45, 1e-45))
    with pytest.raises((TrainingError, ValueError)):
        run(tmp_path / "a.ckpt", changed(epochs=1), data=broken)
    assert (tmp_path / "a.ckpt").read_bytes() == before


def test_data_that_do_not_fit(tmp_path):
    path = tmp_path / "a.ckpt"
    with pytest.raises(ConfigError, match=r"batch_size \(=1000\) exceeds the 96 training images"):
        run(path, changed(batch_size=1000))
    with pytest.raises(ConfigError, match="there are no training images"):
        run(path, data=coloured(0))
    with pytest.raises(ConfigError, match="the network has 5 classes, but there is a label 9"):
        run(path, changed(model_options={**SMALL.model_options, "num_classes": 5}))
    small = coloured()
    small = TrainData(small.images[:, :6, :6].copy(), small.labels, small.mean, small.std)
    with pytest.raises(ConfigError, match="the network cannot take images of 6x6"):
        run(path, data=small)
    assert not path.exists()


def test_progress_without_a_terminal_writes_one_line_an_epoch(tmp_path, capsys):
    train(SMALL, coloured(), tmp_path / "p.ckpt", name="lines", device="cpu", validate=lambda network: 12.5)
    lines = [line for line in capsys.readouterr().err.splitlines() if "images/s" in line]  # on a busy machine, others
    assert len(lines) == 2
    for word in ("lines: epoch 2/2", "loss", "train accuracy", "validation 12.50 %", "images/s", "0 s left"):
        assert word in lines[1]


@pytest.mark.parametrize("width", [40, 80, 160])
def test_in_a_terminal_the_epochs_stay_above_a_bar(tmp_path, width):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=width, color_system=None)
    shown = TrainProgress("a network", 2, 6, progress=Progress(console, soon=0.0))
    train(SMALL, coloured(), tmp_path / "p.ckpt", progress=shown, device="cpu", validate=lambda network: 12.5)
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\n", screen.getvalue()).splitlines()
    assert max(map(len, lines)) <= width
    text = " ".join(" ".join(lines).split())
    for epoch in (1, 2):
        assert text.count(f"a network: epoch {epoch}/2 loss") == 1
    assert text.count("validation 12.50 %") == 2
    assert "/12" in text  # the bar counts the batches of all epochs


def test_the_epochs_stand_in_a_table_beside_the_checkpoint(tmp_path):
    _, state = run(tmp_path / "a.ckpt")
    with open(tmp_path / "a.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    for row, kept in zip(rows, state.history, strict=True):
        assert {name: float(value) for name, value in row.items() if name != "epoch"} == kept
    assert set(rows[0]) >= {"epoch", "loss", "accuracy", "images_per_s", "seconds", "cpu_seconds", "lr", "batches"}
    assert all(float(row["cpu_seconds"]) > 0 for row in rows)


def test_tensorboard_is_optional(tmp_path):
    options = {"tensorboard": tmp_path / "events"}
    if importlib.util.find_spec("tensorboard") is None:
        with pytest.raises(MissingExtraError, match="tensorboard is not installed"):
            run(tmp_path / "a.ckpt", changed(epochs=1), **options)
        assert not (tmp_path / "a.ckpt").exists()
    else:
        run(tmp_path / "a.ckpt", changed(epochs=1), **options)
        assert list((tmp_path / "events").glob("events.out.*"))


def test_images_with_one_label_cannot_train_a_network_for_masks(tmp_path):
    config = TrainConfig("fpn_resnet18", {"width": 0.125, "pyramid": 16}, epochs=1, batch_size=16)
    with pytest.raises(ConfigError, match="fpn_resnet18 is a network for segmentation; images with one label each"):
        run(tmp_path / "a.ckpt", config)
