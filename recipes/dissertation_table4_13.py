"""Dissertation, Tables 4-13 and 4-14: reduced random sampling on ImageNet, MobileNetV2.

Stated: 150 epochs, batch 256, SGD with momentum 0.9, weight decay 4e-5, learning rate 0.05 with cosine decay (Section
4.2.5), one seed for all. `train_seconds` is the printed time (hours and minutes); the changes (Table 4-14) are in
percent of `full`, the text's own run on all images. The printed change of R1_0.8's top-1 is -0.74; the printed
accuracies give -0.73.

Not stated, and chosen here:
- only random resized crop and flip, timm's for ImageNet, because the text names no other augmentation;
- weight decay on every parameter, momentum without Nesterov, no warm-up, as in PyTorch's SGD, which the text names;
- one process with all 256 images of a batch; the hardware (two Quadro RTX 5000) is stated only for CIFAR.

Run: seedcnn train dissertation_table4_13:r2_2 --data /data/imagenet --out runs/model.ckpt
"""

from __future__ import annotations

from seedcnn.sampling import SETTINGS
from seedcnn.train import TrainConfig
from seedcnn.train.recipes import define

_SETTINGS = {"full": None, "r1_0_8": "R1_0.8", "r1_0_618": "R1_0.618", "r2_2": "R2_2"}
_COLUMNS = ("top1", "top5", "train_seconds", "top1_change_pct", "top5_change_pct", "time_change_pct")
_ROWS: dict[str, tuple[float, ...]] = {
    "full": (72.15, 90.42, (180 * 60 + 9) * 60),
    "r1_0_8": (71.62, 90.23, (144 * 60 + 45) * 60, -0.74, -0.21, -19.65),
    "r1_0_618": (71.20, 90.21, (112 * 60 + 4) * 60, -1.32, -0.23, -37.79),
    "r2_2": (71.29, 90.15, (112 * 60 + 18) * 60, -1.19, -0.30, -37.66),
}

EXPECTED: dict[str, dict[str, float]] = {
    name: dict(zip(_COLUMNS, figures, strict=False)) for name, figures in _ROWS.items()
}


def _run(name: str) -> TrainConfig:
    setting = _SETTINGS[name]
    return TrainConfig(
        model="mobilenetv2_100",
        model_options={"num_classes": 1000},
        data="imagenet",
        epochs=150,
        batch_size=256,
        drop_last=False,
        lr=0.05,
        optimizer="momentum",
        momentum=0.9,
        weight_decay=4e-5,
        decay_norms=True,
        schedule="cosine",
        warmup_epochs=0.0,
        sampling=SETTINGS[setting] if setting else None,
    )


def _recipe(name: str, figures: dict[str, float]) -> None:
    def recipe() -> TrainConfig:
        return _run(name)

    hours, minutes = divmod(int(figures["train_seconds"]) // 60, 60)
    reached = f"{figures['top1']:.2f} % after {hours}:{minutes:02} h"
    title = f"sampling {_SETTINGS[name]}" if _SETTINGS[name] else "all images"
    doc = f"""MobileNetV2, {title}, ImageNet: {reached} in Table 4-13.

    Source: dissertation, Tables 4-13 and 4-14, row {_SETTINGS[name] or "Re-impl."}.
    Run: seedcnn train dissertation_table4_13:{name} --data /data/imagenet
    """
    define(globals(), name, recipe, doc)


for _name, _figures in EXPECTED.items():
    _recipe(_name, _figures)
