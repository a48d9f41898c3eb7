"""Parts of detectors and segmenters: which modules are backbone, neck and head, and which layers predict."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from seedcnn.convert.given import unwrapped
from seedcnn.errors import ConversionError

__all__ = ["PARTS", "TASKS", "Parts", "left_out", "parts_of", "selected", "task_of"]

TASKS = ("classification", "detection", "segmentation")
PARTS = ("backbone", "neck", "head")
_PREDICTS = "predicts"
_TORCHVISION = "torchvision.models."
_PREDICTORS = frozenset(
    {
        *("cls_logits", "bbox_reg", "bbox_pred", "bbox_ctrness", "cls_score"),
        *("box_predictor", "mask_predictor", "keypoint_predictor", "low_classifier", "high_classifier"),
    }
)
"""Names of the modules that predict in torchvision's detectors and in its LRASPP."""
_OF_DENSE = ("FeaturePyramidNetwork", "AnchorGenerator", "DefaultBoxGenerator")


@dataclass(frozen=True)
class Parts:
    """The parts of a detector or a segmenter.

    Attributes:
        task: "detection" or "segmentation".
        places: part -> qualified names of its modules; "" is the whole network. Of several that hold a layer the
            innermost one counts.
        predicts: qualified names of modules that predict.
    """

    task: str
    places: Mapping[str, tuple[str, ...]]
    predicts: tuple[str, ...] = field(default=())

    def part_of(self, name: str) -> str | None:
        """Return the part that a layer belongs to, by its qualified name; None for a layer outside all parts."""
        found = [(len(place), part) for part, places in self.places.items() for place in places if _in(name, place)]
        return max(found)[1] if found else None

    def predicting(self, name: str) -> bool:
        """Return whether a layer predicts: boxes, scores or classes."""
        return any(_in(name, place) for place in self.predicts)

    def below(self, prefix: str) -> Parts:
        """Return the same parts with their places inside the module ``prefix``."""
        join = lambda place: ".".join(filter(None, (prefix, place)))  # noqa: E731
        places = {part: tuple(map(join, names)) for part, names in self.places.items()}
        return replace(self, places=places, predicts=tuple(map(join, self.predicts)))


def _in(name: str, place: str) -> bool:
    return not place or name == place or name.startswith(f"{place}.")


def _names(module: nn.Module, test: Callable[[str, nn.Module], bool]) -> Iterator[str]:
    return (name for name, each in module.named_modules() if name and test(name, each))


def _kind(module: nn.Module, room: str) -> bool:
    return any(base.__module__.startswith(f"{_TORCHVISION}{room}.") for base in type(module).__mro__)


def _last_convolutions(module: nn.Module, names: Sequence[str]) -> tuple[str, ...]:
    """Return the last convolution in each of the named modules."""
    found = []
    for place in names:
        inside = module.get_submodule(place)
        convs = [name for name, each in inside.named_modules() if isinstance(each, nn.Conv2d)]
        found += [f"{place}.{convs[-1]}" if convs[-1] else place] if convs else []
    return tuple(found)


def _of_detector(model: nn.Module) -> Parts | None:
    """Parts of a detector of torchvision, of its backbone with a pyramid, or of its head."""
    children = dict(model.named_children())
    necks = tuple(
        _names(model, lambda name, each: type(each).__name__ == "FeaturePyramidNetwork" or name == "backbone.extra")
    )
    named = tuple(_names(model, lambda name, _: name.rpartition(".")[2] in _PREDICTORS))
    lists = tuple(_names(model, lambda name, _: name.rpartition(".")[2] == "module_list"))  # of SSD's heads
    scoring = [f"{name}.{child}" for name in lists for child, _ in model.get_submodule(name).named_children()]
    predicts = (*named, *_last_convolutions(model, scoring))
    if "backbone" in children:
        heads = tuple(name for name, each in children.items() if name != "backbone" and list(each.parameters()))
        return Parts("detection", {"backbone": ("backbone",), "neck": necks, "head": heads}, predicts)
    if {"body", "fpn"} <= children.keys():
        return Parts("detection", {"backbone": ("body",), "neck": ("fpn",)}, predicts)
    return Parts("detection", {"head": ("",)}, predicts) if predicts else None


def _of_segmenter(model: nn.Module) -> Parts | None:
    """Parts of a segmenter of torchvision."""
    heads = tuple(name for name, _ in model.named_children() if name in ("classifier", "aux_classifier"))
    if not hasattr(model, "backbone") or not heads:
        return None
    named = tuple(_names(model, lambda name, _: name.rpartition(".")[2] in _PREDICTORS))
    return Parts("segmentation", {"backbone": ("backbone",), "head": heads}, named or _last_convolutions(model, heads))


def _declared(model: nn.Module, declared: Any) -> Parts:
    """Parts as the network's attribute ``parts`` names them."""
    kind, task = type(model).__name__, getattr(model, "task", "segmentation")
    rule = f"it must map some of {', '.join((*PARTS, _PREDICTS))} to qualified names of modules"
    if not isinstance(declared, Mapping) or not declared or not set(declared) <= {*PARTS, _PREDICTS}:
        raise ConversionError(f"{kind}.parts (={declared!r}): {rule}")
    modules = dict(model.named_modules())
    places: dict[str, tuple[str, ...]] = {}
    for part, names in declared.items():
        if isinstance(names, str) or not all(isinstance(name, str) for name in names):
            raise ConversionError(f"{kind}.parts[{part!r}] (={names!r}) must be a list of qualified names of modules")
        if missing := [name for name in names if name not in modules]:
            raise ConversionError(f"{kind}.parts[{part!r}] names {missing[0]!r}, but the network has no such module")
        places[part] = tuple(names)
    predicts = places.pop(_PREDICTS, ())
    return Parts(task, places, predicts)


def _own(model: nn.Module) -> Parts | None:
    """Parts of a module by its own structure, not by that of what it holds."""
    declared = getattr(model, "parts", None)
    if declared is not None and not callable(declared):
        return _declared(model, declared)
    children = dict(model.named_children())
    if _kind(model, "detection") or {"body", "fpn"} <= children.keys() or {"backbone", "transform"} <= children.keys():
        return _of_detector(model)
    if _kind(model, "segmentation"):
        return _of_segmenter(model)
    if {"encoder", "decoder", "segmentation_head"} <= children.keys():  # as in segmentation-models-pytorch
        places = {"backbone": ("encoder",), "head": ("decoder", "segmentation_head")}
        return Parts("segmentation", places, ("segmentation_head",))
    return None


def parts_of(model: nn.Module) -> Parts | None:
    """Find the parts of a detector or a segmenter.

    Known are the networks of :func:`seedcnn.models.create_model`, torchvision's detectors and segmenters and
    subclasses of them, segmentation-models-pytorch's, and any network with an attribute ``parts``, a mapping of
    "backbone", "neck", "head" and "predicts" to lists of qualified names; also inside another module.

    Returns:
        The parts; None for a network that has none, a classifier.

    Raises:
        ConversionError: if the attribute ``parts`` names a module that does not exist, or the network holds several
            detectors or segmenters, or a feature pyramid or anchors outside any known one.
    """
    found: dict[str, Parts] = {}
    unknown = ""
    for name, module in model.named_modules():
        if any(_in(name, outer) for outer in found):
            continue
        if (parts := _own(module)) is not None:
            found[name] = parts.below(name)
        elif type(module).__name__ in _OF_DENSE:
            unknown = unknown or name
    kind = type(unwrapped(model)).__name__
    how = (
        "give the network an attribute `parts`, such as {'backbone': ['body'], 'neck': ['fpn'], 'head': ['head'], "
        "'predicts': ['head.out']}, convert a part alone (`convert_(model.body, ...)`), or choose the layers with "
        "`filter_fn`"
    )
    if len(found) > 1:
        raise ConversionError(f"{kind} holds {len(found)} networks with parts, {', '.join(found)}: {how}")
    if not found and unknown:
        told = f"{unknown} is a {type(model.get_submodule(unknown)).__name__}"
        raise ConversionError(f"{kind} looks like a detector ({told}), but its parts are not known: {how}")
    return next(iter(found.values()), None)


def task_of(model: nn.Module) -> str:
    """Return the task of a network, one of :data:`TASKS`.

    That is its attribute ``task``, which every network of ``create_model`` has, else what :func:`parts_of` finds.

    Raises:
        ConversionError: as :func:`parts_of`, or if the attribute is no task.
    """
    task = getattr(unwrapped(model), "task", None)
    if isinstance(task, str):
        if task not in TASKS:
            raise ConversionError(
                f"{type(unwrapped(model)).__name__}.task (={task!r}) must be one of {', '.join(TASKS)}"
            )
        return task
    parts = parts_of(model)
    return "classification" if parts is None else parts.task


def selected(parts: Parts, wanted: Sequence[str] | None, kind: str) -> tuple[str, ...]:
    """Return the parts to convert: the wanted ones, else the backbone, or in a network without one all that it has.

    Args:
        kind: of the network, for messages.

    Raises:
        ValueError: if one is unknown or given twice, there is none, or the network does not have it.
    """
    has = tuple(part for part in PARTS if parts.places.get(part))
    if wanted is None:
        return ("backbone",) if "backbone" in has else has
    rule = f"it must name some of {', '.join(map(repr, has))}, each once"
    if isinstance(wanted, str) or not wanted or len(set(wanted)) < len(wanted) or not set(wanted) <= set(has):
        raise ValueError(f"`parts` (={wanted!r}) does not fit {kind}: {rule}")
    return tuple(part for part in PARTS if part in wanted)


def left_out(parts: Parts, chosen: Sequence[str], name: str) -> str | None:
    """Return why a convolution stays for its place, or None; ``chosen`` are the parts to convert."""
    if parts.predicting(name):
        return "it predicts: only `filter_fn`, or an override with its own name, replaces it"
    part = parts.part_of(name)
    if part is None:
        return "in none of the network's parts"
    return None if part in chosen else f"in the {part}, and `parts` takes only the {' and the '.join(chosen)}"
