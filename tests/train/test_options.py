"""Every option of the engine has the effect it promises."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from seedcnn.convert import MonoConfig
from seedcnn.errors import ConfigError
from seedcnn.sampling.schedules import SamplingConfig
from seedcnn.train import TrainConfig, build_model
from seedcnn.train.distill_config import DistillConfig
from seedcnn.train.updates import Update
from tests.train.runs import SMALL, changed, coloured, run


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The last loss of the run without any option."""
    return run(tmp_path_factory.mktemp("plain") / "a.ckpt")[1].history[-1]["loss"]


@pytest.mark.parametrize(
    "change",
    [
        {"lr": 0.01},
        {"batch_size": 8},
        {"momentum": 0.5},
        {"weight_decay": 0.1},
        {"decay_norms": True, "weight_decay": 0.1},
        {"schedule": "constant"},
        {"schedule": "multistep", "decay_epochs": (1,)},
        {"schedule": "step", "decay_epochs": (1,)},
        {"schedule": "poly", "decay_rate": 2.0},
        {"warmup_epochs": 2.0},
        {"warmup_lr": 0.05},
        {"min_lr": 0.05},
        {"lr_base_batch": 32},
        {"label_smoothing": 0.2},
        {"augment": "none"},
        {"random_erasing": 0.5},
        {"mixup": 0.5},
        {"cutmix": 0.5},
        {"grad_accumulation": 2},
        {"clip_grad": 0.1},
        {"optimizer": "adamw"},
        {"cooldown_epochs": 1},
        {"lr_noise": (0.0,)},
        {"precision": "bf16"},
        {"precision": "fp16"},
        {"seed": 1},
        {"convert": None},
        {"convert": MonoConfig()},
        {"model_options": {"widths": (4, 8, 8), "patch": 8}},
        {"sampling": SamplingConfig.flat(0.5)},
    ],
    ids=lambda change: ",".join(f"{k}={v}" for k, v in change.items())[:40],
)
def test_every_field_has_an_effect(tmp_path, plain, change):
    assert run(tmp_path / "b.ckpt", changed(**change))[1].history[-1]["loss"] != plain


@pytest.mark.parametrize("change", [{"ema": 0.5}, {"deterministic": True}, {"channels_last": False}], ids=str)
def test_what_changes_no_step(tmp_path, change):
    """The moving average is kept beside the weights; the other two select kernels, which may round differently."""
    slow = {"epochs": 1, "lr": 1e-5, "warmup_lr": 0.0}
    plain, other = (run(tmp_path / "a.ckpt", changed(**slow, **more))[1].history[0]["loss"] for more in ({}, change))
    assert other == pytest.approx(plain, rel=1e-4)
    assert not torch.are_deterministic_algorithms_enabled()


class Linear(nn.Module):
    """A network without norms: the mean gradient of two batches is that of their union."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3 * 32 * 32, 10)
        nn.init.zeros_(self.fc.weight)
        nn.init.zeros_(self.fc.bias)

    def forward(self, images):
        return self.fc(images.flatten(1))


def test_accumulated_batches_are_one_large_batch(tmp_path):
    fixed = {"convert": None, "augment": "none", "epochs": 1, "warmup_epochs": 0.0, "lr": 1e-4}
    large = run(tmp_path / "a.ckpt", changed(**fixed, batch_size=32), model=Linear())[0]
    small = run(tmp_path / "b.ckpt", changed(**fixed, batch_size=8, grad_accumulation=4), model=Linear())[0]
    size = large.fc.weight.abs().max()
    assert (large.fc.weight - small.fc.weight).abs().max() < 1e-3 * size
    alone = run(tmp_path / "c.ckpt", changed(**fixed, batch_size=8), model=Linear())[0]
    assert (large.fc.weight - alone.fc.weight).abs().max() > 0.1 * size


def test_clipped_gradients(tmp_path):
    """One update of plain gradient descent moves the weights by the learning rate times the norm of the gradient."""
    fixed = {"convert": None, "epochs": 1, "batch_size": 96, "warmup_epochs": 0.0, "schedule": "constant"}
    config = changed(**fixed, optimizer="momentum", lr=0.5, momentum=0.0, weight_decay=0.0, clip_grad=1e-3)
    network = Linear()
    before = nn.utils.parameters_to_vector(network.parameters()).detach().clone()
    run(tmp_path / "a.ckpt", config, model=network)
    moved = nn.utils.parameters_to_vector(network.parameters()).detach() - before
    assert moved.norm().item() == pytest.approx(0.5 * 1e-3, rel=1e-3)


@pytest.mark.parametrize("everywhere", [False, True])
def test_what_is_decayed(everywhere):
    config = changed(decay_norms=everywhere, weight_decay=0.01)
    model = build_model(config)
    update = Update(config, model, model, 10, 1, torch.device("cpu"))
    decayed = {id(p) for g in update.optimizer.param_groups if g["weight_decay"] for p in g["params"]}
    names = {name for name, p in model.named_parameters() if id(p) in decayed}
    every = {name for name, p in model.named_parameters()}
    assert names == (every if everywhere else {name for name, p in model.named_parameters() if p.ndim > 1})
    assert len(every) > len([p for p in model.parameters() if p.ndim > 1])
    assert {id(p) for g in update.optimizer.param_groups for p in g["params"]} == {id(p) for p in model.parameters()}


def test_reduced_sampling_takes_the_first_batches_and_says_what_it_saves(tmp_path, capsys):
    from seedcnn.train import train

    sampling = SamplingConfig((1.0, 0.5, 0.5), (0.5, 0.0))
    config = changed(epochs=4, sampling=sampling)
    _, state = train(config, coloured(), tmp_path / "a.ckpt", name="lines", device="cpu")
    assert [row["batches"] for row in state.history] == [6, 6, 3, 3]
    full = run(tmp_path / "b.ckpt", changed(epochs=4))[1]
    assert [row["loss"] for row in state.history[:2]] == [row["loss"] for row in full.history[:2]]
    text = capsys.readouterr().err
    assert "predicted time of the training steps: 0.7500" in text
    assert "probability that an image is never drawn" in text
    assert "time ratio predicted 0.7500, measured" in text
    run(tmp_path / "c.ckpt", changed(sampling=SamplingConfig.flat(0.5)))


def test_the_last_batch_is_kept_if_wanted(tmp_path):
    config = changed(epochs=1, batch_size=20, drop_last=False)
    _, state = run(tmp_path / "a.ckpt", config)
    assert state.history[0]["batches"] == 5  # 96 images: four batches of 20 and one of 16
    dropped = run(tmp_path / "b.ckpt", replace(config, drop_last=True))[1]
    assert dropped.history[0]["batches"] == 4
    half = replace(config, sampling=SamplingConfig.flat(0.5))
    assert run(tmp_path / "c.ckpt", half)[1].history[0]["batches"] == 2


def test_a_ratio_that_leaves_no_batch(tmp_path):
    with pytest.raises(ConfigError, match=r"sampling of 6 batches of 16 per epoch: `ratio` \(=1/10\) of 6"):
        run(tmp_path / "a.ckpt", changed(sampling=SamplingConfig.flat(0.1)))


def test_distillation_trains_the_student_and_its_projections(tmp_path):
    teacher, _ = run(tmp_path / "teacher.ckpt", changed(convert=None, epochs=1))
    config = changed(epochs=1, distill=DistillConfig(str(tmp_path / "teacher.ckpt")))
    by_path = run(tmp_path / "a.ckpt", config)[1]
    given = run(tmp_path / "b.ckpt", changed(epochs=1, distill=DistillConfig()), teacher=teacher)[1]
    assert by_path.history[0]["loss"] == given.history[0]["loss"]
    assert by_path.history[0]["loss"] != run(tmp_path / "c.ckpt", changed(epochs=1))[1].history[0]["loss"]
    wide = build_model(changed(convert=None, model_options={"widths": (8, 8, 8), "patch": 8}))
    stages = changed(distill=DistillConfig(kind="stagewise"))
    whole = run(tmp_path / "d.ckpt", stages, teacher=wide)
    assert sorted(whole[1].task) == ["projections.0.weight", "projections.1.weight"]
    assert not any(module._forward_hooks for module in whole[0].modules())
    with pytest.raises(ConfigError, match="there is a teacher, but distill is None"):
        run(tmp_path / "e.ckpt", SMALL, teacher=wide)
    with pytest.raises(ConfigError, match=r"distill\.teacher names no checkpoint"):
        run(tmp_path / "e.ckpt", stages)


def test_a_network_of_timm(tmp_path):
    config = TrainConfig("mobilenetv3_small_050", {"num_classes": 10}, epochs=1, batch_size=32, drop_path=0.1)
    with torch.random.fork_rng(devices=[]):
        _, state = run(tmp_path / "a.ckpt", config)
    assert state.history[0]["loss"] > 0


def test_a_network_of_timm_without_stochastic_depth_trains(tmp_path):
    options = {"growth_rate": 4, "block_config": (1, 1, 1, 1), "num_classes": 10}
    config = changed(model="densenet121", model_options=options, convert=None, epochs=1)
    model, checkpoint = run(tmp_path / "a.ckpt", config)
    assert checkpoint.history[0]["batches"] == 6
    assert not torch.equal(model.classifier.weight, build_model(config).classifier.weight)
