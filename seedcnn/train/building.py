"""The network of a training config: built, started from weights, converted."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import timm
import torch
from torch import nn

from seedcnn.convert import convert_, convert_layers_, lowpass_
from seedcnn.errors import ConfigError, SeedCNNError
from seedcnn.models import create_model, list_models
from seedcnn.models.own import is_own, own_network
from seedcnn.models.timm_registry import GNL_MODELS
from seedcnn.train.config import TrainConfig

__all__ = ["build_model", "check_model"]


def _timm_network(config: TrainConfig, pretrained: bool) -> nn.Module:
    options = dict(config.model_options)
    if pretrained:
        options["pretrained"] = True
    if config.model in GNL_MODELS:
        options.setdefault("seed", config.seed)
    try:
        # Pass 0 as well: some networks have another default.
        return timm.create_model(config.model, drop_path_rate=config.drop_path, **options)
    except TypeError as error:
        if "drop_path_rate" not in str(error):
            raise
    if config.drop_path:
        raise ConfigError(f"drop_path (={config.drop_path}): {config.model!r} has no stochastic depth; leave it at 0")
    return timm.create_model(config.model, **options)


def _network(config: TrainConfig, pretrained: bool) -> nn.Module:
    if config.drop_path and (is_own(config.model) or config.model in list_models()):
        raise ConfigError(f"drop_path (={config.drop_path}) goes with the networks of timm, not with {config.model!r}")
    if is_own(config.model):
        return own_network(config.model, config.model_options)
    if config.model not in list_models() and timm.is_model(config.model):
        return _timm_network(config, pretrained)
    return create_model(config.model, **config.model_options)


def build_model(
    config: TrainConfig, *, pretrained: bool = False, start: Callable[[nn.Module], None] | None = None
) -> nn.Module:
    """Build the network of a config, converted, with its low-pass filters and fresh weights.

    Args:
        pretrained: start from timm's published weights, which are downloaded if they are not in the cache.
        start: called with the network before its plan converts it, to load the weights of the layers that stay.

    Raises:
        ConfigError: if there is no such network (near names are listed), it cannot be built with its
            ``model_options``, ``drop_path`` has no effect on it, or there are no published weights.
        ConversionError: if it cannot be converted, or has no place for low-pass filters.
    """
    try:
        model = _network(config, pretrained)
    except SeedCNNError:
        raise
    except Exception as error:  # timm's networks raise whatever an option leads to
        if not config.model_options:
            raise
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        options = ", ".join(f"{name}={value!r}" for name, value in config.model_options.items())
        raise ConfigError(f"{config.model} cannot be built with model_options {options}: {kind}{error}") from error
    if config.convert is not None:
        convert_(model, config.convert, seed=config.seed, overrides=config.overrides)
    if start is not None:
        start(model)
    if config.plan:
        convert_layers_(model, config.plan, seed=config.seed)
    if config.lowpass != "none":
        lowpass_(model, config.lowpass)
    return model


def check_model(config: TrainConfig) -> None:
    """Build the network of a config and forget it, so that a wrong option is refused before any work.

    Raises:
        ConfigError, ConversionError: as :func:`build_model`.
    """
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")  # the run warns when it builds the network
        build_model(config)
