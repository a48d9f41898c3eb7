"""A detector up to its raw heads: no anchors, no sorting and no suppression of boxes, all shapes known beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from seedcnn.convert.parts import task_of

__all__ = ["has_raw_heads", "proposals", "raw_outputs"]


def has_raw_heads(model: nn.Module) -> bool:
    """Return whether a network is a detector of torchvision's kind: one that prepares images and sorts its boxes."""
    return hasattr(model, "transform") and hasattr(model, "backbone") and task_of(model) == "detection"


def proposals(model: Any, features: Sequence[Tensor]) -> int:
    """Return how many boxes the second stage of a Faster R-CNN looks at in each image, if suppression removes none.

    Args:
        model: in training mode for the number that are sampled for the losses.
        features: the levels, [N, C, H, W] each.
    """
    rpn = model.rpn
    anchors = rpn.anchor_generator.num_anchors_per_location()
    best = rpn.pre_nms_top_n()
    count = sum(min(best, each * x.shape[-2] * x.shape[-1]) for each, x in zip(anchors, features, strict=True))
    count = min(count, rpn.post_nms_top_n())
    return min(count, model.roi_heads.fg_bg_sampler.batch_size_per_image) if model.training else count


def raw_outputs(model: Any, images: Tensor) -> dict[str, Tensor]:
    """Run a detector as far as its heads; it also runs on the "meta" device.

    Images are resized, normalised and padded as the detector does it in eval mode. The second stage of a Faster R-CNN
    looks at empty regions, :func:`proposals` of them: its outputs have the right shape and no meaning.

    Args:
        model: see :func:`has_raw_heads`.
        images: [N, C, H, W].

    Returns:
        The heads' outputs by name: of a one-stage detector as torchvision names them, [N, anchors, ...]; of Faster
        R-CNN "objectness.i" and "rpn_deltas.i" for each level, [N, ., H, W], and "class_logits" and "box_regression",
        [N * proposals, ...].

    Raises:
        ValueError: if the network also predicts masks or keypoints, or its heads are of an unknown kind.
    """
    training = model.transform.training
    try:
        prepared = model.transform.eval()(list(images))[0].tensors
    finally:
        model.transform.train(training)
    found = model.backbone(prepared)
    features = [found] if isinstance(found, Tensor) else list(found.values())
    if hasattr(model, "head"):
        return dict(model.head(features))
    kind = type(model).__name__
    if not hasattr(model, "rpn") or not hasattr(model, "roi_heads"):
        raise ValueError(f"{kind} has neither a `head` nor `rpn` and `roi_heads`; its heads are of an unknown kind")
    roi_heads = model.roi_heads
    if roi_heads.has_mask() or roi_heads.has_keypoint():
        raise ValueError(f"{kind} also predicts masks or keypoints of each object; only detectors of boxes are known")
    objectness, deltas = model.rpn.head(features)
    size = roi_heads.box_roi_pool.output_size
    regions = features[0].new_zeros((len(images) * proposals(model, features), features[0].shape[1], *size))
    logits, boxes = roi_heads.box_predictor(roi_heads.box_head(regions))
    outputs = {f"objectness.{index}": each for index, each in enumerate(objectness)}
    outputs |= {f"rpn_deltas.{index}": each for index, each in enumerate(deltas)}
    return {**outputs, "class_logits": logits, "box_regression": boxes}
