"""Results in a notebook: tables and sentences, and short lines without arrays."""

from __future__ import annotations

import numpy as np
from torch import nn

from seedcnn.evaluate import accuracy_of_logits, cost, robustness

IMAGES = np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), np.uint8)
LABELS = np.arange(24) % 3


def by_brightness(images):
    """Logits [N, 3] from the mean of each channel."""
    return images.mean((1, 2)).astype(np.float32)


def test_an_accuracy_is_a_sentence():
    found = accuracy_of_logits(by_brightness(IMAGES), LABELS)
    assert repr(found) == f"Accuracy(top1={found.top1:.2f} ± {found.standard_error:.2f} %, n=24)"
    sentence = f"<p>Top-1 accuracy {found.top1:.2f} ± {found.standard_error:.2f} %, of 24 images</p>"
    assert found._repr_html_() == sentence
    many = accuracy_of_logits(np.eye(8, dtype=np.float32), np.arange(8))
    assert "top5=100.00" in repr(many)
    assert "top-5 100.00 %" in many._repr_html_()


def test_costs_are_a_table_with_the_layers_below():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2))
    found = cost(model, (3, 8, 8))
    assert repr(found).startswith("Cost(params=402, fixed=0, macs=4,176 (conv-linear), nlf_evals=0, fp32_bytes=1,608, ")
    html = found._repr_html_()
    assert '<td>MACs (conv-linear)</td><td style="text-align: right">4,176</td>' in html
    assert "<summary>2 layers</summary>" in html
    assert "<td>Conv2d</td>" in html
    assert "4x6x6" in html


def test_robustness_is_a_table_of_corruptions_and_severities():
    found = robustness(by_brightness, IMAGES, LABELS, corruptions=("contrast", "gaussian_noise"), severities=(1, 5))
    mean = f"{found.mean_over_corruptions:.2f} ± {found.standard_error:.2f} % under 2 corruptions at 2 severities"
    assert repr(found) == f"RobustnessTable({mean}, clean {found.clean:.2f} %, n=24, constants='cifar', seed=0)"
    html = found._repr_html_()
    assert "<th>severity 1</th><th>severity 5</th><th>mean</th>" in html
    low, high = found.accuracies["contrast"]
    assert f"<td>{low:.2f}</td><td>{high:.2f}</td><td>{(low + high) / 2:.2f}</td>" in html
    assert "mce" not in html.lower()  # not over a subset
