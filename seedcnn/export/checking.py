"""Whether a folded network still computes the function of the network it was made from."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from seedcnn.convert.copies import copy_model
from seedcnn.convert.given import evaluating, logits_of, unwrapped
from seedcnn.errors import DataError, ExportError
from seedcnn.export._standalone import standalone

__all__ = ["FOLD_TOLERANCE", "check_folded"]

FOLD_TOLERANCE = 1e-3
"""Largest accepted difference of a logit, as a share of the largest logit.

Folding in float32 changed logits by 1e-7 to 1e-5 in the networks of docs/timm.md; what folding gets wrong changes them
by 1e-2 and more.
"""

_ROUNDING = 0.05  # what float16, bfloat16 or TF32 may add to that
_BATCH, _NUMBERS = 64, 64 * 3 * 64 * 64  # images at a time: at most, and as many as have this many numbers


def check_folded(model: nn.Module, folded: fx.GraphModule, x: Tensor) -> float:
    """Compare a network in eval mode, as it was given, with its folded form.

    If the two differ by more than :data:`FOLD_TOLERANCE` they are compared again, both in float64 on the CPU: what is
    left then is no rounding. The first image is also asked for alone, as a device does.

    Args:
        model: the network that was folded, in any mode, on any device; it is not changed.
        folded: the network from :func:`seedcnn.export.fold`, before its tensors are rounded to a grid.
        x: inputs, float32 [N, C, H, W], N >= 2.

    Returns:
        The largest difference of a logit, as a share of the largest logit.

    Raises:
        ExportError: if they differ, if an image's answer depends on the other images of its batch, or if the network
            cannot take ``x`` or returns no logits.
    """
    network = unwrapped(model)
    given = _answers(network, x)
    apart = _apart(given, _answers(folded, x))
    if not apart <= FOLD_TOLERANCE:
        _explain(network, folded, x, given, apart)
    alone = _apart(given[:1], _answers(network, x[:1]))
    if not alone <= _ROUNDING:
        raise ExportError(
            f"{type(network).__name__} answers an image differently when it is alone, by {alone:.1e} of the largest "
            "logit; a device asks for one image at a time (norms without running statistics, `squeeze()` of a batch?)"
        )
    return apart


def _explain(network: nn.Module, folded: fx.GraphModule, x: Tensor, given: Tensor, apart: float) -> None:
    """Raise ``ExportError`` with the reason for a difference, unless it is the rounding of a low precision."""
    name = type(network).__name__
    if (again := _apart(given, _answers(network, x))) > FOLD_TOLERANCE:
        raise ExportError(
            f"{name} answers the same images differently each time, by {again:.1e} of the largest logit, also in eval "
            "mode; no bundle can do so"
        )
    exact = _answers(standalone(network).double(), x)
    if _apart(exact, _answers(copy_model(folded).double(), x)) <= FOLD_TOLERANCE and apart <= _ROUNDING:
        return
    own = _apart(exact, given)
    if own > max(FOLD_TOLERANCE, apart / 4):
        raise ExportError(
            f"{name} is so sensitive that rounding alone changes its logits by {own:.1e} of the largest; its inference "
            f"form differs by {apart:.1e}, and at most {FOLD_TOLERANCE:.0e} is accepted"
        )
    raise ExportError(
        f"the inference form of {name} answers differently from the network, by {apart:.1e} of the largest logit; "
        f"at most {FOLD_TOLERANCE:.0e} is accepted"
    )


def _answers(network: nn.Module, x: Tensor) -> Tensor:
    """Return logits in float64 on the CPU, computed on the network's device and in its dtype."""
    first: Any = next((p for p in network.parameters() if p.is_floating_point()), torch.empty(0))
    at_once = max(1, min(_BATCH, _NUMBERS // max(x[0].numel(), 1)))
    try:
        with evaluating(network):
            found = [logits_of(network(part.to(first.device, first.dtype))).double().cpu() for part in x.split(at_once)]
        return torch.cat(found)
    except DataError as error:
        raise ExportError(str(error)) from None
    except Exception as error:  # the network's own code may raise anything
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ExportError(
            f"{type(network).__name__} cannot answer inputs of shape {tuple(x.shape[1:])}: {reason}"
        ) from error


def _apart(wanted: Tensor, found: Tensor) -> float:
    """Return the largest difference over the largest magnitude; infinite if the shapes differ, NaN if a value is."""
    if wanted.shape != found.shape:
        return float("inf")
    return float((wanted - found).abs().max() / wanted.abs().max().clamp_min(1e-30))
