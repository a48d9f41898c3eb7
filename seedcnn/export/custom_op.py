"""Folded networks that use the fused operator of :mod:`seedcnn.runtime.custom_op` instead of stock ONNX operators."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from seedcnn.layers.group_nl_form import FoldedGroupNL
from seedcnn.runtime.custom_op import FUNCTIONS, OPERATOR

__all__ = ["FusedGroupNL", "use_custom_op"]

_RELU_FUNCTIONS = (torch.relu, torch.relu_, F.relu, F.relu_)
_RELU_METHODS = ("relu", "relu_")


class FusedGroupNL(FoldedGroupNL):
    """A folded layer whose generator, concatenation and following ReLU are exported as one operator.

    The function, the parameters and their names are those of the folded layer; only the exported graph differs.

    Args:
        form: the folded layer, with the norm absorbed.
        relu: include a ReLU.

    Shape:
        [N, c_in, H, W] to [N, c_out, H', W'].
    """

    def __init__(self, form: FoldedGroupNL, relu: bool) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(form.__dict__)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, c_in, H, W] to [N, c_out, H', W']."""
        if not torch.onnx.is_in_onnx_export():
            y = super().forward(x)
            return F.relu(y) if self.relu else y
        z = self.seeds(x)
        w, b = self.argument()
        gen_scale, gen_shift = (None if part is None else part[self.c_seed :] for part in (self.scale, self.shift))
        inputs = (z, w, b, gen_scale, gen_shift)
        attributes: dict[str, Any] = {"nlf": self.nlf, "groups": self.nlf_groups, "relu": int(self.relu)}
        channels = z.shape[1] + self.get_buffer("source").numel()
        shape = (z.shape[0], channels, z.shape[2], z.shape[3])
        return torch.onnx.ops.symbolic(OPERATOR, inputs, attributes, dtype=z.dtype, shape=shape, version=1)


def _is_relu(traced: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return isinstance(traced.get_submodule(str(node.target)), nn.ReLU)
    if node.op == "call_function":
        return node.target in _RELU_FUNCTIONS
    return node.op == "call_method" and node.target in _RELU_METHODS


def use_custom_op(folded: fx.GraphModule) -> fx.GraphModule:
    """Use the fused operator for every GroupNL layer that allows it, in place, with a ReLU that is its only reader.

    A layer keeps its stock form if its norm is not absorbed (none follows, the seeds are l2-normalised, or the scales
    are too small) or the operator does not have its function.

    Args:
        folded: network from :func:`seedcnn.export.fold`.

    Returns:
        ``folded``; its graphs need the library that :func:`seedcnn.runtime.custom_op.build` makes.
    """
    for node in list(folded.graph.nodes):
        if node.op != "call_module":
            continue
        form = folded.get_submodule(str(node.target))
        if type(form) is not FoldedGroupNL or not form.absorbed or form.nlf not in FUNCTIONS:
            continue
        users = list(node.users)
        relu = len(users) == 1 and _is_relu(folded, users[0])
        if relu:
            users[0].replace_all_uses_with(node)
            folded.graph.erase_node(users[0])
        folded.set_submodule(str(node.target), FusedGroupNL(form, relu))
    folded.delete_all_unused_submodules()
    folded.graph.lint()
    folded.recompile()
    return folded
