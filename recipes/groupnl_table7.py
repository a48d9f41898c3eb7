"""GroupNL, Table 7: accuracy on corrupted images (CIFAR-10-C), networks trained on clean CIFAR-10.

The trainings are those of Table 6 (`groupnl_table6`, which also lists what the paper does not state). The severities
are not stated; we choose the mean over all five, as is usual for CIFAR-10-C. "mean" is the mean of the four groups,
with two exceptions: in part (c) for vanilla, MonoCNN and GroupNL it is the mean over the 19 corruptions, and in part
(a) for vanilla it is neither (72.66 and 73.71). Hardware and time are not stated.

Run: seedcnn train groupnl_table7:resnet18_groupnl --out runs/model.ckpt, then seedcnn evaluate runs/model.ckpt
"""

from __future__ import annotations

from seedcnn.train import TrainConfig, find_recipe
from seedcnn.train.recipes import define

_TITLES = {"vanilla": "vanilla", "mono": "MonoCNN", "ghost": "GhostNet", "sinefm": "SineFM", "groupnl": "GroupNL"}
_PARTS = {"resnet18": "a", "resnet34": "b", "resnet101": "c", "vgg11": "d"}
_NETWORKS = {"resnet18": "ResNet-18", "resnet34": "ResNet-34", "resnet101": "ResNet-101", "vgg11": "VGG11"}
_COLUMNS = ("Noise", "Blur", "Weather", "Digital", "mean")
_ROWS = {
    ("resnet18", "vanilla"): (52.60, 72.78, 84.55, 80.70, 72.58),
    ("resnet18", "mono"): (56.36, 63.24, 77.79, 75.17, 68.14),
    ("resnet18", "ghost"): (59.26, 72.57, 82.99, 79.95, 73.69),
    ("resnet18", "sinefm"): (53.77, 68.60, 84.63, 80.94, 71.99),
    ("resnet18", "groupnl"): (57.55, 72.96, 85.25, 80.68, 74.11),
    ("resnet34", "vanilla"): (53.72, 71.70, 85.08, 82.27, 73.19),
    ("resnet34", "mono"): (57.16, 63.50, 78.78, 75.81, 68.81),
    ("resnet34", "ghost"): (60.30, 74.57, 84.10, 80.71, 74.92),
    ("resnet34", "sinefm"): (59.20, 71.72, 86.11, 81.83, 74.72),
    ("resnet34", "groupnl"): (59.84, 73.64, 86.01, 81.26, 75.19),
    ("resnet101", "vanilla"): (53.97, 73.05, 86.02, 81.90, 74.78),
    ("resnet101", "mono"): (49.03, 74.36, 86.60, 82.00, 74.26),
    ("resnet101", "ghost"): (55.03, 74.00, 86.13, 82.45, 74.40),
    ("resnet101", "sinefm"): (58.33, 72.08, 85.08, 81.44, 74.23),
    ("resnet101", "groupnl"): (57.90, 71.22, 86.45, 81.17, 75.04),
    ("vgg11", "vanilla"): (65.37, 75.45, 82.06, 80.48, 75.84),
    ("vgg11", "mono"): (42.74, 68.73, 78.08, 76.58, 66.53),
    ("vgg11", "ghost"): (52.91, 70.28, 80.05, 78.65, 70.47),
    ("vgg11", "sinefm"): (62.31, 72.46, 82.46, 82.61, 74.96),
    ("vgg11", "groupnl"): (64.10, 77.24, 83.46, 83.87, 77.17),
}

EXPECTED: dict[str, dict[str, float]] = {
    f"{network}_{method}": dict(zip(_COLUMNS, figures, strict=True)) for (network, method), figures in _ROWS.items()
}


def _recipe(network: str, method: str, figures: dict[str, float]) -> None:
    def recipe() -> TrainConfig:
        return find_recipe(f"groupnl_table6:{network}_{method}")

    name = f"{network}_{method}"
    printed = ", ".join(f"{column} {value:.2f}" for column, value in figures.items())
    doc = f"""{_NETWORKS[network]}, {_TITLES[method]} on CIFAR-10-C: mean {figures["mean"]:.2f} % in Table 7.

    Source: GroupNL, Table 7({_PARTS[network]}), row {_TITLES[method]}: {printed} %.
    Run: seedcnn train groupnl_table7:{name} --out runs/{name}.ckpt, then seedcnn evaluate runs/{name}.ckpt
    """
    define(globals(), name, recipe, doc)


for _network, _method in _ROWS:
    _recipe(_network, _method, EXPECTED[f"{_network}_{_method}"])
