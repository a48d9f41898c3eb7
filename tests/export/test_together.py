"""Networks exported in one call against the same networks exported alone."""

from __future__ import annotations

import onnx
import pytest
import torch
from torch import nn

from seedcnn.convert import convert_layers_
from seedcnn.errors import ExportError
from seedcnn.export import fold, together
from seedcnn.export.onnx_graphs import INPUT, OUTPUT
from seedcnn.export.together import to_onnx_together
from seedcnn.plan import FORMS
from seedcnn.runtime.session import open_session
from tests.export.small import SIZE, Small, settled
from tests.few import few

NAMES = ("copy-r2", "dws-ghost-r2", "abs-r2-sparse", "sine-r2-groups4", "mono-r4")


class Bessel(nn.Module):
    """ONNX has no form of it."""

    def forward(self, x):
        return torch.special.bessel_j0(x).mean((2, 3))


class Choosing(nn.Module):
    """Its graph has graphs inside, which read values around them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        y = self.conv(x)
        return torch.cond(y.sum() > 0, lambda a, b: a + b, lambda a, b: a - b, (y, y.abs())).mean((2, 3))


def networks():
    torch.manual_seed(0)
    found = {"vanilla": settled(Small())}
    for name in NAMES:
        model = Small()
        convert_layers_(model, {"conv2": FORMS[name]})
        found[name] = settled(model)
    return {name: (fold(model, input_size=SIZE), SIZE) for name, model in found.items()}


def numbered(graph: bytes):
    """The graph with its inner values called by number: equal for graphs that compute the same in the same way."""
    proto = onnx.load_from_string(graph)
    names: dict[str, str] = {}
    ours = {tensor.name for tensor in proto.graph.initializer if tensor.external_data}
    for node in proto.graph.node:
        node.name = ""
        for values in (node.input, node.output):
            for index, value in enumerate(values):
                if value and value not in ours | {"image", "logits"}:
                    values[index] = names.setdefault(value, f"value {len(names)}")
    for tensor in proto.graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    tensors = sorted(tensor.SerializeToString(deterministic=True) for tensor in proto.graph.initializer)
    del proto.graph.initializer[:]
    return proto, tensors


@pytest.mark.parametrize("largest", few([together._LARGEST, 20_000], [1]))
def test_graphs_and_tensors_are_those_of_a_network_exported_alone(largest):
    every = networks()
    found = to_onnx_together(every, largest)
    assert list(found) == list(every)
    for name, (folded, size) in every.items():
        alone = together.to_onnx(folded, size)
        assert numbered(found[name].graph) == numbered(alone.graph), name
        assert (found[name].seeded, found[name].divisors) == (alone.seeded, alone.divisors)
        assert found[name].tensors.keys() == alone.tensors.keys()
        assert found[name].constants.keys() == alone.constants.keys()


def test_networks_of_different_sizes_and_graphs_within_graphs():
    torch.manual_seed(0)
    nets = {size: fold(Choosing().eval(), input_size=size) for size in ((3, 5, 5), (3, 9, 7))}
    found = to_onnx_together({str(size): (net, size) for size, net in nets.items()})
    for (size, net), exported in zip(nets.items(), found.values(), strict=True):
        x = torch.randn(3, *size)
        session = open_session(exported.graph, exported.tensors)
        answers = torch.from_numpy(session.run([OUTPUT], {INPUT: x.numpy()})[0])
        assert torch.allclose(answers, net(x), atol=1e-5)


def test_the_network_that_cannot_be_exported_is_named():
    every = {name: (fold(model.eval()), SIZE) for name, model in (("fine", Small()), ("odd", Bessel()))}
    with pytest.raises(ExportError, match=r"^odd: .* no form of the operator prims\.bessel_j0$"):
        to_onnx_together(every)
