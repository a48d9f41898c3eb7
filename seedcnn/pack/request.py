"""A release as a request: how to pack a trained network. ``seedcnn pack`` fills one in and prints the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from seedcnn.bundle import Bundle, check_family, open_bundle
from seedcnn.bundle.compression import STORAGES
from seedcnn.bundle.limits import MAX_NAME_BYTES
from seedcnn.data.pictures.decoders import ByRule, CenterCrop
from seedcnn.data.pictures.folder import ImageFolder
from seedcnn.data.sets.named import DATA_SETS, FOLDER, NamedTest, load_test, load_train
from seedcnn.data.sets.own import TrainedOn, has_parts, load_folder
from seedcnn.errors import ConfigError, ExportError
from seedcnn.export import TARGETS, BundleInfo
from seedcnn.messages import Say, steps
from seedcnn.pack.int8 import CALIBRATION_COUNT, Int8, calibration_order
from seedcnn.pack.memory import bytes_of
from seedcnn.pack.packing import INT8_MAX_DROP, pack
from seedcnn.pack.parent import Parent, check_follows, check_kind
from seedcnn.pack.result import PackResult
from seedcnn.pack.search import Search
from seedcnn.runtime.custom_op import built

__all__ = ["SEARCHED_DROP", "PackRequest"]

SEARCHED_DROP = 0.5  # percentage points

_SEARCHED, _FOLLOWED = 5000, 512  # calibration images of a search, and of packing on a parent's grid
_THREADS = 2
_UNSURE = 200  # calibration images
_FEW, _ENOUGH = 400, 1000  # images; fewer are joined by copies until there are enough
_SHIFTS = sorted(product((0.0, -1.0, 1.0, -0.5, 0.5), repeat=2), key=lambda at: (at[0] ** 2 + at[1] ** 2, at))


@dataclass(frozen=True)
class PackRequest:
    """How a trained network becomes a release.

    Args:
        family: name that :func:`seedcnn.bundle.check_family` accepts, as publishing requires.
        release, min_release: see :class:`seedcnn.export.BundleInfo`.
        data: NAME or NAME:DIRECTORY of a data set, or a directory of pictures of one's own; accuracy is measured on its
            test part. "" takes what the network was trained on.
        hold_out: of a set that needs one, as in :func:`seedcnn.data.sets.named.load_train`.
        step: one grid step for all weights; 0 stores float32. None searches the coarsest grid that keeps to
            ``max_accuracy_drop``, or takes the parent's grids.
        max_accuracy_drop: largest accepted drop in percentage points. None is half a point for a search, and any drop
            with ``step`` or ``parent``.
        parent: a bundle of the family; the release takes its grids, and a delta leads from it to the release.
        delta_price: see :class:`seedcnn.pack.Parent`.
        calibration: NAME or NAME:DIRECTORY of a data set; its training images serve a search, a parent and int8. ""
            takes the set of ``data``.
        calibration_pictures: number of those images; None takes 5000 for a search, 512 with a parent, 256 for int8.
        compression: "entropy", "zstd", "zlib" or "xz": how integers are stored.
        target: a key of :data:`seedcnn.export.TARGETS`; the fused operator is built where the target needs it.
        int8: quantise the convolutions; refused where int8 is not faster than float32.
        force_int8: the same, but accepted where it is slower.
        memory: a limit for the memory of this process, see :func:`seedcnn.pack.pack`.
        adaptable: let devices give the norms statistics of their own; a child is adaptable if its parent is.

    Raises:
        ConfigError: if a value is unknown, or two contradict each other.
    """

    family: str
    release: int
    min_release: int = 0
    data: str = ""
    hold_out: str = ""
    step: float | None = None
    max_accuracy_drop: float | None = None
    parent: Path | None = None
    delta_price: float = Parent.price
    calibration: str = ""
    calibration_pictures: int | None = None
    compression: str = "entropy"
    target: str = "onnxruntime"
    int8: bool = False
    force_int8: bool = False
    memory: str | None = None
    adaptable: bool = False

    def __post_init__(self) -> None:
        try:
            check_family(self.family)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        known = (("target", self.target, TARGETS), ("compression", self.compression, STORAGES))
        for field, value, names in known:
            if value not in names:
                raise ConfigError(f"`{field}` is {value!r}; it must be one of {', '.join(names)}")
        if self.parent is not None and self.step is not None:
            raise ConfigError("`parent` brings its own grid; leave `step` out")
        self._check_effects()
        self._check_adaptable()
        if self.memory is not None:
            bytes_of(self.memory)
        if self.calibration_pictures is not None and self.calibration_pictures < 1:
            raise ConfigError(f"`calibration_pictures` is {self.calibration_pictures}; it must be at least 1")

    def _check_adaptable(self) -> None:
        if self.adaptable and self.quantizes:
            raise ConfigError("`adaptable` contradicts int8: its graph has the ranges of the activations built in")
        if self.adaptable and TARGETS[self.target].operator:
            raise ConfigError(f"`adaptable` contradicts `target` {self.target!r}: its operator hides the norms' inputs")

    def _check_effects(self) -> None:
        if self.max_accuracy_drop is not None and not 0 <= self.max_accuracy_drop <= 100:
            raise ConfigError(f"`max_accuracy_drop` is {self.max_accuracy_drop}; it must be in 0 to 100 points")
        if self.searches and self.max_accuracy_drop == 0:
            raise ConfigError(
                "`max_accuracy_drop` is 0; a search needs more, since the standard error counts as lost: give a `step`"
            )
        if self.parent is None and self.delta_price != Parent.price:
            raise ConfigError(f"`delta_price` {self.delta_price} has no effect without `parent`")
        if self.searches or self.parent is not None or self.quantizes:
            return
        for name in ("calibration", "calibration_pictures"):
            if value := getattr(self, name):
                raise ConfigError(f"`{name}` {value} has no effect with `step` and without `parent` or `int8`")

    @property
    def searches(self) -> bool:
        """Whether the grid is searched."""
        return self.step is None and self.parent is None

    @property
    def searched_drop(self) -> float:
        """The largest drop that a search accepts, in percentage points."""
        return SEARCHED_DROP if self.max_accuracy_drop is None else self.max_accuracy_drop

    @property
    def _most(self) -> float | None:
        """The largest accepted drop of the test images; None for no bound, or that of the search."""
        if self.searches and self.quantizes and self.max_accuracy_drop is None:
            return INT8_MAX_DROP
        return None if self.searches else self.max_accuracy_drop

    @property
    def quantizes(self) -> bool:
        """Whether the graph becomes int8."""
        return self.int8 or self.force_int8

    def pack(
        self,
        network: nn.Module,
        model: str,
        progress: Say | None = None,
        *,
        trained_on: TrainedOn | None = None,
        grid_steps: Mapping[str, float] | None = None,
        original: nn.Module | None = None,
    ) -> PackResult:
        """Load the data sets of the request, pack the network and measure it.

        Args:
            network: trained.
            model: its name in the manifest.
            progress: told about each stage; a :class:`seedcnn.progress.Progress` shows bars.
            trained_on: what the network was trained on: its labels and rule go into the bundle, and data with other
                classes are refused. None takes both from the data.
            grid_steps: of the grid that the network was trained on, see :func:`seedcnn.pack.pack`.
            original: the network to compare with, see :func:`seedcnn.pack.pack`.

        Raises:
            ConfigError: if a data set is unknown, or ``memory`` does not hold the activations of one image.
            DataError: if a data set is incomplete.
            ExportError, BundleError: as :func:`seedcnn.pack.pack`; ExportError also if a searched bundle loses more
                than ``max_accuracy_drop`` on the test images by over two standard errors, BundleError also if the
                parent is damaged.
            OSError: if the parent cannot be read.
        """
        if grid_steps and self.step is not None:
            raise ConfigError(f"`step` {self.step:g} has no effect: the network was trained on its grid; leave it out")
        parent = self._opened_parent(model)
        data = self.data or (trained_on.source if trained_on is not None else "")
        if not data:
            raise ConfigError("`data` is needed: nothing says what the network was trained on")
        with steps(progress, "loading the images"):
            test = load_test(data, hold_out=self.hold_out, progress=progress, trained_on=trained_on)
            if trained_on is not None:
                trained_on.check_images(test.test, data)
            search, follow, quantized = self._calibrated(parent, data, trained_on, progress, trained=bool(grid_steps))
        _warn_of_few(search, progress)
        found = pack(
            network,
            self._info(model, test, trained_on),
            test.test.images,
            test.test.labels,
            step=self.step or None,
            search=search,
            parent=follow,
            max_drop=self.max_accuracy_drop if grid_steps else self._most,
            int8=quantized,
            grid_steps=grid_steps,
            adaptable=self.adaptable,
            original=original,
            progress=progress,
            **self._runtime(),
        )
        if not grid_steps:
            self._check_lost(found)
        return found

    def _runtime(self) -> dict[str, Any]:
        """The options of :func:`seedcnn.pack.pack` that say where and how a bundle runs."""
        libraries = [built()] if TARGETS[self.target].operator else []
        how = {"target": self.target, "compression": self.compression, "memory": self.memory}
        return {"threads": _THREADS, "libraries": libraries, **how}

    def _opened_parent(self, model: str) -> Bundle | None:
        if self.parent is None:
            return None
        parent = open_bundle(self.parent)
        check_kind(parent, self.quantizes)
        check_follows(parent, release=self.release, family=self.family, model=model)
        if self.adaptable and not parent.manifest.norms:
            raise ConfigError(f"`adaptable` needs an adaptable parent; {self.parent} is none")
        return parent

    def _check_lost(self, found: PackResult) -> None:
        """Refuse a searched bundle that surely loses more on the test images than ``max_accuracy_drop``, if given."""
        most = self.max_accuracy_drop
        if self.searches and most is not None and found.drop - 2 * found.drop_error > most:
            raise ExportError(
                f"the grid that keeps to {most:g} points on the calibration images costs {found.drop:.2f} ± "
                f"{found.drop_error:.2f} points on the {found.before.n:,} test images: use more calibration images, or "
                "a finer `step`"
            )

    def _info(self, model: str, test: NamedTest, trained_on: TrainedOn | None) -> BundleInfo:
        return BundleInfo(
            model=model,
            family=self.family,
            release=self.release,
            min_release=self.min_release,
            preprocessing=test.preprocessing if trained_on is None else trained_on.preprocessing,
            labels=test.test.classes,
            data=_name_of(test),
        )

    def _calibrated(
        self, parent: Bundle | None, data: str, trained_on: TrainedOn | None, progress: Say | None, *, trained: bool
    ) -> tuple[Search | None, Parent | None, Int8 | None]:
        """The options that need calibration images, with the images."""
        searches = self.searches and not trained
        if not searches and parent is None and not self.quantizes:
            return None, None, None
        usual = _SEARCHED if searches else _FOLLOWED if parent is not None else CALIBRATION_COUNT
        wanted = self.calibration_pictures or usual
        hold_out = "" if self.calibration else self.hold_out
        source = self.calibration or _training_part(data, trained_on)
        images, labels = _calibration(source, hold_out, trained_on, wanted, progress)
        search = Search(*_enough(images, labels), self.searched_drop, len(images)) if searches else None
        follow = None if parent is None else Parent(parent, images, self.delta_price)
        quantized = None
        if self.quantizes:
            count = self.calibration_pictures or CALIBRATION_COUNT
            quantized = Int8(images[:count] if parent is None else None, force=self.force_int8)
        return search, follow, quantized


def _warn_of_few(search: Search | None, progress: Say | None) -> None:
    if search is not None and progress is not None and (few := search.distinct or 0) < _UNSURE:
        progress(f"{few:,} calibration images say little about half a point: the bundle may lose more than they do")


def _name_of(test: NamedTest) -> str:
    """The name of the test set, cut to what a manifest takes."""
    return test.title.encode()[:MAX_NAME_BYTES].decode(errors="ignore")


def _enough(
    images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Add copies of few images, shifted by up to a tenth of a side, so that a search sees about a thousand inputs."""
    rounds = min(len(_SHIFTS), -(-_ENOUGH // len(images))) if len(images) < _FEW else 1
    reach = max(1, min(images.shape[1:3]) // 10)
    padded = np.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0)), "edge")
    height, width = images.shape[1:3]
    parts = []
    for y, x in _SHIFTS[:rounds]:
        top, left = (reach + round(step * reach) for step in (y, x))
        parts.append(padded[:, top : top + height, left : left + width])
    return np.concatenate(parts), np.tile(labels, rounds)


def _training_part(data: str, trained_on: TrainedOn | None) -> str:
    """The data whose training part serves as calibration images: never pictures that are measured, too.

    Raises:
        ConfigError: if there is none.
    """
    name, _, where = data.partition(":")
    own = name == FOLDER or (name not in DATA_SETS and Path(data).exists())
    place = where if name == FOLDER else data
    if not own or trained_on is None or has_parts(place):
        return data
    kind, _, source = trained_on.source.partition(":")
    if kind != FOLDER:
        raise ConfigError(
            f"all of {place} is measured, so nothing is left to calibrate on: give `calibration` with other "
            "pictures, or a `step`"
        )
    return data if Path(source).resolve() == Path(place).resolve() else trained_on.source


def _calibration(
    data: str, hold_out: str, trained_on: TrainedOn | None, count: int, progress: Say | None
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Training images, drawn from class after class in turn."""
    name, _, where = data.partition(":")
    if name == FOLDER or (name not in DATA_SETS and Path(data).exists()):
        if trained_on is None:
            raise ConfigError(f"{data} holds pictures of your own, and nothing says by which rule they become inputs")
        place = where if name == FOLDER else data
        own = load_folder(place, preprocessing=trained_on.preprocessing, val=trained_on.val, progress=progress)
        trained_on.check(own.classes, place)
        picked = calibration_order(own.train.labels, min(count, len(own.train)))
        return own.train.images[picked], own.train.labels[picked]
    train = load_train(name, where or None, hold_out=hold_out, progress=progress).train
    some = train.take(calibration_order(train.labels, min(count, len(train.labels))))
    if isinstance(some, ImageFolder):
        if progress:
            progress(f"decoding {len(some):,} training images of {some.source}")
        some = some.load(CenterCrop(224, 256) if trained_on is None else ByRule(trained_on.preprocessing))
    return some.images, some.labels
