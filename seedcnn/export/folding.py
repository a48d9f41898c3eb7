"""Folding of a trained network into its inference form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx, nn

from seedcnn.convert.given import logits_entry, logits_of
from seedcnn.convert.references import exchange_references
from seedcnn.convert.tracing import BEFORE, norm_node_after, trace
from seedcnn.errors import DataError, ExportError
from seedcnn.export._plain_norms import plain_norms_
from seedcnn.export._standalone import standalone
from seedcnn.export._watching import watched_norms
from seedcnn.export.checking import check_folded
from seedcnn.export.custom_op import use_custom_op
from seedcnn.layers import ConvLayer, SeededConv2d
from seedcnn.layers.forms import ChannelAffine, DepthwiseSum, FoldedSeeded, Rescaled, is_affine, split_norm, with_norm
from seedcnn.layers.group_nl_form import FoldedGroupNL
from seedcnn.layers.local_binary import FoldedLocalBinary
from seedcnn.layers.low_pass import plain_, plain_type
from seedcnn.layers.norms import BatchNorm2d
from seedcnn.layers.shift import ChannelShift
from seedcnn.layers.targets import MONO_FORMS, Form, Target, target_of

__all__ = ["fold", "load_tensors"]


_WHOLE = (SeededConv2d, BatchNorm2d, ChannelShift)
_AFTER_CONVOLUTIONS = (nn.BatchNorm2d, nn.SyncBatchNorm, nn.InstanceNorm2d)


class _Root(nn.Module):
    """A network as a module of another, so that it is called with its own defaults and may be kept whole."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Any:
        return self.network(x)


def _form_of(layer: ConvLayer) -> Any:
    """Return the layer's ``folded`` if it knows the layer's function: a subclass may have changed that since."""
    kinds = plain_type(layer).__mro__
    forward, folded = (next(i for i, kind in enumerate(kinds) if name in vars(kind)) for name in ("forward", "folded"))
    return layer.folded if folded <= forward and kinds[folded] is not ConvLayer else None


def _is_whole(module: nn.Module) -> bool:
    """Return whether the tracer keeps a module whole: layers with their own inference form, and parts of layers."""
    return isinstance(module, _WHOLE) or is_affine(module) or (isinstance(module, ConvLayer) and bool(_form_of(module)))


def _trace(model: nn.Module) -> fx.GraphModule:
    """Trace a network; if the tracer cannot follow the network's own code, the network is one call of the graph."""
    root = _Root(model)
    traced = trace(root, _is_whole, filters_apart=True)
    for node in traced.graph.nodes:
        for reader in node.users if BEFORE in node.meta else ():
            plain_(traced.get_submodule(str(reader.target)))  # their filter is a node now
    calls = [node for node in traced.graph.nodes if node.op in ("call_module", "get_attr")]
    if any(node.target == "network" for node in calls):
        return traced
    for node in calls:
        node.meta.pop("nn_module_stack", None)  # has the names before this
        if str(node.target).startswith("network."):
            node.target = str(node.target).removeprefix("network.")
        else:  # a constant, which the tracer leaves with the root
            if hasattr(model, node.target):
                raise ExportError(f"{type(model).__name__} has an attribute {node.target}, which the tracer needs")
            model.register_buffer(node.target, getattr(traced, node.target))
    return fx.GraphModule(model, traced.graph, type(model).__name__)


@dataclass(frozen=True)
class _Forms:
    """The caller's choice of inference forms."""

    mono: str
    target: Target
    absorb: Mapping[str, bool]

    def of(self, name: str) -> Form:
        """Return the form requested for the layer called ``name``."""
        return Form(self.target, self.mono, self.absorb.get(name))


def _fold_layer(name: str, module: nn.Module, norm: Any, forms: _Forms) -> nn.Module | None:
    """Return the inference form of a convolution and the norm after it, or None for anything else."""
    if isinstance(module, ConvLayer):
        rest, put_back = (None, None) if norm is None else split_norm(norm)
        form = _form_of(module)
        folded: nn.Module | None = form(rest, forms.of(name)) if form else None
        if folded is None and isinstance(module, SeededConv2d):
            folded = FoldedSeeded(module, rest)
        return folded if folded is None or put_back is None else put_back(folded)
    if norm is None or not isinstance(module, nn.Conv2d) or plain_type(module) is not nn.Conv2d:
        return None
    return with_norm(module, norm)


def _place_inside(part: str, folded: nn.Module | None) -> str:
    """Name in a folded layer of what returns the values of the norm ``part`` inside; "" if it returns them itself."""
    kinds = {FoldedGroupNL: "seed_conv", FoldedLocalBinary: "before", nn.Conv2d: "", DepthwiseSum: "", Rescaled: ""}
    return kinds.get(type(folded), part) if part == "norm" else part


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


@dataclass
class _Folding:
    """A traced network while its layers take their inference forms.

    Attributes:
        calls: how often the graph calls each module.
        read: modules whose tensors the graph reads itself, and those around them.
        hidden: modules inside those that were kept whole, which may call them at will, by ``id``.
        input_size: channels, height, width, if known.
    """

    traced: fx.GraphModule
    forms: _Forms
    input_size: tuple[int, int, int] | None
    calls: Counter[str] = field(default_factory=Counter)
    read: set[str] = field(default_factory=set)
    hidden: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        for node in self.traced.graph.nodes:
            parts = str(node.target).split(".")
            if node.op == "get_attr":
                self.read.update(".".join(parts[:depth]) for depth in range(1, len(parts)))
            elif node.op == "call_module":
                self.calls[str(node.target)] += 1
        self.hidden.update(map(id, self._hidden_parts()))
        self.norms: dict[str, str] = {}
        self.noted: dict[str, nn.Module] = {}
        self.inside: dict[int, tuple[nn.Module, nn.Module]] = {}  # by ``id`` of the first: exchanged in whole modules

    def _hidden_parts(self) -> Iterator[nn.Module]:
        for name in self.calls:
            yield from (part for part in self._module(name).modules() if part is not self._module(name))

    def _module(self, name: str) -> Any:
        return self.traced.get_submodule(name)

    def run(self) -> None:
        """Fold every call of the graph."""
        inside = any(isinstance(part, ConvLayer) or plain_type(part) is nn.Conv2d for part in self._hidden_parts())
        if inside and self.input_size is not None:
            self.norms, spoiled = watched_norms(self.traced, self.input_size)
            self.read |= spoiled - self.calls.keys()
        for node in list(self.traced.graph.nodes):
            if node.op == "call_module":
                self._fold_node(node)
        if self.inside:
            exchange_references(self.traced, {key: new for key, (_, new) in self.inside.items()})
        for name in self.calls:
            if is_affine(norm := self._module(name)) and name not in self.read:
                self._note(name, norm)
                _replace(self.traced, name, ChannelAffine(norm))

        self.traced.meta["norms"] = self.noted

    def _note(self, name: str, norm: nn.Module | None, folded: nn.Module | None = None, layer: Any = None) -> None:
        """Note which norm stands behind what a module returns, and behind the seeds inside it."""
        inner = {} if layer is None else dict(layer.named_modules())
        for part, own in inner.items():
            if is_affine(own):
                place = _place_inside(part, folded)
                # What only scales and shifts stands for one norm, the outer one if there are two.
                self.noted[f"{name}.{place}" if place else name] = own
        if norm is not None:
            self.noted[name] = norm

    def _fold_node(self, node: fx.Node) -> None:
        name = str(node.target)
        module = self._module(name)
        if isinstance(module, nn.Identity) and node.args and isinstance(node.args[0], fx.Node):
            node.replace_all_uses_with(node.args[0])
            self.traced.graph.erase_node(node)
            return
        if self.calls[name] > 1 and isinstance(module, (nn.Conv2d, SeededConv2d)):
            raise ExportError(f"{name} is called {self.calls[name]} times; a shared convolution cannot be folded")
        if name in self.read:
            if isinstance(module, SeededConv2d):
                raise ExportError(f"the network calls {name} and also reads its tensors; such a layer cannot be folded")
            return
        norm_node = self._norm_after(node, module)
        norm = None if norm_node is None else self._module(str(norm_node.target))
        folded = _fold_layer(name, module, norm, self.forms)
        if folded is not None:
            self._note(name, norm, folded, module)
            _replace(self.traced, name, folded)
            if norm_node is not None:
                self.calls.pop(str(norm_node.target))
                norm_node.replace_all_uses_with(node)
                self.traced.graph.erase_node(norm_node)
        else:
            self._fold_inside(name, module)

    def _norm_after(self, node: fx.Node, module: nn.Module) -> fx.Node | None:
        """Return the call of the norm that can be folded into a call."""
        found = norm_node_after(self.traced, node)
        norm = None if found is None else self._module(str(found.target))
        if not isinstance(norm, _AFTER_CONVOLUTIONS) or not is_affine(norm) or id(module) in self.hidden:
            return None
        return found

    def _fold_inside(self, name: str, module: nn.Module) -> None:
        """Fold the parts of a module that was kept whole: with the norms that a forward pass showed, else alone."""
        inside = {f"{name}.{part}": layer for part, layer in module.named_modules(remove_duplicate=False) if part}
        norms = {
            conv: norm
            for conv, norm in self.norms.items()
            if conv in inside and norm in inside and not {conv, norm} & self.read
        }
        done: tuple[str, ...] = ()
        taken: set[str] = set()  # norms that are part of their convolution now
        for full, layer in inside.items():
            if full in self.read or full in norms.values() or full.startswith(done):
                continue
            norm = inside.get(norms.get(full, ""))
            folded = _fold_layer(full, layer, norm, self.forms)
            if folded is not None:
                taken.add(norms.get(full, ""))
                self._note(full, norm, folded, layer)
            elif is_affine(layer):
                folded = ChannelAffine(layer)
                self._note(full, layer)
            if folded is not None:
                self._replace_inside(full, folded)
                done = (*done, f"{full}.")
        for norm in norms.values():
            if norm not in taken:
                self._note(norm, inside[norm])
            self._replace_inside(norm, nn.Identity() if norm in taken else ChannelAffine(inside[norm]))

    def _replace_inside(self, name: str, new: nn.Module) -> None:
        old = self._module(name)
        self.inside[id(old)] = old, new
        _replace(self.traced, name, new)


def _return_logits(traced: fx.GraphModule) -> None:
    """Make a traced network return its logits alone."""
    output = next(node for node in traced.graph.nodes if node.op == "output")
    found = output.args[0]
    try:
        entry = found if isinstance(found, fx.Node) else logits_entry(found)
    except DataError as error:
        raise ExportError(str(error)) from None
    if not isinstance(entry, fx.Node):
        raise ExportError(f"the network's logits are a {type(entry).__name__}; they must be a tensor")
    with traced.graph.inserting_before(output):
        output.args = (traced.graph.call_function(logits_of, (entry,)),)


def _carry_numbers(network: nn.Module) -> None:
    """Make parameters of all buffers that hold floats, and give each module numbers of its own.

    Each parameter travels as a tensor under one name, and is rounded by what its own module does with it.
    """
    seen: set[int] = set()
    for module in network.modules():
        for name, value in list(module._buffers.items()):
            if value is not None and value.is_floating_point():
                delattr(module, name)
                module._parameters[name] = nn.Parameter(value.detach().float().clone(), requires_grad=False)
        for name, parameter in module._parameters.items():
            if parameter is not None and id(parameter) in seen:
                module._parameters[name] = nn.Parameter(parameter.detach().clone(), requires_grad=False)
            seen.add(id(module._parameters[name]))


def fold(
    model: nn.Module,
    *,
    target: str = "onnxruntime",
    mono: str = "graph",
    absorb: Mapping[str, bool] | None = None,
    input_size: tuple[int, int, int] | None = None,
    check: Tensor | None = None,
) -> fx.GraphModule:
    """Fold a copy of ``model`` into inference form: the same function in eval mode with fewer operations.

    BatchNorm is folded into the convolution before it; GroupNL layers become
    :class:`seedcnn.layers.group_nl_form.FoldedGroupNL` (the seeds' norm and the following norm folded in, sparse seed
    convolutions as depthwise + sum); the other seeded layers become forms that keep their fixed numbers as seeds. A
    norm with running statistics that follows no single convolution becomes a scale and a shift, and so does one inside
    a module whose code cannot be traced. Weights that torch computes (weight norm, spectral norm, pruning,
    parametrizations) and buffers of floats become parameters. Everything else stays unchanged.

    Args:
        model: a network, also inside a wrapper of ``torch.compile``, DataParallel or DistributedDataParallel. It
            returns logits, or :func:`seedcnn.convert.given.logits_entry` finds them.
        target: the runtime, a key of :data:`seedcnn.layers.targets.TARGETS`; any form except "onnxruntime-custom-op"
            (see :mod:`seedcnn.runtime.custom_op`) runs in any runtime that reads ONNX.
        mono: form of mono filters: "graph" (generated from seed filters and beta when the graph is loaded; small
            files) or "expanded" (the filters of a plain convolution).
        absorb: name of a GroupNL layer -> whether to absorb the norm after it, see
            :class:`seedcnn.layers.group_nl_form.FoldedGroupNL`; other layers decide by the norm's numbers. A later
            release that keeps its parent's choices (:func:`seedcnn.export.absorbed_norms`) has its parent's graph.
        input_size: channels, height and width of the inputs. With it a forward pass shows which norms follow which
            convolutions inside modules whose code cannot be traced, and these are folded too; the result is then for
            this size.
        check: inputs, float32 [N, C, H, W], N >= 2, on which the result must answer as the model does, see
            :func:`seedcnn.export.checking.check_folded`. They also tell the input size. Without them code that behaves
            differently while it is traced (it asks ``isinstance(x, Tensor)``, say) goes unnoticed.

    Returns:
        A module on the CPU in float32 and eval mode, without gradients, that returns logits. It keeps modules' names,
        with "network." before them if the network's own code cannot be traced; ``meta["norms"]`` has norms by them.

    Raises:
        ValueError: if ``target`` or ``mono`` is not one of these.
        ExportError: if the model has forward hooks, cannot be copied, returns no logits, or calls one convolution
            twice, or if the result answers differently.
    """
    if mono not in MONO_FORMS:
        raise ValueError(f"`mono` (={mono!r}) must be one of {', '.join(map(repr, MONO_FORMS))}")
    forms = _Forms(mono, target_of(target), absorb or {})
    if check is not None and input_size is None:
        input_size = (check.shape[1], check.shape[2], check.shape[3])
    traced = _trace(plain_norms_(standalone(model)))
    _Folding(traced, forms, input_size).run()
    _return_logits(traced)
    traced.delete_all_unused_submodules()
    _carry_numbers(traced)
    traced.graph.lint()
    traced.recompile()
    if forms.target.operator:
        use_custom_op(traced)
    traced.eval().requires_grad_(False)
    if check is not None:
        check_folded(model, traced, check)
    return traced


def load_tensors(
    folded: fx.GraphModule, tensors: Mapping[str, npt.NDArray[np.float32]], constants: Collection[str] = ()
) -> None:
    """Load the tensors of a bundle into a folded network, by name, in place.

    Args:
        constants: tensors that the network's code makes itself, :attr:`seedcnn.export.OnnxModel.constants`; they are
            not loaded.

    Raises:
        ExportError: if the network has no tensor of the same name and shape.
    """
    parameters = dict(folded.named_parameters(remove_duplicate=False))
    for name, values in tensors.items():
        if name in constants:
            continue
        target = parameters.get(name)
        if target is None or tuple(target.shape) != values.shape:
            raise ExportError(f"tensor {name!r} of shape {values.shape} has no counterpart in the folded network")
        target.data.copy_(torch.from_numpy(values.copy()))
