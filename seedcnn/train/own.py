"""The rule for pictures and the settings by which a network learns pictures of one's own."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from math import floor
from pathlib import Path
from typing import Any

import timm
from timm.data import resolve_data_config

from seedcnn.bundle import Preprocessing
from seedcnn.data.sets.named import FOLDER
from seedcnn.data.sets.own import VAL_SHARE, OwnPictures
from seedcnn.errors import ConfigError, did_you_mean
from seedcnn.models import list_models
from seedcnn.models.own import call_of, file_of, is_own, takes
from seedcnn.train.config import TrainConfig
from seedcnn.train.data import FolderData, TrainData

__all__ = ["check_network", "fine_tuned", "for_pictures", "own_config", "own_data", "own_rule"]

_FILTERS = ("bilinear", "bicubic")
_SIDE = 32  # of an image for the networks of seedcnn
_BATCH = 32


def check_network(name: str) -> str:
    """Return the name of a network without "timm:".

    Raises:
        ConfigError: if seedcnn and timm have no such network (near names are listed), or a file has no such callable.
    """
    plain = name.removeprefix("timm:")
    if is_own(plain):
        call_of(plain)
        if (file := file_of(plain)) is not None:  # the checkpoint is opened from other directories, too
            return f"{file.absolute()}:{plain.rpartition(':')[2]}"
    elif plain not in list_models() and not timm.is_model(plain):
        if plain.endswith(".py"):
            raise ConfigError(f"{name}: write {plain}:CALLABLE, with the name of the class or function in it")
        hint = did_you_mean(plain, [*list_models(), *timm.list_models()])
        raise ConfigError(
            f"there is no recipe, network or checkpoint {name!r}; {hint}see `seedcnn recipes`, or write "
            "FILE.py:CALLABLE for a network of your own"
        )
    return plain


def own_rule(model: str, size: tuple[int, int, int] | None, **changes: Any) -> Preprocessing:
    """Return the rule for pictures that a network expects: timm's numbers for its networks, else crop and bilinear.

    A mean of 0 and a standard deviation of 1 stand for those of the training part
    (:func:`seedcnn.data.sets.own.load_folder`).

    Args:
        model: name of the network, see :func:`check_network`.
        size: channels, height and width of the input; None for the network's own.
        changes: fields of the rule that the user gives: ``resize``, ``short_side``, ``filter``, ...

    Raises:
        ConfigError: if a network of the user comes without a size.
        ValueError: if a field has no such value.
    """
    options: dict[str, Any] = {}
    share = 0.875
    if not is_own(model) and model not in list_models():
        about = timm.get_pretrained_cfg(model)
        found = resolve_data_config(pretrained_cfg={} if about is None else about.to_dict())
        own = found["input_size"]
        size = size or own
        share = found["crop_pct"]
        options["filter"] = found["interpolation"] if found["interpolation"] in _FILTERS else "bilinear"
        if size[0] == len(found["mean"]):
            options |= {"mean": found["mean"], "std": found["std"]}
    if size is None:
        if is_own(model):
            raise ConfigError(f"{model}: --input is needed, for example --input 96, or 1x96x96 for grey")
        size = (3, _SIDE, _SIDE)
    channels, height, width = size
    way = changes.pop("resize", "crop")
    options = {"channels": channels, **options, **changes}
    if way == "crop":
        options.setdefault("short_side", floor(max(height, width) / share))
    makers = {"crop": Preprocessing.crop, "squash": Preprocessing.squash, "pad": Preprocessing.pad}
    if way not in makers:
        options.pop("filter", None)
        if way != "none":
            raise ConfigError(f"resize (={way!r}) must be one of crop, squash, pad, none")
        return Preprocessing.exact((height, width), **options)
    return makers[way]((height, width), **options)


def own_config(model: str, data: OwnPictures, *, val: float = VAL_SHARE, pretrained: bool = False) -> TrainConfig:
    """Return settings for a few thousand pictures of one's own: AdamW, a cosine, smoothed labels, crops and flips.

    Args:
        model: name of the network, see :func:`check_network`.
        data: the pictures.
        val: the share that was held back.
        pretrained: start from timm's published weights.
    """
    model = check_network(model)
    count, channels = len(data.classes), data.preprocessing.channels
    options: dict[str, Any] = {"num_classes": count}
    if is_own(model):
        call = call_of(model)
        options = {name: value for name, value in options.items() if takes(call, name)}
    elif model not in list_models() and channels != 3:
        options["in_chans"] = channels
    return TrainConfig(
        model,
        options,
        data=FOLDER,
        preprocessing=data.preprocessing,
        val=val,
        pretrained=pretrained,
        epochs=30,
        batch_size=max(1, min(_BATCH, len(data.train) // 4)),
        drop_last=False,
        optimizer="adamw",
        lr=5e-4 if pretrained else 3e-3,
        weight_decay=0.05,
        warmup_epochs=1,
        warmup_lr=1e-5,
        label_smoothing=0.1,
    )


def for_pictures(
    config: TrainConfig, data: TrainData | FolderData | OwnPictures
) -> tuple[TrainConfig, TrainData | FolderData]:
    """Return the training part of pictures of one's own, and the config with their number of classes, if it has none.

    Other data stay as they are.

    Raises:
        ConfigError: if the config is for other data.
    """
    if not isinstance(data, OwnPictures):
        return config, data
    if config.data != FOLDER:
        raise ConfigError(
            f"the config is for the data {config.data!r}, not for {data.root}: give it preprocessing=data.preprocessing"
        )
    if "num_classes" in config.model_options or (
        is_own(config.model) and not takes(call_of(config.model), "num_classes")
    ):
        return config, own_data(data)
    options = {**config.model_options, "num_classes": len(data.classes)}
    return replace(config, model_options=options), own_data(data)


def own_data(data: OwnPictures) -> TrainData:
    """Return the training part as the engine takes it."""
    rule, part = data.preprocessing, data.train
    source = f"{FOLDER}:{data.root.absolute()}"
    digest = hashlib.sha256(part.images.tobytes() + part.labels.tobytes()).hexdigest()
    return TrainData(part.images, part.labels, rule.mean, rule.std, data.classes, rule, source, digest)


def fine_tuned(config: TrainConfig, data: OwnPictures, checkpoint: Path, *, planned: bool = False) -> TrainConfig:
    """Return settings that go on from a checkpoint on pictures of one's own: a fifth of the rate, ten epochs.

    The network, its augmentation and noise stay those of the checkpoint; optimizer and schedule are those of a new run.

    Args:
        planned: a plan gives some layers fresh weights, which need the whole rate and all epochs.
    """
    options = dict(config.model_options)
    if "num_classes" in options:
        options["num_classes"] = len(data.classes)
    fresh = own_config(config.model, data, val=config.val if config.data == FOLDER else VAL_SHARE)
    return replace(
        fresh,
        model_options=options,
        convert=config.convert,
        overrides=config.overrides,
        plan=config.plan,
        augment=config.augment,
        flip=config.flip,
        noise=config.noise,
        lowpass=config.lowpass,
        init_from=str(checkpoint),
        epochs=fresh.epochs if planned else 10,
        lr=fresh.lr if planned else fresh.lr / 5,
        seed=config.seed,
    )
