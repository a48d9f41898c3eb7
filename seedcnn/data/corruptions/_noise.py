"""Noise: Gaussian, shot, impulse and speckle noise."""

from __future__ import annotations

from typing import Any

import numpy as np

from seedcnn.arrays import F64, U8
from seedcnn.data.corruptions.core import Fields, Setting, to_levels


def draw_normal(generator: np.random.Generator, picture: U8, _: Setting) -> dict[str, Any]:
    """``normal``: standard normal [H, W, 3]."""
    return {"normal": generator.standard_normal(picture.shape)}


def gaussian_noise(images: U8, at: Setting, fields: Fields) -> F64:
    """Add normal noise with a fixed standard deviation."""
    noise: F64 = fields["normal"] * at.constant
    noise += images / 255.0
    return to_levels(noise)


def speckle_noise(images: U8, at: Setting, fields: Fields) -> F64:
    """Add normal noise with a standard deviation proportional to the pixel value."""
    unit = images / 255.0
    noise: F64 = fields["normal"] * at.constant
    noise *= unit
    noise += unit
    return to_levels(noise)


def draw_counts(generator: np.random.Generator, picture: U8, at: Setting) -> dict[str, Any]:
    """``counts``: photons [H, W, 3], Poisson with mean x / 255 * constant."""
    return {"counts": generator.poisson(picture / 255.0 * at.constant).astype(np.float64)}


def shot_noise(_: U8, at: Setting, fields: Fields) -> F64:
    """Photon counts: black stays black, and the noise grows with brightness."""
    return to_levels(fields["counts"] / at.constant)


def draw_impulses(generator: np.random.Generator, picture: U8, at: Setting) -> dict[str, Any]:
    """``flipped`` and ``salted``, bool [H, W, 3]: hits with probability ``constant``, half of them salt."""
    uniform = generator.random(picture.shape)
    return {"flipped": uniform < at.constant, "salted": uniform < at.constant / 2}


def impulse_noise(images: U8, _: Setting, fields: Fields) -> U8:
    """Salt and pepper for each channel value, not for each pixel, which gives coloured specks."""
    struck = np.where(fields["salted"], np.uint8(255), np.uint8(0))
    # The official code converts to the 0..1 scale and back, and loses a level where x / 255 * 255 is below x.
    return np.where(fields["flipped"], struck, _THROUGH_UNIT[images])


_THROUGH_UNIT = (np.arange(256) / 255.0 * 255).astype(np.uint8)
