"""Copies of networks that share nothing with the original, also where functions close over its parts."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from torch import nn

from seedcnn.convert._attributes import Copying, exchange_attributes

__all__ = ["copy_model", "copy_without_weights"]

Model = TypeVar("Model", bound=nn.Module)


def copy_model(model: Model, memo: dict[int, Any] | None = None) -> Model:
    """Copy a model as ``copy.deepcopy`` does, and the functions that its attributes hold.

    ``copy.deepcopy`` shares functions: a lambda that closes over a convolution would call the original's.

    Args:
        memo: as for ``copy.deepcopy``: ``id`` of an object -> what stands for it in the copy.
    """
    memo = {} if memo is None else memo
    copied: Model = copy.deepcopy(model, memo)
    exchange_attributes(copied, Copying(memo, {id(module) for module in copied.modules()}))
    return copied


def copy_without_weights(model: nn.Module) -> nn.Module:
    """Copy a model onto the meta device: the same shapes without values or computation."""
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        empty = torch.empty_like(parameter, device="meta")
        memo[id(parameter)] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
    for buffer in model.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy_model(model, memo).to("meta")
