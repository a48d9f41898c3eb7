"""Initialisation of a converted network from the trained dense one, whose filters become the seed filters.

Each layer keeps c_seed of its c_out dense filters as seeds, and the nonlinear functions generate replacements of the
others from them. A greedy choice gives every filter a seed that it correlates with strongly. It changes the order of
the channels, so norms, shortcuts and following layers are reordered with it; if that is impossible (an unknown
operation), the first c_seed filters stay and the rest is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from seedcnn.convert._channel_spaces import Spaces
from seedcnn.convert._following import followed_norms, followed_spaces
from seedcnn.convert._seed_choice import choose_order, cosines, responses
from seedcnn.convert.tracing import frozen_types
from seedcnn.errors import ConversionError
from seedcnn.layers import ConvLayer, GroupNLConv2d
from seedcnn.layers.group_nl import check_dense
from seedcnn.ops.group_nl import nlf_index

__all__ = ["FromDenseReport", "reestimate_batchnorm_", "seed_from_dense_"]


@dataclass(frozen=True)
class FromDenseReport:
    """Result of :func:`seed_from_dense_`: what it could keep.

    Attributes:
        reordered: layers whose seeds were chosen freely.
        in_order: layer -> why its seeds had to be the first filters.
        explained: layer -> share of the replaced filters' responses (uncentred R2 for white inputs) that the generated
            channels explain; 1 would lose nothing.
    """

    reordered: tuple[str, ...]
    in_order: dict[str, str]
    explained: dict[str, float]

    def __str__(self) -> str:
        """One line for each layer: whether its seeds were chosen freely, and how much of the others is explained."""
        lines = []
        for name, share in self.explained.items():
            how = "its first filters stay: " + self.in_order[name] if name in self.in_order else "seeds chosen freely"
            lines.append(f"{name}: {share:.1%} of the replaced filters explained; {how}")
        return "\n".join(lines)


def _pairs(
    model: nn.Module, dense: nn.Module, layers: Collection[str] | None
) -> dict[str, tuple[GroupNLConv2d, nn.Conv2d]]:
    """Return the converted layers and the convolutions they replaced, by qualified name."""
    plain = dict(dense.named_modules())
    pairs: dict[str, tuple[GroupNLConv2d, nn.Conv2d]] = {}
    for name, module in model.named_modules():
        if not isinstance(module, ConvLayer) or (layers is not None and name not in layers):
            continue
        conv = plain.get(name)
        if not isinstance(module, GroupNLConv2d) or not isinstance(conv, nn.Conv2d):
            raise ConversionError(
                f"{name} is a {type(module).__name__} where the dense network has {type(conv).__name__}; "
                "only GroupNLConv2d can be initialised from an nn.Conv2d of the same name"
            )
        try:
            check_dense(conv, module)
        except ValueError as error:
            raise ConversionError(f"{name}: {error}") from None
        pairs[name] = (module, conv)
    if not pairs:
        raise ConversionError("`model` has no GroupNLConv2d; convert it first")
    return pairs


def _importance(norm: nn.BatchNorm2d | None, channels: int) -> Tensor:
    """Return each filter's importance to the network: the size of its norm's scale, float64 [channels]."""
    if norm is None:
        return torch.ones(channels, dtype=torch.float64)
    return norm.weight.detach().abs().cpu().double().clamp(min=1e-6)


def _norms_of(network: nn.Module, names: Mapping[str, str]) -> dict[str, Any]:
    """Map each convolution to the BatchNorm after it, if that is affine and has running statistics.

    A frozen one has the same numbers under the same names, all of them buffers.
    """
    norms: dict[str, Any] = {conv: network.get_submodule(norm) for conv, norm in names.items()}
    return {
        conv: norm
        for conv, norm in norms.items()
        if isinstance(norm, frozen_types())
        or (type(norm) is nn.BatchNorm2d and norm.affine and norm.track_running_stats)
    }


def _orders(
    pairs: dict[str, tuple[GroupNLConv2d, nn.Conv2d]], norms: Mapping[str, nn.BatchNorm2d], spaces: Spaces | None
) -> dict[int, Tensor]:
    """Choose one order for each space that can be reordered."""
    if spaces is None:
        return {}
    for name, (layer, _) in pairs.items():
        if layer.conv_groups > 1 and name in spaces.input:
            spaces.fixed.setdefault(spaces.input[name], f"{name} has a grouped seed convolution")
    writers: dict[int, list[str]] = {}
    for name in pairs:
        if name in spaces.output and spaces.output[name] not in spaces.fixed:
            writers.setdefault(spaces.output[name], []).append(name)
    orders = {}
    for space, names in writers.items():
        main = max(names, key=lambda n: pairs[n][1].weight.numel())
        layer = pairs[main][0]
        alike = [n for n in names if pairs[n][0].seed_channels == layer.seed_channels]
        importance = torch.stack([_importance(norms.get(n), layer.out_channels) for n in alike]).mean(0)
        orders[space] = choose_order(layer, cosines([pairs[n][1].weight for n in alike]), importance)
    return orders


def _reordered(tensors: dict[str, Tensor], out: Tensor | None, into: Tensor | None) -> dict[str, Tensor]:
    """Return a plain module's state with its output and input channels reordered."""
    result = {}
    for name, value in tensors.items():
        if out is not None and value.dim():
            value = value[out.to(value.device)]
        if into is not None and value.dim() > 1 and value.shape[1] == len(into):
            value = value[:, into.to(value.device)]
        result[name] = value
    return result


def _statistics(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        raise ConversionError(f"{norm} has no running statistics")
    return mean, variance


@torch.no_grad()
def _set_layer(
    layer: GroupNLConv2d,
    conv: nn.Conv2d,
    norms: tuple[nn.BatchNorm2d, nn.BatchNorm2d] | None,
    out: Tensor,
    into: Tensor,
) -> float:
    """Set the seed filters and the norm after the layer; return the explained share of the replaced filters."""
    c_seed = layer.seed_channels
    weight = conv.weight[out.to(conv.weight.device)][:, into.to(conv.weight.device)]
    bias = None if conv.bias is None else conv.bias[out.to(conv.bias.device)]
    scale, mean = torch.ones(c_seed), torch.zeros(c_seed)
    if norms is not None:
        old_mean, old_var = (value[out.to(value.device)][:c_seed] for value in _statistics(norms[0]))
        if layer.norm is not None:
            for value, old in zip(_statistics(layer.norm), (old_mean, old_var), strict=True):
                value.copy_(old)
        else:
            # The functions expect maps of about unit size; the norm after the layer undoes the factor.
            scale = (old_var + norms[0].eps).rsqrt().cpu()
            mean = old_mean.cpu() * scale
    seeds = weight[:c_seed] * scale.to(weight)[:, None, None, None]
    layer.weight.copy_(layer.fitting(seeds))
    if layer.bias is not None and bias is not None:
        layer.bias.copy_(bias[:c_seed] * scale.to(bias))
    m, v, correlation = responses(layer, mean)
    source, _ = nlf_index(c_seed, layer.out_channels, layer.nlf_groups)
    pairing = correlation[c_seed:] * cosines([weight])[source, torch.arange(c_seed, layer.out_channels)]
    if norms is not None:
        for value, expected in zip(_statistics(norms[1]), (m, v), strict=True):
            value.copy_(expected)
        norms[1].weight[c_seed:] *= pairing.to(norms[1].weight)
    return float(pairing.square().mean()) if len(pairing) else 1.0


def _reason(spaces: Spaces, name: str) -> str:
    return spaces.fixed[spaces.output[name]] if name in spaces.output else "not reached by the forward pass"


def _copy_rest(
    model: nn.Module,
    dense: nn.Module,
    converted: set[str],
    orders: Callable[[str], tuple[Tensor | None, Tensor | None]],
) -> None:
    """Copy everything that was not converted; ``orders(name)`` orders a module's output and input channels."""
    inside = tuple(f"{name}." for name in converted)
    plain = dict(dense.named_modules())
    for name, module in model.named_modules():
        own = {n: t for n, t in module.state_dict().items() if "." not in n}
        if not own or name in converted or name.startswith(inside):
            continue
        if name not in plain:
            raise ConversionError(f"the dense network has no {name or 'root'} module with {', '.join(own)}")
        theirs = {n: t for n, t in plain[name].state_dict().items() if "." not in n}
        if {n: t.shape for n, t in own.items()} != {n: t.shape for n, t in theirs.items()}:
            raise ConversionError(f"{name or 'root'} has different tensors in the two networks")
        for n, t in _reordered(theirs, *orders(name)).items():
            own[n].copy_(t)


@torch.no_grad()
def seed_from_dense_(
    model: nn.Module,
    dense: nn.Module,
    *,
    images: Tensor | Iterable[Tensor] | None = None,
    layers: Collection[str] | None = None,
) -> FromDenseReport:
    """Initialise a converted network from the trained dense network it was converted from, in place.

    Seed filters are dense filters, scaled to unit response if the layer has no norm of its own. A generated channel
    takes the place of the replaced filter that its seed resembles most; the norm after it keeps that filter's shift,
    and its scale times the correlation of the two. Everything else is copied, with channels reordered where needed.

    Args:
        model: the converted network (:func:`seedcnn.convert.convert_`), with GroupNLConv2d layers.
        dense: the trained, unconverted network with the same names; it is not changed.
        images: normalised images [N, 3, H, W], or several such batches, to re-estimate the BatchNorm statistics on (a
            few thousand images); without them the norms after converted layers hold estimates for Gaussian maps.

    Returns:
        What was reordered, what was not and why, and how much of the replaced filters is explained.

    Raises:
        ConversionError: if a layer has no counterpart, or is of a family other than GroupNL.
    """
    pairs = _pairs(model, dense, layers)
    spaces, names = followed_spaces(dense), followed_norms(dense)
    old_norms, new_norms = _norms_of(dense, names), _norms_of(model, names)
    orders = _orders(pairs, old_norms, spaces)

    def order_of(table: dict[str, int] | None, name: str) -> Tensor | None:
        return None if table is None or name not in table else orders.get(table[name])

    inputs, outputs = (None, None) if spaces is None else (spaces.input, spaces.output)
    _copy_rest(model, dense, set(pairs), lambda name: (order_of(outputs, name), order_of(inputs, name)))
    explained, in_order = {}, {}
    for name, (layer, conv) in pairs.items():
        out, into = order_of(outputs, name), order_of(inputs, name)
        if out is None:
            in_order[name] = "the network cannot be traced" if spaces is None else _reason(spaces, name)
        old, new = old_norms.get(name), new_norms.get(name)
        explained[name] = _set_layer(
            layer,
            conv,
            None if old is None or new is None else (old, new),
            torch.arange(layer.out_channels) if out is None else out,
            torch.arange(layer.in_channels) if into is None else into,
        )
    if images is not None:
        reestimate_batchnorm_(model, images)
    return FromDenseReport(tuple(n for n in pairs if n not in in_order), in_order, explained)


@torch.no_grad()
def reestimate_batchnorm_(model: nn.Module, images: Tensor | Iterable[Tensor]) -> None:
    """Set every BatchNorm's running statistics to their averages over the given images, in place.

    Args:
        images: normalised images [N, 3, H, W] (split into batches of 250), or an iterable of such batches.

    Raises:
        ValueError: if there are no images.
    """
    batches = images.split(250) if isinstance(images, Tensor) else images
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    modes = {module: module.training for module in model.modules()}
    seen = 0
    try:
        model.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain average over batches
            norm.train()
        for batch in batches:
            model(batch)
            seen += len(batch)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, mode in modes.items():
            module.training = mode
    if not seen:
        raise ValueError("`images` is empty; re-estimating BatchNorm needs at least one image")
