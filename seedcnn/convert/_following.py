"""Norms, calls and channel orders as a forward pass shows them: of a detector, whose own code cannot be followed, those
of its backbone."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from seedcnn.convert._channel_spaces import Spaces, channel_spaces
from seedcnn.convert.parts import parts_of
from seedcnn.convert.references import uncalled
from seedcnn.convert.tracing import norm_after
from seedcnn.errors import ConversionError

__all__ = ["followed_norms", "followed_spaces", "followed_uncalled"]


def _followed(model: nn.Module) -> tuple[str, ...]:
    """Return the qualified names of the modules to follow; a detector prepares images and sorts boxes in between."""
    try:
        parts = parts_of(model)
    except ConversionError:
        parts = None
    return parts.places.get("backbone", ("",)) if parts is not None and parts.task == "detection" else ("",)


def _below(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def followed_norms(model: nn.Module) -> dict[str, str]:
    """Map each convolution to the norm that alone reads its output, see :func:`seedcnn.convert.tracing.norm_after`."""
    return {
        _below(place, conv): _below(place, norm)
        for place in _followed(model)
        for conv, norm in norm_after(model.get_submodule(place)).items()
    }


def followed_uncalled(model: nn.Module, names: list[str]) -> set[str]:
    """Find the convolutions that are called on another way, see :func:`seedcnn.convert.references.uncalled`."""
    found: set[str] = set()
    for place in _followed(model):
        inside = [name for name in names if not place or name.startswith(f"{place}.")]
        short = [name.removeprefix(f"{place}.") if place else name for name in inside]
        found |= {_below(place, name) for name in uncalled(model.get_submodule(place), short)}
    return found


def followed_spaces(model: nn.Module) -> Spaces | None:
    """Find the channel orders, see :func:`seedcnn.convert._channel_spaces.channel_spaces`; None if unknown."""
    places = _followed(model)
    found = channel_spaces(model.get_submodule(places[0])) if len(places) == 1 else None
    if found is None or not places[0]:
        return found
    return replace(
        found,
        output={_below(places[0], name): space for name, space in found.output.items()},
        input={_below(places[0], name): space for name, space in found.input.items()},
    )
