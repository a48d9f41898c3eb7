"""What to convert to: one frozen dataclass for each layer family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from seedcnn import typed
from seedcnn.errors import ConfigError

__all__ = [
    "METHODS",
    "PRESETS",
    "ConditionalReductionConfig",
    "ConversionConfig",
    "DepthwiseSeparableConfig",
    "GhostConfig",
    "GroupNLConfig",
    "LocalBinaryConfig",
    "MonoConfig",
    "PerturbativeConfig",
    "ShiftConfig",
    "SineFMConfig",
    "config_for",
    "config_of_text",
    "from_plain",
    "method_of",
    "to_plain",
]


@dataclass(frozen=True)
class ConversionConfig:
    """Base of the family configs.

    Args:
        scope: which convolutions are candidates, a key of :data:`seedcnn.convert.filters.SCOPES`: "paper" (every
            convolution but the stem, pointwise ones only where they are projection shortcuts, as the tables of the
            GroupNL paper imply), "stride1" (kernels above 1x1 with stride 1), "reference" (what the public code
            replaces in timm networks), "pointwise" (1x1 convolutions by input-output pattern and cost),
            "square" (those of "stride1" with as many inputs as outputs) or "spatial" (kernels above 1x1, but the stem).
    """

    scope: str = "paper"

    def __post_init__(self) -> None:
        typed.settle(self, type(self).__name__)


@dataclass(frozen=True)
class GroupNLConfig(ConversionConfig):
    """Replace by :class:`seedcnn.layers.GroupNLConv2d`; the arguments are that layer's.

    The defaults are the form that learns best (docs/adr/0009): normalised seeds, absolute values with shifts around
    zero. The layer's own defaults, and :meth:`paper`, are the paper's form.

    Args:
        reduction_ratio: r; c_seed = c_out / r of the block's spatial convolutions (GroupNL Tables 3 and 4).
        sparse: gcd(c_in, c_seed) groups in the seed convolution.
        groups: groups of the seed convolution between dense (1) and sparse; a layer takes the greatest common divisor
            of it, c_in and c_seed.
        nlf_groups, nlf, omega_range, phi_range, normalize, shuffle, variant: see the layer.
    """

    reduction_ratio: int = 2
    sparse: bool = False
    groups: int = 1
    nlf_groups: int = 4
    nlf: str = "abs"
    omega_range: tuple[float, float] = (1, 2)
    phi_range: tuple[float, float] = (-0.5, 0.5)
    normalize: str = "batch"
    shuffle: bool = False
    variant: str = "paper"

    @classmethod
    def paper(cls, **options: Any) -> GroupNLConfig:
        """The form of GroupNL, Section 3: sine, omega in [1, 2), phi in [1, 5), seeds that are not normalised.

        It needs a learning rate some thirty times smaller than the other forms, and learns less well (docs/worth.md).

        Args:
            options: other fields; those given here win.
        """
        return cls(**({"nlf": "sine", "phi_range": (1, 5), "normalize": "none"} | options))


@dataclass(frozen=True)
class MonoConfig(ConversionConfig):
    """Replace by :class:`seedcnn.layers.MonoConv2d`; the arguments are that layer's.

    Args:
        seed_filters: learnable filters of each layer, cut to the layer's output channels. The same number in every
            layer is what a fan-out that doubles with the width means: MonoCNN's {2, 4, 8, 16} over the widths 64, 128,
            256, 512 is ``seed_filters=32``, and its Table 1 form is ``seed_filters=1, pointwise=True``, both with
            ``scope="stride1"`` for residual networks and ``scope="square"`` for VGG11.
        exp_factor: the same fan-out in every layer instead (then ``seed_filters`` has no part).
        fgf, terms, beta_range, beta_per, normalize, eps, pointwise: see the layer.
    """

    seed_filters: int = 1
    exp_factor: int | None = None
    fgf: str = "monomial"
    terms: int = 1
    beta_range: tuple[float, float] = (1, 7)
    beta_per: str = "element"
    normalize: bool = True
    eps: float | None = None
    pointwise: bool = False


@dataclass(frozen=True)
class GhostConfig(ConversionConfig):
    """Replace by :class:`seedcnn.layers.GhostConv2d`; the arguments are that layer's.

    Args:
        ratio: c_out / c0 of the block's spatial convolutions, as GroupNL's ``reduction_ratio``.
        cheap, cheap_kernel_size, norm, relu: see the layer. ``norm=False, relu=False`` is GroupNL's Eq. 14;
            ``ratio=4, cheap="pointwise"`` is the form of MonoCNN's Table 1.
    """

    ratio: int = 2
    cheap: str = "depthwise"
    cheap_kernel_size: int = 3
    norm: bool = True
    relu: bool = True


@dataclass(frozen=True)
class SineFMConfig(ConversionConfig):
    """Replace by :class:`seedcnn.layers.SineFMConv2d`; the arguments are that layer's.

    Args:
        reduction_ratio: as in :class:`GroupNLConfig`.
        t, omega_range, phi_range: see the layer.
    """

    reduction_ratio: int = 2
    t: int = 5
    omega_range: tuple[float, float] = (1, 2)
    phi_range: tuple[float, float] = (1, 5)


@dataclass(frozen=True)
class ConditionalReductionConfig(ConversionConfig):
    """Replace by :class:`seedcnn.layers.ConditionalReductionConv2d`; the arguments are that layer's.

    The layer takes 1x1 convolutions only, hence the other default scope.
    """

    scope: str = "pointwise"
    mode: str = "auto"
    groups: int = 2
    alpha: float = 0.5
    relu: bool = True
    norm: bool = True


@dataclass(frozen=True)
class LocalBinaryConfig(ConversionConfig):
    """Replace by :class:`seedcnn.layers.LocalBinaryConv2d` with as many maps in the middle as at its output."""

    nonzero_fraction: float = 0.9
    norm: bool = False


@dataclass(frozen=True)
class PerturbativeConfig(ConversionConfig):
    """Replace by :class:`seedcnn.layers.PerturbativeConv2d`; the arguments are that layer's."""

    level: float = 0.1
    mask_size: int = 32
    norm: bool = False


@dataclass(frozen=True)
class ShiftConfig(ConversionConfig):
    """Replace by :class:`seedcnn.layers.ShiftConv2d`."""


@dataclass(frozen=True)
class DepthwiseSeparableConfig(ConversionConfig):
    """Replace by :class:`seedcnn.layers.DepthwiseSeparableConv2d`, the control; the arguments are that layer's.

    Args:
        norm, relu: see the layer.
        pointwise: what its 1x1 convolution is replaced by in turn, such as a :class:`GroupNLConfig`; its scope has no
            part. None leaves it dense.
    """

    norm: bool = True
    relu: bool = True
    pointwise: ConversionConfig | None = None


METHODS: dict[str, type[ConversionConfig]] = {
    "groupnl": GroupNLConfig,
    "mono": MonoConfig,
    "ghost": GhostConfig,
    "sinefm": SineFMConfig,
    "cr": ConditionalReductionConfig,
    "lbc": LocalBinaryConfig,
    "pnn": PerturbativeConfig,
    "shift": ShiftConfig,
    "dws": DepthwiseSeparableConfig,
}
"""Method names, as the command line and the recipes use them."""

PRESETS: dict[str, Callable[..., ConversionConfig]] = {**METHODS, "groupnl-paper": GroupNLConfig.paper}
"""The same, and named forms of a method."""


def method_of(config: ConversionConfig) -> str:
    """The name of a config's method."""
    return next(name for name, kind in METHODS.items() if type(config) is kind)


typed.register_family(ConversionConfig, "method", PRESETS)


def to_plain(config: ConversionConfig) -> dict[str, Any]:
    """A config as plain data, ready for JSON: the format, the method's name and its options.

    Raises:
        ConfigError: if the config is of no method.
    """
    return typed.stamped(typed.to_plain(config))


def from_plain(data: Mapping[str, Any]) -> ConversionConfig:
    """The inverse of :func:`to_plain`, also after JSON, which makes lists of tuples.

    Raises:
        ConfigError: if the data are of another format, the method or one of its options does not exist, or an option
            has a value of the wrong type.
    """
    config: ConversionConfig = typed.convert(ConversionConfig, typed.unstamped(data, "a conversion config"), "")
    return config


def config_of_text(text: str) -> ConversionConfig:
    """The config of ``method:option=value:option=value``, as the command line takes it.

    A colon inside brackets separates nothing.

    Raises:
        ConfigError: if the text does not look like that, the method or an option does not exist, or an option is given
            twice or has a value of the wrong type.
    """
    method, *assignments = typed.split(text, ":")
    options: dict[str, str] = {}
    for assignment in assignments:
        option, equals, value = assignment.partition("=")
        if not equals:
            raise ConfigError(f"method {text!r}: {assignment!r} must look like option=value")
        if option in options:
            raise ConfigError(f"method {text!r}: {option} is given twice")
        options[option] = value
    return config_for(method, **options)


def config_for(method: str, **options: Any) -> ConversionConfig:
    """The config of a method by its name; "groupnl-paper" is :meth:`GroupNLConfig.paper`.

    Args:
        method: a key of :data:`PRESETS`.
        options: values, or their text; each option's annotation says what it may be (:mod:`seedcnn.typed`).

    Raises:
        ConfigError: if the method or one of its options does not exist (near names are listed), or an option has a
            value of the wrong type.
    """
    config: ConversionConfig = typed.convert(ConversionConfig, {"method": method, **options}, method)
    return config
