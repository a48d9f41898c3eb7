"""Checkpoints: no file is lost, the last ones and the best are kept, and other formats are refused."""

from __future__ import annotations

import dataclasses
import json
import resource

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from seedcnn.convert import GroupNLConfig
from seedcnn.errors import ConfigError, TrainingError
from seedcnn.train import Checkpoint, TrainConfig, build_model, load_checkpoint, load_model, override, save_checkpoint
from tests.train.runs import SMALL, changed, run, same


def test_load_model_gives_the_trained_network(tmp_path):
    model, checkpoint = run(tmp_path / "a.ckpt", changed(epochs=1))
    torch.manual_seed(123)
    expected_next = torch.rand(1)
    torch.manual_seed(123)
    loaded, again = load_model(tmp_path / "a.ckpt")
    assert torch.equal(torch.rand(1), expected_next)  # loading draws nothing from the global generator
    x = torch.rand(2, 3, 32, 32)
    assert not loaded.training
    torch.testing.assert_close(loaded(x), model.eval()(x))
    assert again.config == checkpoint.config


def test_files_that_cannot_be_read_or_written(tmp_path):
    with pytest.raises(TrainingError, match="there is no checkpoint"):
        load_checkpoint(tmp_path / "none.ckpt")
    (tmp_path / "bad.ckpt").write_bytes(b"not a checkpoint at all")
    with pytest.raises(TrainingError, match="is not a checkpoint of seedcnn"):
        load_checkpoint(tmp_path / "bad.ckpt")
    state = Checkpoint(SMALL, 0, build_model(SMALL).state_dict())
    save_checkpoint(tmp_path / "a.ckpt", state)
    whole = (tmp_path / "a.ckpt").read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TrainingError, match="is damaged"):
        load_checkpoint(tmp_path / "cut.ckpt")
    with pytest.raises(TrainingError, match="cannot be written"):
        save_checkpoint(tmp_path / "a.ckpt" / "inside.ckpt", state)
    with pytest.raises(ConfigError, match=r"a\.ckpt do not fit the network; .*unexpected"):
        run(tmp_path / "b.ckpt", changed(convert=None, init_from=str(tmp_path / "a.ckpt")))


def test_a_checkpoint_with_fewer_fields_loads(tmp_path):
    """Fields of the config, step, world, rng and ema have defaults."""
    fields = (
        "format model model_options convert epochs batch_size lr optimizer momentum weight_decay schedule warmup_epochs"
    )
    fields += " warmup_lr min_lr label_smoothing augment channels_last init_from seed"
    config = {name: value for name, value in SMALL.to_dict().items() if name in fields.split()}
    assert len(config) == 19
    meta = {"config": config, "epoch": 3, "history": [{"loss": 1.0}]}
    tensors = {f"model.{name}": value.contiguous() for name, value in build_model(SMALL).state_dict().items()}
    tensors["optimizer.0.momentum_buffer"] = torch.ones(3)
    save_file(tensors, tmp_path / "old.ckpt", {"seedcnn.checkpoint": json.dumps(meta)})
    model, found = load_model(tmp_path / "old.ckpt")
    assert (found.config, found.epoch, found.step, found.world, found.best) == (SMALL, 3, 0, 1, None)
    assert same(model.state_dict(), found.model)
    assert found.optimizer.keys() == {"0.momentum_buffer"}


def test_a_checkpoint_of_another_format_is_refused(tmp_path):
    """Also one that is no training config of this version: the sentence names the file and the field."""
    tensors = {f"model.{name}": value.contiguous() for name, value in build_model(SMALL).state_dict().items()}
    plain = SMALL.to_dict()
    for config, words in [
        (plain | {"format": "seedcnn-config/2"}, r"a training config has the format 'seedcnn-config/2'; this version"),
        ({name: value for name, value in plain.items() if name != "format"}, "a training config names no format"),
        (plain | {"epoch": 3}, "TrainConfig has no field 'epoch'; did you mean epochs"),
        (plain | {"augment": "maybe"}, r"augment \(='maybe'\) is unknown; known: none, crop, shift2"),
    ]:
        meta = {"config": config, "epoch": 3, "history": []}
        save_file(tensors, tmp_path / "a.ckpt", {"seedcnn.checkpoint": json.dumps(meta)})
        with pytest.raises(ConfigError, match=rf"checkpoint .*a\.ckpt: {words}"):
            load_checkpoint(tmp_path / "a.ckpt")


@pytest.mark.parametrize(("value", "augment", "flip"), [(True, "crop", "random"), (False, "none", "random")])
def test_augmentation_of_an_older_checkpoint_was_a_truth_value(value, augment, flip):
    found = TrainConfig.from_dict(SMALL.to_dict() | {"augment": value, "flip": True})
    assert (found.augment, found.flip) == (augment, flip)
    found = TrainConfig.from_dict(SMALL.to_dict() | {"augment": True, "flip": False})
    assert (found.augment, found.flip) == ("crop", "none")


def test_a_field_without_effect_in_an_older_checkpoint_is_its_default(tmp_path):
    """Earlier versions accepted it; now a new config with it is refused."""
    config = changed(convert=GroupNLConfig(sparse=True, nlf_groups=2))
    tensors = {f"model.{name}": value.contiguous() for name, value in build_model(config).state_dict().items()}
    plain = config.to_dict()
    plain["convert"]["groups"] = 4
    with pytest.raises(ConfigError, match=r"groups \(=4\) has no effect with sparse=True"):
        TrainConfig.from_dict(plain)
    save_file(
        tensors, tmp_path / "a.ckpt", {"seedcnn.checkpoint": json.dumps({"config": plain, "epoch": 3, "history": []})}
    )
    assert load_model(tmp_path / "a.ckpt")[1].config == config


def test_a_run_with_typed_options_resumes(tmp_path):
    """JSON knows no tuples: the config of such a checkpoint once differed from the config that it was made with."""
    config = override(changed(epochs=1), ["model_options.widths=[4,4,8]", "model_options.zero_init_residual=no"])
    _, first = run(tmp_path / "a.ckpt", config)
    _, again = run(tmp_path / "a.ckpt", config, resume=True)
    assert same(first.model, again.model)


def test_the_file_is_safetensors_and_json(tmp_path):
    run(tmp_path / "a.ckpt", changed(epochs=1, ema=0.5))
    with safe_open(tmp_path / "a.ckpt", framework="np") as file:
        meta = json.loads(file.metadata()["seedcnn.checkpoint"])
        parts = {key.partition(".")[0] for key in file.keys()}  # noqa: SIM118
    assert parts == {"model", "optimizer", "ema", "rng"}
    assert (meta["epoch"], meta["step"], meta["world"]) == (1, 0, 1)


def test_the_last_ones_and_the_best_are_kept(tmp_path):
    accuracy = iter([10.0, 30.0, 20.0, 30.0])
    config = changed(epochs=4)
    _, state = run(tmp_path / "a.ckpt", config, keep=2, validate=lambda network: next(accuracy))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["a.best.ckpt", "a.ckpt", "a.csv", "a.epoch0003.ckpt", "a.epoch0004.ckpt"]
    assert (tmp_path / "a.ckpt").read_bytes() == (tmp_path / "a.epoch0004.ckpt").read_bytes()
    best = load_checkpoint(tmp_path / "a.best.ckpt")
    assert (best.epoch, best.best, state.best) == (2, 30.0, 30.0)
    assert [row["validation"] for row in state.history] == [10.0, 30.0, 20.0, 30.0]


def test_a_full_disk_loses_nothing_that_stood(tmp_path):
    """A real limit of the size of files: the write of the second checkpoint breaks off in the middle."""
    path = tmp_path / "a.ckpt"
    save_checkpoint(path, Checkpoint(SMALL, 1, build_model(SMALL).state_dict()))
    stood = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(stood) // 2, hard))
    try:
        with pytest.raises(TrainingError, match=r"a\.ckpt cannot be written.*File too large"):
            run(path, changed(epochs=1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == stood
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.ckpt"]


def test_the_moving_average_is_what_is_used(tmp_path):
    model, state = run(tmp_path / "a.ckpt", changed(ema=0.9))
    assert same(state.weights, state.ema)
    assert not torch.equal(state.ema["conv1.weight"], state.model["conv1.weight"])
    assert same(model.state_dict(), load_model(tmp_path / "a.ckpt")[0].state_dict())
    assert torch.equal(model.conv1.weight, state.ema["conv1.weight"])
    tuned = changed(epochs=1, lr=1e-12, warmup_lr=0.0, weight_decay=0.0, init_from=str(tmp_path / "a.ckpt"))
    _, after = run(tmp_path / "b.ckpt", tuned)
    torch.testing.assert_close(after.model["conv1.weight"], state.ema["conv1.weight"])


def test_wrong_numbers_are_refused(tmp_path):
    for options in ({"keep": 0}, {"save_steps": -1}):
        with pytest.raises(ConfigError, match=r"keep \(=\d\) must be at least 1"):
            run(tmp_path / "a.ckpt", dataclasses.replace(SMALL), **options)
