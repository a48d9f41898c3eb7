"""Data sets by name: one line says which pictures a network is trained or measured on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from seedcnn.data.image_set import ImageSet
from seedcnn.data.pictures.folder import ImageFolder
from seedcnn.data.sets._sets import DATA_SETS, DataSet, Wanted, random_choice
from seedcnn.data.sets.official import OfficialFiles
from seedcnn.errors import ConfigError, DataError, did_you_mean

__all__ = ["DATA_SETS", "DataSet", "NamedTest", "NamedTrain", "load_test", "load_train", "random_choice"]

Triple = tuple[float, float, float]
Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class NamedTrain:
    """A training set and what goes with it.

    Attributes:
        name: a key of :data:`DATA_SETS`.
        train: the pictures, as files where the set's ``files`` says so.
        mean, std: per channel on the 0..1 scale.
    """

    name: str
    train: ImageSet | ImageFolder
    mean: Triple
    std: Triple


@dataclass(frozen=True, eq=False)
class NamedTest:
    """A test set and what goes with it.

    Attributes:
        name: a key of :data:`DATA_SETS`.
        test: the pictures.
        mean, std: what a network that was trained on the set expects, per channel on the 0..1 scale.
        constants: of generated corruptions, "cifar" or "imagenet".
        held_out: styles that a network was not trained on; empty if that means nothing.
        corrupted: its corrupted pictures as published; None to generate them.
    """

    name: str
    test: ImageSet
    mean: Triple
    std: Triple
    constants: str = "cifar"
    held_out: tuple[str, ...] = ()
    corrupted: OfficialFiles | None = None


def _known(name: str, root: Path | None, hold_out: str, example: str = "") -> DataSet:
    """The set of a name, after the rules that hold for both its parts."""
    if name not in DATA_SETS:
        hint = did_you_mean(name, DATA_SETS)
        known = ", ".join(f"{known} ({each.about})" for known, each in DATA_SETS.items())
        raise ConfigError(f"unknown data {name!r}; {hint}known{example and f', as {example}'}: {known}")
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
        directory: where the set lies; None for those that are downloaded.
        hold_out: of Icons-50, what the network does not see; as in :func:`load_test`. Icons-50 needs one.
        verify: refuse a set that is not complete.
        progress: called with one sentence per step.

    Raises:
        ConfigError: if there is no such set (near names are listed), it needs a directory or takes none, or the
            hold-out is not for it.
        DataError: if what is there is not what it should be, or holds no picture.
    """
    root = None if directory is None else Path(directory)
    wanted = Wanted(name, root, hold_out, verify, progress or (lambda _: None))
    train, mean, std = _known(name, root, hold_out).train(wanted)
    if not len(train.labels):
        raise DataError(f"data {name!r} holds no training picture")
    return NamedTrain(name, train, mean, std)


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
) -> NamedTest:
    """Load the test part of a data set.

    Args:
        data: "NAME" or "NAME:DIRECTORY" with a name of :data:`DATA_SETS`.
        hold_out: for Icons-50: styles with commas (every picture of a style that the network has not seen), "subtypes"
            or "traditional"; "" for all pictures.
        limit: of sets of picture files take only so many, chosen at random, always the same.
        corrupted: directory of the published corrupted pictures: CIFAR-10-C for "cifar10", ImageNet-C for "imagenet".
        verify: refuse a set that is not complete.
        on_error: "raise" for files that cannot be decoded, or "skip" them: they are listed in ``test.skipped``.
        decoded: for "imagenet": a file to keep the decoded pictures in, 150 kB each, instead of in memory; it is used
            again by the next call for the same pictures.
        progress: called with one sentence per step.

    Raises:
        ConfigError: if there is no such set (near names are listed), it needs a directory or takes none, or an option
            is not for it.
        DataError: if what is there is not what it should be, or holds no picture.
    """
    name, _, where = data.partition(":")
    root = Path(where) if where else None
    known = _known(name, root, hold_out, "NAME or NAME:DIRECTORY")
    if corrupted is not None and known.official is None:
        published = " and ".join(each for each, found in DATA_SETS.items() if found.official)
        raise ConfigError(f"published corrupted pictures go with the data {published}, not with {name}")
    if decoded is not None and not known.files:
        kept = " and ".join(each for each, found in DATA_SETS.items() if found.files)
        raise ConfigError(f"a file of decoded pictures goes with the data {kept}, not with {name}: it is small")
    wanted = Wanted(name, root, hold_out, verify, progress or (lambda _: None), limit, on_error, decoded)
    test, mean, std = known.test(wanted)
    if not len(test):
        raise DataError(f"data {data!r} holds no test picture")
    files = None if corrupted is None or known.official is None else known.official(corrupted, test)
    return NamedTest(name, test, mean, std, known.constants, _held_out(hold_out), files)
