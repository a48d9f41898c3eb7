"""Fold a trained network into its inference form."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from seedcnn.errors import ExportError
from seedcnn.export._norm_act import split_norm_act_
from seedcnn.export.custom_op import use_custom_op
from seedcnn.export.forms import FoldedGroupNL, affine_of, seed_conv_of
from seedcnn.export.forms_families import ChannelAffine, fold_family
from seedcnn.export.forms_mono import MONO_FORMS
from seedcnn.export.targets import Target, target_of
from seedcnn.layers import ConvLayer, GroupNLConv2d, SeededConv2d
from seedcnn.layers._norms import BatchNorm2d
from seedcnn.layers.shift import ChannelShift

__all__ = ["fold", "load_tensors"]


class _Tracer(fx.Tracer):
    """Goes into every module but our own seeded ones and those of ``opaque``, by qualified name."""

    def __init__(self, opaque: set[str]) -> None:
        super().__init__()
        self.opaque = opaque
        self.stuck = ""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        own = (SeededConv2d, BatchNorm2d, ChannelShift)
        return (
            isinstance(m, own)
            or module_qualified_name in self.opaque
            or super().is_leaf_module(m, module_qualified_name)
        )

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        try:
            return super().call_module(m, forward, args, kwargs)
        except fx.proxy.TraceError:
            self.stuck = self.stuck or self.path_of_module(m)  # type: ignore[no-untyped-call]
            raise


def _trace(model: nn.Module) -> fx.GraphModule:
    """Trace the model; a submodule whose code branches on its input is kept whole (nothing inside it is folded)."""
    opaque: set[str] = set()
    while True:
        tracer = _Tracer(opaque)
        try:
            graph = tracer.trace(model)
            return fx.GraphModule(tracer.root, graph, type(model).__name__)
        except Exception as error:  # the tracer runs the model's own code: anything can come out of it
            if not tracer.stuck or tracer.stuck in opaque:
                raise ExportError(f"{type(model).__name__} cannot be traced for folding: {error}") from error
            opaque.add(tracer.stuck)


def _replace(traced: fx.GraphModule, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(traced.get_submodule(parent), child, module)


def _following_norm(traced: fx.GraphModule, node: fx.Node) -> tuple[fx.Node | None, nn.BatchNorm2d | None]:
    """The BatchNorm node that alone uses ``node``'s output, if there is one that is called once."""
    users = list(node.users)
    if len(users) == 1 and users[0].op == "call_module":
        module = traced.get_submodule(str(users[0].target))
        if isinstance(module, nn.BatchNorm2d) and module.track_running_stats:
            return users[0], module
    return None, None


@dataclass(frozen=True)
class _Form:
    """What the caller asked for."""

    mono: str
    target: Target
    absorb: Mapping[str, bool]


def _fold_layer(name: str, module: nn.Module, norm: nn.BatchNorm2d | None, form: _Form) -> nn.Module | None:
    """The inference form of one convolution and the norm after it, or None for anything else."""
    if isinstance(module, GroupNLConv2d):
        if module.gamma == 0 and module.normalize != "l2" and not module.shuffle:  # an ordinary convolution
            scale, shift = affine_of(module.norm, module.out_channels)
            outer_scale, outer_shift = affine_of(norm, module.out_channels)
            scale, shift = scale * outer_scale, shift * outer_scale + outer_shift
            return seed_conv_of(module, module.conv_groups, scale, shift, form.target)
        return FoldedGroupNL(module, norm, form.target, form.absorb.get(name))
    if isinstance(module, SeededConv2d):
        return fold_family(module, norm, form.mono, form.target)
    return fuse_conv_bn_eval(module, norm) if type(module) is nn.Conv2d and norm is not None else None


def _fold_node(traced: fx.GraphModule, node: fx.Node, module: nn.Module, form: _Form) -> nn.Module | None:
    norm_node, norm = _following_norm(traced, node)
    folded = _fold_layer(str(node.target), module, norm, form)
    if folded is not None and norm_node is not None:
        norm_node.replace_all_uses_with(node)
        traced.graph.erase_node(norm_node)
    return folded


def _fold_inside(module: nn.Module, form: _Form) -> None:
    """Replace the seeded layers of a module that was kept whole; norms after them stay."""
    for name, layer in list(module.named_modules()):
        if name and isinstance(layer, SeededConv2d):
            parent, _, child = name.rpartition(".")
            setattr(module.get_submodule(parent), child, _fold_layer(name, layer, None, form))


def _fold_lone_norms(traced: fx.GraphModule) -> None:
    """A BatchNorm that follows no single convolution leaves as scale and shift, which travel like weights."""
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
    """A copy of ``model`` in inference form: the same function in eval mode, fewer operations.

    BatchNorm is folded into the convolution before it; GroupNL layers become
    :class:`seedcnn.export.forms.FoldedGroupNL` (the seeds' norm and the following norm folded in, sparse seed
    convolutions as depthwise + sum); the other seeded layers become forms that keep their fixed numbers as seeds. A
    BatchNorm that follows no single convolution becomes a scale and a shift. Anything else stays as it is.

    Args:
        target: the runtime the form is for, a key of :data:`seedcnn.export.targets.TARGETS`; any form but
            "onnxruntime-custom-op" (see :mod:`seedcnn.runtime.custom_op`) runs in any runtime that reads ONNX.
        mono: how mono filters leave: "graph" (generated from seed filters and beta when the graph is loaded; small
            files) or "expanded" (as the filters of a plain convolution).
        absorb: by name of a GroupNL layer, whether the norm after it is absorbed, see
            :class:`seedcnn.export.forms.FoldedGroupNL`; for others that depends on the norm's numbers. A later release
            that keeps its parent's choices (:func:`seedcnn.export.absorbed_norms`) has its parent's graph.

    Returns:
        A module on the CPU in float32 and eval mode, without gradients.

    Raises:
        ValueError: if ``target`` or ``mono`` is none of these.
        ExportError: if the model cannot be traced, or uses one convolution in two places.
    """
    if mono not in MONO_FORMS:
        raise ValueError(f"`mono` (={mono!r}) must be one of {', '.join(map(repr, MONO_FORMS))}")
    form = _Form(mono, target_of(target), absorb or {})
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
        folded = _fold_node(traced, node, module, form)
        if folded is not None:
            _replace(traced, name, folded)
        elif not isinstance(module, ConvLayer):
            _fold_inside(module, form)
    _fold_lone_norms(traced)
    traced.delete_all_unused_submodules()
    traced.graph.lint()
    traced.recompile()
    if form.target.operator:
        use_custom_op(traced)
    return traced.eval().requires_grad_(False)


def load_tensors(folded: fx.GraphModule, tensors: Mapping[str, npt.NDArray[np.float32]]) -> None:
    """Give a folded network the tensors of a bundle, by name, in place.

    Raises:
        ExportError: if a tensor has no counterpart of its shape.
    """
    parameters = dict(folded.named_parameters())
    for name, values in tensors.items():
        target = parameters.get(name)
        if target is None or tuple(target.shape) != values.shape:
            raise ExportError(f"tensor {name!r} of shape {values.shape} has no counterpart in the folded network")
        target.data.copy_(torch.from_numpy(values.copy()))
