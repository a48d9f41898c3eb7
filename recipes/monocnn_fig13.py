"""MonoCNN, Fig. 13: bounds of the monomial's exponent, beta uniform in [a, b], CIFAR-10, 64 channels and 20 layers.

The figure prints no numbers; the only expectation is that [1, 7] is best. Of the network the paper states only its 64
channels and 20 layers. We choose ResNet-20 with 64 channels in every stage, because it has that many layers, and the
recipe of Table 1 (`monocnn_table1`, which also lists what is not stated there) without a teacher. The bounds are not
stated either; we choose all pairs of 1, 3, 5 and 3, 5, 7, 9. Bounds below 1 cannot be trained, because the slope of
|w|^beta is then infinite at 0. Hardware: RTX 2080 Ti; the time is not stated.

Run: seedcnn train monocnn_fig13:beta_1_7 --out runs/model.ckpt
"""

from __future__ import annotations

from dataclasses import replace

from seedcnn.convert import MonoConfig
from seedcnn.train import TrainConfig, find_recipe
from seedcnn.train.recipes import define

EXPECTED: dict[str, dict[str, float]] = {}


def _recipe(low: int, high: int) -> None:
    def recipe() -> TrainConfig:
        convert = MonoConfig(scope="stride1", seed_filters=1, pointwise=True, beta_range=(low, high))
        base = find_recipe("monocnn_table1:cifar10_resnet18_mono")
        network = {"num_classes": 10, "widths": (64, 64, 64)}
        return replace(base, model="resnet20_cifar", model_options=network, convert=convert, distill=None)

    name = f"beta_{low}_{high}"
    best = ", the paper's best" if (low, high) == (1, 7) else ""
    doc = f"""ResNet-20 of 64 channels, MonoCNN, beta in [{low}, {high}]{best}: no number printed in Fig. 13.

    Source: MonoCNN, Fig. 13. Hardware: NVIDIA RTX 2080 Ti.
    Run: seedcnn train monocnn_fig13:{name}
    """
    define(globals(), name, recipe, doc)
    EXPECTED[name] = {}


for _low in (1, 3, 5):
    for _high in (3, 5, 7, 9):
        if _low < _high:
            _recipe(_low, _high)
