"""Candidates of ``benchmarks/worth.py``: seed forms and the controls, on one small residual network.

Widths and seed widths are multiples of 16 on both sides: others leave the blocked layout of the usual runtimes and can
make either side win. "dense" forms replace the 3x3 convolutions; "separable" ones replace them by a depthwise 3x3 and a
pointwise convolution, with the form in the pointwise one. Stem and projection shortcuts stay plain except in the
"paper" scope.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from seedcnn.convert import (
    ConditionalReductionConfig,
    ConversionConfig,
    DepthwiseSeparableConfig,
    GhostConfig,
    GroupNLConfig,
    LocalBinaryConfig,
    MonoConfig,
    PerturbativeConfig,
    ShiftConfig,
    SineFMConfig,
)

__all__ = ["CANDIDATES", "CONTROLS", "FAMILIES", "Candidate", "network"]

Widths = tuple[int, int, int]
SMALL, BASE, WIDE, LARGE = (16, 32, 64), (32, 64, 128), (32, 96, 160), (64, 128, 256)


@dataclass(frozen=True)
class Candidate:
    """One network.

    Attributes:
        family: candidates of one family share a learning rate.
        control: True for an alternative without seed filters.
        widths: widths of the three stages.
        convert: config to convert to; None for the vanilla network.
        overrides: configs by layer name pattern, as ``convert_`` takes them.
    """

    family: str
    control: bool
    widths: Widths
    convert: ConversionConfig | None
    overrides: Mapping[str, ConversionConfig | None] = field(default_factory=dict)


def _name(form: str, widths: Widths) -> str:
    return f"{form} {'/'.join(map(str, widths))}"


_SEEDS = GroupNLConfig.paper(scope="spatial", normalize="batch")
_ABS = replace(_SEEDS, nlf="abs", phi_range=(-0.5, 0.5))
_DENSE: dict[str, tuple[str, bool, ConversionConfig]] = {
    # The paper's form, its repair, and the public code's.
    "sine": ("sine", False, replace(_SEEDS, normalize="none")),
    "sine+bn": ("sine+bn", False, _SEEDS),
    "sine+l2": ("sine+bn", False, replace(_SEEDS, normalize="l2")),
    "sine+bn slow": ("sine+bn", False, replace(_SEEDS, omega_range=(0.25, 1.0))),
    "sine+bn fast": ("sine+bn", False, replace(_SEEDS, omega_range=(2.0, 4.0))),
    "gaussian+bn": ("abs", False, replace(_SEEDS, nlf="gaussian")),
    "leaky+bn": ("abs", False, replace(_ABS, nlf="leaky")),
    "abs+bn": ("abs", False, _ABS),
    "abs": ("abs", False, replace(_ABS, normalize="none")),
    "abs+bn, 1 nlf group": ("abs", False, replace(_ABS, nlf_groups=1)),
    "abs+bn, 16 nlf groups": ("abs", False, replace(_ABS, nlf_groups=16)),
    "abs+bn r4": ("abs", False, replace(_ABS, reduction_ratio=4)),
    "abs+bn, 4 groups": ("abs", False, replace(_ABS, groups=4)),
    "abs+bn, 4 groups, shuffled": ("abs", False, replace(_ABS, groups=4, shuffle=True)),
    "abs+bn, 16 groups, shuffled": ("abs", False, replace(_ABS, groups=16, shuffle=True)),
    "abs+bn sparse": ("abs", False, replace(_ABS, sparse=True)),
    "sinefm": ("sine+bn", False, SineFMConfig(scope="spatial")),
    "mono": ("mono", False, MonoConfig(scope="spatial", seed_filters=16)),
    "mono, public": ("mono", False, MonoConfig(scope="stride1", seed_filters=1, pointwise=True)),
    "mono r4": ("mono", False, MonoConfig(scope="spatial", exp_factor=4)),
    # Fixed filters that travel as a seed, and a learned pointwise convolution.
    "lbc": ("fixed", False, LocalBinaryConfig(scope="spatial", norm=True)),
    "lbc, half zero": ("fixed", False, LocalBinaryConfig(scope="spatial", nonzero_fraction=0.5, norm=True)),
    "pnn": ("fixed", False, PerturbativeConfig(scope="spatial", norm=True)),
    "shift": ("fixed", False, ShiftConfig(scope="spatial")),
    # Forms without seed filters.
    "duplication": ("copy", True, replace(_SEEDS, nlf="identity")),
    "crelu": ("copy", True, replace(_SEEDS, nlf="negate", normalize="none")),
    "ghost": ("ghost", True, GhostConfig(scope="spatial")),
    "ghost linear": ("ghost", True, GhostConfig(scope="spatial", relu=False)),
}


def _separable(pointwise: ConversionConfig | None, relu: bool = False) -> ConversionConfig:
    if pointwise is not None:
        pointwise = replace(pointwise, scope=type(pointwise).scope)  # the outer scope selects
    return DepthwiseSeparableConfig(scope="spatial", relu=relu, pointwise=pointwise)


_SEPARABLE: dict[str, tuple[str, bool, ConversionConfig]] = {
    "dws": ("dws", True, _separable(None)),
    "dws relu": ("dws", True, _separable(None, relu=True)),
    "dws+ghost": ("dws+ghost", True, _separable(GhostConfig(relu=False))),
    "dws+duplication": ("dws+seeds", True, _separable(replace(_SEEDS, nlf="identity"))),
    "dws+crelu": ("dws+seeds", True, _separable(replace(_SEEDS, nlf="negate", normalize="none"))),
    "dws+abs": ("dws+seeds", False, _separable(_ABS)),
    "dws+leaky": ("dws+seeds", False, _separable(replace(_ABS, nlf="leaky"))),
    "dws+sine": ("dws+seeds", False, _separable(_SEEDS)),
    "dws+abs r4": ("dws+seeds", False, _separable(replace(_ABS, reduction_ratio=4))),
    "dws+abs, 4 groups, shuffled": ("dws+seeds", False, _separable(replace(_ABS, groups=4, shuffle=True))),
    "dws+mono r2": ("dws+mono", False, _separable(MonoConfig(exp_factor=2))),
    "dws+mono r4": ("dws+mono", False, _separable(MonoConfig(exp_factor=4))),
    "dws+cr": ("dws+cr", False, _separable(ConditionalReductionConfig(mode="c1dw", relu=False))),
    "dws+gc": ("dws+cr", False, _separable(ConditionalReductionConfig(mode="gc", relu=False))),
}
_EARLY, _MIDDLE, _LATE = "stages.0.*.conv*", "stages.1.*.conv*", "stages.2.*.conv*"
_STAGES: dict[str, tuple[str, bool, ConversionConfig, Mapping[str, ConversionConfig | None]]] = {
    # Forms in some stages only; the others stay dense or take the plain depthwise-separable form.
    "abs+bn, stages 2 and 3": ("abs", False, _ABS, {_EARLY: None}),
    "abs+bn, stage 3": ("abs", False, _ABS, {_EARLY: None, _MIDDLE: None}),
    "abs+bn, stages 1 and 2": ("abs", False, _ABS, {_LATE: None}),
    "dws, stages 2 and 3": ("dws", True, _separable(None), {_EARLY: None}),
    "dws, stage 3": ("dws", True, _separable(None), {_EARLY: None, _MIDDLE: None}),
    "dws, then dws+abs in stage 3": (
        "dws+seeds",
        False,
        _separable(_ABS),
        {_EARLY: _separable(None), _MIDDLE: _separable(None)},
    ),
    "dws, then dws+ghost in stage 3": (
        "dws+ghost",
        True,
        _separable(GhostConfig(relu=False)),
        {_EARLY: _separable(None), _MIDDLE: _separable(None)},
    ),
}
_VANILLA: tuple[Widths, ...] = (
    SMALL,
    (16, 48, 80),
    (16, 64, 80),
    (32, 48, 80),
    (32, 64, 96),
    BASE,
    WIDE,
    (48, 96, 192),
)
_WIDER = {  # forms at other widths than the base
    "abs+bn": (WIDE, (32, 96, 192), LARGE),
    "abs+bn, 4 groups, shuffled": (WIDE, LARGE),
    "mono": (WIDE,),
    "mono r4": (SMALL,),
    "lbc": (SMALL, WIDE),
    "shift": (WIDE, LARGE),
    "crelu": (WIDE, (32, 96, 192), LARGE),
    "duplication": (LARGE,),
    "ghost": (WIDE, (32, 96, 192), LARGE),
    "ghost linear": (SMALL, WIDE, LARGE),
    "dws": (SMALL, (16, 64, 80), WIDE, (48, 96, 192), (32, 96, 224), LARGE),
    "dws relu": (WIDE, LARGE),
    "dws+ghost": (SMALL, (16, 64, 80), WIDE, (32, 96, 224), LARGE),
    "dws+duplication": (LARGE,),
    "dws+crelu": (WIDE, (32, 96, 224), LARGE),
    "dws+abs": (WIDE, (32, 96, 224), LARGE),
    "dws+sine": (LARGE,),
    "dws+abs r4": (WIDE, LARGE),
    "dws+mono r2": (WIDE, LARGE),
    "dws+mono r4": (WIDE, LARGE),
    "dws+cr": (LARGE,),
    "dws+gc": (LARGE,),
    "dws, stages 2 and 3": (WIDE,),
    "dws, then dws+abs in stage 3": (LARGE,),
    "dws, then dws+ghost in stage 3": (LARGE,),
}


def _candidates() -> dict[str, Candidate]:
    found = {_name("vanilla", widths): Candidate("vanilla", True, widths, None) for widths in _VANILLA}
    everywhere = {form: (*each, {}) for form, each in (_DENSE | _SEPARABLE).items()}
    for form, (family, control, config, overrides) in (everywhere | _STAGES).items():
        for widths in (BASE, *_WIDER.get(form, ())):
            found[_name(form, widths)] = Candidate(family, control, widths, config, overrides)
    return found


CANDIDATES: dict[str, Candidate] = _candidates()
FAMILIES: dict[str, str] = {
    "vanilla": _name("vanilla", BASE),
    "sine": _name("sine", BASE),
    "sine+bn": _name("sine+bn", BASE),
    "abs": _name("abs+bn", BASE),
    "mono": _name("mono", BASE),
    "copy": _name("crelu", BASE),
    "fixed": _name("lbc", BASE),
    "ghost": _name("ghost", BASE),
    "dws": _name("dws", WIDE),
    "dws+ghost": _name("dws+ghost", WIDE),
    "dws+seeds": _name("dws+abs", WIDE),
    "dws+mono": _name("dws+mono r2", WIDE),
    "dws+cr": _name("dws+cr", BASE),
}
"""Family -> the candidate used to tune its learning rate."""

CONTROLS: dict[str, tuple[str, ...]] = {
    "narrowed": ("vanilla",),
    "duplication, CReLU": ("copy", "dws+seeds"),
    "Ghost": ("ghost", "dws+ghost"),
    "depthwise-separable": ("dws",),
}
"""Kinds of controls and their families; a family may hold seed forms too."""


def network(candidate: Candidate) -> dict[str, Any]:
    """Return the candidate's arguments of ``create_model``, for 16 x 16 maps."""
    return {"widths": candidate.widths, "patch": 2}
