"""GroupNL, Table 9: training time of ResNet-101 on CIFAR-10 on two RTX 2080 Ti in `nn.DataParallel`.

Learning rate 0.1 and 64 images on each GPU (`batch_size` counts both). The 300 epochs are those of Table 1, which has
the same figures; `groupnl_table6` lists what else the paper does not state. `accelerated_pct` is the printed reduction
of training time, relative to vanilla.

Run: CUDA_VISIBLE_DEVICES=0,1 seedcnn train groupnl_table9:groupnl --out runs/model.ckpt
"""

from __future__ import annotations

from dataclasses import replace

from seedcnn.train import TrainConfig, find_recipe
from seedcnn.train.recipes import define

_TITLES = {
    "vanilla": "vanilla",
    "mono": "MonoCNN",
    "ghost": "GhostNet",
    "sinefm": "SineFM",
    "groupnl": "GroupNL sparse",
}

EXPECTED: dict[str, dict[str, float]] = {
    "vanilla": {"top1": 95.48, "train_hours": 9.3},
    "mono": {"top1": 94.97, "train_hours": 9.2, "accelerated_pct": 0},
    "ghost": {"top1": 95.04, "train_hours": 12.7, "accelerated_pct": -37},
    "sinefm": {"top1": 95.06, "train_hours": 15.4, "accelerated_pct": -66},
    "groupnl": {"top1": 95.51, "train_hours": 8.3, "accelerated_pct": 11},
}
GPUS: dict[str, int] = dict.fromkeys(EXPECTED, 2)


def _recipe(method: str, hours: float) -> None:
    def recipe() -> TrainConfig:
        return replace(find_recipe(f"groupnl_table6:resnet101_{method}"), strategy="dp")

    doc = f"""ResNet-101, {_TITLES[method]} on CIFAR-10, two GPUs in DataParallel: {hours} hours in Table 9.

    Source: GroupNL, Table 9, row {_TITLES[method].partition(" ")[0]}: {EXPECTED[method]["top1"]:.2f} %, {hours} hours.
    Hardware: 2 NVIDIA RTX 2080 Ti.
    Run: CUDA_VISIBLE_DEVICES=0,1 seedcnn train groupnl_table9:{method}
    """
    define(globals(), method, recipe, doc)


for _method, _printed in EXPECTED.items():
    _recipe(_method, _printed["train_hours"])
