"""GroupNL, Table 8: Icons-50 at 32x32, testing on the images of one company and training on those of the others.

A row of the table is four trainings, one for each held-out company: there is a function for each, and `MEANS` has the
printed mean of the four. The recipe is that of Table 6 (`groupnl_table6`, which also lists what the paper does not
state) with 50 classes, and with crop and flip, as in the training of the data set's authors. Three rows of the text
have their figures out of order (ResNet-18 vanilla, VGG11 MonoCNN, VGG11 SineFM): their means are certain, but the
assignment of figures to companies is inferred. Hardware and time are not stated. "icons50" is the published set;
"icons50-rebuilt" can replace it (--set data=icons50-rebuilt).

Run: seedcnn train groupnl_table8:resnet18_groupnl_apple --data /data/Icons-50 --out runs/model.ckpt
"""

from __future__ import annotations

from dataclasses import replace

from seedcnn.train import TrainConfig, find_recipe
from seedcnn.train.recipes import define

_COMPANIES = ("apple", "facebook", "google", "samsung")
_TITLES = {"vanilla": "vanilla", "mono": "MonoCNN", "ghost": "GhostNet", "sinefm": "SineFM", "groupnl": "GroupNL"}
_PARTS = {"resnet18": "a", "resnet34": "b", "resnet101": "c", "vgg11": "d"}
_NETWORKS = {"resnet18": "ResNet-18", "resnet34": "ResNet-34", "resnet101": "ResNet-101", "vgg11": "VGG11"}
_ROWS = {  # held out: Apple, Facebook, Google, Samsung; then the mean
    ("resnet18", "vanilla"): (93.66, 87.64, 83.20, 80.28, 86.19),
    ("resnet18", "mono"): (93.02, 85.37, 81.60, 78.59, 84.65),
    ("resnet18", "ghost"): (92.07, 85.09, 78.98, 77.61, 83.43),
    ("resnet18", "sinefm"): (94.84, 88.72, 84.96, 82.27, 87.70),
    ("resnet18", "groupnl"): (94.52, 91.05, 86.27, 84.36, 89.05),
    ("resnet34", "vanilla"): (92.77, 86.26, 83.81, 82.44, 86.32),
    ("resnet34", "mono"): (91.46, 85.88, 81.55, 79.23, 84.53),
    ("resnet34", "ghost"): (89.87, 84.70, 79.61, 73.76, 81.98),
    ("resnet34", "sinefm"): (94.74, 88.72, 84.88, 81.46, 87.45),
    ("resnet34", "groupnl"): (95.19, 90.98, 85.93, 84.36, 89.12),
    ("resnet101", "vanilla"): (93.64, 87.70, 83.64, 83.13, 87.03),
    ("resnet101", "mono"): (94.84, 87.64, 83.62, 82.71, 87.20),
    ("resnet101", "ghost"): (93.50, 88.53, 83.62, 84.50, 87.54),
    ("resnet101", "sinefm"): (90.25, 83.65, 79.69, 74.67, 82.06),
    ("resnet101", "groupnl"): (93.98, 90.15, 85.51, 83.89, 88.38),
    ("vgg11", "vanilla"): (92.54, 86.68, 83.67, 80.34, 85.81),
    ("vgg11", "mono"): (89.55, 81.10, 79.82, 75.41, 81.47),
    ("vgg11", "ghost"): (91.40, 88.15, 80.71, 79.33, 84.90),
    ("vgg11", "sinefm"): (94.74, 89.87, 85.59, 82.17, 88.09),
    ("vgg11", "groupnl"): (94.23, 91.05, 85.30, 82.13, 88.18),
}

EXPECTED: dict[str, dict[str, float]] = {}
MEANS: dict[str, float] = {f"{network}_{method}": figures[-1] for (network, method), figures in _ROWS.items()}


def _recipe(network: str, method: str, company: str, top1: float) -> None:
    def recipe() -> TrainConfig:
        base = find_recipe(f"groupnl_table6:{network}_{method}")
        return replace(base, data="icons50", hold_out=company, model_options={"num_classes": 50})

    name = f"{network}_{method}_{company}"
    doc = f"""{_NETWORKS[network]}, {_TITLES[method]}, {company} held out: {top1:.2f} % in Table 8.

    Source: GroupNL, Table 8({_PARTS[network]}), row {_TITLES[method]}, column {company.capitalize()}.
    Run: seedcnn train groupnl_table8:{name} --data /data/Icons-50
    """
    define(globals(), name, recipe, doc)
    EXPECTED[name] = {"top1": top1}


for (_network, _method), _figures in _ROWS.items():
    for _company, _top1 in zip(_COMPANIES, _figures[:-1], strict=True):
        _recipe(_network, _method, _company, _top1)
