"""Training: typed configs, recipes, a thin engine over timm and torchrun, checkpoints, and distillation."""

from __future__ import annotations

from seedcnn.train.building import build_model, check_model
from seedcnn.train.checkpoint import Checkpoint, load_checkpoint, load_model, save_checkpoint
from seedcnn.train.config import TrainConfig, override
from seedcnn.train.data import FolderData, TrainData, load_training_data
from seedcnn.train.distill_config import DistillConfig
from seedcnn.train.engine import train
from seedcnn.train.own import own_config
from seedcnn.train.progress import TrainProgress
from seedcnn.train.recipes import find_recipe

__all__ = [
    "Checkpoint",
    "DistillConfig",
    "FolderData",
    "TrainConfig",
    "TrainData",
    "TrainProgress",
    "build_model",
    "check_model",
    "find_recipe",
    "load_checkpoint",
    "load_model",
    "load_training_data",
    "override",
    "own_config",
    "save_checkpoint",
    "train",
]
