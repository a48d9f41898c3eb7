"""What to convert to: one frozen dataclass for each layer family."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any

from seedcnn.errors import ConfigError

__all__ = ["METHODS", "ConversionConfig", "GroupNLConfig", "config_for"]


@dataclass(frozen=True)
class ConversionConfig:
    """Base of the family configs.

    Args:
        scope: which convolutions are candidates, a key of :data:`seedcnn.convert.filters.SCOPES`: "paper" (every
            convolution but the stem, pointwise ones only where they are projection shortcuts, as the tables of the
            GroupNL paper imply) or "stride1" (the public code: kernels above 1x1 with stride 1).
    """

    scope: str = "paper"


@dataclass(frozen=True)
class GroupNLConfig(ConversionConfig):
    """Replace by :class:`seedcnn.layers.GroupNLConv2d`; the arguments are that layer's.

    Args:
        reduction_ratio: r; c_seed = c_out / r of the block's spatial convolutions (GroupNL Tables 3 and 4).
        sparse: gcd(c_in, c_seed) groups in the seed convolution.
        nlf_groups, nlf, omega_range, phi_range, normalize: see the layer.
    """

    reduction_ratio: int = 2
    sparse: bool = False
    nlf_groups: int = 4
    nlf: str = "sine"
    omega_range: tuple[float, float] = (1, 2)
    phi_range: tuple[float, float] = (1, 5)
    normalize: str = "none"


METHODS: dict[str, type[ConversionConfig]] = {"groupnl": GroupNLConfig}
"""Method names, as the command line and the recipes use them."""


def config_for(method: str, **options: Any) -> ConversionConfig:
    """The config of a method by its name.

    Raises:
        ConfigError: if the method or one of its options does not exist; near names are listed.
    """
    if method not in METHODS:
        near = difflib.get_close_matches(method, METHODS, n=3, cutoff=0.4)
        hint = f"did you mean {', '.join(near)}? " if near else ""
        raise ConfigError(f"unknown method {method!r}; {hint}known methods: {', '.join(METHODS)}")
    known = METHODS[method].__dataclass_fields__
    for name in options:
        if name not in known:
            raise ConfigError(f"method {method!r} has no option {name!r}; it has {', '.join(known)}")
    return METHODS[method](**options)
