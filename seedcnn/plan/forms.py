"""The forms that a planner may give a layer, by name: the plain alternatives and the seed forms alike."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterable
from typing import Any

from seedcnn.convert import (
    METHODS,
    ConditionalReductionConfig,
    ConversionConfig,
    DepthwiseSeparableConfig,
    GhostConfig,
    GroupNLConfig,
    MonoConfig,
    config_for,
)
from seedcnn.errors import ConfigError

__all__ = ["FORMS", "KEEP", "config_from_dict", "config_to_dict", "find_forms"]

KEEP = "keep"
"""The form of a layer that is left as it is."""


def _group_nl(ratio: int, nlf: str, **options: Any) -> GroupNLConfig:
    # normalize="batch" folds away at export; without it the seeds grow until the functions wrap around.
    return GroupNLConfig(reduction_ratio=ratio, nlf=nlf, normalize="batch", **options)


FORMS: dict[str, ConversionConfig] = {
    "copy-r2": _group_nl(2, "identity"),
    "copy-r4": _group_nl(4, "identity"),
    "dws": DepthwiseSeparableConfig(),
    "dws-linear": DepthwiseSeparableConfig(relu=False),
    "ghost-r2": GhostConfig(ratio=2),
    "ghost-r4": GhostConfig(ratio=4),
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
"""Name -> config, the plain alternatives first: of forms that are equal in every respect the first is taken.

copy: plain duplication (GroupNL whose function is the identity). dws: depthwise-separable, with and without the ReLU
between. ghost, cr: Ghost and Conditional Reduction (1x1 convolutions only). abs, sine: GroupNL with the seeds in
``normalize="batch"``, dense, in four groups or sparse. mono: all filters from a quarter as many seed filters.
"""


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _spelled_out(text: str) -> ConversionConfig:
    """The config of ``method:option=value:option=value``."""
    method, *assignments = text.split(":")
    options = {}
    for assignment in assignments:
        option, equals, value = assignment.partition("=")
        if not equals:
            raise ConfigError(f"form {text!r}: {assignment!r} must look like option=value")
        options[option] = _literal(value)
    return config_for(method, **options)


def find_forms(names: Iterable[str] | None) -> dict[str, ConversionConfig]:
    """Forms by their names, in the order given.

    Args:
        names: of :data:`FORMS`, or a method of ``seedcnn bench`` with its options, ``groupnl:reduction_ratio=8``;
            None takes all of :data:`FORMS`.

    Raises:
        ConfigError: if there is no such form, method or option (near names are listed), or no form at all.
    """
    if names is None:
        return dict(FORMS)
    found: dict[str, ConversionConfig] = {}
    for name in names:
        if name in FORMS:
            found[name] = FORMS[name]
        elif name.partition(":")[0] in METHODS:
            found[name] = _spelled_out(name)
        else:
            near = difflib.get_close_matches(name, [*FORMS, *METHODS], n=3, cutoff=0.4)
            hint = f"did you mean {', '.join(near)}? " if near else ""
            raise ConfigError(
                f"unknown form {name!r}; {hint}known forms: {', '.join(FORMS)}, or a method with options such as "
                "groupnl:reduction_ratio=8"
            )
    if not found:
        raise ConfigError(f"no form to choose from; known forms: {', '.join(FORMS)}")
    return found


def config_to_dict(config: ConversionConfig) -> dict[str, Any]:
    """A config as plain data: the method's name, and its options."""
    method = next(name for name, kind in METHODS.items() if type(config) is kind)
    return {"method": method, **{name: getattr(config, name) for name in config.__dataclass_fields__}}


def config_from_dict(data: dict[str, Any]) -> ConversionConfig:
    """The inverse of :func:`config_to_dict`; lists, which JSON makes of tuples, become tuples again.

    Raises:
        ConfigError: if the method or an option does not exist.
    """
    options = {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}
    return config_for(str(options.pop("method", "")), **options)
