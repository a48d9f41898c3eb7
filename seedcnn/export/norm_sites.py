"""Norms that were folded away, as a device finds them: values of the graph, and the tensors that scale and shift them.

On the training images the value behind a norm has mean beta and standard deviation abs(gamma). A device that knows both
can normalise the value by the statistics of its own images instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import floor, log2
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor, fx, nn

from seedcnn.arrays import F32
from seedcnn.bundle import Grid, encode_grid, grid_of_step
from seedcnn.bundle.adaptable import Site
from seedcnn.bundle.codings import Coded, as_norms
from seedcnn.errors import ExportError
from seedcnn.export.onnx_graphs import INPUT, OnnxModel
from seedcnn.layers.forms import ChannelAffine, DepthwiseSum, FoldedSeeded, Rescaled
from seedcnn.layers.group_nl_form import FoldedGroupNL
from seedcnn.layers.local_binary import FoldedLocalBinary
from seedcnn.layers.mono import FoldedMono
from seedcnn.layers.sine_fm import FoldedSineFM
from seedcnn.runtime.session import open_session
from seedcnn.runtime.taps import with_outputs

__all__ = ["NORMS_TENSOR", "NormSites", "find_norms"]

NORMS_TENSOR = "norms"
_LEVELS = 1000  # steps of the largest number: a standard deviation of a tenth of it is right to half a percent
_ALIKE = 1e-4  # of the largest number of a value
_NOISE_SEED = 0x5EED

Reached = tuple[str, str, int]
"""Names of a scale and of a bias, and the first channel that they are of."""


@dataclass(frozen=True, eq=False)
class NormSites:
    """The norms of an exported network that a device can give statistics of its own.

    Attributes:
        places: of each site: name of the value in the graph -> names of its (scale, bias) tensors, and first channel.
        means, stds: float32 [channels of all sites], on the training images.
        channels: of each site.
        left: names of the layers whose norms stay as they are.
    """

    places: Mapping[str, tuple[Reached, ...]]
    means: F32
    stds: F32
    channels: tuple[int, ...]
    left: tuple[str, ...] = ()

    def table(self, names: list[str]) -> tuple[Site, ...]:
        """The wire form, given the names of the tensor table in its order."""
        index = {name: place for place, name in enumerate(names)}
        rows = zip(self.places.items(), self.channels, strict=True)
        return tuple(
            Site(value, channels, tuple((index[scale], index[bias], first) for scale, bias, first in places))
            for (value, places), channels in rows
        )

    def encode(self, grid: Grid | None = None) -> Coded:
        """Code means and standard deviations as the tensor of norms [2, channels].

        Args:
            grid: of the parent's; None takes the largest number for a thousand steps.

        Raises:
            BundleError: if a number does not fit the grid.
        """
        values = np.stack([self.means, self.stds])
        largest = float(np.abs(values).max())
        if grid is None or largest / grid.step > np.iinfo(np.int16).max:
            grid = grid_of_step(2.0 ** floor(log2(max(largest, 2.0**-20) / _LEVELS)))
        return as_norms(encode_grid(NORMS_TENSOR, values, grid))


def _places(path: str, module: nn.Module) -> list[Reached] | None:
    """The tensors that scale and shift the channels of what a folded module returns; None if it mixes them."""
    if isinstance(module, nn.Sequential) and len(module):
        return _places(f"{path}.{len(module) - 1}", module[-1])
    if isinstance(module, FoldedSeeded):
        return _places(f"{path}.after", module.after)
    if isinstance(module, FoldedGroupNL):
        inner = _places(f"{path}.seed_conv", module.seed_conv) if module.absorbed else []
        return None if inner is None else [(f"{path}.scale", f"{path}.shift", 0), *inner]
    if isinstance(module, FoldedSineFM):
        aligned = _places(f"{path}.align", module.align)
        if aligned is None or module.seed_scale is None:
            return None
        generated = [(scale, bias, len(module.seed_scale)) for scale, bias, _ in aligned]
        return [(f"{path}.seed_scale", f"{path}.seed_shift", 0), *generated]
    if isinstance(module, FoldedLocalBinary):
        return _places(f"{path}.pointwise", module.pointwise)
    names: Mapping[type[nn.Module], tuple[str, str]] = {
        Rescaled: ("scale", "shift"),
        ChannelAffine: ("scale", "shift"),
        DepthwiseSum: ("depthwise.weight", "bias"),
        FoldedMono: ("scale", "bias"),
        nn.Conv2d: ("weight", "bias"),
    }
    found = names.get(type(module))
    return None if found is None else [(f"{path}.{found[0]}", f"{path}.{found[1]}", 0)]


def _statistics(norm: Any) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean and standard deviation behind a norm on the training images, [channels] each."""
    one, nothing = torch.ones(norm.num_features), torch.zeros(norm.num_features)
    gamma = one if norm.weight is None else norm.weight.detach().cpu()
    beta = nothing if norm.bias is None else norm.bias.detach().cpu()
    # Of a channel that hardly varies, eps takes its part of the variance.
    share = norm.running_var.double() / (norm.running_var.double() + norm.eps)
    return beta.double().numpy(), (gamma.double().abs() * share.cpu().sqrt()).numpy()


@dataclass(frozen=True, eq=False)
class _Norm:
    path: str
    places: list[Reached]
    mean: npt.NDArray[np.float64]
    std: npt.NDArray[np.float64]


def _norms(folded: fx.GraphModule) -> Iterator[_Norm | str]:
    """The norms that the fold has noted, and the names of those that cannot be reached."""
    for path, norm in folded.meta.get("norms", {}).items():
        try:
            module = folded.get_submodule(path)
        except AttributeError:
            yield path
            continue
        mean, std = _statistics(norm)
        places = _places(path, module)
        if path.endswith(".seed_conv"):
            outer = folded.get_submodule(path.rpartition(".")[0])
            if (
                isinstance(outer, FoldedGroupNL)
                and outer.absorbed
                and outer.scale is not None
                and outer.shift is not None
            ):
                a, c = (part.detach().double().flatten()[: len(mean)].numpy() for part in (outer.scale, outer.shift))
                mean, std = a * mean + c, np.abs(a) * std
        yield path if places is None else _Norm(path, places, mean, std)


def _outputs(folded: fx.GraphModule, paths: list[str], x: Tensor) -> dict[str, F32]:
    """The values that modules return; those that are called more than once, or return no tensor, are left out."""
    found: dict[str, list[Any]] = {path: [] for path in paths}

    def noting(path: str) -> Any:
        # A copy: what comes next may work in place.
        return lambda _, __, out: found[path].append(out.clone() if isinstance(out, Tensor) else None)

    handles = [folded.get_submodule(path).register_forward_hook(noting(path)) for path in paths]
    try:
        with torch.no_grad():
            folded(x)
    finally:
        for handle in handles:
            handle.remove()
    once = {path: outs[0] for path, outs in found.items() if len(outs) == 1}
    return {path: out.numpy() for path, out in once.items() if isinstance(out, Tensor) and out.dim() >= 2}


def find_norms(folded: fx.GraphModule, exported: OnnxModel, input_size: tuple[int, int, int]) -> NormSites:
    """Find the norms of a network in its exported graph: a value of the graph belongs to a norm if it is equal to it.

    Args:
        folded: from :func:`seedcnn.export.fold`, with the weights of ``exported``.
        exported: the same network as a graph.
        input_size: channels, height, width.

    Raises:
        ExportError: if there is no such norm.
    """
    noise = torch.randn(2, *input_size, generator=torch.Generator().manual_seed(_NOISE_SEED))
    noted = list(_norms(folded))
    norms = [each for each in noted if isinstance(each, _Norm)]
    left = [each for each in noted if isinstance(each, str)]
    wanted = _outputs(folded, [norm.path for norm in norms], noise)
    graph = onnx.load_from_string(exported.graph).graph
    names = [name for node in graph.node for name in node.output if name and name != graph.output[0].name]
    fixed = {name: _drawn(folded, name) for name in exported.seeded}
    session = open_session(with_outputs(exported.graph, names), exported.tensors | exported.constants | fixed)
    values = dict(zip(names, session.run(names, {INPUT: noise.numpy()}), strict=True))
    learned = exported.tensors.keys()
    found: dict[str, _Norm] = {}
    for norm in norms:
        value = _equal(wanted.get(norm.path), values)
        reached = all(name in learned for place in norm.places for name in place[:2])
        if value is None or value in found or not reached:
            left.append(norm.path)
        else:
            found[value] = norm
    if not found:
        why = f"{len(left)} norms are mixed into their layers" if left else "the network has no norm that was folded"
        raise ExportError(f"nothing can be adapted on a device: {why}")
    ordered = [(name, found[name]) for name in names if name in found]
    return NormSites(
        {name: tuple(norm.places) for name, norm in ordered},
        np.concatenate([norm.mean for _, norm in ordered]).astype(np.float32),
        np.concatenate([norm.std for _, norm in ordered]).astype(np.float32),
        tuple(len(norm.mean) for _, norm in ordered),
        tuple(left),
    )


def _drawn(folded: fx.GraphModule, name: str) -> F32:
    values: F32 = dict(folded.named_parameters(remove_duplicate=False))[name].detach().numpy()
    return values


def _equal(wanted: F32 | None, values: Mapping[str, F32]) -> str | None:
    """The first value of the graph, in its order, that is equal to what a module returns."""
    if wanted is None:
        return None
    close = _ALIKE * float(np.abs(wanted).max(initial=0))
    for name, value in values.items():
        if value.shape == wanted.shape and value.dtype == wanted.dtype and np.abs(value - wanted).max() <= close:
            return name
    return None
