"""Training: typed configs, recipes, a thin engine over timm, checkpoints."""

from __future__ import annotations

from seedcnn.train.checkpoint import Checkpoint, load_checkpoint, load_model, save_checkpoint
from seedcnn.train.config import TrainConfig, build_model, override
from seedcnn.train.engine import TrainData, train
from seedcnn.train.progress import TrainProgress
from seedcnn.train.recipes import find_recipe, list_recipes

__all__ = [
    "Checkpoint",
    "TrainConfig",
    "TrainData",
    "TrainProgress",
    "build_model",
    "find_recipe",
    "list_recipes",
    "load_checkpoint",
    "load_model",
    "override",
    "save_checkpoint",
    "train",
]
