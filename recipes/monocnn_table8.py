"""MonoCNN, Table 8: Icons-50 at 32x32, testing on the images of one company and training on those of the others.

A row of the table is four trainings, one for each held-out company: there is a function for each, and `MEANS` has the
printed mean of the four. The paper states neither the network nor its recipe. We choose ResNet-18 and the recipe of
Table 1 (`monocnn_table1`, which also lists what is not stated there), as for Table 7, with crop and flip, as in the
training of the data set's authors. Means and standard deviations (`top1_std`) are of five runs (--set seed=0 to 4).
Hardware: RTX 2080 Ti; the time is not stated. The teacher of MonoCNN is the vanilla network for the same company; train
it first.

Run: seedcnn train monocnn_table8:vanilla_apple --data /data/Icons-50 --out runs/monocnn_table8_vanilla_apple.ckpt
     seedcnn train monocnn_table8:mono_apple --data /data/Icons-50 --out runs/monocnn_table8_mono_apple.ckpt
"""

from __future__ import annotations

from dataclasses import replace

from seedcnn.train import TrainConfig, find_recipe
from seedcnn.train.recipes import define

_COMPANIES = ("apple", "facebook", "google", "samsung")
_TITLES = {"vanilla": "vanilla", "lbc": "LBCNN", "pnn": "PNN", "ghost": "GhostNet", "mono": "MonoCNN"}
_ROWS = {  # held out: Apple, Facebook, Google, Samsung, each with its deviation
    "vanilla": ((91.74, 0.65), (86.56, 0.25), (82.63, 0.88), (81.30, 1.11)),
    "lbc": ((92.73, 0.67), (87.63, 1.33), (83.42, 0.40), (79.09, 0.62)),
    "pnn": ((92.49, 0.48), (82.43, 1.37), (82.24, 1.11), (82.19, 1.67)),
    "ghost": ((92.95, 0.80), (85.26, 2.20), (80.85, 0.58), (76.64, 0.71)),
    "mono": ((93.52, 0.59), (86.48, 0.66), (82.42, 1.61), (84.40, 0.87)),
}

EXPECTED: dict[str, dict[str, float]] = {}
MEANS: dict[str, float] = {"vanilla": 85.56, "lbc": 85.72, "pnn": 84.84, "ghost": 83.93, "mono": 86.71}


def _recipe(method: str, company: str, top1: float, deviation: float) -> None:
    def recipe() -> TrainConfig:
        base = find_recipe(f"monocnn_table1:cifar10_resnet18_{method}")
        distill = base.distill and replace(base.distill, teacher=f"runs/monocnn_table8_vanilla_{company}.ckpt")
        return replace(base, data="icons50", hold_out=company, model_options={"num_classes": 50}, distill=distill)

    name = f"{method}_{company}"
    doc = f"""ResNet-18, {_TITLES[method]}, {company} held out: {top1:.2f} +- {deviation:.2f} % in Table 8.

    Source: MonoCNN, Table 8, row {_TITLES[method]}, column {company.capitalize()}. Hardware: NVIDIA RTX 2080 Ti.
    Run: seedcnn train monocnn_table8:{name} --data /data/Icons-50 --out runs/monocnn_table8_{name}.ckpt
    """
    define(globals(), name, recipe, doc)
    EXPECTED[name] = {"top1": top1, "top1_std": deviation}


for _method, _figures in _ROWS.items():
    for _company, (_top1, _deviation) in zip(_COMPANIES, _figures, strict=True):
        _recipe(_method, _company, _top1, _deviation)
