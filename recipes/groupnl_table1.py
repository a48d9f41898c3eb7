"""GroupNL, Table 1: ResNet-101 on CIFAR-10 for 300 epochs, accuracy and training time.

Networks and recipe are those of Table 6 (`groupnl_table6`, which also lists what the paper does not state), and the
figures are the same. Hardware: NVIDIA RTX 2080 Ti; Table 9 says two, in DataParallel, with 64 images each. Here one
process takes all 128; `groupnl_table9` is the parallel form.

Run: seedcnn train groupnl_table1:groupnl --out runs/model.ckpt
"""

from __future__ import annotations

from seedcnn.train import TrainConfig, find_recipe
from seedcnn.train.recipes import define

_TITLES = {
    "vanilla": "vanilla",
    "mono": "MonoCNN",
    "ghost": "GhostNet",
    "sinefm": "SineFM",
    "groupnl": "GroupNL sparse",
}
_ROWS = {
    "vanilla": (95.48, 9.3),
    "mono": (94.97, 9.2),
    "ghost": (95.04, 12.7),
    "sinefm": (95.06, 15.4),
    "groupnl": (95.51, 8.3),
}

EXPECTED: dict[str, dict[str, float]] = {
    method: {"top1": top1, "train_hours": hours} for method, (top1, hours) in _ROWS.items()
}


def _recipe(method: str, top1: float, hours: float) -> None:
    def recipe() -> TrainConfig:
        return find_recipe(f"groupnl_table6:resnet101_{method}")

    doc = f"""ResNet-101, {_TITLES[method]} on CIFAR-10: {top1:.2f} % after {hours} hours in Table 1.

    Source: GroupNL, Table 1, row {_TITLES[method].partition(" ")[0]}. Hardware: NVIDIA RTX 2080 Ti.
    Run: seedcnn train groupnl_table1:{method}
    """
    define(globals(), method, recipe, doc)


for _method, _figures in _ROWS.items():
    _recipe(_method, *_figures)
