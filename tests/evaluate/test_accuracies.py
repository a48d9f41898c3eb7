"""Accuracy of small known predictors, and every way a predictor or a label can be wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from seedcnn.errors import DataError
from seedcnn.evaluate.accuracies import accuracy, accuracy_of_logits, predict_logits, top_mask, torch_predictor


def by_first_pixel(images):
    """Predicts the class written in the first pixel, of four."""
    return np.eye(4, dtype=np.float32)[images[:, 0, 0, 0]]


@pytest.fixture
def images():
    pictures = np.zeros((10, 4, 4, 3), np.uint8)
    pictures[:, 0, 0, 0] = [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    return pictures


LABELS = [0, 1, 2, 3, 0, 1, 2, 0, 1, 2]  # the last three disagree


def test_accuracy(images):
    result = accuracy(by_first_pixel, images, LABELS)
    assert result.top1 == pytest.approx(70)
    assert result.n == 10
    assert result.standard_error == pytest.approx(100 * (0.7 * 0.3 / 10) ** 0.5)
    assert result.correct.tolist() == [True] * 7 + [False] * 3


@pytest.mark.parametrize("batch_size", [1, 3, 10, 500])
def test_batches_do_not_matter(images, batch_size):
    sizes = []

    def counting(batch):
        sizes.append(len(batch))
        return by_first_pixel(batch)

    result = accuracy(counting, images, np.array(LABELS, np.uint8), batch_size=batch_size, num_classes=4)
    assert result.top1 == pytest.approx(70)
    assert max(sizes) == min(batch_size, 10)
    assert sum(sizes) == 10
    logits = predict_logits(by_first_pixel, images, batch_size)
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(logits, by_first_pixel(images))


def test_nan_is_refused_and_located(images):
    def broken(batch):
        logits = by_first_pixel(batch)
        logits[batch[:, 0, 0, 0] == 3, 2] = np.nan
        return logits

    for batch_size in (2, 10):
        with pytest.raises(DataError, match="logits for image 3 hold NaN"):
            accuracy(broken, images, LABELS, batch_size=batch_size)
    with pytest.raises(DataError, match="logits for image 103 hold NaN"):
        predict_logits(broken, images, 2, first=100)


def growing(batch):
    return np.zeros((len(batch), 4 + len(batch)), np.float32)


@pytest.mark.parametrize(
    ("predict", "words"),
    [
        (lambda batch: by_first_pixel(batch)[:-1], r"answers float32 \(3, 4\); expected .* \[4, classes\]"),
        (lambda batch: by_first_pixel(batch)[:, 0], r"answers float32 \(4,\)"),
        (lambda batch: by_first_pixel(batch).astype(int), "answers int64"),
        (lambda batch: by_first_pixel(batch)[:, :0], r"answers float32 \(4, 0\)"),
        (growing, "answers 6 classes from image 8 on, but 8 before"),
    ],
)
def test_answers_of_a_wrong_form(images, predict, words):
    with pytest.raises(DataError, match=words):
        accuracy(predict, images, LABELS, batch_size=4)


def test_labels_out_of_range(images):
    with pytest.raises(DataError, match="label of image 5 is 4; the model answers 4 classes"):
        accuracy(by_first_pixel, images, [0, 0, 0, 0, 0, 4, 0, 0, 0, 9])
    with pytest.raises(DataError, match="label of image 1 is -1"):
        accuracy(by_first_pixel, images, [0, -1, 0, 0, 0, 0, 0, 0, 0, 0])


def test_class_count_mismatch(images):
    with pytest.raises(DataError, match="answers 4 classes; the data have 10"):
        accuracy(by_first_pixel, images, LABELS, num_classes=10)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": [0, 1]}, r"`labels` is int64 \(2,\); it must be integers \[10\]"),
        ({"labels": [0.5] * 10}, "`labels` is float64"),
        ({"images": np.zeros((10, 4, 4), np.uint8)}, r"`images` is uint8 \(10, 4, 4\)"),
        ({"images": np.zeros((10, 4, 4, 3))}, "`images` is float64"),
        ({"images": np.zeros((0, 4, 4, 3), np.uint8), "labels": []}, "`images` is empty"),
        ({"batch_size": 0}, r"`batch_size` \(=0\)"),
    ],
)
def test_wrong_arguments(images, change, words):
    with pytest.raises(ValueError, match=words):
        accuracy(by_first_pixel, **{"images": images, "labels": LABELS, **change})


class Net(nn.Module):
    """Linear on the channel means, after a BatchNorm whose statistics tell training from eval mode."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.frozen = nn.BatchNorm2d(3).eval()
        self.fc = nn.Linear(3, 5)

    def forward(self, x):
        if not torch.is_inference_mode_enabled() or self.training:
            raise RuntimeError("must run in eval and inference mode")
        return self.fc(self.frozen(self.norm(x)).mean((2, 3)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_torch_predictor(dtype):
    torch.manual_seed(0)
    net = Net().to(dtype)
    pictures = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    pictures.setflags(write=False)
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    logits = torch_predictor(net, mean, std)(pictures)
    assert logits.dtype == np.float32
    assert logits.shape == (6, 5)
    pixels = (pictures / 255 - mean) / std
    features = pixels.mean(axis=(1, 2)) / (1 + 1e-5)  # two BatchNorms at their initial statistics
    weight, bias = (p.detach().double().numpy() for p in (net.fc.weight, net.fc.bias))
    tolerance = 0.05 if dtype == torch.bfloat16 else 1e-5
    np.testing.assert_allclose(logits, features @ weight.T + bias, atol=tolerance)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net.training
    assert net.norm.training
    assert not net.frozen.training


def test_torch_predictor_restores_the_flags_after_an_error():
    class Broken(nn.Linear):
        def forward(self, x):
            raise RuntimeError(f"no {tuple(x.shape)}")

    net = Broken(3, 3).train()
    with pytest.raises(RuntimeError, match=r"no \(1, 3, 4, 4\)"):
        torch_predictor(net, (0,) * 3, (1,) * 3)(np.zeros((1, 4, 4, 3), np.uint8))
    assert net.training


def test_top5_against_a_plain_loop():
    rng = np.random.default_rng(0)
    logits = rng.integers(0, 4, (200, 9)).astype(np.float32)  # with many equal ones
    labels = rng.integers(0, 9, 200)
    wanted = [label in np.argsort(-row, kind="stable")[:5] for row, label in zip(logits, labels, strict=True)]
    found = accuracy_of_logits(logits, labels)
    assert found.top5 == pytest.approx(100 * np.mean(wanted))
    assert found.top1 < found.top5 < 100
    np.testing.assert_array_equal(top_mask(logits, labels, 1), found.correct)


def test_top5_needs_more_than_five_classes():
    labels = np.array([0, 4])
    assert accuracy_of_logits(np.eye(5, dtype=np.float32)[[0, 1]], labels).top5 is None
    assert accuracy_of_logits(np.eye(6, dtype=np.float32)[[0, 1]], labels).top5 == 100
