"""Distillation within a run: smoothed and mixed labels, the images of the teacher, and cached logits."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from seedcnn.errors import ConfigError
from seedcnn.processes import open_processes
from seedcnn.train import DistillConfig, build_model
from seedcnn.train._run import Run
from tests.train.runs import changed, coloured, run
from tests.train.test_distill import walk

LOGITS = DistillConfig(temperature=2.0, alpha=0.25)
STAGEWISE = DistillConfig(kind="stagewise")
AUGMENTATIONS = [
    {"augment": "crop"},
    {"augment": "prime"},
    {"noise": 0.1},
    {"random_erasing": 0.5},
    {"mixup": 0.2},
    {"cutmix": 0.5},
]


@pytest.fixture
def teacher():
    return build_model(changed(convert=None, seed=7)).eval()


def by_hand(config, student, teacher, images, targets, smoothing):
    """The loss of a batch, written out."""
    logits, maps = walk(student, images)
    with torch.no_grad():
        taught, taught_maps = walk(teacher, images)
    hard = F.cross_entropy(logits, targets, label_smoothing=smoothing)
    if config.kind == "stagewise":
        stages = sum(F.mse_loss(a, b) for a, b in zip(maps, taught_maps, strict=True)) / len(maps)
        return hard + F.cross_entropy(logits, taught.softmax(1)) + stages
    soft = F.kl_div((logits / 2).log_softmax(1), (taught / 2).log_softmax(1), reduction="batchmean", log_target=True)
    return 0.75 * hard + 0.25 * 4 * soft


@pytest.mark.parametrize("distill", [LOGITS, STAGEWISE], ids=["logits", "stagewise"])
@pytest.mark.parametrize("mixed", [{}, {"mixup": 0.8}, {"cutmix": 1.0}, {"mixup": 0.8, "cutmix": 1.0}], ids=str)
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_labels_are_smoothed_once_and_the_teacher_sees_the_mixed_pictures(teacher, distill, mixed, smoothing):
    config = changed(distill=distill, label_smoothing=smoothing, augment="none", **mixed)
    with open_processes("cpu") as processes:
        task = Run(config, coloured(), processes, model=None, teacher=copy.deepcopy(teacher), workers=0)
        task.task.train()
        images, labels, indices = next(iter(task.batches.epoch(0, 0, 1)))
        student, plain = copy.deepcopy(task.model), images.clone()
        np.random.seed(3)
        loss, _ = task.loss(images, labels, indices)
        targets = labels
        if task.mixup is not None:
            np.random.seed(3)
            plain, targets = task.mixup(plain, labels)
            assert targets.shape == (16, 10)
            assert targets.min().item() == pytest.approx(smoothing / 10, abs=1e-7)
    expected = by_hand(distill, student, teacher, plain, targets, 0.0 if mixed else smoothing)
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("change", AUGMENTATIONS, ids=lambda change: next(iter(change)))
def test_kept_logits_and_changing_pictures_are_refused(change):
    (name,) = change
    with pytest.raises(ConfigError, match=rf"distill\.cache needs images .* every epoch; it contradicts {name}="):
        changed(distill=DistillConfig(cache=True), **{"augment": "none"} | change)


def test_kept_logits_change_no_step(tmp_path, teacher):
    """With a cache the teacher sees other batches, so its logits may be rounded differently."""
    asked = []
    teacher.register_forward_hook(lambda module, arguments, output: asked.append(len(output)))
    histories = []
    for cache in (False, True):
        config = changed(distill=DistillConfig(cache=cache), augment="none", epochs=3)
        asked.clear()
        histories.append(run(tmp_path / f"{cache}.ckpt", config, teacher=teacher)[1].history)
        assert sum(asked) - 1 == (96 if cache else 3 * 96)  # one black image determines the shapes
    plain, cached = ([row["loss"] for row in history] for history in histories)
    assert cached == pytest.approx(plain, rel=1e-4)
