"""Dissertation, Tables 4-1 to 4-4: CRnet-CB (bottlenecks), four strategies for its 1x1 convolutions.

Tables 4-1 and 4-2 are CIFAR-10 with batch 256 and 64, Tables 4-3 and 4-4 CIFAR-100 with batch 256 and 64. Stated: 160
epochs, SGD with momentum 0.9, weight decay 1e-4, learning rate 0.1 divided by 10 at epochs 80 and 120 (Section 4.1.3);
expansion 4 with g = 2, alpha = 0.5 and with g = 4, alpha = 0.25, expansion 6 with g = 2, alpha = 0.5. A strategy names
the replacements of the first and the second 1x1 convolution of a block; the CR module chooses "gc-c1dw". `params_M` and
`flops_M` (multiply-adds) are those of the whole network. Hardware: two Quadro RTX 5000; the time is not stated. Single
runs.

Not stated, and chosen here:
- crop with padding 4 and flip, because the text follows the ResNet paper (its reference 32) for CIFAR;
- learning rate 0.1 for both batch sizes, because only one is stated; batch 256 and 64 in total, on one GPU;
- weight decay on every parameter, momentum without Nesterov, no warm-up, as in PyTorch's SGD, which the text names;
- the positions of ReLUs and the order of channels: see `seedcnn.models.crnet`.

Run: seedcnn train dissertation_crnet_cb:table4_1_exp4_g2_gc_c1dw --out runs/model.ckpt
"""

from __future__ import annotations

from seedcnn.train import TrainConfig
from seedcnn.train.recipes import define

_TABLES = {
    "table4_1": ("cifar10", 256),
    "table4_2": ("cifar10", 64),
    "table4_3": ("cifar100", 256),
    "table4_4": ("cifar100", 64),
}
_DATA = {"cifar10": ("CIFAR-10", 10), "cifar100": ("CIFAR-100", 100)}
_ALPHA = {2: 0.5, 4: 0.25}
_ROWS = {  # expansion, g, strategy: parameters, FLOPs and top-1 for batch 256 and 64; CIFAR-10, then CIFAR-100
    (4, 2, "c1dw-c1dw"): ((0.16, 28.17, 90.72, 90.88), (0.18, 28.20, 67.04, 68.36)),
    (4, 2, "gc-c1dw"): ((0.16, 27.36, 91.46, 90.73), (0.18, 27.39, 68.40, 68.76)),
    (4, 2, "gc-gc"): ((0.15, 24.78, 89.61, 89.22), (0.17, 24.81, 66.96, 66.82)),
    (4, 2, "c1dw-gc"): ((0.15, 25.59, 90.35, 90.08), (0.17, 25.62, 67.11, 67.61)),
    (6, 2, "c1dw-c1dw"): ((0.27, 44.00, 90.90, 90.52), (0.30, 44.03, 67.61, 68.85)),
    (6, 2, "gc-c1dw"): ((0.26, 43.19, 91.80, 91.11), (0.30, 43.22, 68.05, 69.91)),
    (6, 2, "gc-gc"): ((0.25, 39.31, 90.81, 88.88), (0.28, 39.35, 66.70, 67.17)),
    (6, 2, "c1dw-gc"): ((0.25, 40.13, 90.42, 90.49), (0.29, 40.16, 67.17, 66.95)),
    (4, 4, "c1dw-c1dw"): ((0.12, 21.15, 89.21, 90.17), (0.15, 21.18, 65.75, 67.51)),
    (4, 4, "gc-c1dw"): ((0.12, 19.94, 90.67, 90.34), (0.14, 19.96, 67.29, 68.62)),
    (4, 4, "gc-gc"): ((0.10, 16.07, 89.42, 88.21), (0.13, 16.09, 66.31, 66.24)),
    (4, 4, "c1dw-gc"): ((0.11, 17.28, 88.81, 89.37), (0.13, 17.31, 65.15, 65.57)),
}

EXPECTED: dict[str, dict[str, float]] = {}


def _run(data: str, batch: int, expansion: int, groups: int, strategy: str) -> TrainConfig:
    shape = {"strategy": strategy, "expansion": expansion, "groups": groups, "alpha": _ALPHA[groups]}
    return TrainConfig(
        model="crnet_cb",
        model_options={"num_classes": _DATA[data][1], **shape},
        data=data,
        epochs=160,
        batch_size=batch,
        drop_last=False,
        lr=0.1,
        optimizer="momentum",
        momentum=0.9,
        weight_decay=1e-4,
        decay_norms=True,
        schedule="multistep",
        decay_epochs=(80, 120),
        decay_rate=0.1,
        warmup_epochs=0.0,
    )


def _recipe(table: str, expansion: int, groups: int, strategy: str, top1: float) -> str:
    data, batch = _TABLES[table]

    def recipe() -> TrainConfig:
        return _run(data, batch, expansion, groups, strategy)

    name = f"{table}_exp{expansion}_g{groups}_{strategy.replace('-', '_')}"
    row, number = f"expansion {expansion}, g={groups}, {strategy}", table.removeprefix("table").replace("_", "-")
    doc = f"""CRnet-CB, {row} on {_DATA[data][0]}, batch {batch}: {top1:.2f} % in Table {number}.

    Source: dissertation, Table {number}, {row}. Hardware: 2 Quadro RTX 5000.
    Run: seedcnn train dissertation_crnet_cb:{name}
    """
    define(globals(), name, recipe, doc)
    return name


for _table, (_data, _batch) in _TABLES.items():
    for _row, _printed in _ROWS.items():
        _params, _flops, *_accuracies = _printed[list(_DATA).index(_data)]
        _top1 = _accuracies[_batch == 64]
        EXPECTED[_recipe(_table, *_row, _top1)] = {"params_M": _params, "flops_M": _flops, "top1": _top1}
