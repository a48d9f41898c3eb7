"""Test sets by name: one line says which pictures a network is measured on."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from seedcnn.data import imagenet
from seedcnn.data.cifar10 import load_cifar10
from seedcnn.data.cifar100 import load_cifar100
from seedcnn.data.folder import CenterCrop
from seedcnn.data.gtsrb import load_gtsrb
from seedcnn.data.icons50 import hold_out_style, hold_out_subtypes, hold_out_traditional, load_icons50
from seedcnn.data.icons50_rebuilt import load_icons50_rebuilt
from seedcnn.data.image_set import ImageSet
from seedcnn.data.official import OfficialFiles, cifar10_c_files, imagenet_c_files
from seedcnn.errors import ConfigError, DataError

__all__ = ["TEST_SETS", "NamedTest", "load_test", "random_choice"]

Triple = tuple[float, float, float]
Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class NamedTest:
    """A test set and what goes with it.

    Attributes:
        name: a key of :data:`TEST_SETS`.
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


@dataclass(frozen=True)
class _Wanted:
    """What was asked for."""

    name: str
    root: Path | None
    hold_out: str
    limit: int | None
    verify: bool
    on_error: str
    decoded: Path | None
    say: Say

    def directory(self) -> Path:
        if self.root is None:
            raise ConfigError(f"data {self.name!r} needs its directory: {self.name}:DIRECTORY")
        return self.root


def random_choice(n: int, count: int) -> npt.NDArray[np.int64]:
    """``count`` of ``n`` indices, the same ones every time, ascending; all where there are no more.

    Returns:
        int64 [min(n, count)], by raw words of Philox(key=0).
    """
    words = np.random.Philox(key=0).random_raw(n)
    return np.sort(np.argsort(words, kind="stable")[:count]).astype(np.int64)


def _some(data: ImageSet, limit: int | None) -> ImageSet:
    return data if limit is None or limit >= len(data) else data.take(random_choice(len(data), limit))


def _cifar10(wanted: _Wanted) -> NamedTest:
    found = load_cifar10(wanted.root, progress=wanted.say)
    return NamedTest(wanted.name, found.test, found.mean, found.std)


def _cifar100(wanted: _Wanted) -> NamedTest:
    found = load_cifar100(wanted.directory(), verify=wanted.verify)
    return NamedTest(wanted.name, found.test, found.mean, found.std)


def _gtsrb(wanted: _Wanted) -> NamedTest:
    found = load_gtsrb(wanted.directory(), verify=wanted.verify, on_error=wanted.on_error)
    return NamedTest(wanted.name, _some(found.test, wanted.limit), found.mean, found.std)


def _icons(wanted: _Wanted, whole: ImageSet) -> NamedTest:
    held: tuple[str, ...] = ()
    test, zero, one = whole, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)  # the authors do not normalise
    try:
        if wanted.hold_out in ("subtypes", "traditional"):
            divide = hold_out_subtypes if wanted.hold_out == "subtypes" else hold_out_traditional
            test = divide(whole).test
        elif wanted.hold_out:
            held = tuple(wanted.hold_out.split(","))
            test = hold_out_style(whole, held).test
    except ValueError as error:
        raise ConfigError(f"hold-out {wanted.hold_out!r}: {error}") from None
    return NamedTest(wanted.name, _some(test, wanted.limit), zero, one, held_out=held)


def _icons50(wanted: _Wanted) -> NamedTest:
    return _icons(wanted, load_icons50(wanted.directory(), verify=wanted.verify, on_error=wanted.on_error))


def _icons50_rebuilt(wanted: _Wanted) -> NamedTest:
    return _icons(wanted, load_icons50_rebuilt(progress=wanted.say))


def _imagenet(wanted: _Wanted) -> NamedTest:
    listed = imagenet.list_imagenet(wanted.directory(), classes=1000 if wanted.verify else None)
    if wanted.limit is not None:
        listed = listed.take(random_choice(len(listed), wanted.limit))
    wanted.say(f"decoding {len(listed):,} pictures of {listed.source}")
    test = listed.load(CenterCrop(224, 256), on_error=wanted.on_error, file=wanted.decoded)
    return NamedTest(wanted.name, test, imagenet.MEAN, imagenet.STD, constants="imagenet")


@dataclass(frozen=True)
class _Known:
    load: Callable[[_Wanted], NamedTest]
    about: str
    hold_out: bool = False


_KNOWN: Mapping[str, _Known] = {
    "cifar10": _Known(_cifar10, "downloaded if no directory is given"),
    "cifar100": _Known(_cifar100, "a directory of the official files"),
    "gtsrb": _Known(_gtsrb, "a directory of the official archives, unpacked; 32 x 32"),
    "icons50": _Known(_icons50, "a directory of Icons-50; 32 x 32; with a hold-out", hold_out=True),
    "icons50-rebuilt": _Known(_icons50_rebuilt, "Icons-50 rebuilt from emoji packages, downloaded", hold_out=True),
    "imagenet": _Known(_imagenet, "a directory that holds val/<wnid>/*.JPEG; the middle 224 of 256"),
}
TEST_SETS: Mapping[str, str] = {name: known.about for name, known in _KNOWN.items()}
"""Name -> what it is read from."""
_OFFICIAL: Mapping[str, Callable[[Path, ImageSet], OfficialFiles]] = {
    "cifar10": cifar10_c_files,
    "imagenet": imagenet_c_files,
}


def _refuse_hold_out(names: Sequence[str], hold_out: str) -> ConfigError:
    return ConfigError(f"hold-out {hold_out!r}: it goes with the data {' and '.join(names)} only")


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
    """Load a test set.

    Args:
        data: "NAME" or "NAME:DIRECTORY" with a name of :data:`TEST_SETS`.
        hold_out: for Icons-50: styles with commas (every picture of a style that the network has not seen), "subtypes"
            or "traditional"; "" for all pictures.
        limit: of sets of picture files decode only so many, chosen at random, always the same.
        corrupted: directory of the published corrupted pictures: CIFAR-10-C for "cifar10", ImageNet-C for "imagenet".
        verify: refuse a set that is not complete.
        on_error: "raise" for files that cannot be decoded, or "skip" them: they are listed in ``test.skipped``.
        decoded: for "imagenet": a file to keep the decoded pictures in, 150 kB each, instead of in memory; it is used
            again by the next call for the same pictures.
        progress: called with one sentence per step.

    Raises:
        ConfigError: if there is no such set (near names are listed), it needs a directory, or an option is not for it.
        DataError: if what is there is not what it should be.
    """
    name, _, where = data.partition(":")
    if name not in _KNOWN:
        near = difflib.get_close_matches(name, _KNOWN, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}? " if near else ""
        known = ", ".join(f"{known} ({about})" for known, about in TEST_SETS.items())
        raise ConfigError(f"unknown data {data!r}; {hint}NAME or NAME:DIRECTORY with {known}")
    if name == "icons50-rebuilt" and where:
        raise ConfigError(f"data {data!r}: icons50-rebuilt takes no directory; it is downloaded and built")
    if hold_out and not _KNOWN[name].hold_out:
        raise _refuse_hold_out([known for known in _KNOWN if _KNOWN[known].hold_out], hold_out)
    if corrupted is not None and name not in _OFFICIAL:
        raise ConfigError(f"published corrupted pictures go with the data {' and '.join(_OFFICIAL)}, not with {name}")
    if decoded is not None and name != "imagenet":
        raise ConfigError(f"a file of decoded pictures goes with the data imagenet, not with {name}: it is small")
    root = Path(where) if where else None
    say = progress or (lambda _: None)
    found = _KNOWN[name].load(_Wanted(name, root, hold_out, limit, verify, on_error, decoded, say))
    if not len(found.test):
        raise DataError(f"data {data!r} holds no test picture")
    if corrupted is None:
        return found
    files = _OFFICIAL[name](corrupted, found.test)
    return NamedTest(name, found.test, found.mean, found.std, found.constants, found.held_out, files)
