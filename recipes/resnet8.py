"""ResNet-8 with 32/64/128 channels on 16x16 maps, CIFAR-10, five epochs of SGD: the network of most measurements here.

They are small enough for two CPU cores, about twelve seconds per epoch. The learning rate is the best common one of
``docs/worth.md``. ``recipes/demo.py`` has a better recipe.
"""

from __future__ import annotations

from dataclasses import replace

from seedcnn.convert import GroupNLConfig
from seedcnn.convert import recommended as recommended_for
from seedcnn.train import TrainConfig, build_model

_WIDTHS = (32, 64, 128)


def _run(**options: object) -> TrainConfig:
    shape = {"widths": options.pop("widths", _WIDTHS), "patch": 2}
    return TrainConfig(model="resnet8_cifar", model_options=shape, epochs=5, lr=0.4, **options)  # type: ignore[arg-type]


def vanilla() -> TrainConfig:
    """The unconverted network: 308,170 parameters, 12.2 MMACs."""
    return _run()


def narrow() -> TrainConfig:
    """The vanilla network narrowed to the MACs of `groupnl` in widths of 16 (`seedcnn.plan.narrow_to_macs`)."""
    return _run(widths=(16, 64, 80))


def groupnl() -> TrainConfig:
    """GroupNL with r = 2 in every convolution except the stem: 156,234 parameters, 6.1 MMACs."""
    return _run(convert=GroupNLConfig(reduction_ratio=2))


def recommended() -> TrainConfig:
    """The form that `seedcnn.convert.recommended` returns for latency: a plain alternative."""
    return replace(vanilla(), convert=recommended_for(build_model(vanilla()), "latency"))


def finetune() -> TrainConfig:
    """Another epoch of `groupnl` at a low learning rate; set `init_from` to its checkpoint."""
    return replace(groupnl(), epochs=1, lr=0.02, warmup_epochs=0.0, seed=1)
