"""Dissertation, Tables 4-5 to 4-8: CRnet-CIB (inverted bottlenecks), four strategies for its 1x1 convolutions.

Tables 4-5 and 4-6 are CIFAR-10 with batch 256 and 64, Tables 4-7 and 4-8 CIFAR-100 with batch 256 and 64. The recipe
is that of `dissertation_crnet_cb`, which also lists what is not stated; here the CR module chooses "c1dw-gc".
`params_M` and `flops_M` (multiply-adds) are those of the whole network. Hardware: two Quadro RTX 5000; the time is not
stated. Single runs.

Run: seedcnn train dissertation_crnet_cib:table4_5_exp4_g2_c1dw_gc --out runs/model.ckpt
"""

from __future__ import annotations

from dataclasses import replace

from seedcnn.train import TrainConfig, find_recipe
from seedcnn.train.recipes import define

_TABLES = {  # the table of CRnet-CB with the same data and batch
    "table4_5": ("table4_1", "cifar10", 256),
    "table4_6": ("table4_2", "cifar10", 64),
    "table4_7": ("table4_3", "cifar100", 256),
    "table4_8": ("table4_4", "cifar100", 64),
}
_DATA = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
_ROWS = {  # expansion, g, strategy: parameters, FLOPs and top-1 for batch 256 and 64; CIFAR-10, then CIFAR-100
    (4, 2, "c1dw-c1dw"): ((0.29, 24.58, 92.66, 92.12), (0.30, 24.59, 70.06, 71.76)),
    (4, 2, "c1dw-gc"): ((0.29, 23.90, 93.11, 92.60), (0.30, 23.91, 70.78, 72.10)),
    (4, 2, "gc-gc"): ((0.28, 20.51, 88.77, 89.87), (0.29, 20.52, 64.78, 64.48)),
    (4, 2, "gc-c1dw"): ((0.28, 21.19, 91.16, 91.99), (0.29, 21.20, 67.65, 69.59)),
    (6, 2, "c1dw-c1dw"): ((0.52, 36.23, 92.90, 93.20), (0.53, 36.23, 70.81, 70.79)),
    (6, 2, "c1dw-gc"): ((0.52, 35.55, 93.23, 92.94), (0.53, 35.55, 70.58, 72.70)),
    (6, 2, "gc-gc"): ((0.50, 30.46, 89.46, 89.26), (0.51, 30.46, 64.96, 65.68)),
    (6, 2, "gc-c1dw"): ((0.51, 31.14, 92.28, 92.02), (0.51, 31.15, 69.05, 70.08)),
    (4, 4, "c1dw-c1dw"): ((0.25, 17.71, 91.49, 92.32), (0.25, 17.71, 67.63, 69.01)),
    (4, 4, "c1dw-gc"): ((0.24, 16.69, 91.88, 92.33), (0.25, 16.69, 69.26, 70.41)),
    (4, 4, "gc-gc"): ((0.23, 11.60, 87.80, 88.58), (0.23, 11.60, 62.18, 61.87)),
    (4, 4, "gc-c1dw"): ((0.23, 12.62, 90.37, 91.08), (0.24, 12.63, 66.22, 68.05)),
}

EXPECTED: dict[str, dict[str, float]] = {}


def _recipe(table: str, expansion: int, groups: int, strategy: str, top1: float) -> str:
    twin, data, batch = _TABLES[table]
    row = f"exp{expansion}_g{groups}_{strategy.replace('-', '_')}"

    def recipe() -> TrainConfig:
        return replace(find_recipe(f"dissertation_crnet_cb:{twin}_{row}"), model="crnet_cib")

    name, number = f"{table}_{row}", table.removeprefix("table").replace("_", "-")
    title = f"expansion {expansion}, g={groups}, {strategy}"
    doc = f"""CRnet-CIB, {title} on {_DATA[data]}, batch {batch}: {top1:.2f} % in Table {number}.

    Source: dissertation, Table {number}, {title}. Hardware: 2 Quadro RTX 5000.
    Run: seedcnn train dissertation_crnet_cib:{name}
    """
    define(globals(), name, recipe, doc)
    return name


for _table, (_, _data, _batch) in _TABLES.items():
    for _row, _printed in _ROWS.items():
        _params, _flops, *_accuracies = _printed[list(_DATA).index(_data)]
        _top1 = _accuracies[_batch == 64]
        EXPECTED[_recipe(_table, *_row, _top1)] = {"params_M": _params, "flops_M": _flops, "top1": _top1}
