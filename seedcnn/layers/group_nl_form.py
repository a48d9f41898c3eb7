"""Inference form of a GroupNL layer: the norms around it folded in, its fixed numbers as seeds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from seedcnn.layers.forms import SeedSpec, affine_of, column, seed_conv_of, still_channels
from seedcnn.layers.targets import SINES, Form
from seedcnn.ops.channels import channel_shuffle, l2_normalize
from seedcnn.ops.group_nl import NLFS, nlf_index, triangle_wave

__all__ = ["FoldedGroupNL"]

# Functions of one affine argument u = W * z + B, which absorbs omega, phi and the inverse of the following norm. Sine
# is one of them too, but the target decides how it is written.
_OF_AFFINE: dict[str, Callable[[Tensor], Tensor]] = {
    "triangle": triangle_wave,
    "gaussian": lambda u: torch.exp(-u.square()),
    "abs": torch.abs,
    "negate": torch.neg,
    "identity": lambda u: u,
}
# Beyond this ratio float32 cannot recover the seed maps from their normalised form to 1e-5.
_MAX_SHIFT_OVER_SCALE = 64.0


class FoldedGroupNL(nn.Module):
    """conv + GroupNL + BatchNorm in inference form: ``cat(z, A * f(W * z + B) + C)``.

    z is the seed convolution with the seeds' norm and the following norm's seed half folded in, ``z = a * s + c``; W
    and B undo that: ``W = omega / a`` and ``B = omega * (phi - c / a)`` for sine. An exporter writes their computation
    from the fixed omega and phi and the learned a and c as operations on constants: the runtime runs them once when it
    loads the graph, and the fixed numbers can travel as a seed. If a is too small relative to c for this to be exact
    in float32, or the seeds are l2-normalised, nothing is absorbed: z = s, and a and c are applied to the seed half of
    the output.

    Args:
        layer: a :class:`seedcnn.layers.GroupNLConv2d`, folded with its running statistics (eval mode).
        norm: the BatchNorm that follows it, or None.
        form: the requested form.

    Shape:
        [N, c_in, H, W] to [N, c_out, H', W'].
    """

    def __init__(self, layer: Any, norm: nn.BatchNorm2d | None, form: Form) -> None:
        super().__init__()
        c_seed = layer.seed_channels
        seed_scale, seed_shift = affine_of(layer.norm, c_seed)
        scale, shift = affine_of(norm, layer.out_channels)
        a, c = scale[:c_seed], shift[:c_seed]
        self.l2 = layer.normalize == "l2"
        absorb, target = form.absorb, form.target
        if absorb is None:
            absorb = bool((c.abs() <= _MAX_SHIFT_OVER_SCALE * a.abs()).all())
        self.absorbed = norm is not None and absorb and bool((a != 0).all()) and not self.l2
        if self.absorbed:
            seed_scale, seed_shift = seed_scale * a, seed_shift * a + c
        self.divisors = ("scale",) if self.absorbed else ()
        still = still_channels(layer.norm, c_seed)
        self.seed_conv = seed_conv_of(layer, layer.conv_groups, seed_scale, seed_shift, target, still)
        self.shuffle_groups = layer.conv_groups if layer.shuffle else 1
        self.nlf, self.nlf_groups = layer.nlf, layer.nlf_groups
        self.of_affine = SINES[target.sine] if self.nlf == "sine" else _OF_AFFINE.get(self.nlf)
        self.c_seed = c_seed
        self.scale = None if norm is None else column(scale)  # a, then A, as one tensor and one entry of a bundle
        self.shift = None if norm is None else column(shift)  # c, then C
        source, block = nlf_index(c_seed, layer.out_channels, layer.nlf_groups)
        self.gathers = source.tolist() != list(range(c_seed))
        self.runs = _runs(source.tolist()) if target.spread == "concat" else None
        self.register_buffer("source", source, persistent=False)
        used = NLFS[layer.nlf].uses
        self.omega = column(layer.omega.cpu()[block]) if "omega" in used else None
        self.phi = column(layer.phi.cpu()[block]) if "phi" in used else None
        fixed, repeat = layer.fixed(), c_seed // layer.nlf_groups
        # Numbers of a loaded public checkpoint have no seed: they travel as values.
        self.seed_specs = {
            name: SeedSpec(layer.seed, fixed[name].tensor_id, fixed[name].bounds, fixed[name].shape[0], repeat)
            for name in used
            if layer.given is None
        }

    def _gather(self, x: Tensor, dim: int) -> Tensor:
        return x.index_select(dim, self.get_buffer("source")) if self.gathers else x

    def _spread(self, z: Tensor) -> Tensor:
        """Return the seed map of each generated channel."""
        if self.runs is None or not self.gathers:
            return self._gather(z, 1)
        return torch.cat([z[:, begin:end] for begin, end in self.runs], dim=1)

    def argument(self) -> tuple[Tensor | None, Tensor | None]:
        """Return W and B of a function of one affine argument, both [c_gen, 1, 1]; None stands for ones or zeros."""
        w, b = self._undo()
        if self.phi is not None:
            b = self.phi if b is None else self.phi + b
        if self.omega is not None:
            w = self.omega if w is None else self.omega * w
            b = None if b is None else self.omega * b
        return w, b

    def _undo(self) -> tuple[Tensor | None, Tensor | None]:
        """Return the scale and shift that undo the absorbed norm, both [c_gen, 1, 1]; None if nothing is absorbed."""
        if not self.absorbed or self.scale is None or self.shift is None:
            return None, None
        a, c = (self._gather(part[: self.c_seed], 0) for part in (self.scale, self.shift))
        return a.reciprocal(), -(c / a)

    def generate(self, z: Tensor) -> Tensor:
        """Generate the maps before A and C: [N, c_seed, H', W'] to [N, c_gen, H', W']."""
        u = self._spread(z)
        w, b = self._undo() if self.of_affine is None else self.argument()
        u = u if w is None else u * w
        u = u if b is None else u + b
        if self.of_affine is not None:
            return self.of_affine(u)
        zero = torch.zeros(1, 1, 1)
        omega, phi = (zero if fixed is None else fixed for fixed in (self.omega, self.phi))
        return NLFS[self.nlf].function(u, omega, phi)

    def seeds(self, x: Tensor) -> Tensor:
        """Compute the seed maps z: [N, c_in, H, W] to [N, c_seed, H', W']."""
        if self.shuffle_groups > 1:
            x = channel_shuffle(x, self.shuffle_groups)
        z = self.seed_conv(x)
        return l2_normalize(z) if self.l2 else z

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, c_in, H, W] to [N, c_out, H', W']."""
        z = self.seeds(x)
        generated = self.generate(z)
        if self.scale is not None and self.shift is not None:
            generated = generated * self.scale[self.c_seed :] + self.shift[self.c_seed :]
            if not self.absorbed:
                z = z * self.scale[: self.c_seed] + self.shift[: self.c_seed]
        return torch.cat([z, generated], dim=1)


def _runs(indices: list[int]) -> list[tuple[int, int]]:
    """Group indices into runs of neighbours: (first, last + 1) of each."""
    runs: list[tuple[int, int]] = []
    for index in indices:
        if runs and runs[-1][1] == index:
            runs[-1] = (runs[-1][0], index + 1)
        else:
            runs.append((index, index + 1))
    return runs
