"""The command line under torchrun, which starts it several times: one process speaks for all."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from seedcnn.errors import SeedCNNError, is_shared
from seedcnn.machine import is_first_process
from seedcnn.messages import Say

__all__ = ["PATIENCE", "one_voice", "open_progress"]

PATIENCE = timedelta(days=1)
"""How long a process waits for another, which may be decoding images or training."""

_SOON, _LATER = 5.0, 60.0  # seconds; torchrun ends a process within a fraction of a second after the first has failed


@contextmanager
def one_voice() -> Iterator[None]:
    """Let the first process say an error, and the others only what it does not know.

    The others wait until torchrun ends them: if one of them ended earlier, torchrun would end the first one, perhaps
    before it has said the reason.
    """
    try:
        yield
    except (SeedCNNError, OSError, MemoryError) as error:
        if is_first_process():
            raise
        time.sleep(_LATER if is_shared(error) else _SOON)
        if is_shared(error):
            raise SystemExit(1) from None
        raise


def open_progress(text: str) -> Say:
    """Open the progress on standard error, and begin with a line: importing torch alone takes seconds.

    In processes other than the first it shows nothing.
    """
    from seedcnn.progress import Progress

    if not is_first_process():
        return lambda _: None
    progress = Progress()
    progress(text)
    return progress
