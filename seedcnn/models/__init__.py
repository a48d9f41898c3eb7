"""Networks of the papers; where timm is installed, its networks with GroupNL layers are registered with it."""

from __future__ import annotations

from importlib.util import find_spec

from seedcnn.models.registry import create_model, default_widths, list_models, option_types

# timm needs torchvision and has no hook for models of others: they are found only if it is imported here.
if find_spec("timm") and find_spec("torchvision"):
    from seedcnn.models import timm_registry  # noqa: F401

__all__ = ["create_model", "default_widths", "list_models", "option_types"]
