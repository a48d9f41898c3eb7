"""Dissertation, Tables 4-9 and 4-10: reduced random sampling on CIFAR-10, ResNet-56.

Tables 4-11 and 4-12 use the same recipes. Stated: 120 epochs, batch 128, SGD with momentum 0.9, weight decay 1e-4,
learning rate 0.1, 0.01 from epoch 60, 0.001 from epoch 90 (Section 4.2.3), one seed for all. `train_seconds` is the
printed time; the changes (Table 4-10) are in percent of `full`, the text's own run on all images. Hardware: two Quadro
RTX 5000; whether the times include tests is not stated.

Not stated, and chosen here:
- crop with padding 4 and flip, because the text follows the ResNet paper (its reference 32) for CIFAR;
- projection shortcuts where the shape changes, because our ResNet-56 has no others (those of the ResNet paper have no
  parameters);
- weight decay on every parameter, momentum without Nesterov, no warm-up, as in PyTorch's SGD, which the text names;
- one process with all 128 images of a batch.

Run: seedcnn train dissertation_table4_9:r2 --out runs/model.ckpt
"""

from __future__ import annotations

from seedcnn.sampling import SETTINGS
from seedcnn.train import TrainConfig
from seedcnn.train.recipes import define

_SETTINGS = {"full": None, "r1_0_8": "R1_0.8", "r1_0_618": "R1_0.618", "r2": "R2", "r2_1": "R2_1", "r3": "R3"}
_COLUMNS = ("top1", "top5", "train_seconds", "top1_change_pct", "top5_change_pct", "time_change_pct")
_ROWS: dict[str, tuple[float, ...]] = {
    "full": (92.53, 99.78, 42 * 60 + 47),
    "r1_0_8": (92.20, 99.77, 33 * 60 + 47, -0.36, -0.01, -21.04),
    "r1_0_618": (91.52, 99.78, 26 * 60 + 30, -1.09, 0, -38.06),
    "r2": (92.41, 99.76, 32 * 60 + 26, -0.13, -0.02, -24.19),
    "r2_1": (91.89, 99.73, 34 * 60 + 38, -0.69, -0.05, -19.05),
    "r3": (92.34, 99.75, 29 * 60 + 9, -0.21, -0.03, -31.87),
}

EXPECTED: dict[str, dict[str, float]] = {
    name: dict(zip(_COLUMNS, figures, strict=False)) for name, figures in _ROWS.items()
}


def _run(name: str) -> TrainConfig:
    setting = _SETTINGS[name]
    return TrainConfig(
        model="resnet56_cifar",
        model_options={"num_classes": 10},
        data="cifar10",
        epochs=120,
        batch_size=128,
        drop_last=False,
        lr=0.1,
        optimizer="momentum",
        momentum=0.9,
        weight_decay=1e-4,
        decay_norms=True,
        schedule="multistep",
        decay_epochs=(60, 90),
        decay_rate=0.1,
        warmup_epochs=0.0,
        sampling=SETTINGS[setting] if setting else None,
    )


def _recipe(name: str, figures: dict[str, float]) -> None:
    def recipe() -> TrainConfig:
        return _run(name)

    minutes, seconds = divmod(int(figures["train_seconds"]), 60)
    reached = f"{figures['top1']:.2f} % after {minutes}:{seconds:02} min"
    title = f"sampling {_SETTINGS[name]}" if _SETTINGS[name] else "all images"
    doc = f"""ResNet-56, {title}, CIFAR-10: {reached} in Table 4-9.

    Source: dissertation, Tables 4-9 and 4-10, row {_SETTINGS[name] or "Re-impl."}. Hardware: 2 Quadro RTX 5000.
    Run: seedcnn train dissertation_table4_9:{name}
    """
    define(globals(), name, recipe, doc)


for _name, _figures in EXPECTED.items():
    _recipe(_name, _figures)
