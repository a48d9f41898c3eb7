"""Connections that a watchdog ends at a deadline, whatever the other side sends and wherever the process waits.

A timeout of a socket ends a silence, but not a server that sends one byte now and then: between two bytes of a header
no code of ours runs. So a timer shuts all sockets at the deadline, and whoever reads from one sees its end. Names are
resolved in a thread of their own, because the system's resolver cannot be interrupted; connecting and the handshake of
TLS have timeouts that do not pass the deadline.
"""

from __future__ import annotations

import queue
import socket
import threading
import time
from contextlib import suppress
from typing import Any, ClassVar

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, LocationParseError, NameResolutionError, NewConnectionError

__all__ = ["Watchdog", "watched_pool"]


class Watchdog:
    """A timer that shuts every socket it knows, ``seconds`` after it was made. Close it when the work is done."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._guard = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._timer = threading.Timer(min(max(seconds, 0.0), threading.TIMEOUT_MAX), self._shut)
        self._timer.daemon = True
        self._timer.start()

    @property
    def remaining(self) -> float:
        """Seconds until the deadline; negative after it."""
        return self._end - time.monotonic()

    def add(self, sock: socket.socket) -> None:
        """Shut this socket at the deadline, or now if that has passed."""
        with self._guard:
            self._sockets = [each for each in self._sockets if each.fileno() >= 0]
            self._sockets.append(sock)
        if self.remaining <= 0:
            self._shut()

    def _shut(self) -> None:
        with self._guard:
            for sock in self._sockets:
                # The method of the plain socket: that of a TLS socket changes what its reader is using.
                with suppress(OSError):
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Stop the timer."""
        self._timer.cancel()


def _resolve(host: str, port: int, seconds: float) -> list[tuple[Any, ...]]:
    """Return the addresses of a host.

    Raises:
        OSError: if it has none (``socket.gaierror``) or is not found within ``seconds`` (``TimeoutError``).
        UnicodeError: if it cannot be a name.
    """
    results: queue.SimpleQueue[list[tuple[Any, ...]] | OSError | UnicodeError] = queue.SimpleQueue()

    def ask() -> None:
        try:
            results.put(list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))
        except (OSError, UnicodeError) as error:
            results.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        found = results.get(timeout=max(seconds, 0.0))
    except queue.Empty:
        raise TimeoutError(f"its address was not found within {seconds:.1f} s") from None
    if isinstance(found, list):
        return found
    raise found


class _Watched(HTTPConnection):
    """A connection that its client's watchdog knows from the first packet on."""

    watchdog: ClassVar[Watchdog]
    patience: ClassVar[float]

    def _limit(self) -> float:
        """Seconds to wait for the next step: at most ``patience``, and not beyond the deadline."""
        return max(0.001, min(self.patience, self.watchdog.remaining))

    def _new_conn(self) -> socket.socket:
        host = self._dns_host.strip("[]")
        try:
            found = _resolve(host, self.port, self._limit())
        except UnicodeError:
            raise LocationParseError(f"'{host}', label empty or too long") from None
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except TimeoutError as error:
            raise ConnectTimeoutError(self, f"{self.host} cannot be connected: {error}") from error
        problem = OSError("it has no address")
        for family, kind, protocol, _, address in found:
            try:
                return self._connected(socket.socket(family, kind, protocol), address)
            except OSError as error:
                problem = error
            if self.watchdog.remaining <= 0:
                break
        if isinstance(problem, TimeoutError):
            raise ConnectTimeoutError(self, f"Connection to {self.host} timed out") from problem
        raise NewConnectionError(self, f"Failed to establish a new connection: {problem}") from problem

    def _connected(self, sock: socket.socket, address: Any) -> socket.socket:
        try:
            for option in self.socket_options or ():
                sock.setsockopt(*option)
            self.watchdog.add(sock)
            sock.settimeout(self._limit())
            sock.connect(address)
            sock.settimeout(self._limit())  # of the handshake of TLS as a whole
        except BaseException:
            sock.close()
            raise
        return sock

    def connect(self) -> None:
        """Connect, with TLS if the scheme says so."""
        super().connect()
        if self.sock is not None:
            self.watchdog.add(self.sock)  # TLS has put another in the place of the first


def watched_pool(watchdog: Watchdog, patience: float, **options: Any) -> urllib3.PoolManager:
    """Return a pool whose sockets the watchdog shuts at its deadline.

    Args:
        patience: longest wait in seconds for an address, a connection, a handshake or the next bytes.
        options: of :class:`urllib3.PoolManager`.
    """

    class Plain(_Watched):
        pass

    class Secure(_Watched, HTTPSConnection):
        pass

    class PlainPool(urllib3.HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(urllib3.HTTPSConnectionPool):
        ConnectionCls = Secure

    for kind in (Plain, Secure):
        kind.watchdog, kind.patience = watchdog, patience
    pool = urllib3.PoolManager(timeout=urllib3.Timeout(connect=patience, read=patience), **options)
    pool.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}
    return pool
