"""The networks of the demo: plain convolutions of 16/64/128 channels that pool early, CIFAR-10, eight epochs.

They are small enough for two CPU cores. Muon trains the dense convolutions and SGD the rest (``docs/training.md``), at
rates that suit all four (results/rates.json). results/demo.json has the accuracies, one run each, so they do not rank
the networks. Noise in training (``--set noise=0.1``) costs one to two points on clean images and wins seven under
corruption.
"""

from __future__ import annotations

from dataclasses import replace

from seedcnn.convert import GroupNLConfig
from seedcnn.convert import recommended as recommended_for
from seedcnn.machine import computes_in_bf16
from seedcnn.train import TrainConfig, build_model

_WIDTHS = (16, 64, 128)


def _run(**options: object) -> TrainConfig:
    return TrainConfig(
        model="air_cifar",
        model_options={"widths": options.pop("widths", _WIDTHS)},
        epochs=8,
        batch_size=256,
        optimizer="muon+sgd",
        muon_lr=0.08,
        lr=0.1,
        schedule="linear",
        warmup_epochs=1.0,
        label_smoothing=0.1,
        augment="shift2",
        flip="alternating",
        precision="bf16" if computes_in_bf16() else "fp32",
        **options,  # type: ignore[arg-type]
    )


def vanilla() -> TrainConfig:
    """The unconverted network: 272,122 parameters, 12.8 MMACs."""
    return _run()


def narrow() -> TrainConfig:
    """The vanilla network narrowed to the MACs of `groupnl` in widths of 16 (`seedcnn.plan.narrow_to_macs`)."""
    return _run(widths=(16, 32, 112))


def groupnl() -> TrainConfig:
    """GroupNL with r = 2 in every convolution except the stem: 137,738 parameters, 6.6 MMACs."""
    return _run(convert=GroupNLConfig(reduction_ratio=2))


def recommended() -> TrainConfig:
    """The form that `seedcnn.convert.recommended` returns for latency: a plain alternative."""
    return replace(vanilla(), convert=recommended_for(build_model(vanilla()), "latency"))


def finetune() -> TrainConfig:
    """Another epoch of `groupnl` at a low learning rate; set `init_from` to its checkpoint."""
    return replace(groupnl(), epochs=1, muon_lr=0.01, lr=0.01, warmup_epochs=0.0, seed=1)
