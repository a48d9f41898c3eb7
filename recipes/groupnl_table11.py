"""GroupNL, Table 11: settings of the DistributedDataParallel runs of ResNet-101, CIFAR-10 and ImageNet.

The CIFAR-10 results are in Fig. 8 (with automatic mixed precision), which prints no numbers; the only expectation is
the ratio of times of a pair, vanilla to GroupNL. Learning rates follow linear scaling, 0.1 for 128 images per update.
There is one process per GPU, and `batch_size` is that of a process. The 8-GPU row is the ImageNet run, whose figures
the text prints (`groupnl_imagenet`). The number of epochs is not stated; we choose the 300 of Table 1. `groupnl_table6`
lists what else is not stated.

Run: torchrun --nproc-per-node 4 -m seedcnn.cli train groupnl_table11:x8_groupnl --out runs/model.ckpt
"""

from __future__ import annotations

from dataclasses import replace

from seedcnn.train import TrainConfig, find_recipe
from seedcnn.train.recipes import define

_ROWS = {  # GPUs, learning rate, images on each GPU
    "baseline": (1, 0.1, 128),
    "x2": (2, 0.2, 128),
    "x4": (2, 0.4, 256),
    "x8": (4, 0.8, 256),
    "imagenet_x8": (8, 0.001, 128),
}

EXPECTED: dict[str, dict[str, float]] = {}
GPUS: dict[str, int] = {}


def _recipe(row: str, method: str) -> None:
    gpus, lr, batch = _ROWS[row]

    def recipe() -> TrainConfig:
        if row == "imagenet_x8":
            return find_recipe(f"groupnl_imagenet:{method}_300")
        return replace(find_recipe(f"groupnl_table6:resnet101_{method}"), batch_size=batch, precision="fp16")

    name = f"{row}_{method}"
    hardware = "NVIDIA RTX 4090" if row == "imagenet_x8" else "NVIDIA RTX 2080 Ti"
    doc = f"""ResNet-101 {method}, DDP, {gpus} x {batch} images: time only, no number in the table.

    Source: GroupNL, Table 11, row {row}: learning rate {lr}, {batch} x {gpus}; Figs. 8 and 9. Hardware: {hardware}.
    Run: torchrun --nproc-per-node {gpus} -m seedcnn.cli train groupnl_table11:{name}
    """
    define(globals(), name, recipe, doc)
    EXPECTED[name] = {}
    GPUS[name] = gpus


for _row in _ROWS:
    for _method in ("vanilla", "groupnl"):
        _recipe(_row, _method)
