"""Our measured value of a quantity that a paper prints."""

from __future__ import annotations

from collections.abc import Iterator

from seedcnn.data.corruptions import CORRUPTIONS, GROUPS, SEVERITIES
from seedcnn.evaluate.papers import PaperRow
from seedcnn.evaluate.robustness_runs import SeededRobustness
from seedcnn.evaluate.styles import StyleTable

__all__ = ["beside"]


def beside(
    paper: PaperRow, key: str, top1: float, result: SeededRobustness | None, styles: StyleTable | None
) -> Iterator[tuple[str, float]]:
    """Our values of the same quantity in percent, each with a word that tells it apart where there are two.

    There is none where only a part of the quantity was measured.

    Args:
        paper, key: the row, and the key of one of its values.
        top1: our accuracy on clean images.
        result: our accuracies under corruption.
        styles: our accuracies by style.
    """
    if key == "top1":
        yield "", top1
    elif set(GROUPS) & set(paper.values):
        first = None if result is None else result.tables[0]
        if result is None or first is None or set(first.severities) != set(SEVERITIES):
            return
        measured = set(first.accuracies)
        if key in GROUPS and {name for name, each in CORRUPTIONS.items() if each.group == key} <= measured:
            yield "", sum(each.group_means[key] for each in result.tables) / len(result.tables)
        elif key == "mean" and set(CORRUPTIONS) <= measured:
            yield "over groups", sum(each.mean_over_groups for each in result.tables) / len(result.tables)
            yield "over corruptions", sum(each.mean_over_corruptions for each in result.tables) / len(result.tables)
    elif styles is not None:
        held = {style.lower(): styles.accuracies[style].top1 for style in styles.held_out}
        if key.lower() in held:
            yield "", held[key.lower()]
        elif key == "mean" and set(held) == {name.lower() for name in paper.values if name != "mean"}:
            yield "", sum(held.values()) / len(held)
