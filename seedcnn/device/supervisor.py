"""Messages to systemd, or another supervisor that sets ``NOTIFY_SOCKET``, by the protocol of sd_notify(3).

Where the variables are not set, nothing happens.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import MutableMapping

from seedcnn.messages import shown

__all__ = ["Supervisor"]

_LONGEST = 400  # characters of a status
_LOG = logging.getLogger(__name__)


class Supervisor:
    """Whoever started this process and wants to hear of it. Close it at the end.

    A thread says WATCHDOG=1 twice in each period of the watchdog, but only while the work is within the time that
    :meth:`expect` gave it. So slow work lives, and work that hangs does not.

    Args:
        address: of a datagram socket: an absolute path, or an abstract name after "@"; "" for nobody.
        watchdog: seconds of silence after which the supervisor ends this process; 0 for no watchdog.
    """

    def __init__(self, address: str = "", watchdog: float = 0.0) -> None:
        if address and address[0] not in "/@":
            _LOG.warning("NOTIFY_SOCKET (=%r) is ignored: it must be an absolute path or begin with @", address)
            address = ""
        self._address = f"\0{address[1:]}" if address[:1] == "@" else address
        self._expected = time.monotonic()
        self._lost = False
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        if self._address and watchdog > 0:
            self._thread = threading.Thread(target=self._ping, args=(watchdog / 2,), name="watchdog", daemon=True)

    @classmethod
    def from_environment(cls, variables: MutableMapping[str, str] = os.environ) -> Supervisor:
        """Take NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID out of the environment, so that no child inherits them."""
        address, period, pid = (variables.pop(name, "") for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"))
        if pid not in ("", str(os.getpid())):
            return cls(address)
        if period and not (period.isascii() and period.isdigit()):
            _LOG.warning("WATCHDOG_USEC (=%.80r) is ignored: it must be a whole number of microseconds", period)
            period = ""
        return cls(address, int(period or "0") / 1e6)

    def tell(self, message: str) -> None:
        """Send one message, such as READY=1. A failure is logged."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.settimeout(1.0)
                sock.sendto(message.encode("utf-8", "replace"), self._address)
        except OSError as error:
            if not self._lost:
                _LOG.warning("%.80s could not be sent to the supervisor: %s", message, error.strerror or error)
            self._lost = True

    def status(self, text: str) -> None:
        """Send a status of one line."""
        self.tell(f"STATUS={shown(text):.{_LONGEST}}")

    def expect(self, seconds: float) -> None:
        """Begin a piece of work that ends, or calls this again, within ``seconds``."""
        self._expected = time.monotonic() + seconds

    def start(self, seconds: float) -> None:
        """Say READY=1 and begin to feed the watchdog; for ``seconds``, see :meth:`expect`."""
        self.expect(seconds)
        self.tell("READY=1")
        if self._thread is not None:
            self._thread.start()

    def _ping(self, pause: float) -> None:
        hangs = False
        while not self._closed.wait(pause):
            late = time.monotonic() - self._expected
            if late < 0:
                self.tell("WATCHDOG=1")
            elif not hangs:
                _LOG.warning("the work has not ended in its time, so the watchdog is not fed any more")
            hangs = late >= 0

    def close(self) -> None:
        """Say STOPPING=1 and stop feeding the watchdog."""
        self.tell("STOPPING=1")
        self._closed.set()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join()
