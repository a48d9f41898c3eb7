"""How much memory packing may take, and how many images fit into it at a time."""

from __future__ import annotations

import re
import resource
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx

from seedcnn.bundle import Preprocessing
from seedcnn.errors import ConfigError
from seedcnn.runtime.session import preprocess

__all__ = ["DEFAULT_MEMORY", "Activations", "Inputs", "Memory", "bytes_of", "peak_memory"]

DEFAULT_MEMORY = "2GB"
_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_MOST = 500  # images at a time, even where more would fit
_SHARE = 6  # a sixth of the memory is for activations


def bytes_of(text: str) -> int:
    """The number of bytes that a text such as 2GB or 1500 MiB names.

    Raises:
        ConfigError: if it is no number with one of the units KB, MB, GB, KiB, MiB, GiB.
    """
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMG]I?B)\s*", text, re.IGNORECASE)
    if found is None or not (size := int(float(found[1]) * _UNITS[found[2].upper()])):
        raise ConfigError(f"`memory` is {text!r}; it must be a number with a unit, such as 2GB or 1500MB")
    return size


@dataclass(frozen=True)
class Memory:
    """A limit for the memory of this process.

    Its parts are fixed shares, whatever the process holds, so that the same limit gives the same bundle.

    Args:
        total: bytes.
    """

    total: int

    @classmethod
    def of(cls, text: str | None) -> Memory:
        """The memory that ``text`` names; None is :data:`DEFAULT_MEMORY`.

        Raises:
            ConfigError: if ``text`` names none, or less than the process holds already.
        """
        if text is None:
            return cls(bytes_of(DEFAULT_MEMORY))
        found = cls(bytes_of(text))
        if (held := _resident()) > found.total:
            raise ConfigError(
                f"`memory` is {_shown(found.total)}, but Python, torch and the network take {_shown(held)} before "
                "anything is packed; give more"
            )
        return found

    def at_once(self, each: int, most: int = _MOST) -> int:
        """The number of images that fit into a sixth of the memory, 1 to ``most``, if one takes ``each`` bytes.

        Raises:
            ConfigError: if not even one fits.
        """
        room = self.total // _SHARE
        if each > room:
            raise ConfigError(
                f"`memory` is {_shown(self.total)}, and a sixth of it is for activations; those of one image take "
                f"{_shown(each)}: give at least {_shown(_SHARE * each)}"
            )
        return max(1, min(most, room // max(each, 1)))


def peak_memory() -> int:
    """The most bytes that this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _shown(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 10**9 else f"{size / 1e6:.1f} MB"


def _resident() -> int:
    """Bytes of memory that the process holds now; its peak where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return peak_memory()
    return pages * resource.getpagesize()


@dataclass(frozen=True)
class Activations:
    """Bytes that one image's activations take in a network.

    Attributes:
        forward: while it answers. Runtimes keep a few of the largest at a time.
        backward: while its gradients are computed, when all are kept.
    """

    forward: int
    backward: int

    @classmethod
    def of(cls, folded: fx.GraphModule, shape: tuple[int, int, int]) -> Activations:
        """Run one image of zeros [1, *shape] and add up the outputs of all nodes."""
        sizes = _Sizes(folded)
        with torch.no_grad():
            sizes.run(torch.zeros(1, *shape))
        return cls(4 * max(sizes.found, default=0), 2 * sum(sizes.found))


class _Sizes(fx.Interpreter):
    """Runs a network and notes the bytes of what each node makes."""

    def __init__(self, folded: fx.GraphModule) -> None:
        super().__init__(folded)
        self.found: list[int] = []

    def run_node(self, n: fx.Node) -> object:
        made = super().run_node(n)
        if isinstance(made, Tensor) and n.op != "get_attr":
            self.found.append(made.numel() * made.element_size())
        return made


@dataclass(frozen=True, eq=False)
class Inputs:
    """Images that become the network's inputs a few at a time.

    Args:
        images: uint8 [N, H, W, C].
        rule: from an image to an input.
    """

    images: npt.NDArray[np.uint8]
    rule: Preprocessing

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, at_once: int) -> Iterator[Tensor]:
        """The inputs in order, float32 [n, C, H, W] with n up to ``at_once``."""
        for start in range(0, len(self), at_once):
            yield torch.from_numpy(preprocess(self.images[start : start + at_once], self.rule))

    def spread(self, count: int) -> Inputs:
        """About ``count`` of the images, evenly spread; all of them if there are no more."""
        return Inputs(self.images[:: max(1, len(self) // count)][:count], self.rule)
