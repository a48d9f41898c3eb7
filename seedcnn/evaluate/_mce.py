"""The averages of a robustness evaluation: plain means, mean corruption error, and mCE relative to AlexNet."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from seedcnn.data.corruptions import CORRUPTIONS, GROUPS
from seedcnn.errors import DataError

__all__ = ["FIGURES", "STANDARD", "AlexNet", "alexnet", "figures"]

STANDARD = tuple(name for name, corruption in CORRUPTIONS.items() if corruption.main)
"""The 15 corruptions that mCE averages; its authors held out the other four for validation."""

_SETS = {15: STANDARD, 19: tuple(CORRUPTIONS)}

FIGURES = {
    "mean_over_corruptions": "accuracy, mean over corruptions, %",
    "mean_over_groups": "accuracy, mean over groups, %",
    "mean_error_15": "mean corruption error, standard 15, %",
    "mean_error_19": "mean corruption error, all 19, %",
    "mce_15": "mCE, standard 15, AlexNet = 100",
    "mce_19": "mCE, all 19, AlexNet = 100",
    "relative_mce_15": "relative mCE, standard 15, AlexNet = 100",
    "relative_mce_19": "relative mCE, all 19, AlexNet = 100",
}
"""The figures that :func:`figures` computes, with their titles."""


@dataclass(frozen=True)
class AlexNet:
    """The network that mCE compares with: its top-1 errors on ImageNet and ImageNet-C, as shares of 1.

    Attributes:
        clean: error on clean images.
        errors: errors by corruption, for severities 1 to 5.
        source: where the numbers come from.
    """

    clean: float
    errors: Mapping[str, tuple[float, ...]]
    source: str

    def mean(self, name: str) -> float:
        """Mean error over the severities of one corruption."""
        return sum(self.errors[name]) / len(self.errors[name])


@functools.cache
def alexnet() -> AlexNet:
    """AlexNet's errors, from the package.

    Raises:
        DataError: if the file in the package does not hold the 19 corruptions at five severities.
    """
    text = resources.files("seedcnn.evaluate").joinpath("alexnet_imagenet_c.json").read_text("utf-8")
    content = json.loads(text)
    errors = {name: tuple(row) for name, row in content["errors"].items()}
    if set(errors) != set(CORRUPTIONS) or {len(row) for row in errors.values()} != {5}:
        raise DataError(
            "alexnet_imagenet_c.json in the package seedcnn.evaluate does not hold the 19 corruptions at five "
            "severities; reinstall the package"
        )
    return AlexNet(content["clean"], errors, content["source"])


def _mean(values: list[Any]) -> Any:
    return sum(values) / len(values)


def figures(accuracies: Mapping[str, Any], clean: Any | None, *, complete: bool) -> dict[str, Any | None]:
    """Compute all of :data:`FIGURES`.

    With E a model's top-1 error, and sums over the five severities:

    - mean corruption error: the mean of E over corruptions and severities, not normalised;
    - CE of a corruption: sum E / sum E of AlexNet; mCE is 100 times its mean over the corruptions;
    - relative mCE: the same with E - clean E in place of E, for both.

    (Hendrycks and Dietterich, ICLR 2019, section 4.) AlexNet's errors were measured on ImageNet-C. For other images
    mCE only weights the corruptions and cannot be compared with published values; the papers then report plain means.

    Each figure is affine in the accuracies, so the mean of a figure over images is the figure of the means.

    Args:
        accuracies: accuracy in percent by corruption, averaged over severities: numbers, or arrays over images.
        clean: accuracy in percent on the same images without corruption; None if it was not measured.
        complete: whether the means cover all five severities.

    Returns:
        Numbers, or arrays. The plain means cover the corruptions given. The other figures are None unless each of their
        15 or 19 corruptions was measured at all five severities, since a number over a subset would be mistaken for the
        whole. The relative ones are also None without ``clean``.
    """
    by_group = [[value for name, value in accuracies.items() if CORRUPTIONS[name].group == group] for group in GROUPS]
    found: dict[str, Any | None] = dict.fromkeys(FIGURES)
    found["mean_over_corruptions"] = _mean(list(accuracies.values()))
    found["mean_over_groups"] = _mean([_mean(values) for values in by_group if values])
    base = alexnet()
    for count, names in _SETS.items():
        if not complete or not set(names) <= set(accuracies):
            continue
        errors = {name: 100 - accuracies[name] for name in names}
        found[f"mean_error_{count}"] = _mean(list(errors.values()))
        found[f"mce_{count}"] = _mean([errors[name] / base.mean(name) for name in names])
        if clean is not None:
            rises = [(clean - accuracies[name]) / (base.mean(name) - base.clean) for name in names]
            found[f"relative_mce_{count}"] = _mean(rises)
    return found
