"""Opening the models of ``seedcnn evaluate``: checkpoints, bundles, ONNX files and timm's networks."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from seedcnn.errors import BundleError, BundleFormatError, ConfigError, DataError, PluginError, TrainingError

if TYPE_CHECKING:
    from torch import nn

    from seedcnn.bundle import Bundle
    from seedcnn.data.sets.named import NamedTest
    from seedcnn.data.sets.own import TrainedOn
    from seedcnn.evaluate import Opened
    from seedcnn.evaluate.onnx_file import OnnxFile
    from seedcnn.networks import Trained
    from seedcnn.train import TrainConfig

__all__ = ["Normalization", "open_models", "read_trained_on", "shared_rule", "source_of"]

Normalization = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation per channel, on the 0..1 scale."""
_TIMM = "timm:"


def _timm(name: str, classes: int) -> Opened:
    """Open timm:NAME with timm's own weights, or timm:NAME=FILE."""
    from importlib.util import find_spec

    if find_spec("timm") is None:
        raise ConfigError(f"{name}: timm is not installed; install it with: pip install 'seedcnn[train]'")
    from seedcnn.models.timm_registry import trained_timm_model

    model, _, file = name.removeprefix(_TIMM).partition("=")
    found = trained_timm_model(model, Path(file) if file else None, num_classes=classes)
    return _in_memory(found.module, found.mean, found.std, f"{found.mean} {found.std}", "timm")


def _in_memory(module: nn.Module, mean: tuple[float, ...], std: tuple[float, ...], rule: str, kind: str) -> Opened:
    """A network that is no file of its own; its digest is that of its weights and its ``rule``."""
    from seedcnn.evaluate import Opened, torch_predictor

    told = hashlib.sha256(rule.encode())
    for key, value in module.state_dict().items():
        told.update(key.encode())
        told.update(value.contiguous().numpy().tobytes())
    return Opened(torch_predictor(module, mean, std), f"sha256 {told.hexdigest()}", kind, module)


def _published(config: TrainConfig) -> tuple[str, str] | None:
    """Model and method of a network with the papers' widths and without low-pass filters; None for any other."""
    from seedcnn.convert import METHODS

    if set(config.model_options) - {"num_classes"} or config.lowpass != "none":
        return None
    methods = [known for known, kind in METHODS.items() if type(config.convert) is kind]
    return config.model, methods[0] if methods else "vanilla"


def read_trained_on(names: Sequence[str]) -> dict[str, TrainedOn]:
    """Read what checkpoints and bundles say about their data; other models, and checkpoints that fail, are left out.

    A bundle knows its labels and its rule, but not where its data are.

    Raises:
        DataError: if a file is of no known kind.
    """
    from seedcnn.bundle import open_bundle
    from seedcnn.data.sets.own import TrainedOn
    from seedcnn.train import load_checkpoint

    found = {}
    for name in names:
        if name.startswith(_TIMM) or name.endswith(".onnx") or not Path(name).is_file():
            continue
        try:
            manifest = open_bundle(name).manifest
            found[name] = TrainedOn(manifest.labels, manifest.preprocessing, "")
            continue
        except BundleError as error:
            no_bundle = error
        try:
            trained_on = load_checkpoint(name).trained_on
        except TrainingError as no_checkpoint:
            if "is not a checkpoint" in str(no_checkpoint):
                raise _neither(Path(name), no_bundle, no_checkpoint) from None
            continue  # it is opened again, and named, later
        if trained_on is not None:
            found[name] = trained_on
    return found


def source_of(trained: Mapping[str, TrainedOn]) -> str:
    """Return the data of the first model that knows them; CIFAR-10 for models that say nothing, or know its classes.

    Raises:
        ConfigError: if bundles with other labels are all there is.
    """
    from seedcnn.data.sets.cifar10 import CLASSES

    if source := next((each.source for each in trained.values() if each.source), ""):
        return source
    for name, each in trained.items():
        if each.labels != CLASSES:
            raise ConfigError(f"{name} is a bundle, which does not know where its data are: give --data")
    return "cifar10"


def shared_rule(data: str, trained: Mapping[str, TrainedOn]) -> TrainedOn | None:
    """Return what decodes pictures of one's own for all models: they must take one input and know the same classes.

    Raises:
        ConfigError: naming two models that differ, if the data are such pictures.
    """
    from seedcnn.data.sets.named import DATA_SETS

    if not trained:
        return None
    (first, one), *others = sorted(trained.items(), key=lambda item: not item[1].source)
    name = data.partition(":")[0]
    if name in DATA_SETS and not DATA_SETS[name].files:
        return one
    for other, each in others:
        if each.preprocessing != one.preprocessing or each.labels != one.labels:
            what = "classes" if each.labels != one.labels else "rules for pictures"
            raise ConfigError(f"{first} and {other} have different {what}; evaluate them one by one{_apart(one, each)}")
    return one


def _apart(one: TrainedOn, other: TrainedOn) -> str:
    """How two rules differ, in words."""
    differences = one.preprocessing.differences(other.preprocessing)
    return f" ({differences})" if differences else ""


def _neither(path: Path, no_bundle: BundleError, no_checkpoint: TrainingError) -> DataError:
    return DataError(
        f"{path} is neither a bundle ({no_bundle}) nor a checkpoint ({no_checkpoint}), "
        "and its name does not end in .onnx"
    )


def _read(name: str, test: NamedTest, trained_on: TrainedOn | None) -> Opened | Bundle | OnnxFile:
    """Open one model; a bundle or an ONNX file is returned as it was read, since it may need a normalisation."""
    from seedcnn.bundle import open_bundle
    from seedcnn.evaluate import Opened, read_onnx, torch_predictor
    from seedcnn.train import load_model

    if name.startswith(_TIMM):
        return _timm(name, len(test.test.classes))
    path = Path(name)
    if not path.is_file():
        raise DataError(f"there is no file {path}; for a network of timm, write timm:NAME or timm:NAME=FILE")
    if path.suffix == ".onnx":
        return read_onnx(path)
    try:
        return open_bundle(path)
    except BundleFormatError as no_bundle:
        try:
            model, checkpoint = load_model(path)
        except PluginError:
            raise
        except TrainingError as no_checkpoint:
            if "is not a checkpoint" not in str(no_checkpoint):
                raise
            raise _neither(path, no_bundle, no_checkpoint) from None
    digest = f"sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}"
    rule = test.preprocessing if trained_on is None else trained_on.preprocessing
    config = checkpoint.config
    predict = torch_predictor(model, rule.mean, rule.std)
    return Opened(predict, digest, "checkpoint", model, _published(config), seen=config.seen_corruptions)


def _with_weights(module: nn.Module, trained_on: TrainedOn) -> Opened:
    """A network with weights from elsewhere, by its rule."""
    rule = trained_on.preprocessing
    return _in_memory(module, rule.mean, rule.std, f"{rule.to_json()}", "weights")


def _of_bundles(bundles: Sequence[Bundle]) -> Normalization:
    """The normalisation that all bundles share, for ONNX files evaluated with them."""
    rules = {(b.manifest.preprocessing.mean_e8, b.manifest.preprocessing.std_e8) for b in bundles}
    if len(rules) != 1:
        why = "the bundles given disagree" if rules else "an ONNX file does not hold it"
        raise ConfigError(f"the normalisation of an ONNX file is not known ({why}): give --mean and --std")
    mean, std = rules.pop()
    return tuple(value * 1e-8 for value in mean), tuple(value * 1e-8 for value in std)


def open_models(
    names: Sequence[str],
    given: Normalization | None,
    test: NamedTest,
    trained: Mapping[str, TrainedOn],
    weighted: Mapping[str, Trained] | None = None,
) -> dict[str, Opened]:
    """Open models by their names.

    Args:
        names: paths, "timm:NAME" or "timm:NAME=FILE".
        given: normalisation of ONNX files; None takes that of the bundles among ``names``.
        test: what they are measured on; its normalisation is that of checkpoints that do not say theirs.
        trained: from :func:`read_trained_on`.
        weighted: networks that were opened with --weights.

    Raises:
        ConfigError: if a model is named twice, timm has none of that name, or the normalisation of an ONNX file is not
            known.
        DataError: if a model was trained on other classes or takes another input, or a file is of no known kind, holds
            another kind of network, or does not run.
    """
    from seedcnn.bundle import Bundle
    from seedcnn.evaluate import Opened, bundle_predictor, onnx_predictor

    if len(set(names)) < len(names):
        raise ConfigError(f"a model is named twice: {' '.join(names)}")
    for name, trained_on in trained.items():
        trained_on.check_images(test.test, f"{name}: the data {test.name}")
    ready = {name: _with_weights(each.module, trained[name]) for name, each in (weighted or {}).items()}
    found = {name: ready.get(name) or _read(name, test, trained.get(name)) for name in names}
    bundles = [item for item in found.values() if isinstance(item, Bundle)]
    opened = {}
    for name, item in found.items():
        if isinstance(item, Opened):
            opened[name] = item
        elif isinstance(item, Bundle):
            size = Path(name).stat().st_size
            opened[name] = Opened(bundle_predictor(item), f"sha256 {item.sha256}", "bundle", file_bytes=size)
        else:
            mean, std = given or _of_bundles(bundles)
            told = f"sha256 {item.sha256}, mean {list(mean)}, std {list(std)}"
            try:
                opened[name] = Opened(onnx_predictor(item, mean, std), told, "ONNX")
            except BundleError as error:  # it quotes the runtime and does not name the file
                raise DataError(f"{name}: {error}") from error
    return opened
