"""``convert_``, the conversion verb."""

from __future__ import annotations

import glob
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import Tensor, nn

from seedcnn import rng
from seedcnn.convert._exchange import check_from_dense, exchange, exchange_from_dense
from seedcnn.convert._following import followed_norms, followed_uncalled
from seedcnn.convert.config import METHODS
from seedcnn.convert.filters import (
    FilterFn,
    convolutions,
    is_depthwise,
    pointwise,
    rule_of,
    spatial_width,
    untouchable,
)
from seedcnn.convert.parts import Parts, left_out, parts_of, selected
from seedcnn.convert.plugins import in_words, place_in_plugin
from seedcnn.convert.references import tied_parameters
from seedcnn.convert.report import ConversionReport, Replaced, Skipped
from seedcnn.convert.tracing import frozen_types
from seedcnn.errors import ConversionError
from seedcnn.layers import ConvLayer, conv_like, learnable_count
from seedcnn.layers.families import ConversionConfig, make_layer
from seedcnn.layers.low_pass import LowPassed, low_pass_

__all__ = ["convert_", "convert_layers_", "replacement"]

INITS = ("random", "from_dense")
Overrides = Mapping[str, ConversionConfig | None]
_MIN_SAVED_MACS = 64  # at 24 a sine costs what a generated element saves, at 160 it pays
_NARROWING_GROUPS = 2


@dataclass(frozen=True)
class _Choice:
    """A convolution and its replacement: the config's layer, or for None a convolution in ``groups`` groups."""

    conv: nn.Conv2d
    config: ConversionConfig | None
    groups: int = 1


@dataclass(frozen=True)
class _Policy:
    """The arguments of a ``convert_`` call that decide about each convolution."""

    config: ConversionConfig
    filter_fn: FilterFn | None
    overrides: Overrides
    min_saved_macs: float | None = None
    narrowing_groups: int | None = None
    known: Parts | None = None
    parts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        kinds = METHODS.values()
        for config in (self.config, *self.overrides.values()):
            if config is not None and type(config) not in kinds:
                known = ", ".join(kind.__name__ for kind in kinds)
                raise ConversionError(f"`config` is a {type(config).__name__}; it must be one of {known}")
        for name in ("min_saved_macs", "narrowing_groups"):
            value = getattr(self, name)
            if value is not None and not self.sorts_pointwise:
                raise ValueError(
                    f"`{name}` (={value!r}) has no effect: only scope 'pointwise' uses it, without a `filter_fn` and "
                    f"for other methods than Conditional Reduction; here the scope is {self.config.scope!r}"
                )
        if self.min_saved_macs is not None and not self.min_saved_macs >= 0:
            raise ValueError(f"`min_saved_macs` (={self.min_saved_macs!r}) must be a number, zero or more")
        groups = self.narrowing_groups
        if groups is not None and (isinstance(groups, bool) or not isinstance(groups, int) or groups < 1):
            raise ValueError(f"`narrowing_groups` (={groups!r}) must be a positive integer")

    @property
    def sorts_pointwise(self) -> bool:
        """Whether 1x1 convolutions are sorted by channels; Conditional Reduction has a form for either pattern."""
        return self.filter_fn is None and self.config.scope == "pointwise" and not self.config.narrows

    @property
    def takes_depthwise(self) -> bool:
        return self.filter_fn is None and self.config.scope == "reference"

    def pattern_of(self, name: str) -> str | None:
        """Return the first pattern of ``overrides`` that matches, or None."""
        return next((pattern for pattern in self.overrides if fnmatchcase(name, pattern)), None)

    def stem_of(self, names: Sequence[str]) -> str | None:
        """Return the stem among all convolutions: the first, in a detector or a segmenter the first of its backbone."""
        known = self.known
        return next((name for name in names if known is None or known.part_of(name) == "backbone"), None)

    def _names(self, pattern: str, name: str) -> bool:
        """Whether a pattern that matches may replace the layer; one that predicts wants its own name, no wildcard."""
        if self.known is None or not self.known.predicting(name):
            return True
        return not glob.has_magic(pattern.rpartition(".")[2])

    def decide(self, model: nn.Module, conv: nn.Conv2d, name: str, first: bool) -> _Choice | str:
        """Return what to do with a replaceable convolution, or why it stays."""
        pattern = self.pattern_of(name)
        if pattern is not None and self._names(pattern, name):
            config = self.overrides[pattern]
            return f"left by overrides[{pattern!r}]" if config is None else _Choice(conv, config)
        if self.filter_fn is not None:
            return _Choice(conv, self.config) if self.filter_fn(conv, name) else "not chosen by filter_fn"
        if self.known is not None and (reason := left_out(self.known, self.parts, name)):
            return reason
        if first:
            return "stem"
        if reason := rule_of(self.config.scope)(model, conv, name):
            return reason
        if self.sorts_pointwise:
            least = _MIN_SAVED_MACS if self.min_saved_macs is None else self.min_saved_macs
            groups = self.narrowing_groups or _NARROWING_GROUPS
            grouped, reason = pointwise(conv, least, groups)
            if reason:
                return reason
            if grouped:
                return _Choice(conv, None, groups)
        if is_depthwise(conv):
            config = self.config.for_depthwise()
            if config is None:
                return f"depthwise convolution, which a {type(self.config).__name__} cannot replace at equal cost"
            return _Choice(conv, config)
        return _Choice(conv, self.config)


def _select(model: nn.Module, policy: _Policy) -> tuple[dict[str, _Choice], dict[str, str]]:
    """Split the model's convolutions into those to replace and those to leave, with reasons."""
    rule_of(policy.config.scope)
    found = list(convolutions(model))
    tied = tied_parameters(model)
    chosen: dict[str, _Choice] = {}
    skipped: dict[str, str] = {}
    stem = policy.stem_of([name for name, _, _ in found])
    for name, module, names in found:
        refused = untouchable(module, names, tied, policy.takes_depthwise and policy.pattern_of(name) is None)
        verdict = refused or policy.decide(model, module, name, first=name == stem)
        if isinstance(verdict, str):
            skipped[name] = verdict
        else:
            chosen[name] = verdict
    for name in followed_uncalled(model, list(chosen)):
        skipped[name] = "called on another way than through its place in the model, or its weight is read by other code"
        del chosen[name]
    skipped = {name: skipped[name] for name, _, _ in found if name in skipped}
    _check_overrides(policy, [name for name, _, _ in found], chosen, skipped)
    if not chosen:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(skipped.items())[:5])
        raise ConversionError(f"no convolution matched ({len(skipped)} looked at{': ' if reasons else ''}{reasons})")
    return chosen, skipped


def _check_overrides(policy: _Policy, names: list[str], chosen: dict[str, _Choice], skipped: dict[str, str]) -> None:
    for pattern, config in policy.overrides.items():
        matched = [name for name in names if policy.pattern_of(name) == pattern]
        if not matched:
            raise ConversionError(
                f"overrides[{pattern!r}] applies to no convolution: no name matches, or earlier patterns match first"
            )
        if config is not None and not any(name in chosen for name in matched):
            raise ConversionError(f"overrides[{pattern!r}] matches only {matched[0]}: {skipped[matched[0]]}")


def _line(module: nn.Module) -> str:
    return f"{type(module).__name__}({module.extra_repr()})"


def replacement(
    model: nn.Module, name: str, conv: nn.Conv2d, config: ConversionConfig, seed: int, *, norm_follows: bool = False
) -> nn.Module:
    """Make the layer that :func:`convert_` puts in the place of one convolution, without changing the model.

    Args:
        model: the network, whose blocks determine the width that a reduction ratio applies to.
        name: the convolution's qualified name in the network.
        conv: the convolution.
        config: config of a registered method.
        seed: 64-bit model seed; the layer's own seed is derived from it and the name.
        norm_follows: whether a norm is the only reader of the layer's output
            (:func:`seedcnn.convert.tracing.norm_after`).

    Raises:
        ConversionError: if the config does not suit the convolution, naming the convolution and the rule.
    """
    try:
        new = make_layer(config, conv, spatial_width(model, name, conv), rng.layer_seed(seed, name))
    except (ValueError, TypeError) as error:  # TypeError: a user's own layer with other arguments
        raise ConversionError(f"{name} ({conv}): {error}") from None
    except Exception as error:
        if (place := place_in_plugin(error)) is None:
            raise
        raise ConversionError(f"{name} ({conv}): plugin {place}: {in_words(error)}") from error
    if isinstance(new, ConvLayer):
        new.use_norm_after(norm_follows)
    return _placed(conv, new)


def _placed(conv: nn.Conv2d, new: nn.Module) -> nn.Module:
    """Give a new layer the mode, the frozen state and the low-pass filter of the one it replaces."""
    _freeze_as(conv, new)
    if isinstance(conv, LowPassed):
        low_pass_(new)
    return new.train(conv.training)


def _freeze_as(conv: nn.Conv2d, new: nn.Module) -> None:
    """Freeze what replaces a frozen convolution; a bias stays learnable if the old one was."""
    if conv.weight.requires_grad:
        return
    new.requires_grad_(False)
    bias = getattr(new, "bias", None)
    if conv.bias is not None and conv.bias.requires_grad and isinstance(bias, nn.Parameter):
        bias.requires_grad_(True)


def _build(model: nn.Module, name: str, choice: _Choice, seed: int, norm_follows: bool) -> nn.Module:
    conv = choice.conv
    if choice.config is None:
        groups, bias = choice.groups, conv.bias is not None
        return _placed(conv, conv_like(conv, conv.in_channels, conv.out_channels, groups=groups, bias=bias))
    return replacement(model, name, conv, choice.config, seed, norm_follows=norm_follows)


def _warn_of_depthwise(chosen: dict[str, _Choice], replaced: tuple[Replaced, ...]) -> None:
    count = sum(is_depthwise(choice.conv) for choice in chosen.values())
    if count:
        before, after = (
            sum(getattr(item, part) for item in replaced if is_depthwise(chosen[item.name].conv))
            for part in ("params_before", "params_after")
        )
        warnings.warn(
            f"scope 'reference' replaced {count} depthwise convolutions ({before:,} parameters) by sparse layers of "
            f"equal cost ({after:,} parameters, the same MACs plus nonlinear functions), as the public code does; they "
            "take 1.4 to 1.8 times as long in ONNX Runtime (benchmarks/mobile.py). Scope 'pointwise' saves instead.",
            UserWarning,
            stacklevel=4,
        )


def _replaced(name: str, conv: nn.Conv2d, new: nn.Module) -> Replaced:
    counts = learnable_count(conv), learnable_count(new)
    return Replaced(name, str(conv), _line(new), *counts, frozen=not conv.weight.requires_grad)


def _methods(config: ConversionConfig, chosen: Mapping[str, _Choice]) -> str:
    """Name the methods that were used; the first is that of ``config``, if it was."""
    used = [type(choice.config) for choice in chosen.values() if choice.config is not None]
    kinds = dict.fromkeys([*(kind for kind in used if kind is type(config)), *used] or [type(config)])
    return ", ".join(kind.__name__.removesuffix("Config") for kind in kinds)


def _check_arguments(model: nn.Module, init: str, images: Tensor | None) -> None:
    if init not in INITS:
        raise ValueError(f"`init` (={init!r}) must be one of {', '.join(map(repr, INITS))}")
    if images is not None and init != "from_dense":
        raise ValueError("`images` has no effect unless `init` is 'from_dense'")
    if isinstance(model, (nn.modules.conv._ConvNd, ConvLayer)):
        raise ConversionError(
            f"`model` is itself a {type(model).__name__} and cannot be replaced in place; build the layer directly"
        )


def _parts(
    model: nn.Module, filter_fn: FilterFn | None, parts: Sequence[str] | None
) -> tuple[Parts | None, tuple[str, ...]]:
    """Return the network's parts, None where they do not matter, and the parts to convert."""
    if filter_fn is not None:
        if parts is not None:
            raise ValueError(f"`parts` (={parts!r}) has no effect with a `filter_fn`, which chooses the layers itself")
        return None, ()
    known, kind = parts_of(model), type(model).__name__
    if known is not None:
        return known, selected(known, parts, kind)
    if parts is not None:
        raise ValueError(
            f"`parts` (={parts!r}) has no effect on {kind}, which is no known detector or segmenter; an attribute "
            "`parts` of the network names them (seedcnn.convert.parts.parts_of)"
        )
    return None, ()


def _converted(model: nn.Module, policy: _Policy, seed: int, init: str, images: Tensor | None) -> ConversionReport:
    """Replace what the policy chooses; the arguments were checked."""
    chosen, skipped = _select(model, policy)
    before = learnable_count(model)
    # A frozen norm does not keep its input for the backward pass, so the layer's output would be kept for it alone.
    kept = {
        conv
        for conv, norm in followed_norms(model).items()
        if not isinstance(model.get_submodule(norm), frozen_types())
    }
    news = {name: _build(model, name, choice, seed, name in kept) for name, choice in chosen.items()}
    if init == "from_dense":
        check_from_dense(model, news)
    replaced = tuple(_replaced(name, choice.conv, news[name]) for name, choice in chosen.items())
    _warn_of_depthwise(chosen, replaced)
    seeded = None
    if init == "from_dense":
        seeded = exchange_from_dense(model, news, images)
    else:
        exchange(model, news)
    return ConversionReport(
        method=_methods(policy.config, chosen),
        replaced=replaced,
        skipped=tuple(Skipped(name, reason) for name, reason in skipped.items()),
        params_before=before,
        params_after=learnable_count(model),
        from_dense=seeded,
        parts=policy.parts,
    )


def convert_(
    model: nn.Module,
    config: ConversionConfig,
    *,
    filter_fn: FilterFn | None = None,
    seed: int = 0,
    overrides: Overrides | None = None,
    parts: Sequence[str] | None = None,
    min_saved_macs: float | None = None,
    narrowing_groups: int | None = None,
    init: str = "random",
    images: Tensor | None = None,
) -> ConversionReport:
    """Replace convolutions of ``model`` in place by layers that grow from seeds.

    The new layers have the old ones' device, dtype and training mode. If a norm is the only reader of a GroupNL
    layer's output, the layer keeps its output for the backward pass; otherwise it keeps its seeds (``save="seeds"``),
    so that what follows may change the output in place. Nothing changes unless every chosen layer can be replaced.

    Args:
        model: any torch model; of a detector or a segmenter (:func:`seedcnn.convert.parts.parts_of`) the backbone is
            converted.
        config: what to convert to, e.g. :class:`seedcnn.convert.GroupNLConfig`; its ``scope`` selects the convolutions
            (:data:`seedcnn.convert.filters.SCOPES`).
        filter_fn: ``filter_fn(module, qualified_name) -> bool``; replaces ``config.scope`` and may choose the stem.
        seed: 64-bit model seed; each layer's seed is derived from it and the layer's name.
        overrides: pattern (``fnmatch``) of qualified names -> another config for these layers, or None to leave them.
            Takes precedence over ``filter_fn``, scope and ``parts``; the first matching pattern counts.
        parts: of a detector or a segmenter: some of "backbone", "neck" and "head"; None is the backbone. Layers that
            predict stay in any case, unless ``filter_fn`` or an override that ends with their name chooses them.
        min_saved_macs: for scope "pointwise": leave 1x1 convolutions with fewer input channels, because a generated
            element saves c_in MACs and costs one nonlinear function. None is 64: at 24 a sine costs what it saves, at
            160 it pays.
        narrowing_groups: for scope "pointwise": groups of the 1x1 convolution that replaces one whose channels do not
            grow; 1 leaves these, None is 2.
        init: "random" (fresh weights) or "from_dense" (GroupNL layers take seed filters from the trained ones; see
            :func:`seedcnn.convert.from_dense.seed_from_dense_`).
        images: with "from_dense", a batch [N, C, H, W] of network inputs to re-estimate the BatchNorm statistics on.

    Returns:
        What was replaced, what was left and why, and learnable parameters before and after.

    Raises:
        ConfigError: if the scope does not exist.
        ConversionError: if a config is of an unknown kind, ``model`` is itself a convolution, nothing matched, an
            override has no effect, the parts of a detector are not known, or the config does not suit a chosen layer
            (named, with the rule).
        ValueError: if ``parts``, ``min_saved_macs``, ``narrowing_groups`` or ``init`` is out of range, or one of the
            first three or ``images`` has no effect.
    """
    _check_arguments(model, init, images)
    known, taken = _parts(model, filter_fn, parts)
    policy = _Policy(config, filter_fn, overrides or {}, min_saved_macs, narrowing_groups, known, taken)
    return _converted(model, policy, seed, init, images)


def convert_layers_(model: nn.Module, configs: Mapping[str, ConversionConfig], *, seed: int = 0) -> ConversionReport:
    """Replace the named convolutions in place, each by its own config, and no others, as a plan does.

    Args:
        configs: by qualified name, at least one.
        seed: as for :func:`convert_`.

    Raises:
        ConversionError: if there is no such convolution, or its config does not suit it; nothing is changed then.
    """
    modules = dict(model.named_modules())
    for name in configs:
        if not isinstance(modules.get(name), nn.Conv2d):
            kind = type(model).__name__
            raise ConversionError(f"{kind} has no convolution {name!r}: the configs are of another network")
    exact = {glob.escape(name): config for name, config in configs.items()}
    return convert_(model, next(iter(configs.values())), filter_fn=lambda *_: False, overrides=exact, seed=seed)
