"""GroupNL, Table 10: settings of the DataParallel runs, ResNet-101 on CIFAR-10 on one to four RTX 2080 Ti.

The results are in Fig. 7, which prints no numbers; the only expectation is the ratio of times of a pair, vanilla to
GroupNL. Parallelism k means k times 128 images per update and, by linear scaling, a learning rate of 0.1 k. There is
one process, whose `batch_size` counts the images of all GPUs. GroupNL is sparse (Section 3.3.1). The paper states
neither the precision nor the number of epochs; we choose float32, because it names AMP only for the DDP runs, and the
300 epochs of Table 1. `groupnl_table6` lists everything else.

Run: CUDA_VISIBLE_DEVICES=0,1,2,3 seedcnn train groupnl_table10:x4_groupnl --out runs/model.ckpt
"""

from __future__ import annotations

from dataclasses import replace

from seedcnn.train import TrainConfig, find_recipe
from seedcnn.train.recipes import define

_ROWS = {  # GPUs, learning rate, images on each GPU
    "baseline": (1, 0.1, 128),
    "x1": (2, 0.1, 64),
    "x2": (2, 0.2, 128),
    "x3": (3, 0.3, 128),
    "x4": (4, 0.4, 128),
}

EXPECTED: dict[str, dict[str, float]] = {}
GPUS: dict[str, int] = {}


def _recipe(row: str, method: str) -> None:
    gpus, lr, batch = _ROWS[row]

    def recipe() -> TrainConfig:
        base = find_recipe(f"groupnl_table6:resnet101_{method}")
        return replace(base, strategy="dp" if gpus > 1 else base.strategy, batch_size=gpus * batch)

    name = f"{row}_{method}"
    doc = f"""ResNet-101 {method}, DataParallel, {gpus} x {batch} images: time only, no number printed.

    Source: GroupNL, Table 10, row {row}: learning rate {lr}, {batch} x {gpus}; Fig. 7. Hardware: NVIDIA RTX 2080 Ti.
    Run: CUDA_VISIBLE_DEVICES={",".join(map(str, range(gpus)))} seedcnn train groupnl_table10:{name}
    """
    define(globals(), name, recipe, doc)
    EXPECTED[name] = {}
    GPUS[name] = gpus


for _row in _ROWS:
    for _method in ("vanilla", "groupnl"):
        _recipe(_row, _method)
