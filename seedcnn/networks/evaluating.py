"""Evaluate a checkpoint or a bundle in one call."""

from __future__ import annotations

from pathlib import Path

from seedcnn.bundle import open_bundle
from seedcnn.data.image_set import ImageSet
from seedcnn.data.sets.named import load_test
from seedcnn.data.sets.own import TrainedOn
from seedcnn.errors import BundleFormatError, ConfigError
from seedcnn.evaluate import Answers, Predict, ask, bundle_predictor, torch_predictor
from seedcnn.messages import Say, steps
from seedcnn.networks.opening import open_checkpoint

__all__ = ["evaluate"]


def evaluate(
    model: str | Path, images: ImageSet | None = None, *, batch_size: int = 500, progress: Say | None = None
) -> Answers:
    """Ask a trained network about images: ``evaluate("runs/a.ckpt", data.val).top1``.

    Args:
        model: path of a checkpoint, or of a bundle, which is run as on a device.
        images: at least one, decoded by the network's own rule; None for what the checkpoint was measured on.
        batch_size: images in one call of the network.
        progress: called with one sentence per step of loading; a :class:`seedcnn.progress.Progress` shows the rest.

    Returns:
        The answers, with accuracy, accuracy by class, confusion and the worst images.

    Raises:
        DataError: if the images have other classes than the network, or another size.
        ConfigError: if there are no images, and the model does not say where they are.
        TypeError: for a network instead of a path.
        TrainingError, BundleError: if the file is damaged, or of another kind.
    """
    if not isinstance(model, str | Path):
        raise TypeError(
            f"`model` is a {type(model).__name__}; it must be the path of a checkpoint or a bundle. For a network in "
            "memory: seedcnn.evaluate.ask(torch_predictor(network, mean, std), images)"
        )
    predict, trained_on = _opened(model)
    if images is None:
        if trained_on is None or not trained_on.source:
            raise ConfigError(f"{model} does not say where its data are: give the images")
        images = load_test(trained_on.source, progress=progress, trained_on=trained_on).test
    if trained_on is not None:
        trained_on.check_images(images, f"{model}: {images.source}")
    with steps(progress, f"asking {model}", len(images)) as advance:
        return ask(predict, images, batch_size=batch_size, advance=advance)


def _opened(path: str | Path) -> tuple[Predict, TrainedOn | None]:
    if Path(path).is_file():
        try:
            bundle = open_bundle(path)
        except BundleFormatError:
            pass
        else:
            manifest = bundle.manifest
            return bundle_predictor(bundle), TrainedOn(manifest.labels, manifest.preprocessing, "")
    found = open_checkpoint(path)
    if found.trained_on is None:
        raise ConfigError(f"{path} was made before checkpoints kept their rule for images: use torch_predictor")
    rule = found.trained_on.preprocessing
    return torch_predictor(found.module, rule.mean, rule.std), found.trained_on
