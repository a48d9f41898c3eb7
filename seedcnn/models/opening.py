"""Open a network by name: a network of seedcnn, of timm, or of the user."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from torch import nn

__all__ = ["network"]


def network(
    name: str, size: tuple[int, int, int] | None = None, *, weights: bool = True
) -> tuple[nn.Module, tuple[int, int, int]]:
    """Open a network of seedcnn, of timm or of the user (``FILE.py:callable``), with the size of its images.

    Args:
        name: of the network.
        size: (channels, height, width) of the images, instead of the network's default; a network of the user needs it.
        weights: False to build a network of seedcnn on the "meta" device, for its shapes only.

    Returns:
        The network, and (channels, height, width) of its images.

    Raises:
        ConfigError: if there is no such network, or the size of its images is unknown.
    """
    from importlib.util import find_spec

    import torch

    from seedcnn.errors import ConfigError, did_you_mean
    from seedcnn.models import create_model, default_input, list_models

    if name in list_models():
        with torch.device("cpu" if weights else "meta"):
            return create_model(name), size or default_input(name)
    name = name.removeprefix("timm:")
    if ":" in name:
        if size is None:
            raise ConfigError(f"{name}: --input is needed, for example --input 3x224x224")
        from seedcnn.models.own import own_network

        return own_network(name), size
    if find_spec("timm") is None:
        raise ConfigError(f"unknown model {name!r}; known models: {', '.join(list_models())}; timm is not installed")
    from seedcnn.models.timm_registry import timm

    if not timm.is_model(name):
        hint = did_you_mean(name, [*list_models(), *timm.list_models()])
        raise ConfigError(f"unknown model {name!r}; {hint}known models: {', '.join(list_models())}, and timm's")
    model = timm.create_model(name)
    about = cast("dict[str, Any]", model.pretrained_cfg)
    channels, height, width = about["input_size"]
    return model, size or (channels, height, width)
