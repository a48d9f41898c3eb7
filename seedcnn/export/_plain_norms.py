"""Norms of other libraries as torch's own: BatchNorm with an activation inside, frozen BatchNorm."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from seedcnn.layers.forms import is_affine

__all__ = ["plain_norms_"]

_PARTS = ("drop", "act")  # what timm's norms with an activation apply after the norm, in order
_MAGNITUDES = (1e-2, 1.0, 1e2, 1e4)  # of the inputs that a norm and its plain form are compared on


def plain_norms_(model: nn.Module) -> nn.Module:
    """Replace norms that have running statistics and code of their own by torch's, in place.

    A norm with a dropout and an activation inside becomes a BatchNorm2d, the dropout and the activation. A norm whose
    answers to noise differ from those of the plain form is left alone.

    Args:
        model: a network in eval mode on the CPU, in float32.
    """
    for parent in list(model.modules()):
        for name, module in list(parent.named_children()):
            plain = None if is_affine(module) else _plain(module)
            if plain is not None:
                setattr(parent, name, plain)
    return model


def _plain(module: Any) -> nn.Module | None:
    """Return the plain form of a norm, or None for anything else."""
    mean, variance, eps = (getattr(module, part, None) for part in ("running_mean", "running_var", "eps"))
    if not (isinstance(mean, Tensor) and isinstance(variance, Tensor) and isinstance(eps, float)):
        return None
    if module.training or mean.dim() != 1 or mean.shape != variance.shape:
        return None
    kind = nn.SyncBatchNorm if isinstance(module, nn.SyncBatchNorm) else nn.BatchNorm2d
    norm = kind(len(mean), eps)
    with torch.no_grad():
        for name in ("weight", "bias", "running_mean", "running_var"):
            value = getattr(module, name, None)
            if isinstance(value, Tensor) and value.shape == mean.shape:
                getattr(norm, name).copy_(value)
            elif value is not None:
                return None
    parts = [module._modules[part] for part in _PARTS if module._modules.get(part) is not None]
    plain = (nn.Sequential(norm, *parts) if parts else norm).eval()
    return plain if _alike(module, plain, len(mean)) else None


def _alike(module: nn.Module, plain: nn.Module, channels: int) -> bool:
    """Return whether two modules give the same answers to noise of several magnitudes."""
    noise = torch.randn(2, channels, 3, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for magnitude in _MAGNITUDES:
            try:
                ours, theirs = (each(noise * magnitude) for each in (plain, module))
            except Exception:  # code of others, which may ask for another shape
                return False
            same = isinstance(theirs, Tensor) and ours.shape == theirs.shape
            if not same or not torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5 * magnitude):
                return False
    return True
