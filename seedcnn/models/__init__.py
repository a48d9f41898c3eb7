"""The networks of the papers, and, if timm is installed, timm networks with GroupNL layers, registered with timm."""

from __future__ import annotations

from importlib.util import find_spec

from seedcnn.models.registry import create_model, default_input, default_widths, list_models, option_types

# timm needs torchvision. It has no hook for third-party models, so the module that registers ours is imported here.
if find_spec("timm") and find_spec("torchvision"):
    from seedcnn.models import timm_registry  # noqa: F401

__all__ = ["create_model", "default_input", "default_widths", "list_models", "option_types"]
