"""MonoCNN, Fig. 9: CIFAR-10 with a part of the training images and all test images.

The figure prints no numbers; the only expectation is that MonoCNN loses less than the vanilla network. The paper says
that the images are chosen at random, but does not state the network, the shares or the recipe. We choose ResNet-18 and
the recipe of Table 1 (`monocnn_table1`, which also lists what is not stated there), and 10, 25, 50, 75 and 100 %,
because they cover the axis; every share has the same number of epochs. The teacher of MonoCNN is the vanilla network
trained on the same images, because one trained on all images would know what the small set leaves out; train it first.
The choice of images depends on `data_seed` and keeps the proportions of the classes. Hardware: RTX 2080 Ti; the time is
not stated.

Run: seedcnn train monocnn_fig9:vanilla_25 --out runs/monocnn_fig9_vanilla_25.ckpt
     seedcnn train monocnn_fig9:mono_25 --out runs/monocnn_fig9_mono_25.ckpt
"""

from __future__ import annotations

from dataclasses import replace

from seedcnn.train import TrainConfig, find_recipe
from seedcnn.train.recipes import define

_PERCENT = (10, 25, 50, 75, 100)

EXPECTED: dict[str, dict[str, float]] = {}


def _recipe(method: str, percent: int) -> None:
    def recipe() -> TrainConfig:
        base = find_recipe(f"monocnn_table1:cifar10_resnet18_{method}")
        distill = base.distill and replace(base.distill, teacher=f"runs/monocnn_fig9_vanilla_{percent}.ckpt")
        return replace(base, fraction=percent / 100, distill=distill)

    name = f"{method}_{percent}"
    doc = f"""ResNet-18, {method} on {percent} % of CIFAR-10's images: no number printed in Fig. 9.

    Source: MonoCNN, Fig. 9. Hardware: NVIDIA RTX 2080 Ti.
    Run: seedcnn train monocnn_fig9:{name} --out runs/monocnn_fig9_{name}.ckpt
    """
    define(globals(), name, recipe, doc)
    EXPECTED[name] = {}


for _method in ("vanilla", "mono"):
    for _percent in _PERCENT:
        _recipe(_method, _percent)
