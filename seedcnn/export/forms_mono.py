"""Inference forms of generated filters: generated in the graph when it is loaded, or materialised."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from seedcnn.export.forms import SeedSpec, affine_of
from seedcnn.layers import ConvLayer, MonoConv2d
from seedcnn.layers.mono import BETA_ID, generate_filters

__all__ = ["MONO_FORMS", "FoldedGroupNorm", "FoldedMono", "fold_mono", "geometry_of", "with_norm"]

MONO_FORMS = ("graph", "expanded")
"""How mono filters leave: as operations on seed filters and beta in the graph, or as the filters of a convolution."""


def geometry_of(layer: ConvLayer) -> ConvLayer:
    """A layer without weights that convolves with the geometry of ``layer``."""
    geometry: Any = (layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.padding_mode)
    return ConvLayer(layer.in_channels, layer.out_channels, *geometry)


def with_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d | None) -> nn.Conv2d:
    """A convolution with the norm that follows it folded in."""
    return conv if norm is None else fuse_conv_bn_eval(conv, norm)


class FoldedMono(nn.Module):
    """MonoConv + BatchNorm in inference form, with the filters generated in the graph.

    ``conv(x, scale * generate(weight, beta)) + bias``: what is computed from parameters alone is written as operations
    on constants, which a runtime does once when it loads the graph. Only the seed filters, beta's seed, and one scale
    and one bias for each output channel travel.

    Args:
        layer: a layer without its pointwise part.
        norm: the BatchNorm that follows it, or None.

    Shape:
        [N, c_in, H, W] to [N, c_out, H', W'].
    """

    def __init__(self, layer: MonoConv2d, norm: nn.BatchNorm2d | None) -> None:
        super().__init__()
        self.geometry, self.groups = geometry_of(layer), layer.groups
        self.rule: dict[str, Any] = {"fgf": layer.fgf, "normalize": layer.normalize, "eps": layer.eps}
        self.weight = nn.Parameter(layer.weight.detach().clone())
        self.beta = nn.Parameter(layer.beta.detach().cpu().clone())
        scale, shift = affine_of(norm, layer.out_channels)
        bias = shift if layer.bias is None else layer.bias.detach().double() * scale + shift
        self.scale = None if norm is None else nn.Parameter(scale.float()[:, None, None, None])
        self.bias = None if norm is None and layer.bias is None else nn.Parameter(bias.float())
        self.seed_specs = {"beta": SeedSpec(layer.seed, BETA_ID, layer.beta_fixed, layer.beta.numel(), 1)}

    def filters(self) -> Tensor:
        """The filters with the norm's scale, [c_out, c_in / groups, kh, kw]."""
        made = generate_filters(self.weight, self.beta, **self.rule)
        return made if self.scale is None else made * self.scale

    def forward(self, x: Tensor) -> Tensor:
        """[N, c_in, H, W] to [N, c_out, H', W']."""
        return self.geometry.convolve(x, self.filters(), self.bias, self.groups)


class FoldedGroupNorm(nn.Module):
    """GroupNorm written out; an exporter's own form would leave constants of its own in the graph.

    Shape:
        [N, C, H, W] to the same shape.
    """

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.num_groups, self.eps = norm.num_groups, norm.eps
        self.weight = nn.Parameter(norm.weight.detach()[:, None, None].clone())
        self.bias = nn.Parameter(norm.bias.detach()[:, None, None].clone())

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to the same shape."""
        y = x.unflatten(1, (self.num_groups, x.shape[1] // self.num_groups))
        y = y - y.mean((2, 3, 4), keepdim=True)
        y = y * (y.square().mean((2, 3, 4), keepdim=True) + self.eps).rsqrt()
        return y.flatten(1, 2) * self.weight + self.bias


def _expanded(core: FoldedMono) -> nn.Conv2d:
    rules = core.geometry
    options: Any = {"bias": core.bias is not None, "padding_mode": rules.padding_mode}
    geometry: Any = (rules.kernel_size, rules.stride, rules.padding, rules.dilation, core.groups)
    conv = nn.Conv2d(rules.in_channels, rules.out_channels, *geometry, **options)
    conv.weight = nn.Parameter(core.filters().detach())
    if core.bias is not None:
        conv.bias = nn.Parameter(core.bias.detach())
    return conv


def fold_mono(layer: MonoConv2d, norm: nn.BatchNorm2d | None, form: str) -> nn.Module:
    """The inference form of a layer and the norm that follows it.

    Args:
        form: "graph" (:class:`FoldedMono`) or "expanded" (``nn.Conv2d`` with the generated filters).
    """
    core: nn.Module = FoldedMono(layer, None if layer.pointwise is not None else norm)
    if form == "expanded":
        core = _expanded(core)  # type: ignore[arg-type]
    if layer.norm is None or layer.pointwise is None:
        return core
    return nn.Sequential(core, FoldedGroupNorm(layer.norm), nn.ReLU(), with_norm(layer.pointwise, norm))
