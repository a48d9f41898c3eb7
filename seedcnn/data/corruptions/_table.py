"""The 19 corruptions, in the official order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from seedcnn.data.corruptions import _blur, _digital, _elastic, _noise, _spatter, _weather
from seedcnn.data.corruptions.core import Corruption

__all__ = ["CORRUPTIONS"]


def _constants(cifar: Sequence[Any], imagenet: Sequence[Any]) -> Mapping[str, tuple[Any, ...]]:
    return MappingProxyType({"cifar": tuple(cifar), "imagenet": tuple(imagenet)})


_NOISE = (
    # Standard deviation, on the 0..1 scale.
    Corruption(
        "gaussian_noise", "Noise", 0, True,
        _constants([0.04, 0.06, 0.08, 0.09, 0.10], [0.08, 0.12, 0.18, 0.26, 0.38]),
        _noise.gaussian_noise, _noise.draw_normal,
    ),
    # Photons at full brightness.
    Corruption(
        "shot_noise", "Noise", 1, True,
        _constants([500, 250, 100, 75, 50], [60, 25, 12, 5, 3]),
        _noise.shot_noise, _noise.draw_counts,
    ),
    # Share of the values that are replaced.
    Corruption(
        "impulse_noise", "Noise", 2, True,
        _constants([0.01, 0.02, 0.03, 0.05, 0.07], [0.03, 0.06, 0.09, 0.17, 0.27]),
        _noise.impulse_noise, _noise.draw_impulses,
    ),
    # Standard deviation, relative to the value.
    Corruption(
        "speckle_noise", "Noise", 3, False,
        _constants([0.06, 0.1, 0.12, 0.16, 0.2], [0.15, 0.2, 0.35, 0.45, 0.6]),
        _noise.speckle_noise, _noise.draw_normal,
    ),
)  # fmt: skip

_BLUR = (
    # Radius of the disk, sigma of its anti-aliasing.
    Corruption(
        "defocus_blur", "Blur", 4, True,
        _constants(
            [(0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)],
            [(3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)],
        ),
        _blur.defocus_blur,
    ),
    # Sigma, largest move in pixels, iterations.
    Corruption(
        "glass_blur", "Blur", 5, True,
        _constants(
            [(0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)],
            [(0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)],
        ),
        _blur.glass_blur, _blur.draw_offsets,
    ),
    # Radius, sigma.
    Corruption(
        "motion_blur", "Blur", 6, True,
        _constants(
            [(6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)],
            [(10, 3), (15, 5), (15, 8), (15, 12), (20, 15)],
        ),
        _blur.motion_blur, _blur.draw_angle,
    ),
    # Stop and step of the zoom factors, which start at 1.
    Corruption(
        "zoom_blur", "Blur", 7, True,
        _constants(
            [(1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)],
            [(1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)],
        ),
        _blur.zoom_blur,
    ),
    # Sigma.
    Corruption(
        "gaussian_blur", "Blur", 8, False,
        _constants([0.4, 0.6, 0.7, 0.8, 1.0], [1, 2, 3, 4, 6]),
        _blur.gaussian_blur,
    ),
)  # fmt: skip

_WEATHER = (
    # Mean, standard deviation, zoom, threshold, motion radius, motion sigma, weight of the original image.
    Corruption(
        "snow", "Weather", 9, True,
        _constants(
            [
                (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
                (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
                (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
                (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
                (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
            ],
            [
                (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
                (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
                (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
                (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
                (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
            ],
        ),
        _weather.snow, _weather.draw_snow,
    ),
    # Weight of the image, weight of the frost.
    Corruption(
        "frost", "Weather", 10, True,
        _constants(
            [(1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)],
            [(1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)],
        ),
        _weather.frost, _weather.draw_frost,
    ),
    # Strength, decay of the noise from step to step.
    Corruption(
        "fog", "Weather", 11, True,
        _constants(
            [(0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)],
            [(1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)],
        ),
        _weather.fog, _weather.draw_fog,
    ),
    # Added to V.
    Corruption(
        "brightness", "Weather", 12, True,
        _constants([0.05, 0.1, 0.15, 0.2, 0.3], [0.1, 0.2, 0.3, 0.4, 0.5]),
        _weather.brightness,
    ),
    # Mean, standard deviation, sigma, threshold, strength (water) or sigma (mud), 0 for water or 1 for mud.
    Corruption(
        "spatter", "Weather", 13, False,
        _constants(
            [
                (0.62, 0.1, 0.7, 0.7, 0.5, 0),
                (0.65, 0.1, 0.8, 0.7, 0.5, 0),
                (0.65, 0.3, 1, 0.69, 0.5, 0),
                (0.65, 0.1, 0.7, 0.69, 0.6, 1),
                (0.65, 0.1, 0.5, 0.68, 0.6, 1),
            ],
            [
                (0.65, 0.3, 4, 0.69, 0.6, 0),
                (0.65, 0.3, 3, 0.68, 0.6, 0),
                (0.65, 0.3, 2, 0.68, 0.5, 0),
                (0.65, 0.3, 1, 0.65, 1.5, 1),
                (0.67, 0.4, 1, 0.65, 1.5, 1),
            ],
        ),
        _spatter.spatter, _spatter.draw_layer,
    ),
)  # fmt: skip

_DIGITAL = (
    # Factor.
    Corruption(
        "contrast", "Digital", 14, True,
        _constants([0.75, 0.5, 0.4, 0.3, 0.15], [0.4, 0.3, 0.2, 0.1, 0.05]),
        _digital.contrast,
    ),
    # Size and sigma of the displacement, largest move of the affine points, in pixels for any image size.
    Corruption(
        "elastic_transform", "Digital", 15, True,
        _constants(
            [(side * 32.0, sigma * 32.0, affine * 32.0) for side, sigma, affine in [
                (0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03),
            ]],
            [(side * 244.0, sigma * 244.0, affine * 244.0) for side, sigma, affine in [
                (2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02),
            ]],
        ),
        _elastic.elastic_transform, _elastic.draw_elastic,
    ),
    # Scale.
    Corruption(
        "pixelate", "Digital", 16, True,
        _constants([0.95, 0.9, 0.85, 0.75, 0.65], [0.6, 0.5, 0.4, 0.3, 0.25]),
        _digital.pixelate,
    ),
    # Quality.
    Corruption(
        "jpeg_compression", "Digital", 17, True,
        _constants([80, 65, 58, 50, 40], [25, 18, 15, 10, 7]),
        _digital.jpeg_compression,
    ),
    # Scale and shift of S.
    Corruption(
        "saturate", "Digital", 18, False,
        _constants(
            [(0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)],
            [(0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)],
        ),
        _digital.saturate,
    ),
)  # fmt: skip

CORRUPTIONS: Mapping[str, Corruption] = MappingProxyType(
    {row.name: row for row in (*_NOISE, *_BLUR, *_WEATHER, *_DIGITAL)}
)
