"""Networks as graphs of their modules: traced if possible, else observed during a forward pass."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from seedcnn.convert.copies import copy_without_weights
from seedcnn.layers import ConvLayer
from seedcnn.layers.low_pass import LowPassed, binomial, filters_its_input

__all__ = ["BEFORE", "NORMS", "frozen_types", "image_sizes", "norm_after", "norm_node_after", "norm_types", "trace"]

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
BEFORE = "filter before layers"
"""Entry in the ``meta`` of a node that is the low-pass filter of the layers that read it."""
_SIZES = (32, 64, 224, 299)  # tried if no image size is given


def norm_types() -> tuple[type[nn.Module], ...]:
    """Return :data:`NORMS` and, where torchvision is loaded, its FrozenBatchNorm2d."""
    return (*NORMS, *frozen_types())


def frozen_types() -> tuple[type[nn.Module], ...]:
    """Return the types of norms whose numbers are all fixed buffers."""
    torchvision = sys.modules.get("torchvision.ops.misc")  # if it is not loaded, no module can be of its types
    return () if torchvision is None else (torchvision.FrozenBatchNorm2d,)


class _Tracer(fx.Tracer):
    """Tracer that keeps whole torch's own modules, those that ``whole`` accepts, and those named in ``opaque``.

    A module whose own code fails under the tracer joins ``opaque`` and stands in this trace as a call.
    """

    def __init__(self, whole: Callable[[nn.Module], bool], opaque: set[str], filters_apart: bool) -> None:
        super().__init__()
        self.whole, self.opaque, self.filters_apart = whole, opaque, filters_apart

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if module_qualified_name in self.opaque or self.whole(m) or super().is_leaf_module(m, module_qualified_name):
            return True
        return isinstance(m, LowPassed) and m.plain.__module__.startswith("torch.nn.")

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        if self.filters_apart and filters_its_input(m) and args and self._kept_whole(m):
            args = (self._low_passed(args[0]), *args[1:])
        stack = self.module_stack.copy()
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:  # the tracer runs the module's own code, which may raise anything
            path = self.path_of_module(m)  # fails if the model does not register the module: its caller is opaque then
            if path in self.opaque:
                raise
            self.opaque.add(path)
            self.module_stack = stack
            return self.create_proxy("call_module", path, args, kwargs)

    def _kept_whole(self, m: nn.Module) -> bool:
        path = self.path_of_module(m)
        return self.is_leaf_module(m, path) and path not in self.opaque

    def _low_passed(self, x: Any) -> Any:
        """Return the filtered value, once for all that read it."""
        node = next((user for user in x.node.users if BEFORE in user.meta), None)
        if node is None:
            node = self.create_proxy("call_function", binomial, (x,), {}).node
            node.meta[BEFORE] = True
        return fx.Proxy(node, self)


def trace(model: nn.Module, whole: Callable[[nn.Module], bool], *, filters_apart: bool = False) -> fx.GraphModule:
    """Trace a model, keeping whole any submodule whose code the tracer cannot follow, for whatever reason.

    Such code branches on its input, needs a size as a number, or calls modules that the model does not register.

    Args:
        whole: returns True for modules to keep whole besides torch's own.
        filters_apart: make a low-pass filter before a module that is kept whole a node of its own (:data:`BEFORE`).
            The module still has it, too, until :func:`seedcnn.layers.low_pass.plain_` takes it away.

    Raises:
        Exception: whatever the model's own code, outside its submodules, raises while it is traced.
    """
    opaque: set[str] = set()
    own = set(vars(model))
    while True:
        known = len(opaque)
        tracer = _Tracer(whole, opaque, filters_apart)
        try:
            graph = tracer.trace(model)
            if len(opaque) == known:  # else the graph holds remains of the code that failed
                return fx.GraphModule(tracer.root, graph, type(model).__name__)
        except Exception:
            if len(opaque) == known:
                raise
        finally:
            for name in set(vars(model)) - own:  # the tracer leaves the constants that it met with the model
                delattr(model, name)


def norm_node_after(traced: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """Return the call of the norm that is the only reader of ``node``'s output, if there is one."""
    users = list(node.users)
    if len(users) != 1 or users[0].op != "call_module" or users[0].args[:1] != (node,):
        return None
    return users[0] if isinstance(traced.get_submodule(str(users[0].target)), norm_types()) else None


def norm_after(model: nn.Module, input_size: tuple[int, int, int] | None = None) -> dict[str, str]:
    """Find the norm that reads the output of each convolution, in the order of calls.

    A trace gives the answer; for convolutions that the tracer does not see, a forward pass on the meta device does, if
    the model supports one.

    Args:
        model: the network, which is not changed; layers of this package count as convolutions.
        input_size: channels, height and width of an image; if None, a forward pass tries the usual sizes.

    Returns:
        Qualified name of each convolution whose only reader is a norm -> name of that norm. A convolution or norm that
        is called more than once is left out.
    """
    convolutions = {name for name, module in model.named_modules() if isinstance(module, (nn.Conv2d, ConvLayer))}
    found: dict[str, str] = {}
    calls: dict[str, int] = {}
    try:
        traced = trace(model, lambda module: isinstance(module, (ConvLayer, *norm_types())))
    except Exception:  # the tracer runs the model's own code, which may raise anything
        traced = None
    if traced is not None:
        for node in traced.graph.nodes:
            if node.op != "call_module":
                continue
            name = str(node.target)
            calls[name] = calls.get(name, 0) + 1
            if name in convolutions and (norm := norm_node_after(traced, node)) is not None:
                found[name] = str(norm.target)
    inside = tuple(f"{name}." for name in calls if name in convolutions)
    unseen = {name for name in convolutions if name not in calls and not name.startswith(inside)}
    if unseen:
        watched, counted = _watched(model, input_size)
        found |= {conv: norm for conv, norm in watched.items() if conv in unseen}
        calls = counted | calls
    return {conv: norm for conv, norm in found.items() if calls[conv] == calls[norm] == 1}


def _watched(model: nn.Module, input_size: tuple[int, int, int] | None) -> tuple[dict[str, str], dict[str, int]]:
    """Run a forward pass to find the norm that reads each convolution's output and count each module's calls."""
    try:
        network = copy_without_weights(model).eval()
    except Exception:  # the model cannot be copied
        return {}, {}
    for size in image_sizes(network, input_size):
        found: dict[str, str] = {}
        calls: dict[str, int] = {}
        made: dict[int, str] = {}
        alive: list[Tensor] = []  # so that no address is reused

        def watch(name: str, module: nn.Module, args: Any, output: Any) -> None:
            calls[name] = calls.get(name, 0) + 1  # noqa: B023
            if isinstance(module, norm_types()):
                if args and (conv := made.get(id(args[0]))) is not None:  # noqa: B023
                    found[conv] = name  # noqa: B023
            elif isinstance(output, Tensor):
                made[id(output)] = name  # noqa: B023
                alive.append(output)  # noqa: B023

        watched: tuple[type[nn.Module], ...] = (nn.Conv2d, ConvLayer, *norm_types())
        handles = [
            module.register_forward_hook(lambda module, args, output, name=name: watch(name, module, args, output))
            for name, module in network.named_modules()
            if isinstance(module, watched)
        ]
        try:
            with torch.no_grad():
                network(torch.empty(2, *size, device="meta"))
            return found, calls
        except Exception:  # the size does not fit, or the code reads values
            continue
        finally:
            for handle in handles:
                handle.remove()
    return {}, {}


def image_sizes(model: nn.Module, input_size: tuple[int, int, int] | None) -> list[tuple[int, int, int]]:
    """Return the sizes of image to try a forward pass with: the given one, or the usual ones."""
    if input_size is not None:
        return [input_size]
    first = next((m for m in model.modules() if isinstance(m, (nn.Conv2d, ConvLayer))), None)
    return [] if first is None else [(first.in_channels, size, size) for size in _SIZES]
