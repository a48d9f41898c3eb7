"""Networks of the papers."""

from __future__ import annotations

from seedcnn.models.registry import create_model, default_widths, list_models
from seedcnn.models.resnet_cifar import ResNetCifar
from seedcnn.models.vgg_cifar import VGGCifar

__all__ = ["ResNetCifar", "VGGCifar", "create_model", "default_widths", "list_models"]
