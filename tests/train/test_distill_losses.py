"""The losses of distillation, by hand in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from seedcnn.train.distill import logit_loss, soft_loss, stage_loss


def softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def test_logit_loss_by_hand():
    """Hinton et al., 2015: the soft part at temperature T, times T squared."""
    rng = np.random.default_rng(0)
    s, t = rng.normal(size=(5, 4)) * 3, rng.normal(size=(5, 4)) * 3
    p, q = softmax(t / 2.5), softmax(s / 2.5)
    divergence = (p * (np.log(p) - np.log(q))).sum(1).mean()
    expected = 0.3 * 1.75 + 0.7 * 2.5**2 * divergence
    got = logit_loss(torch.tensor(s), torch.tensor(t), torch.tensor(1.75, dtype=torch.float64), 2.5, 0.7)
    assert float(got) == pytest.approx(expected, rel=1e-12)


def test_soft_loss_by_hand():
    rng = np.random.default_rng(1)
    s, t = rng.normal(size=(5, 4)) * 3, rng.normal(size=(5, 4)) * 3
    for temperature in (1.0, 3.0):
        expected = -(softmax(t / temperature) * np.log(softmax(s / temperature))).sum(1).mean()
        assert float(soft_loss(torch.tensor(s), torch.tensor(t), temperature)) == pytest.approx(expected, rel=1e-12)


def test_stage_loss_by_hand():
    rng = np.random.default_rng(2)
    shapes = [(2, 3, 4, 4), (2, 5, 2, 2)]
    ours, theirs = ([rng.normal(size=shape) for shape in shapes] for _ in range(2))
    each = [((a - b) ** 2).mean() for a, b in zip(ours, theirs, strict=True)]
    tensors = [[torch.tensor(x) for x in xs] for xs in (ours, theirs)]
    assert float(stage_loss(*tensors)) == pytest.approx(sum(each) / 2, rel=1e-12)
    assert float(stage_loss(*tensors, mean=False)) == pytest.approx(sum(each), rel=1e-12)


def test_gradients_are_right_and_reach_the_student_alone():
    generator = torch.Generator().manual_seed(3)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True)

    s, t, maps, taught = random(3, 4), random(3, 4), random(2, 3, 2, 2), random(2, 3, 2, 2)
    hard = random(1).sum()
    losses = {
        logit_loss: lambda x: logit_loss(x, t, hard, 3.0, 0.6),
        soft_loss: lambda x: soft_loss(x, t),
        stage_loss: lambda x: stage_loss([x, 2 * x], [taught, taught]),
    }
    for function, loss in losses.items():
        x = maps if function is stage_loss else s
        assert torch.autograd.gradcheck(loss, (x,))
        loss(x).backward()
        assert x.grad.abs().sum() > 0
    assert t.grad is None
    assert taught.grad is None


def test_stage_losses_that_cannot_be():
    x, y = torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 2, 2)
    for ours, theirs, words in (
        ([], [], "has 0 stages"),
        ([x], [x, x], "has 1 stages and `teacher` 2"),
        ([x, x], [x, y], r"stage 1: maps \(1, 2, 4, 4\) and \(1, 2, 2, 2\)"),
    ):
        with pytest.raises(ValueError, match=words):
            stage_loss(ours, theirs)
