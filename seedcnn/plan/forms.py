"""The forms that a planner may choose for a layer, by name: plain alternatives and seed forms."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from seedcnn.convert import (
    PRESETS,
    ConditionalReductionConfig,
    ConversionConfig,
    DepthwiseSeparableConfig,
    GhostConfig,
    GroupNLConfig,
    MonoConfig,
    config_of_text,
)
from seedcnn.errors import ConfigError, did_you_mean

__all__ = ["FORMS", "KEEP", "find_forms"]

KEEP = "keep"
"""The form of a layer that stays as it is."""


def _group_nl(ratio: int, nlf: str, **options: Any) -> GroupNLConfig:
    # The norm on the seeds folds away at export; without it they grow until the functions wrap around.
    phi_range = (1, 5) if nlf == "sine" else (-0.5, 0.5)
    return GroupNLConfig(reduction_ratio=ratio, nlf=nlf, phi_range=phi_range, **options)


FORMS: dict[str, ConversionConfig] = {
    "copy-r2": _group_nl(2, "identity"),
    "copy-r4": _group_nl(4, "identity"),
    "dws": DepthwiseSeparableConfig(),
    "dws-linear": DepthwiseSeparableConfig(relu=False),
    "dws-ghost-r2": DepthwiseSeparableConfig(relu=False, pointwise=GhostConfig(relu=False)),
    "ghost-r2": GhostConfig(ratio=2),
    "ghost-r4": GhostConfig(ratio=4),
    "ghost-linear-r2": GhostConfig(ratio=2, relu=False),
    "cr": ConditionalReductionConfig(),
    "abs-r2": _group_nl(2, "abs"),
    "abs-r4": _group_nl(4, "abs"),
    "abs-r2-groups4": _group_nl(2, "abs", groups=4),
    "abs-r2-sparse": _group_nl(2, "abs", sparse=True),
    "sine-r2": _group_nl(2, "sine"),
    "sine-r4": _group_nl(4, "sine"),
    "sine-r2-groups4": _group_nl(2, "sine", groups=4),
    "sine-r2-sparse": _group_nl(2, "sine", sparse=True),
    "mono-r4": MonoConfig(exp_factor=4),
}
"""Name -> config, the plain alternatives first: of forms that are equal in every respect the planner takes the first.

copy: plain duplication (GroupNL whose function is the identity). dws: depthwise-separable, with and without the ReLU
in the middle, or linear with a Ghost convolution as the pointwise one. ghost, cr: Ghost, with and without its ReLUs,
and Conditional Reduction (1x1 convolutions only). abs, sine: GroupNL with ``normalize="batch"``, dense, in four groups
or sparse. mono: a quarter as many seed filters as filters.
"""


def find_forms(names: Iterable[str] | None) -> dict[str, ConversionConfig]:
    """Forms by name, in the given order.

    Args:
        names: keys of :data:`FORMS`, or methods with options as ``seedcnn bench`` takes them, such as
            ``groupnl:reduction_ratio=8``; None takes all of :data:`FORMS`.

    Raises:
        ConfigError: if there is no such form, method or option (near names are listed), an option has a value of the
            wrong type, or there is no form at all.
    """
    if names is None:
        return dict(FORMS)
    found: dict[str, ConversionConfig] = {}
    for name in names:
        if name in FORMS:
            found[name] = FORMS[name]
        elif name.partition(":")[0] in PRESETS or name.startswith(":"):
            found[name] = config_of_text(name)
        else:
            hint = did_you_mean(name, [*FORMS, *PRESETS])
            raise ConfigError(
                f"unknown form {name!r}; {hint}known forms: {', '.join(FORMS)}, or a method with options such as "
                "groupnl:reduction_ratio=8"
            )
    if not found:
        raise ConfigError(f"no form to choose from; known forms: {', '.join(FORMS)}")
    return found
