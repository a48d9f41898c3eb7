"""The arguments of a network, checked by the signature of what builds it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, get_type_hints

import timm

from seedcnn import typed
from seedcnn.errors import ConfigError, did_you_mean
from seedcnn.models import list_models, option_types
from seedcnn.models.timm_registry import GNL_MODELS

__all__ = ["checked_options"]

_BY_DEFAULT: dict[type, Any] = {bool: bool, int: int | float, float: float}
"""Type of a default value -> annotation of an argument that has none."""


def _types_of(call: Callable[..., Any], hints: Mapping[str, Any]) -> dict[str, Any]:
    """Annotation of each argument, or what its default value implies; those that cannot be checked are left out."""
    found = {}
    for name, parameter in inspect.signature(call).parameters.items():
        kind = hints.get(name, _BY_DEFAULT.get(type(parameter.default)))
        named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if named and kind is not None and typed.convertible(kind):
            found[name] = kind
    return found


@cache
def _timm_types(name: str) -> dict[str, Any]:
    """Return the known types of a timm network's arguments, from its factory, its class and ``create_model``."""
    factory = timm.model_entrypoint(name)
    hints = get_type_hints(factory)
    made: Any = hints.get("return")
    found = _timm_types(GNL_MODELS[name].base) if name in GNL_MODELS else {}
    if isinstance(made, type):
        found = found | _types_of(made, get_type_hints(vars(made).get("__init__", made)))
    return found | _types_of(factory, hints) | _types_of(timm.create_model, get_type_hints(timm.create_model))


def checked_options(model: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options of a network, each as the network's signature has it.

    All are checked for a network of ours. For one of timm's the numbers of a recipe are passed on as they are; a text
    becomes what the annotation says, and where that is a bool nothing else gets through.

    Args:
        model: name of the network; an unknown one takes any options, and is refused when it is built.
        options: by argument.

    Raises:
        ConfigError: naming the option, its value and the rule, or an option that a network of ours does not have (near
            names are listed).
    """
    ours = model in list_models()
    if ours and "backbone_weights" in options:
        raise ConfigError(
            f"model_options.backbone_weights (={str(options['backbone_weights'])!r}): a run's checkpoints would need "
            "that file again; init_from names the weights that a run starts from"
        )
    if not ours and not timm.is_model(model):
        return options
    kinds = option_types(model) if ours else _timm_types(model)
    found = {}
    for name, value in options.items():
        kind = kinds.get(name, Any)
        if ours and name not in kinds:
            hint = did_you_mean(name, kinds)
            raise ConfigError(f"{model} has no option {name!r}; {hint}options: {', '.join(kinds)}")
        by_type = ours or kind is bool or isinstance(value, str)
        found[name] = typed.convert(kind, value, f"model_options.{name}") if by_type else value
    return found
