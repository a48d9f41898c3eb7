"""Data sets by name: one name says which images a network is trained or measured on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from seedcnn.bundle import Preprocessing
from seedcnn.data.image_set import Channels, ImageSet, TrainTest
from seedcnn.data.pictures.decoders import ByRule
from seedcnn.data.pictures.folder import CenterCrop, ImageFolder
from seedcnn.data.sets import imagenet
from seedcnn.data.sets.cifar10 import load_cifar10
from seedcnn.data.sets.cifar100 import load_cifar100
from seedcnn.data.sets.gtsrb import load_gtsrb
from seedcnn.data.sets.icons50 import hold_out_style, hold_out_subtypes, hold_out_traditional, load_icons50
from seedcnn.data.sets.icons50_rebuilt import load_icons50_rebuilt
from seedcnn.data.sets.official import OfficialFiles, cifar10_c_files, imagenet_c_files
from seedcnn.data.sets.own import FOLDER, TrainedOn, load_pictures
from seedcnn.errors import ConfigError, DataError, did_you_mean
from seedcnn.messages import Say

__all__ = [
    "DATA_SETS",
    "FOLDER",
    "DataRequest",
    "DataSet",
    "NamedTest",
    "NamedTrain",
    "load_test",
    "load_train",
    "random_choice",
]

Train = tuple[ImageSet | ImageFolder, Channels, Channels]
Test = tuple[ImageSet, Channels, Channels]


class _WithRule:
    """A part of a data set with its rule for pictures."""

    preprocessing: Preprocessing

    @property
    def mean(self) -> Channels:
        """Mean per channel, on the 0..1 scale."""
        return self.preprocessing.mean

    @property
    def std(self) -> Channels:
        """Standard deviation per channel, on the 0..1 scale."""
        return self.preprocessing.std


@dataclass(frozen=True, eq=False)
class NamedTrain(_WithRule):
    """A training set and what goes with it.

    Attributes:
        name: a key of :data:`DATA_SETS`.
        train: the images; an ``ImageFolder`` for sets whose ``files`` is true.
        preprocessing: the rule by which a picture becomes an image of the set, and an image an input.
    """

    name: str
    train: ImageSet | ImageFolder
    preprocessing: Preprocessing


@dataclass(frozen=True, eq=False)
class NamedTest(_WithRule):
    """A test set and what goes with it.

    Attributes:
        name: a key of :data:`DATA_SETS`.
        test: the images.
        preprocessing: the rule by which a picture becomes an image of the set, and an image the input of a network
            trained on the set.
        constants: the constants for generated corruptions, "cifar" or "imagenet".
        held_out: styles that the network was not trained on; empty if no style is held out.
        corrupted: the published corrupted images; None to generate them.
    """

    name: str
    test: ImageSet
    preprocessing: Preprocessing
    constants: str = "cifar"
    held_out: tuple[str, ...] = ()
    corrupted: OfficialFiles | None = None

    @property
    def title(self) -> str:
        """The name to show: of pictures of one's own that of their directory or file, without its path."""
        return Path(self.test.source).stem or self.name if self.name == FOLDER else self.name


@dataclass(frozen=True)
class DataRequest:
    """The arguments of :func:`load_train` or :func:`load_test`, with the directory as ``root``."""

    name: str
    root: Path | None
    hold_out: str
    verify: bool
    say: Say
    limit: int | None = None
    on_error: str = "raise"
    decoded: Path | None = None
    rule: Preprocessing | None = None

    @property
    def directory(self) -> str:
        """``root`` as text, for the sets that need a directory."""
        return str(self.root)


@dataclass(frozen=True)
class DataSet:
    """A data set that can be loaded by name.

    Attributes:
        about: what it is read from, for messages.
        train, test: load a part, with mean and standard deviation per channel on the 0..1 scale.
        directory: "needed", "optional" (downloaded without one) or "none" (always downloaded).
        hold_out: whether a hold-out splits the set; without a hold-out it then has no training part.
        files: whether the training images stay files that are decoded when needed.
        constants: the constants for generated corruptions, "cifar" or "imagenet".
        official: finds the published corrupted images; None if there are none.
    """

    about: str
    train: Callable[[DataRequest], Train]
    test: Callable[[DataRequest], Test]
    directory: str = "needed"
    hold_out: bool = False
    files: bool = False
    constants: str = "cifar"
    official: Callable[[Path, ImageSet], OfficialFiles] | None = None

    def rule(self, part: ImageSet | ImageFolder, mean: Channels, std: Channels) -> Preprocessing:
        """Return how a picture becomes an image of a part, and an image an input."""
        if self.files or isinstance(part, ImageFolder):
            return Preprocessing.crop(224, short_side=256, mean=mean, std=std)
        _, height, width, channels = part.images.shape
        return Preprocessing.exact((height, width), channels=channels, mean=mean, std=std)


def random_choice(n: int, count: int) -> npt.NDArray[np.int64]:
    """Select ``count`` of ``n`` indices at random, always the same ones; all of them if ``n`` is not larger.

    Returns:
        int64 [min(n, count)], ascending, selected by raw words of Philox(key=0).
    """
    words = np.random.Philox(key=0).random_raw(n)
    return np.sort(np.argsort(words, kind="stable")[:count]).astype(np.int64)


def _some(data: ImageSet, limit: int | None) -> ImageSet:
    return data if limit is None or limit >= len(data) else data.take(random_choice(len(data), limit))


def _train_of(load: Callable[[DataRequest], TrainTest]) -> Callable[[DataRequest], Train]:
    def part(request: DataRequest) -> Train:
        found = load(request)
        return found.train, found.mean, found.std

    return part


def _test_of(load: Callable[[DataRequest], TrainTest], *, limited: bool = False) -> Callable[[DataRequest], Test]:
    def part(request: DataRequest) -> Test:
        found = load(request)
        return _some(found.test, request.limit if limited else None), found.mean, found.std

    return part


def _cifar10(request: DataRequest) -> TrainTest:
    found = load_cifar10(request.root, progress=request.say)
    train = ImageSet(found.train_images, found.train_labels, found.classes, found.source)
    return TrainTest(train, found.test, found.mean, found.std)


def _cifar100(request: DataRequest) -> TrainTest:
    return load_cifar100(request.directory, verify=request.verify)


def _gtsrb(request: DataRequest) -> TrainTest:
    return load_gtsrb(request.directory, verify=request.verify, on_error=request.on_error)


def _icons50(request: DataRequest) -> ImageSet:
    return load_icons50(request.directory, verify=request.verify, on_error=request.on_error)


def _icons50_rebuilt(request: DataRequest) -> ImageSet:
    return load_icons50_rebuilt(progress=request.say)


def _divided(whole: ImageSet, hold_out: str) -> TrainTest:
    try:
        if hold_out == "subtypes":
            return hold_out_subtypes(whole)
        if hold_out == "traditional":
            return hold_out_traditional(whole)
        return hold_out_style(whole, hold_out.split(","))
    except ValueError as error:
        raise ConfigError(f"hold-out {hold_out!r}: {error}") from None


def _icons(load: Callable[[DataRequest], ImageSet], about: str, directory: str) -> DataSet:
    def divided(request: DataRequest) -> TrainTest:
        return _divided(load(request), request.hold_out)

    def train(request: DataRequest) -> Train:
        if request.hold_out:
            return _train_of(divided)(request)
        raise ConfigError(
            f"data {request.name!r} has no test part of its own: set hold_out to subtypes, traditional or styles"
        )

    def test(request: DataRequest) -> Test:
        if request.hold_out:
            return _test_of(divided, limited=True)(request)
        return _some(load(request), request.limit), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)  # the authors do not normalise

    return DataSet(about, train, test, directory, hold_out=True)


def _imagenet_train(request: DataRequest) -> Train:
    listed = imagenet.list_imagenet(request.directory, "train", classes=1000 if request.verify else None)
    return listed, imagenet.MEAN, imagenet.STD


def _imagenet_test(request: DataRequest) -> Test:
    listed = imagenet.list_imagenet(request.directory, classes=1000 if request.verify else None)
    if request.limit is not None:
        listed = listed.take(random_choice(len(listed), request.limit))
    request.say(f"decoding {len(listed):,} images of {listed.source}")
    decode = CenterCrop(224, 256) if request.rule is None else ByRule(request.rule)
    test = listed.load(decode, on_error=request.on_error, file=request.decoded, progress=request.say)
    return test, imagenet.MEAN, imagenet.STD


DATA_SETS: Mapping[str, DataSet] = {
    "cifar10": DataSet(
        "downloaded if no directory is given",
        _train_of(_cifar10),
        _test_of(_cifar10),
        directory="optional",
        official=cifar10_c_files,
    ),
    "cifar100": DataSet("a directory of the official files", _train_of(_cifar100), _test_of(_cifar100)),
    "gtsrb": DataSet(
        "a directory of the official archives, unpacked; 32 x 32", _train_of(_gtsrb), _test_of(_gtsrb, limited=True)
    ),
    "icons50": _icons(_icons50, "a directory of Icons-50; 32 x 32; with a hold-out", "needed"),
    "icons50-rebuilt": _icons(_icons50_rebuilt, "Icons-50 rebuilt from emoji packages, downloaded", "none"),
    "imagenet": DataSet(
        "a directory that holds train and val, each <wnid>/*.JPEG; tested on the central 224 of 256",
        _imagenet_train,
        _imagenet_test,
        files=True,
        constants="imagenet",
        official=imagenet_c_files,
    ),
}
"""Name -> data set."""


def _known(name: str, root: Path | None, hold_out: str, example: str = "") -> DataSet:
    """Look up a set by name, and check the rules that hold for both of its parts."""
    if name not in DATA_SETS:
        hint = did_you_mean(name, DATA_SETS)
        known = ", ".join(f"{known} ({each.about})" for known, each in DATA_SETS.items())
        raise ConfigError(
            f"unknown data {name!r}; {hint}there is no directory of that name; "
            f"known{example and f', as {example}'}: {known}"
        )
    found = DATA_SETS[name]
    if root is None and found.directory == "needed":
        raise ConfigError(f"data {name!r} needs the directory it lies in{example and f': {name}:DIRECTORY'}")
    if root is not None and found.directory == "none":
        raise ConfigError(f"data {name!r} takes no directory; it is downloaded and built")
    if hold_out and not found.hold_out:
        divided = " and ".join(known for known, each in DATA_SETS.items() if each.hold_out)
        raise ConfigError(f"hold-out {hold_out!r}: it goes with the data {divided} only, not with {name}")
    return found


def load_train(
    name: str,
    directory: str | Path | None = None,
    *,
    hold_out: str = "",
    verify: bool = True,
    progress: Say | None = None,
) -> NamedTrain:
    """Load the training part of a data set.

    Args:
        name: a key of :data:`DATA_SETS`.
        directory: where the set is; None for sets that are downloaded.
        hold_out: for Icons-50, the images that the network does not see, as in :func:`load_test`. Icons-50 needs one.
        verify: refuse an incomplete set.
        progress: called with one sentence per step.

    Raises:
        ConfigError: if there is no such set (near names are listed), it needs a directory or takes none, or it cannot
            have a hold-out.
        DataError: if the data are missing, incomplete or damaged, or there is no training image.
    """
    root = None if directory is None else Path(directory)
    request = DataRequest(name, root, hold_out, verify, progress or (lambda _: None))
    known = _known(name, root, hold_out)
    train, mean, std = known.train(request)
    if not len(train.labels):
        raise DataError(f"data {name!r} has no training images")
    return NamedTrain(name, train, known.rule(train, mean, std))


def _held_out(hold_out: str) -> tuple[str, ...]:
    return () if hold_out in ("", "subtypes", "traditional") else tuple(hold_out.split(","))


def load_test(
    data: str,
    *,
    hold_out: str = "",
    limit: int | None = None,
    corrupted: Path | None = None,
    verify: bool = True,
    on_error: str = "raise",
    decoded: Path | None = None,
    progress: Say | None = None,
    trained_on: TrainedOn | None = None,
) -> NamedTest:
    """Load the test part of a data set.

    Args:
        data: "NAME" or "NAME:DIRECTORY" with a name of :data:`DATA_SETS`.
        hold_out: for Icons-50: styles, separated by commas, that the network has not seen, "subtypes" or
            "traditional"; "" for all images.
        limit: for sets of image files: use at most this number of images, chosen at random, always the same ones.
        corrupted: directory of the published corrupted images: CIFAR-10-C for "cifar10", ImageNet-C for "imagenet".
        verify: refuse an incomplete set.
        on_error: "raise" an error for files that cannot be decoded, or "skip" them and list them in ``test.skipped``.
        decoded: for "imagenet": a file to keep the decoded images in, 150 kB each, instead of in memory. A later call
            for the same images uses it again.
        progress: called with one sentence per step.
        trained_on: of the network that is measured: its rule decodes sets of image files, and is needed for pictures of
            one's own, "folder:DIRECTORY" or the directory alone. Of the directory that the network was trained on,
            only the part that was held back is loaded.

    Raises:
        ConfigError: if there is no such set (near names are listed), it needs a directory or takes none, or it does
            not have one of the options.
        DataError: if the data are missing, incomplete or damaged, or there is no test image.
    """
    name, _, where = data.partition(":")
    if name == FOLDER or (name not in DATA_SETS and Path(data).exists()):
        if corrupted is not None or decoded is not None or hold_out:
            raise ConfigError("hold-outs, published corrupted images and decoded files go with named data sets")
        return _own_test(Path(where) if name == FOLDER else Path(data), trained_on, limit, progress)
    root = Path(where) if where else None
    known = _known(name, root, hold_out, "NAME or NAME:DIRECTORY")
    if corrupted is not None and known.official is None:
        published = " and ".join(each for each, found in DATA_SETS.items() if found.official)
        raise ConfigError(f"published corrupted images go with the data {published}, not with {name}")
    if decoded is not None and not known.files:
        kept = " and ".join(each for each, found in DATA_SETS.items() if found.files)
        raise ConfigError(f"a file of decoded images goes with the data {kept}, not with {name}: it is small")
    rule = trained_on.preprocessing if trained_on is not None and known.files else None
    request = DataRequest(name, root, hold_out, verify, progress or (lambda _: None), limit, on_error, decoded, rule)
    test, mean, std = known.test(request)
    if not len(test):
        raise DataError(f"data {data!r} has no test images")
    files = None if corrupted is None or known.official is None else known.official(corrupted, test)
    return NamedTest(name, test, rule or known.rule(test, mean, std), known.constants, _held_out(hold_out), files)


def _own_test(place: Path, trained_on: TrainedOn | None, limit: int | None, progress: Say | None) -> NamedTest:
    if trained_on is None:
        raise ConfigError(
            f"{place} holds pictures of your own, and no model says by which rule they become inputs: "
            "give a checkpoint that `seedcnn train` wrote, or a bundle"
        )
    share, elsewhere = trained_on.measured_in(place)
    rule = trained_on.preprocessing
    test = load_pictures(place, rule, trained_on.labels, val=share, trained_in=elsewhere, progress=progress)
    return NamedTest(FOLDER, _some(test, limit), rule, "imagenet" if min(rule.height, rule.width) > 64 else "cifar")
