"""MonoCNN, Fig. 12: number of terms of the polynomial that generates the filters, CIFAR-10.

The figure prints no numbers; the only expectation is that one term (the monomial) is best. The paper repeats each run
five times (--set seed=0 to 4). It does not state the network, the numbers of terms or their coefficients. We choose
ResNet-18 and the recipe of Table 1 (`monocnn_table1`, which also lists what is not stated there) without a teacher, 1
to 5 terms, because five is the default of the public code, and coefficients of 1. Hardware: RTX 2080 Ti; the time is
not stated.

Run: seedcnn train monocnn_fig12:terms_3 --out runs/model.ckpt
"""

from __future__ import annotations

from dataclasses import replace

from seedcnn.convert import MonoConfig
from seedcnn.train import TrainConfig, find_recipe
from seedcnn.train.recipes import define

EXPECTED: dict[str, dict[str, float]] = {}


def _recipe(terms: int) -> None:
    def recipe() -> TrainConfig:
        convert = MonoConfig(scope="stride1", seed_filters=1, pointwise=True, fgf="polynomial", terms=terms)
        return replace(find_recipe("monocnn_table1:cifar10_resnet18_mono"), convert=convert, distill=None)

    name = f"terms_{terms}"
    doc = f"""ResNet-18, MonoCNN by polynomials, terms: {terms}, on CIFAR-10: no number printed in Fig. 12.

    Source: MonoCNN, Fig. 12. Hardware: NVIDIA RTX 2080 Ti.
    Run: seedcnn train monocnn_fig12:{name}
    """
    define(globals(), name, recipe, doc)
    EXPECTED[name] = {}


for _terms in range(1, 6):
    _recipe(_terms)
