"""MonoCNN, Table 7: accuracy on corrupted images (CIFAR-10-C), networks trained on clean CIFAR-10.

The paper states neither the network nor its recipe. We choose ResNet-18 of Table 1, because it is the backbone of the
paper's other tables (Section 4.2.2), with the recipe of that table (`monocnn_table1`, which also lists what is not
stated there). The severities are not stated; we choose all five. The figures are means of five runs (--set seed=0 to
4). The printed plus-minus values are left out, because they are not the spread of runs (they reach 12 points; that of
the mean is the deviation across the four groups). "mean" is the mean of the four groups. Hardware: RTX 2080 Ti; the
time is not stated.

Run: seedcnn train monocnn_table7:vanilla --out runs/model.ckpt, then seedcnn evaluate runs/model.ckpt
"""

from __future__ import annotations

from seedcnn.train import TrainConfig, find_recipe
from seedcnn.train.recipes import define

_TITLES = {"vanilla": "vanilla", "lbc": "LBCNN", "pnn": "PNN", "ghost": "GhostNet", "mono": "MonoCNN"}
_COLUMNS = ("Noise", "Blur", "Weather", "Digital", "mean")
_ROWS = {
    "vanilla": (57.05, 74.90, 86.27, 82.32, 75.13),
    "lbc": (54.88, 67.61, 81.79, 78.41, 70.67),
    "pnn": (50.13, 63.27, 79.30, 76.09, 67.20),
    "ghost": (58.48, 67.53, 81.57, 78.10, 71.42),
    "mono": (64.41, 77.41, 85.31, 82.22, 77.34),
}

EXPECTED: dict[str, dict[str, float]] = {
    method: dict(zip(_COLUMNS, figures, strict=True)) for method, figures in _ROWS.items()
}


def _recipe(method: str, figures: dict[str, float]) -> None:
    def recipe() -> TrainConfig:
        return find_recipe(f"monocnn_table1:cifar10_resnet18_{method}")

    printed = ", ".join(f"{column} {value:.2f}" for column, value in figures.items())
    doc = f"""ResNet-18, {_TITLES[method]} on CIFAR-10-C: mean {figures["mean"]:.2f} % in Table 7.

    Source: MonoCNN, Table 7, row {_TITLES[method]}: {printed} %. Hardware: NVIDIA RTX 2080 Ti.
    Run: seedcnn train monocnn_table7:{method} --out runs/{method}.ckpt, then seedcnn evaluate runs/{method}.ckpt
    """
    define(globals(), method, recipe, doc)


for _method, _figures in EXPECTED.items():
    _recipe(_method, _figures)
