"""Values of annotations for property tests, and what must survive JSON."""

from __future__ import annotations

import dataclasses
import functools
import re
import types
import typing
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from seedcnn.convert import ConversionConfig
from seedcnn.errors import ConfigError
from seedcnn.layers.conditional_reduction import MODES
from seedcnn.layers.ghost import CHEAP
from seedcnn.layers.group_nl import NORMALIZE, VARIANTS
from seedcnn.layers.mono import FGFS
from seedcnn.ops.group_nl import NLFS
from seedcnn.typed import field_types

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
_CHOICES = {
    "nlf": tuple(NLFS),
    "normalize": NORMALIZE,
    "variant": VARIANTS,
    "fgf": tuple(FGFS),
    "beta_per": ("element", "filter"),
    "cheap": CHEAP,
    "mode": MODES,
}
_SCALARS = {
    bool: st.booleans(),
    int: st.integers(),
    float: st.floats(allow_nan=False, allow_infinity=False),
    str: st.text(max_size=8),
    Any: JSON,
    type(None): st.none(),
}


def values(kind: Any, bases: dict[type, Callable[[], st.SearchStrategy[Any]]]) -> st.SearchStrategy[Any]:
    """Values of an annotation; ``bases`` has the strategies of families of dataclasses."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind in _SCALARS:
        return _SCALARS[kind]
    if kind in bases:
        return st.deferred(bases[kind])
    if origin in (typing.Union, types.UnionType):
        return st.one_of([values(each, bases) for each in arguments])
    if origin is tuple and arguments[-1] is Ellipsis:
        return st.lists(values(arguments[0], bases), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*[values(each, bases) for each in arguments])
    raise TypeError(f"no values of {kind}")


def instances(kind: type, bases: dict[type, Callable[[], st.SearchStrategy[Any]]]) -> st.SearchStrategy[Any]:
    """Instances of a dataclass whose fields may have any value of their annotation that has an effect."""
    fields = {name: values(hint, bases) for name, hint in field_types(kind).items()}
    if issubclass(kind, ConversionConfig):
        known = {name: st.sampled_from(_CHOICES[name]) for name, hint in field_types(kind).items() if name in _CHOICES}
        fields |= {name: each for name, each in known.items() if field_types(kind)[name] is str}
    return st.builds(functools.partial(_with_effect, kind), **fields)


def _with_effect(kind: type, **given: Any) -> Any:
    """An instance without the fields that have no effect beside the others."""
    while True:
        try:
            return kind(**given)
        except ConfigError as error:
            found = re.match(r"(\w+)\.(\w+) \(=.* has no effect ", str(error), re.DOTALL)
            if found is None:
                raise
            own = found[1] == kind.__name__ and found[2] in given  # else it is the same kind inside this one
            del given[found[2] if own else "pointwise"]


def spelled(value: Any) -> Any:
    """A value with the types of all its parts, which equality alone would not compare: 1 == 1.0 == True."""
    if dataclasses.is_dataclass(value):
        return type(value), {field.name: spelled(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return dict, {key: spelled(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value), [spelled(item) for item in value]
    return type(value), value
