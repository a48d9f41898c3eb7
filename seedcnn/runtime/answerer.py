"""From uint8 images to logits: a session together with the names in its graph and its preprocessing rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from seedcnn.arrays import F32
from seedcnn.bundle.manifest import Manifest
from seedcnn.bundle.preprocessing import Preprocessing
from seedcnn.runtime.session import Session, preprocess

__all__ = ["Answerer"]


@dataclass(frozen=True)
class Answerer:
    """A classifier in a runtime.

    Attributes:
        session: from :func:`seedcnn.runtime.session.open_session`.
        input, output: names in its graph.
        rule: how an image becomes the input.
    """

    session: Session
    input: str
    output: str
    rule: Preprocessing

    @classmethod
    def of_manifest(cls, session: Session, manifest: Manifest) -> Answerer:
        """A session of a bundle's graph, with the names and the rule of the bundle's manifest."""
        return cls(session, manifest.graph.input, manifest.graph.output, manifest.preprocessing)

    def logits(self, images: npt.NDArray[np.uint8]) -> F32:
        """Answer images in one run.

        Args:
            images: uint8 [N, height, width, channels], of the rule's size.

        Returns:
            float32 [N, classes].

        Raises:
            ValueError: if dtype or shape is not what the rule wants.
            BundleError: if the graph does not run.
        """
        return self._run(preprocess(images, self.rule))

    def prepared(self, images: npt.NDArray[np.uint8]) -> Callable[[], F32]:
        """A call that answers these images, for timing: they are preprocessed once, now, not in the call.

        Args and errors as for :meth:`logits`.
        """
        inputs = preprocess(images, self.rule)
        return lambda: self._run(inputs)

    def _run(self, inputs: F32) -> F32:
        (logits,) = self.session.run([self.output], {self.input: inputs})
        return logits
