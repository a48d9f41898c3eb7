"""Dissertation, Tables 4-11 and 4-12: reduced random sampling on CIFAR-100, ResNet-56.

The recipe is that of CIFAR-10 (Section 4.2.4; `dissertation_table4_9`, which also lists what is not stated).
`train_seconds` is the printed time (42:47 for `full`, the same as for CIFAR-10 to the second); the changes (Table 4-12)
are in percent of `full`. Hardware: two Quadro RTX 5000.

Run: seedcnn train dissertation_table4_11:r2 --out runs/model.ckpt
"""

from __future__ import annotations

from dataclasses import replace

from seedcnn.train import TrainConfig, find_recipe
from seedcnn.train.recipes import define

_SETTINGS = {"full": "Re-impl.", "r1_0_8": "R1_0.8", "r1_0_618": "R1_0.618", "r2": "R2", "r2_1": "R2_1", "r3": "R3"}
_COLUMNS = ("top1", "top5", "train_seconds", "top1_change_pct", "top5_change_pct", "time_change_pct")
_ROWS: dict[str, tuple[float, ...]] = {
    "full": (70.58, 91.65, 42 * 60 + 47),
    "r1_0_8": (70.02, 91.49, 34 * 60 + 53, -0.79, -0.17, -18.47),
    "r1_0_618": (69.41, 91.41, 26 * 60 + 36, -1.66, -0.26, -37.83),
    "r2": (69.76, 91.66, 32 * 60 + 39, -1.16, 0.01, -23.69),
    "r2_1": (70.07, 91.55, 34 * 60 + 26, -0.72, -0.11, -19.52),
    "r3": (70.45, 91.69, 28 * 60 + 13, -0.18, 0.04, -34.05),
}

EXPECTED: dict[str, dict[str, float]] = {
    name: dict(zip(_COLUMNS, figures, strict=False)) for name, figures in _ROWS.items()
}


def _recipe(name: str, figures: dict[str, float]) -> None:
    def recipe() -> TrainConfig:
        base = find_recipe(f"dissertation_table4_9:{name}")
        return replace(base, data="cifar100", model_options={"num_classes": 100})

    minutes, seconds = divmod(int(figures["train_seconds"]), 60)
    reached = f"{figures['top1']:.2f} % after {minutes}:{seconds:02} min"
    title = "all images" if name == "full" else f"sampling {_SETTINGS[name]}"
    doc = f"""ResNet-56, {title}, CIFAR-100: {reached} in Table 4-11.

    Source: dissertation, Tables 4-11 and 4-12, row {_SETTINGS[name]}. Hardware: 2 Quadro RTX 5000.
    Run: seedcnn train dissertation_table4_11:{name}
    """
    define(globals(), name, recipe, doc)


for _name, _figures in EXPECTED.items():
    _recipe(_name, _figures)
