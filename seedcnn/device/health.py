"""The self-test: a model and its pictures must pass the canned vectors before the model becomes the current one."""

from __future__ import annotations

import numpy as np

from seedcnn.bundle import Bundle
from seedcnn.errors import BundleError, ImageError, SelfTestError
from seedcnn.runtime.answerer import Answerer
from seedcnn.runtime.pictures import check_canned_pictures
from seedcnn.runtime.session import Session

__all__ = ["self_test"]


def self_test(session: Session, bundle: Bundle) -> float:
    """Prepare the canned pictures, run the canned images, and compare the bytes and the logits with the bundle's.

    Returns:
        The largest absolute difference of a logit.

    Raises:
        SelfTestError: if a picture becomes other bytes, or the model does not run, answers in another shape, or gives a
            logit that is not finite or differs by more than the manifest's tolerance; the message names the image and
            the difference.
    """
    manifest = bundle.manifest
    tolerance = manifest.canned.tolerance_e6 * 1e-6
    images = bundle.canned_images()
    expected = bundle.canned_logits()
    try:
        check_canned_pictures(bundle)
    except ImageError as error:
        raise SelfTestError(f"the self-test failed: {error}") from None
    try:
        got = Answerer.of_manifest(session, manifest).logits(images)
    except BundleError as error:
        raise SelfTestError(f"the self-test failed: the model does not run ({error})") from None
    if got.shape != expected.shape:
        raise SelfTestError(f"the self-test failed: the model answers in shape {got.shape}, not {expected.shape}")
    for index, (answer, wanted) in enumerate(zip(got, expected, strict=True)):
        if not np.isfinite(answer).all():
            raise SelfTestError(f"the self-test failed: canned image {index} gives logits that are not finite")
        difference = float(np.abs(answer.astype(np.float64) - wanted).max())
        # In this form the comparison also fails if an expected logit is NaN.
        if not difference <= tolerance:
            raise SelfTestError(
                f"the self-test failed: canned image {index} is off by {difference:.3g}; {tolerance:.3g} is allowed"
            )
    return float(np.abs(got.astype(np.float64) - expected).max())
