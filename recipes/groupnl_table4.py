"""GroupNL, Table 4: number of groups g, for r = 2 and 4, ResNet-18 (dense) and ResNet-101 (sparse).

The paper does not say whether a row is dense or sparse; the parameter counts, equal to those of Table 3, show it.
Everything else is as in Table 3: CIFAR-10, the recipe of `groupnl_table6` (which also lists what the paper does not
state), no hardware or time stated.

Run: seedcnn train groupnl_table4:resnet18_r2_g8 --out runs/model.ckpt
"""

from __future__ import annotations

from dataclasses import replace

from seedcnn.convert import GroupNLConfig
from seedcnn.train import TrainConfig, find_recipe
from seedcnn.train.recipes import define

_TITLES = {"resnet18": "ResNet-18", "resnet101": "ResNet-101"}
_ROWS = {  # network, r, g: parameters and FLOPs in millions, top-1 in percent
    ("resnet18", 2, 4): (5.6, 279, 95.12),
    ("resnet18", 2, 8): (5.6, 279, 94.91),
    ("resnet18", 2, 16): (5.6, 279, 94.84),
    ("resnet18", 4, 4): (2.8, 141, 94.33),
    ("resnet18", 4, 8): (2.8, 141, 94.38),
    ("resnet18", 4, 16): (2.8, 141, 94.15),
    ("resnet101", 2, 4): (18.5, 1159, 95.51),
    ("resnet101", 2, 8): (18.5, 1159, 95.35),
    ("resnet101", 2, 16): (18.5, 1159, 95.66),
    ("resnet101", 4, 4): (18.5, 1159, 95.40),
    ("resnet101", 4, 8): (18.5, 1159, 95.44),
    ("resnet101", 4, 16): (18.5, 1159, 95.25),
}

EXPECTED: dict[str, dict[str, float]] = {}


def _recipe(network: str, ratio: int, groups: int, top1: float) -> str:
    def recipe() -> TrainConfig:
        convert = GroupNLConfig.paper(reduction_ratio=ratio, nlf_groups=groups, sparse=network == "resnet101")
        return replace(find_recipe(f"groupnl_table6:{network}_vanilla"), convert=convert)

    name = f"{network}_r{ratio}_g{groups}"
    doc = f"""{_TITLES[network]}, GroupNL r={ratio} g={groups} on CIFAR-10: {top1:.2f} % in Table 4.

    Source: GroupNL, Table 4, {_TITLES[network]}, r = {ratio}, g = {groups}.
    Run: seedcnn train groupnl_table4:{name}
    """
    define(globals(), name, recipe, doc)
    return name


for _row, (_params, _flops, _top1) in _ROWS.items():
    EXPECTED[_recipe(*_row, _top1)] = {"params_M": _params, "flops_M": _flops, "top1": _top1}
