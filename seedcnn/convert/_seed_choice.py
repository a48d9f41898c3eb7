"""Choice of the dense filters that become seed filters, and of the generated channel that replaces each other one."""

from __future__ import annotations

import torch
from numpy.polynomial.hermite import hermgauss
from torch import Tensor, nn

from seedcnn.layers import GroupNLConv2d
from seedcnn.ops.group_nl import group_nl_reference, nlf_index

__all__ = ["choose_order", "cosines", "responses"]

_NODES = 64  # nodes of the Gauss-Hermite rule


def responses(layer: GroupNLConv2d, mean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return each output channel's mean, variance and correlation with its seed, all float64 [c_out], for Gaussian seed
    maps of the given means [c_seed] and variance 1."""
    nodes, weights = (torch.from_numpy(values) for values in hermgauss(_NODES))
    x, weight = nodes * 2**0.5, weights / weights.sum()
    seeds = mean.double()[:, None, None] + x  # [c_seed, 1, nodes]
    maps = seeds
    if layer.gamma:
        maps = group_nl_reference(
            seeds,
            layer.omega.cpu().double(),
            layer.phi.cpu().double(),
            nlf_groups=layer.nlf_groups,
            out_channels=layer.out_channels,
            nlf=layer.nlf,
        )
    maps = maps[:, 0]
    mean = (maps * weight).sum(1)
    centred = maps - mean[:, None]
    variance = (centred.square() * weight).sum(1)
    correlation = (centred * x * weight).sum(1) / variance.sqrt().clamp(min=1e-12)
    return mean, variance, correlation


def cosines(weights: list[Tensor]) -> Tensor:
    """Average the signed cosines between filters over layers, float64 [c_out, c_out]."""
    flat = [nn.functional.normalize(w.detach().cpu().double().flatten(1), dim=1) for w in weights]
    return torch.stack([w @ w.T for w in flat]).mean(0)


def _choose(similarity: Tensor, importance: Tensor, count: int) -> Tensor:
    """Choose ``count`` seeds by greedy facility location: each adds most to the weighted sum of best similarities."""
    similarity = similarity * importance  # each column is a filter to represent
    best = torch.zeros(len(similarity), dtype=similarity.dtype)
    seeds: list[int] = []
    for _ in range(count):
        gain = torch.maximum(similarity, best).sum(1)
        gain[seeds] = -1
        seeds.append(int(gain.argmax()))
        best = torch.maximum(best, similarity[seeds[-1]])
    return torch.tensor(seeds)


def choose_order(layer: GroupNLConv2d, alike: Tensor, importance: Tensor) -> Tensor:
    """Order the dense filters, int64 [c_out]: position p of the converted layer takes filter ``order[p]``.

    Args:
        alike: cosines between the dense filters, [c_out, c_out].
        importance: importance of each dense filter, [c_out], positive.
    """
    c_seed, c_out = layer.seed_channels, layer.out_channels
    source, _ = nlf_index(c_seed, c_out, layer.nlf_groups)
    similarity = alike.abs()
    seeds = _choose(similarity, importance, c_seed)
    strength = responses(layer, torch.zeros(c_seed))[2].abs()[c_seed:]
    slots: list[list[int]] = [[] for _ in range(c_seed)]
    for generated in strength.argsort(descending=True).tolist():
        slots[int(source[generated])].append(generated)
    capacity = [len(s) for s in slots]
    # Seeds with the most followers go where the functions keep most of the seed.
    rest = torch.tensor([c for c in range(c_out) if c not in set(seeds.tolist())], dtype=torch.int64)
    order = torch.full((c_out,), -1, dtype=torch.int64)
    if not len(rest):
        order[:] = seeds
        return order
    table = similarity[seeds][:, rest]  # [c_seed, c_gen]
    followers: list[list[int]] = [[] for _ in range(c_seed)]
    # places[k]: how many more seeds may get a k-th follower while every seed still fits a position with enough slots.
    places = [0, *(sum(c >= k for c in capacity) for k in range(1, max(capacity) + 1)), 0]
    taken: set[int] = set()
    for flat in table.flatten().argsort(descending=True).tolist():
        seed, which = divmod(flat, len(rest))
        size = len(followers[seed]) + 1
        if which not in taken and places[size]:
            followers[seed].append(int(rest[which]))
            taken.add(which)
            places[size] -= 1
    reach = [(len(slots[p]), float(sum(strength[g] for g in slots[p]))) for p in range(c_seed)]
    positions = sorted(range(c_seed), key=lambda p: reach[p], reverse=True)
    ranked = sorted(range(c_seed), key=lambda s: (len(followers[s]), float(similarity[seeds[s], followers[s]].sum())))
    for position, seed in zip(positions, reversed(ranked), strict=True):
        order[position] = seeds[seed]
        for slot, follower in zip(slots[position], followers[seed], strict=True):
            order[c_seed + slot] = follower
    return order
