"""A network, its folded form and its graph in ONNX Runtime give one answer."""

from __future__ import annotations

import numpy as np
import torch
from torch import fx, nn

from seedcnn.export import OnnxModel, fold, to_onnx
from seedcnn.export.bundles import encode_tensors
from seedcnn.runtime.session import open_session

SIZE = (3, 12, 12)


def conv(channels: int = 8) -> nn.Conv2d:
    """A convolution that keeps the size of its maps."""
    return nn.Conv2d(channels, 8, 3, padding=1)


def around(*middle: nn.Module) -> nn.Sequential:
    """A classifier of four classes with the given modules, 8 channels to 8, in its middle."""
    return nn.Sequential(conv(3), *middle, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))


def settled(model: nn.Module, size: tuple[int, int, int] = SIZE) -> nn.Module:
    """The model in eval mode, after some noise has passed through its norms."""
    with torch.no_grad():
        for _ in range(3):
            model.train()(torch.randn(8, *size) + 0.5)
    return model.eval()


def apart(found: object, wanted: object) -> float:
    """The largest difference, as a share of the largest number."""
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert found.shape == wanted.shape
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def exported(
    model: nn.Module, size: tuple[int, int, int] = SIZE, wanted=None, **options
) -> tuple[fx.GraphModule, OnnxModel]:
    """Fold and export; the answers of both forms must be those of the model, or ``wanted(model, x)``."""
    x = torch.randn(3, *size)
    with torch.no_grad():
        expected = model(x) if wanted is None else wanted(model, x)
        folded = fold(model, **options)
        assert apart(folded(x), expected) < 1e-5
    graph = to_onnx(folded, size)
    tensors = {item.entry.name: item.expanded for item in encode_tensors(graph)}
    session = open_session(graph.graph, tensors)
    for part in (x, x[:1]):
        assert apart(session.run(["logits"], {"image": part.numpy()})[0], expected[: len(part)]) < 1e-5
    return folded, graph
