"""The six ImageNet trainings of GroupNL's public README, with the options of its commands and its script's defaults.

All: 8 processes of 128 images, mixed precision (fp16 with a scaler), label smoothing 0.1, mixup 0.8 or cutmix 1.0,
pixel random erasing, five epochs of warm-up from 1e-6, norms and biases not decayed. ResNet-101: AdamW 1e-3 and weight
decay 0.05, cosine to 1e-6, and ten more epochs there, which is the script's default. Mobile networks: TensorFlow's
RMSprop at 0.064 with an epsilon of 1e-3, multiplied by 0.97 (0.973) every 2.4 epochs, weight decay 1e-5, dropout and
drop-path 0.2; the learning rate of MobileNetV3 is noisy between 42 and 90 % of the epochs. EfficientNetV2-S trains on
288x288 (and the public validation script crops 224x224), the others on 224x224. Learning rates are for 1024 images;
`lr_base_batch` scales them on fewer GPUs.

The README prints no accuracy (but see `groupnl_imagenet` for ResNet-101; the abstract of the paper's later version puts
EfficientNet-ES on ImageNet-C about 1.1 points above the vanilla network). Hardware: 8 RTX 4090; the time is stated only
for ResNet-101.

One difference: the learning rate changes with every update, that of the script with every epoch. The layers are those
of the public code (variant="reference": seeds normalised over the channels), which differ from the paper's formula.

Run: torchrun --nproc-per-node 8 -m seedcnn.cli train groupnl_readme:gnl_resnet101 --data /data/imagenet
"""

from __future__ import annotations

from seedcnn.train import TrainConfig


def _mobile(model: str, **options: object) -> TrainConfig:
    settings: dict[str, object] = {
        "epochs": 450,
        "batch_size": 128,
        "lr": 0.064,
        "lr_base_batch": 1024,
        "optimizer": "rmsproptf",
        "opt_eps": 1e-3,
        "momentum": 0.9,
        "weight_decay": 1e-5,
        "schedule": "step",
        "decay_epochs": (2.4,),
        "decay_rate": 0.97,
        "warmup_epochs": 5.0,
        "warmup_lr": 1e-6,
        "label_smoothing": 0.1,
        "rand_augment": "rand-m9-mstd0.5",
        "random_erasing": 0.2,
        "mixup": 0.8,
        "cutmix": 1.0,
        "drop_path": 0.2,
        "precision": "fp16",
    }
    network = {"num_classes": 1000, "variant": "reference", "drop_rate": 0.2}
    return TrainConfig(model=model, model_options=network, data="imagenet", **settings | options)  # type: ignore[arg-type]


def gnl_resnet101() -> TrainConfig:
    """ResNet-101, GroupNL sparse, 300 + 10 epochs on ImageNet: no accuracy in the README, 80.16 % in the paper.

    Source: GroupNL's public README, "GroupNL ResNet-101". Hardware: 8 NVIDIA RTX 4090.
    Run: torchrun --nproc-per-node 8 -m seedcnn.cli train groupnl_readme:gnl_resnet101 --data /data/imagenet
    """
    return TrainConfig(
        model="gnl_resnet101",
        model_options={"num_classes": 1000, "variant": "reference"},
        data="imagenet",
        epochs=310,
        cooldown_epochs=10,
        batch_size=128,
        lr=1e-3,
        lr_base_batch=1024,
        optimizer="adamw",
        weight_decay=0.05,
        schedule="cosine",
        warmup_epochs=5.0,
        warmup_lr=1e-6,
        min_lr=1e-6,
        label_smoothing=0.1,
        rand_augment="rand-m9-mstd0.5-inc1",
        random_erasing=0.25,
        mixup=0.8,
        cutmix=1.0,
        drop_path=0.1,
        precision="fp16",
    )


def mobilenetv3_gnl_large_100() -> TrainConfig:
    """MobileNetV3-Large, GroupNL sparse, 600 epochs on ImageNet: no accuracy printed.

    Source: GroupNL's public README, "GroupNL MobileNet-V3". Hardware: 8 NVIDIA RTX 4090.
    Run: torchrun --nproc-per-node 8 -m seedcnn.cli train groupnl_readme:mobilenetv3_gnl_large_100 --data /data/imagenet
    """
    return _mobile("mobilenetv3_gnl_large_100", epochs=600, decay_rate=0.973, lr_noise=(0.42, 0.9), ema=0.9999)


def mobilenetv2_gnl_100() -> TrainConfig:
    """MobileNetV2, GroupNL sparse, 450 epochs on ImageNet: no accuracy printed.

    Source: GroupNL's public README, "GroupNL MobileNet-V2". Hardware: 8 NVIDIA RTX 4090.
    Run: torchrun --nproc-per-node 8 -m seedcnn.cli train groupnl_readme:mobilenetv2_gnl_100 --data /data/imagenet
    """
    return _mobile("mobilenetv2_gnl_100")


def efficientnet_gnl_lite0() -> TrainConfig:
    """EfficientNet-Lite0, GroupNL sparse, 450 epochs on ImageNet: no accuracy printed.

    Source: GroupNL's public README, "GroupNL EfficientNet-Lite0". Hardware: 8 NVIDIA RTX 4090.
    Run: torchrun --nproc-per-node 8 -m seedcnn.cli train groupnl_readme:efficientnet_gnl_lite0 --data /data/imagenet
    """
    return _mobile("efficientnet_gnl_lite0", ema=0.9999)


def efficientnetv2_gnl_s() -> TrainConfig:
    """EfficientNetV2-S, GroupNL sparse, 450 epochs on ImageNet: no accuracy printed.

    Source: GroupNL's public README, "GroupNL EfficientNetV2-Small". Hardware: 8 NVIDIA RTX 4090.
    Run: torchrun --nproc-per-node 8 -m seedcnn.cli train groupnl_readme:efficientnetv2_gnl_s --data /data/imagenet
    """
    return _mobile("efficientnetv2_gnl_s", input_size=288)


def efficientnet_gnl_es() -> TrainConfig:
    """EfficientNet-ES, GroupNL sparse, 450 epochs on ImageNet: no accuracy printed.

    Source: GroupNL's public README, "GroupNL EfficientNet-ES". Hardware: 8 NVIDIA RTX 4090.
    Run: torchrun --nproc-per-node 8 -m seedcnn.cli train groupnl_readme:efficientnet_gnl_es --data /data/imagenet
    """
    return _mobile("efficientnet_gnl_es")


EXPECTED: dict[str, dict[str, float]] = {
    recipe.__name__: {}
    for recipe in (
        gnl_resnet101,
        mobilenetv3_gnl_large_100,
        mobilenetv2_gnl_100,
        efficientnet_gnl_lite0,
        efficientnetv2_gnl_s,
        efficientnet_gnl_es,
    )
}
GPUS: dict[str, int] = dict.fromkeys(EXPECTED, 8)
