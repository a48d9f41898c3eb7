"""Where a picture lies in the input of a network, and boxes from one to the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from seedcnn.arrays import F32
from seedcnn.bundle import Preprocessing
from seedcnn.runtime.pictures import _geometry

__all__ = ["Fit"]


@dataclass(frozen=True)
class Fit:
    """The place of a scaled picture in an input, as :func:`seedcnn.runtime.pictures.prepare` puts it there.

    Attributes:
        height, width: of the picture, in its own pixels.
        scaled_height, scaled_width: of the picture in the input.
        top, left: of its first row and column; below 0 where the input shows its middle only.
    """

    height: int
    width: int
    scaled_height: int
    scaled_width: int
    top: int
    left: int

    @classmethod
    def of(cls, height: int, width: int, rule: Preprocessing) -> Fit:
        """Return how a rule fits an upright picture of this size.

        Raises:
            ImageError: if the rule refuses the size; the message starts with a verb.
        """
        scaled_height, scaled_width, window = _geometry(height, width, rule)
        if window is not None:
            (top, _), (left, _) = window
            return cls(height, width, scaled_height, scaled_width, -top, -left)
        top, left = (rule.height - scaled_height) // 2, (rule.width - scaled_width) // 2
        return cls(height, width, scaled_height, scaled_width, top, left)

    def to_input(self, boxes: npt.NDArray[np.floating]) -> F32:
        """Move boxes x1, y1, x2, y2 of the picture, floats [n, 4], to the input; float32 [n, 4], not clipped."""
        scale, shift = self._scale_and_shift()
        return (boxes.astype(np.float64) * scale + shift).astype(np.float32)

    def to_picture(self, boxes: npt.NDArray[np.floating]) -> F32:
        """Move boxes of the input, floats [n, 4], to the picture's own pixels, cut to it; float32 [n, 4]."""
        scale, shift = self._scale_and_shift()
        own = (boxes.astype(np.float64) - shift) / scale
        most = np.array([self.width, self.height] * 2, np.float64)
        return np.clip(own, 0.0, most).astype(np.float32)

    def _scale_and_shift(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        scale = np.array([self.scaled_width / self.width, self.scaled_height / self.height] * 2, np.float64)
        return scale, np.array([self.left, self.top] * 2, np.float64)
