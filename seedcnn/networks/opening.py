"""One grammar for networks: a name of ours or timm's, FILE.py:CALLABLE, package.module:CALLABLE, or a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import nn

from seedcnn.bundle import Preprocessing
from seedcnn.data.sets.named import DATA_SETS, FOLDER, load_test
from seedcnn.data.sets.own import TrainedOn, class_names
from seedcnn.errors import ConfigError, TrainingError
from seedcnn.messages import Say
from seedcnn.models import list_models
from seedcnn.models.opening import network
from seedcnn.models.own import call_of, is_own, model_name, takes
from seedcnn.models.weights import load_state, load_weights
from seedcnn.train import TrainConfig, build_model, load_checkpoint, load_model, override
from seedcnn.train.own import check_network, own_rule

__all__ = ["Trained", "check_trained", "is_checkpoint", "open_architecture", "open_checkpoint", "open_weights"]

Size = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained network, in eval mode.

    Attributes:
        module: the network.
        name: its name in a bundle.
        config: of its training; for weights from elsewhere the model and its options alone.
        trained_on: its labels and its rule for pictures; None for a checkpoint made before checkpoints kept them.
        grid_steps: step of each weight that was trained on a grid; empty otherwise.
    """

    module: nn.Module
    name: str
    config: TrainConfig
    trained_on: TrainedOn | None
    grid_steps: Mapping[str, float] = field(default_factory=dict)


def is_checkpoint(name: str) -> bool:
    """Return whether a name stands for a file of weights rather than for a network's code."""
    return Path(name).is_file() and not name.endswith((".py", ".onnx"))


def open_architecture(name: str, size: Size | None = None, *, weights: bool = True) -> tuple[nn.Module, Size]:
    """Open a network for its shape and cost: by name with fresh weights, or a checkpoint as it was trained.

    Args:
        name: of the network, or path of a checkpoint.
        size: channels, height and width of an image; None for the network's own.
        weights: False to build a network of ours on the "meta" device.

    Raises:
        ConfigError: if there is no such network, or the size of its images is unknown.
        TrainingError: if the checkpoint is damaged.
    """
    if not is_checkpoint(name):
        return network(name, size, weights=weights)
    model, saved = load_model(name)
    own = None if saved.preprocessing is None else saved.preprocessing.shape
    if (found := size or own) is None:
        raise ConfigError(f"{name} does not say which input its network takes: give --input, such as 3x32x32")
    return model, found


def open_checkpoint(path: str | Path) -> Trained:
    """Open a checkpoint of ``seedcnn train``.

    Raises:
        ConfigError: if it is the name of a network, which has no trained weights.
        TrainingError, ConfigError, PluginError: as :func:`seedcnn.train.load_model`.
    """
    check_trained(str(path))
    module, saved = load_model(path)
    return Trained(module.eval(), model_name(saved.config.model), saved.config, saved.trained_on, saved.steps)


def check_trained(name: str) -> None:
    """Refuse the name of a network where trained weights are needed.

    Raises:
        ConfigError: if there is no file of this name, and it names a network.
    """
    if is_checkpoint(name) or name.startswith("timm:"):
        return
    try:
        check_network(name)
    except ConfigError:
        return
    raise ConfigError(f"{name} is a network without trained weights: give a checkpoint of it, or its --weights")


def open_weights(
    name: str,
    weights: str | Path,
    data: str,
    *,
    size: Size | None = None,
    resize: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    changes: Sequence[str] = (),
    progress: Say | None = None,
) -> Trained:
    """Open a network with weights that were trained elsewhere.

    Args:
        name: of the network: ours, timm's, FILE.py:CALLABLE or package.module:CALLABLE.
        weights: a state_dict in a safetensors or .pth file.
        data: NAME or NAME:DIRECTORY of a data set, or a directory of pictures of one's own, with the network's classes
            in the order of their names.
        size: channels, height and width of the input; None for the network's own.
        resize: "crop", "squash", "pad" or "none", for pictures of one's own; None for "crop".
        mean, std: normalisation that the network was trained with, one number per channel on the 0..1 scale. None for
            timm's numbers of its networks, or those of a named data set.
        changes: options of the network, such as "model_options.width=16".
        progress: called with one sentence for what the user should know.

    Raises:
        ConfigError: if there is no such network, or the weights are not its own, heads of other sizes included, or its
            normalisation is not known; for a checkpoint, which knows its labels and its rule itself.
        DataError: if the data are missing.
    """
    model = check_network(name)
    _check_weights(name, weights)
    labels, rule = _told_by(model, data, size, resize, mean, std)
    options: dict[str, object] = {"num_classes": len(labels)}
    if is_own(model):
        options = {key: value for key, value in options.items() if takes(call_of(model), key)}
    elif model not in list_models() and rule.channels != 3:
        options["in_chans"] = rule.channels
    config = TrainConfig(model, options, data=FOLDER, preprocessing=rule)
    for change in changes:
        if not change.startswith("model_options."):
            raise ConfigError(f"--set {change}: with --weights only model_options.NAME=VALUE has an effect")
    config = override(config, changes)
    module = build_model(config)
    load_weights(module, load_state(weights, progress), weights, progress, same_head=True)
    if progress:
        progress(f"{name}: {rule.in_words()}")
    return Trained(module.eval(), model_name(model), config, TrainedOn(labels, rule, ""))


def _check_weights(name: str, weights: str | Path) -> None:
    """Refuse files that say themselves what they are, and whose word would be ignored: checkpoints and bundles."""
    try:
        load_checkpoint(weights)
    except TrainingError as error:
        if "is a bundle" in str(error):
            raise ConfigError(f"{weights} is a bundle, not a file of weights: give it instead of {name}") from None
        return
    raise ConfigError(
        f"{weights} is a checkpoint, which keeps its labels and its rule for pictures: give it instead of {name}"
    )


def _told_by(
    model: str,
    data: str,
    size: Size | None,
    resize: str | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> tuple[tuple[str, ...], Preprocessing]:
    """Labels and rule, as far as the data and the network say them."""
    if (mean is None) != (std is None):
        raise ConfigError("--mean and --std go together, but only one of them was given")
    name, _, where = data.partition(":")
    if name in DATA_SETS and not DATA_SETS[name].files:
        if size is not None or resize is not None:
            raise ConfigError(f"--input and --resize have no effect on the data {name}, whose images have one size")
        test = load_test(data)
        rule = test.preprocessing
        return test.test.classes, rule if mean is None or std is None else _normalised(rule, mean, std)
    if name in DATA_SETS:
        raise ConfigError(f"weights from elsewhere are not measured on {name}: write timm:NAME=WEIGHTS")
    labels = class_names(where if name == FOLDER else data)
    try:
        rule = own_rule(model, size, **({} if resize is None else {"resize": resize}))
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if mean is not None and std is not None:
        return labels, _normalised(rule, mean, std)
    if not any(rule.mean_e8) and set(rule.std_e8) == {10**8}:
        raise ConfigError(
            f"the weights do not say how the input of {model} was normalised: give --mean and --std as it was trained "
            "(--mean 0,0,0 --std 1,1,1 for values in 0..1)"
        )
    return labels, rule


def _normalised(rule: Preprocessing, mean: Sequence[float], std: Sequence[float]) -> Preprocessing:
    count = rule.channels
    if len(mean) != count or len(std) != count:
        raise ConfigError(f"--mean and --std hold {len(mean)} and {len(std)} numbers; the input has {count} channels")
    mean_e8, std_e8 = (tuple(round(value * 1e8) for value in values) for values in (mean, std))
    return replace(rule, mean_e8=mean_e8, std_e8=std_e8)
