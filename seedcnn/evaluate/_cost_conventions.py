"""How multiply-accumulates are counted: one meter that watches a forward pass, and the conventions by name."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from seedcnn.layers import ConvLayer
from seedcnn.ops.group_nl import group_nl_reference

__all__ = ["CONVENTIONS", "Meter", "is_row", "own_parameters"]

_aten = torch.ops.aten
_PROFILED = {
    # torchprofile: one for each output element.
    _aten.native_batch_norm,
    _aten._native_batch_norm_legit,
    _aten._native_batch_norm_legit_no_training,
    _aten._batch_norm_with_update,
    _aten._batch_norm_no_update,
    _aten.cudnn_batch_norm,
    _aten.native_group_norm,
    _aten.native_layer_norm,
    _aten.mul,
    _aten.mul_,
    _aten.std,  # the product inside it: the reference counts of mono filters have it
    _aten.avg_pool1d,
    _aten.avg_pool2d,
    _aten.avg_pool3d,
}
# These reach the dispatcher as a mean, which torchprofile does not count by itself.
_ADAPTIVE_POOLS = {F.adaptive_avg_pool1d, torch.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d}


def is_row(module: nn.Module) -> bool:
    """Whether a layer of ours is one row; one that ends with another of ours is several."""
    return isinstance(module, ConvLayer) and not any(isinstance(inner, ConvLayer) for inner in module.children())


def own_parameters(module: nn.Module) -> list[nn.Parameter]:
    """Learnable parameters that belong to the row of ``module``: all of a layer of ours, else its direct ones."""
    return [p for p in module.parameters(recurse=is_row(module)) if p.requires_grad]


class Meter:
    """Multiply-accumulates of one forward pass by the qualified name of the module that performs them.

    Attributes:
        macs: by module name.
        shapes: output shapes [without the batch axis] by module name, None where the output is not one tensor.
        used: storages that went into a counted operation.
        unknown: operations of other libraries and layers of ours that are not counted.
    """

    def __init__(self) -> None:
        self.macs: Counter[str] = Counter()
        self.shapes: dict[str, tuple[int, ...] | None] = {}
        self.used: set[int] = set()
        self.unknown: set[str] = set()
        self._inside: list[str] = [""]

    def attach(self, model: nn.Module) -> None:
        """Follow the calls of every module; what happens inside a layer of ours belongs to that layer."""

        def walk(name: str, module: nn.Module, seen: set[int]) -> None:
            if id(module) in seen:
                return
            seen.add(id(module))
            module.register_forward_pre_hook(lambda *_: self._inside.append(name))
            module.register_forward_hook(lambda *call: self._leave(name, call[-1]), always_call=True)
            if not is_row(module):
                for child, inner in module.named_children():
                    walk(f"{name}.{child}" if name else child, inner, seen)

        walk("", model, set())

    def _leave(self, name: str, output: object) -> None:
        self._inside.pop()
        self.shapes[name] = tuple(output.shape[1:]) if isinstance(output, Tensor) else None

    def add(self, macs: int, tensors: tuple[Any, ...] = ()) -> None:
        """Count operations of the innermost module."""
        self.macs[self._inside[-1]] += macs
        self.used |= {t.untyped_storage()._cdata for t in tensors if isinstance(t, Tensor)}


class _Operations(TorchDispatchMode):
    """Convolutions and matrix products by torch's own formulas; with ``profiled`` also what torchprofile adds."""

    def __init__(self, meter: Meter, profiled: bool) -> None:
        super().__init__()
        self.meter, self.profiled = meter, profiled

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        packet = func._overloadpacket
        if packet in flop_registry:
            self.meter.add(flop_registry[packet](*args, **kwargs, out_val=result) // 2, args)
        elif self.profiled and packet in _PROFILED:
            self.meter.add((result[0] if isinstance(result, tuple) else result).numel(), args)
        elif str(packet) == "seedcnn.group_nl":  # counts as the plain operations that it stands for
            seeds, omega, phi, nlf_groups, out_channels, nlf, _ = args
            with self:
                group_nl_reference(seeds, omega, phi, nlf_groups=nlf_groups, out_channels=out_channels, nlf=nlf)
        elif func.namespace not in ("aten", "prim", "prims") and str(packet) != "seedcnn.sum_runs":  # sums are free
            self.meter.unknown.add(str(packet))
        return result


class _Pools(TorchFunctionMode):
    """Adaptive average pooling, one for each output element."""

    def __init__(self, meter: Meter) -> None:
        super().__init__()
        self.meter = meter

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in _ADAPTIVE_POOLS:
            self.meter.add(result.numel())
        return result


def _conv_linear(model: nn.Module, meter: Meter, run: Callable[[], object]) -> None:  # noqa: ARG001
    with _Operations(meter, profiled=False):
        run()


def _torchprofile(model: nn.Module, meter: Meter, run: Callable[[], object]) -> None:  # noqa: ARG001
    with _Operations(meter, profiled=True), _Pools(meter):
        run()


def _torchsummaryx(model: nn.Module, meter: Meter, run: Callable[[], object]) -> None:
    def count(module: nn.Module, args: object, output: object) -> None:  # noqa: ARG001
        if isinstance(module, ConvLayer) and module.generates_filters:
            meter.unknown.add(type(module).__name__)
            return
        weight = module._parameters.get("weight")
        if weight is not None:
            is_conv = "Conv" in type(module).__name__
            positions = math.prod(output.shape[2:]) if is_conv and isinstance(output, Tensor) else 1
            meter.add(weight.numel() * positions, (weight,))

    # Before the meter's own hooks, so that the module is still the innermost one.
    handles = [m.register_forward_hook(count, prepend=True) for m in model.modules()]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()


CONVENTIONS: dict[str, Callable[[nn.Module, Meter, Callable[[], object]], None]] = {
    "conv-linear": _conv_linear,
    "torchprofile": _torchprofile,
    "torchsummaryx": _torchsummaryx,
}
"""Convention name -> ``count(model, meter, run)``, which calls ``run`` once under its meter.

conv-linear: convolutions and matrix products, half of ``torch.utils.flop_counter``; norms are free.
torchprofile: the same, and one for each output element of norms, multiplications and average poolings (the GroupNL
and MonoCNN tables).
torchsummaryx: weight elements of convolutions for each output position, weight elements of anything else once (the
dissertation's tables).
"""
