"""The new layers come into their places: all of them or none, with the trained filters or with fresh ones."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from seedcnn.convert.copies import copy_model
from seedcnn.convert.from_dense import FromDenseReport, seed_from_dense_
from seedcnn.convert.references import exchange_references
from seedcnn.errors import ConversionError
from seedcnn.layers import GroupNLConv2d

__all__ = ["check_from_dense", "exchange", "exchange_from_dense"]


def exchange(model: nn.Module, news: Mapping[str, nn.Module]) -> None:
    """Put the new layers in their places, all of them or none."""
    places = {name: (model.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]) for name in news}
    old = {name: getattr(parent, child) for name, (parent, child) in places.items()}
    try:
        for name, new in news.items():
            setattr(*places[name], new)
        exchange_references(model, {id(old[name]): new for name, new in news.items()})
    except BaseException:
        for name, conv in old.items():
            setattr(*places[name], conv)
        exchange_references(model, {id(news[name]): conv for name, conv in old.items()})
        raise


def check_from_dense(model: nn.Module, news: Mapping[str, nn.Module]) -> None:
    """Raise ``ConversionError`` if the new layers cannot start from the trained ones."""
    others = [name for name, new in news.items() if not isinstance(new, GroupNLConv2d)]
    if others:
        raise ConversionError(
            f"init='from_dense' is for GroupNL; {others[0]} becomes a {type(news[others[0]]).__name__}"
        )
    if any(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()]):
        raise ConversionError("init='from_dense' needs trained filters, and this model is on the meta device")


def exchange_from_dense(model: nn.Module, news: Mapping[str, nn.Module], images: Tensor | None) -> FromDenseReport:
    """Start the new layers from the trained network and put them in; whatever fails, the model is as before."""
    trial = copy_model(model)
    exchange(trial, news)
    try:
        report = seed_from_dense_(trial, model, images=images, layers=news)
    except (RuntimeError, ValueError, IndexError) as error:
        sentence = str(error).split("\n")[0]
        raise ConversionError(f"init='from_dense' failed and nothing was changed: {sentence}") from error
    theirs = {**dict(trial.named_parameters()), **dict(trial.named_buffers())}
    inside = tuple(f"{name}." for name in news)
    exchange(model, news)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if not name.startswith(inside):
                tensor.copy_(theirs[name])
    return report
