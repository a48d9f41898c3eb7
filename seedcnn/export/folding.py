"""Folding of a trained network into its inference form."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import fx, nn

from seedcnn.convert.tracing import norm_node_after, trace
from seedcnn.errors import ExportError
from seedcnn.export._norm_act import split_norm_act_
from seedcnn.export.custom_op import use_custom_op
from seedcnn.layers import ConvLayer, SeededConv2d
from seedcnn.layers.forms import ChannelAffine, FoldedSeeded, split_norm, with_norm
from seedcnn.layers.norms import BatchNorm2d
from seedcnn.layers.shift import ChannelShift
from seedcnn.layers.targets import MONO_FORMS, Form, Target, target_of

__all__ = ["fold", "load_tensors"]


_WHOLE = (SeededConv2d, BatchNorm2d, ChannelShift)


def _is_whole(module: nn.Module) -> bool:
    """Return whether the tracer keeps a module whole: layers with their own inference form, and parts of layers."""
    return isinstance(module, _WHOLE) or (isinstance(module, ConvLayer) and type(module).folded is not ConvLayer.folded)


def _trace(model: nn.Module) -> fx.GraphModule:
    try:
        return trace(model, _is_whole)
    except Exception as error:  # the tracer runs the model's own code, which may raise anything
        raise ExportError(f"{type(model).__name__} cannot be traced for folding: {error}") from error


@dataclass(frozen=True)
class _Forms:
    """The caller's choice of inference forms."""

    mono: str
    target: Target
    absorb: Mapping[str, bool]

    def of(self, name: str) -> Form:
        """Return the form requested for the layer called ``name``."""
        return Form(self.target, self.mono, self.absorb.get(name))


def _fold_layer(name: str, module: nn.Module, norm: nn.BatchNorm2d | None, forms: _Forms) -> nn.Module | None:
    """Return the inference form of a convolution and the norm after it, or None for anything else."""
    if isinstance(module, ConvLayer):
        rest, put_back = (None, None) if norm is None else split_norm(norm)
        folded = module.folded(rest, forms.of(name))
        if folded is None and isinstance(module, SeededConv2d):
            folded = FoldedSeeded(module, rest)
        return folded if folded is None or put_back is None else put_back(folded)
    return with_norm(module, norm) if type(module) is nn.Conv2d and norm is not None else None


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def _fold_node(traced: fx.GraphModule, node: fx.Node, module: nn.Module, forms: _Forms) -> nn.Module | None:
    norm_node = norm_node_after(traced, node)
    norm: Any = None if norm_node is None else traced.get_submodule(str(norm_node.target))
    if not isinstance(norm, nn.BatchNorm2d) or not norm.track_running_stats:
        norm_node = norm = None
    folded = _fold_layer(str(node.target), module, norm, forms)
    if folded is not None and norm_node is not None:
        norm_node.replace_all_uses_with(node)
        traced.graph.erase_node(norm_node)
    return folded


def _fold_inside(module: nn.Module, forms: _Forms) -> None:
    """Fold the layers inside a module that was kept whole; norms after them stay."""
    for name, layer in list(module.named_modules()):
        if name and isinstance(layer, ConvLayer):
            folded = _fold_layer(name, layer, None, forms)
            if folded is not None:
                _replace(module, name, folded)


def _fold_lone_norms(traced: fx.GraphModule) -> None:
    """Replace each BatchNorm that follows no single convolution by scale and shift, which travel like weights."""
    for node in traced.graph.nodes:
        if node.op == "call_module":
            module = traced.get_submodule(str(node.target))
            if isinstance(module, nn.BatchNorm2d) and module.track_running_stats:
                _replace(traced, str(node.target), ChannelAffine(module))


def fold(
    model: nn.Module,
    *,
    target: str = "onnxruntime",
    mono: str = "graph",
    absorb: Mapping[str, bool] | None = None,
) -> fx.GraphModule:
    """Fold a copy of ``model`` into inference form: the same function in eval mode with fewer operations.

    BatchNorm is folded into the convolution before it; GroupNL layers become
    :class:`seedcnn.layers.group_nl_form.FoldedGroupNL` (the seeds' norm and the following norm folded in, sparse seed
    convolutions as depthwise + sum); the other seeded layers become forms that keep their fixed numbers as seeds. A
    BatchNorm that follows no single convolution becomes a scale and a shift. Everything else stays unchanged.

    Args:
        target: the runtime, a key of :data:`seedcnn.layers.targets.TARGETS`; any form except "onnxruntime-custom-op"
            (see :mod:`seedcnn.runtime.custom_op`) runs in any runtime that reads ONNX.
        mono: form of mono filters: "graph" (generated from seed filters and beta when the graph is loaded; small
            files) or "expanded" (the filters of a plain convolution).
        absorb: name of a GroupNL layer -> whether to absorb the norm after it, see
            :class:`seedcnn.layers.group_nl_form.FoldedGroupNL`; other layers decide by the norm's numbers. A later
            release that keeps its parent's choices (:func:`seedcnn.export.absorbed_norms`) has its parent's graph.

    Returns:
        A module on the CPU in float32 and eval mode, without gradients.

    Raises:
        ValueError: if ``target`` or ``mono`` is not one of these.
        ExportError: if the model cannot be traced, or calls one convolution twice.
    """
    if mono not in MONO_FORMS:
        raise ValueError(f"`mono` (={mono!r}) must be one of {', '.join(map(repr, MONO_FORMS))}")
    forms = _Forms(mono, target_of(target), absorb or {})
    traced = _trace(split_norm_act_(copy.deepcopy(model).cpu().float().eval()))
    calls: dict[str, int] = {}
    for node in traced.graph.nodes:
        if node.op == "call_module":
            calls[str(node.target)] = calls.get(str(node.target), 0) + 1
    for node in list(traced.graph.nodes):
        if node.op != "call_module":
            continue
        name = str(node.target)
        module: Any = traced.get_submodule(name)
        if isinstance(module, nn.Identity):
            node.replace_all_uses_with(node.args[0])
            traced.graph.erase_node(node)
            continue
        if calls[name] > 1 and isinstance(module, (nn.Conv2d, SeededConv2d)):
            raise ExportError(f"{name} is called {calls[name]} times; a shared convolution cannot be folded")
        folded = _fold_node(traced, node, module, forms)
        if folded is not None:
            _replace(traced, name, folded)
        elif not isinstance(module, ConvLayer):
            _fold_inside(module, forms)
    _fold_lone_norms(traced)
    traced.delete_all_unused_submodules()
    traced.graph.lint()
    traced.recompile()
    if forms.target.operator:
        use_custom_op(traced)
    return traced.eval().requires_grad_(False)


def load_tensors(folded: fx.GraphModule, tensors: Mapping[str, npt.NDArray[np.float32]]) -> None:
    """Load the tensors of a bundle into a folded network, by name, in place.

    Raises:
        ExportError: if the network has no tensor of the same name and shape.
    """
    parameters = dict(folded.named_parameters())
    for name, values in tensors.items():
        target = parameters.get(name)
        if target is None or tuple(target.shape) != values.shape:
            raise ExportError(f"tensor {name!r} of shape {values.shape} has no counterpart in the folded network")
        target.data.copy_(torch.from_numpy(values.copy()))
