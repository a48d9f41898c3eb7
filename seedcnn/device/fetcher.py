"""Downloads with a length cap, a hard deadline, a minimum rate, and patience with servers that are busy or break off.

python-tuf's own fetcher has only the cap.
"""

from __future__ import annotations

import random
import re
import ssl
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.client import IncompleteRead
from typing import TYPE_CHECKING, Protocol, TypeVar
from urllib.parse import urljoin, urlsplit

import urllib3

from seedcnn.device.sockets import Watchdog, watched_pool
from seedcnn.messages import shown

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse

__all__ = [
    "BrokenTransferError",
    "DownloadLimits",
    "HttpStatusError",
    "LaterError",
    "PacedClient",
    "Pool",
    "TransferError",
    "retry_after",
]

_T = TypeVar("_T")
_CHUNK = 64 << 10
_REDIRECTS = 3
_OBJECT = re.compile(r"^\w+\(host=.*?, port=\d+\): ")
_CONTENT = frozenset({200, 203, 206})
_BUSY = frozenset({429, 502, 503, 504})


@dataclass(frozen=True)
class DownloadLimits:
    """When to give up a download, and how often to try again before.

    Attributes:
        deadline: seconds for a whole update with all its downloads and waits. Nothing that a server does extends it.
        min_rate: bytes per second that the average over one transfer must reach after ``grace``.
        grace: seconds before ``min_rate`` applies.
        socket_timeout: longest silence in seconds.
        max_bytes: largest bundle, even if it is correctly signed.
        tries: requests for one file while the server says that it is busy (HTTP status 429, 502, 503 or 504).
        connects: transfers of one file in a row that cannot begin or break off and bring nothing new.
        backoff: seconds before the second try; they double with each further one, and chance takes off up to half.
        max_backoff: longest wait in seconds that doubling leads to.
    """

    deadline: float = 1800.0
    min_rate: float = 512.0
    grace: float = 20.0
    socket_timeout: float = 15.0
    max_bytes: int = 256 << 20
    tries: int = 8
    connects: int = 3
    backoff: float = 0.5
    max_backoff: float = 30.0


class TransferError(Exception):
    """A transfer that failed or was interrupted; the message is part of a sentence."""


class BrokenTransferError(TransferError):
    """A server that cannot be reached, or a transfer that broke off: another try may succeed."""


class HttpStatusError(TransferError):
    """An HTTP response without content for us; ``wait`` is the number of seconds that it asks to wait, or None."""

    def __init__(self, url: str, status: int, wait: float | None = None) -> None:
        super().__init__(f"{url} answered with HTTP status {status}")
        self.status, self.wait = status, wait


class LaterError(TransferError):
    """A server that asks to wait for longer than the deadline allows: for ``seconds`` from now."""

    def __init__(self, url: str, status: int, seconds: float, deadline: float) -> None:
        super().__init__(
            f"{url} answered with HTTP status {status} and asks to wait for {seconds:.0f} s, "
            f"which the deadline of {deadline:g} s does not allow"
        )
        self.seconds = seconds


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds that a response's ``Retry-After`` asks to wait: 0 for a time in the past, None without one.

    A date is compared with the response's own ``Date``, if it has one, so that the device's clock does not matter.

    Args:
        now: seconds since 1970, for a response without ``Date``.
    """
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:16])
    try:
        until = parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError, OSError):
        return None
    with suppress(ValueError, TypeError, OverflowError, OSError):
        now = parsedate_to_datetime(headers.get("Date", "")).timestamp()
    return max(0.0, until - now)


def _is_broken(reason: BaseException) -> bool:
    """Return whether another try may succeed: no connection, a silence, or a connection that was lost."""
    if isinstance(reason, urllib3.exceptions.SSLError):
        return not any(isinstance(each, ssl.SSLCertVerificationError) for each in (reason, *reason.args))
    if isinstance(reason, urllib3.exceptions.ProtocolError):
        return isinstance(reason, IncompleteRead) or any(isinstance(e, (OSError, IncompleteRead)) for e in reason.args)
    return isinstance(reason, (urllib3.exceptions.TimeoutError, urllib3.exceptions.NewConnectionError))


def _words(error: BaseException) -> str:
    """Return a failure of urllib3 in a few words: without its objects, and on one line."""
    text = str(error)
    if isinstance(error, urllib3.exceptions.ProtocolError) and error.args:
        words, *causes = error.args
        text = str(words)
        if causes and not isinstance(causes[0], IncompleteRead):
            text = f"{text.rstrip('.')}: {causes[0]}"
    return f"{shown(_OBJECT.sub('', text)):.300}"


class Pool(Protocol):
    """Sends requests and returns the responses, as urllib3's pools do."""

    def request(
        self, method: str, url: str, /, *, headers: Mapping[str, str], redirect: bool, preload_content: bool
    ) -> BaseHTTPResponse:
        """Send a request, and return the response with its body unread."""

    def clear(self) -> None:
        """Close the connections."""


class PacedClient:
    """One pool of connections and one deadline. It ignores the environment's proxy variables.

    Args:
        pool: sends the requests; None for HTTP connections that the deadline shuts.
    """

    def __init__(self, limits: DownloadLimits, pool: Pool | None = None) -> None:
        self._limits = limits
        self._watchdog = Watchdog(limits.deadline)
        # What is tried again, and when, is decided in `retrying`, where the deadline is known.
        retries = urllib3.Retry(False, respect_retry_after_header=False)
        self._pool: Pool = pool or watched_pool(self._watchdog, limits.socket_timeout, retries=retries)

    def close(self) -> None:
        """Close the connections and stop the watchdog."""
        self._watchdog.close()
        self._pool.clear()

    def get(self, url: str, headers: Mapping[str, str] | None = None) -> Generator[bytes, None, None]:
        """Fetch ``url``, once: check the status of the response, then return its decoded body in pieces.

        Args:
            headers: fields of the request.

        Raises:
            HttpStatusError: if the server answers with an error, or with anything else that is no content.
            BrokenTransferError: if the server cannot be reached or breaks off.
            TransferError: if the server is too slow, or the deadline has passed.
        """
        return self.body(url, self.open(url, headers))

    def open(self, url: str, headers: Mapping[str, str] | None = None) -> BaseHTTPResponse:
        """Send a request, once, and return the response with its status and head checked; read it by :meth:`body`.

        Raises: as :meth:`get`.
        """
        response = self._request(url, headers or {})
        if response.status not in _CONTENT:
            wait = retry_after(response.headers, time.time())
            self._discard(url, response)
            raise HttpStatusError(url, response.status, wait)
        return response

    def _request(self, url: str, headers: Mapping[str, str]) -> BaseHTTPResponse:
        """Send a request, and follow redirects; their bodies are not read, because they may be endless."""
        asked = url
        for _ in range(1 + _REDIRECTS):
            self._check_deadline(url)
            try:
                response = self._pool.request(
                    "GET",
                    asked,
                    headers={"User-Agent": "seedcnn-device", **headers},
                    redirect=False,
                    preload_content=False,
                )
            except urllib3.exceptions.HTTPError as error:
                self._check_deadline(url)
                kind = BrokenTransferError if _is_broken(error) else TransferError
                raise kind(f"{url} cannot be reached: {_words(error)}") from None
            location = response.get_redirect_location()
            if not location:
                return response
            response.close()
            try:
                asked = urljoin(asked, location)
                good = urlsplit(asked).scheme in ("http", "https")
            except ValueError:
                good = False
            if not good:
                raise TransferError(f"{url} cannot be reached: it redirects to {location!r:.200}, no http or https URL")
        raise TransferError(f"{url} cannot be reached: too many redirects, more than {_REDIRECTS}")

    def _discard(self, url: str, response: BaseHTTPResponse) -> None:
        """Read a short error page to its end, so that the connection can be reused."""
        received = 0
        with suppress(TransferError), closing(self.body(url, response)) as chunks:
            for chunk in chunks:
                received += len(chunk)
                if received > _CHUNK:
                    break

    def body(self, url: str, response: BaseHTTPResponse) -> Generator[bytes, None, None]:
        """Return the decoded body of a response in pieces of at most 64 KiB, as they arrive.

        Raises: as :meth:`get`.
        """
        started, received = time.monotonic(), 0
        try:
            # read1 returns what has arrived; read and stream would wait for a full piece, however slow the server is.
            while chunk := response.read1(_CHUNK):
                received += len(chunk)
                self._check_deadline(url)
                self._check_rate(url, received, time.monotonic() - started)
                yield chunk
            self._check_deadline(url)  # the watchdog's end looks like the end of the body
        except urllib3.exceptions.HTTPError as error:
            self._check_deadline(url)
            kind = BrokenTransferError if _is_broken(error) else TransferError
            raise kind(f"{url} broke off after {received} bytes: {_words(error)}") from None
        finally:
            response.close()

    def retrying(self, url: str, transfer: Callable[[], _T], progress: Callable[[], int] = lambda: 0) -> _T:
        """Run a transfer until it succeeds, with growing pauses, within the limits.

        Args:
            transfer: uses :meth:`open` or :meth:`get`.
            progress: number of bytes that need not be sent again. While it grows there is no end of tries.

        Raises:
            LaterError: if the server asks to wait for longer than the deadline allows.
            HttpStatusError, BrokenTransferError, TransferError: of the last try.
        """
        best, busy, broken = progress(), 0, 0
        while True:
            try:
                return transfer()
            except (HttpStatusError, BrokenTransferError) as error:
                advanced = progress() > best
                if advanced:
                    best, busy, broken = progress(), 0, 0
                if isinstance(error, HttpStatusError):
                    busy += 1
                    self._wait_while_busy(url, error, busy)
                elif not advanced:
                    broken += 1
                    self._pause(error, broken, self._limits.connects)

    def _wait_while_busy(self, url: str, error: HttpStatusError, tried: int) -> None:
        if error.status not in _BUSY:
            raise error
        asked = error.wait or 0.0
        if asked and asked >= self._watchdog.remaining:
            raise LaterError(url, error.status, asked, self._limits.deadline) from None
        self._pause(error, tried, self._limits.tries, asked)

    def _pause(self, error: TransferError, tried: int, most: int, asked: float = 0.0) -> None:
        """Wait before the next try, or raise if there is none."""
        if tried >= most:
            error.args = (f"{error} ({tried} tries)",)
            raise error
        longest = min(self._limits.max_backoff, self._limits.backoff * 2.0 ** min(tried - 1, 60))
        # Chance keeps devices apart that were all refused at once.
        wait = max(longest * random.uniform(0.5, 1.0), asked)
        if wait >= self._watchdog.remaining:
            raise TransferError(
                f"{error}; the deadline of {self._limits.deadline:g} s leaves no time for another try"
            ) from None
        time.sleep(wait)

    def _check_deadline(self, url: str) -> None:
        if self._watchdog.remaining <= 0:
            raise TransferError(f"{url} was given up: the deadline of {self._limits.deadline:g} s has passed")

    def _check_rate(self, url: str, received: int, elapsed: float) -> None:
        if elapsed > self._limits.grace and received < self._limits.min_rate * elapsed:
            raise TransferError(
                f"{url} was given up: {received / elapsed:.0f} bytes per second on average; "
                f"at least {self._limits.min_rate:g} are required"
            )
