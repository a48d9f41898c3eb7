"""Downloads with a length cap, a deadline and a minimum rate. python-tuf's own fetcher has only the cap."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import urllib3

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse

__all__ = ["DownloadLimits", "HttpStatusError", "PacedClient", "TransferError"]

_CHUNK = 64 << 10


@dataclass(frozen=True)
class DownloadLimits:
    """When to give up a download.

    Attributes:
        deadline: seconds for a whole update with all its downloads.
        min_rate: bytes per second that the average over one file must reach after ``grace``.
        grace: seconds before ``min_rate`` applies.
        socket_timeout: longest silence in seconds.
        max_bytes: largest bundle, even if it is correctly signed.
    """

    deadline: float = 1800.0
    min_rate: float = 512.0
    grace: float = 20.0
    socket_timeout: float = 15.0
    max_bytes: int = 256 << 20


class TransferError(Exception):
    """A transfer that failed or was interrupted; the message is part of a sentence."""


class HttpStatusError(TransferError):
    """An HTTP response with a status of 400 or above."""

    def __init__(self, url: str, status: int) -> None:
        super().__init__(f"{url} answered with HTTP status {status}")
        self.status = status


class PacedClient:
    """One HTTP connection pool and one deadline. It ignores the environment's proxy variables."""

    def __init__(self, limits: DownloadLimits) -> None:
        self._limits = limits
        self._end = time.monotonic() + limits.deadline
        retries = urllib3.Retry(total=3, connect=2, read=1, redirect=3, backoff_factor=0.2)
        self._pool = urllib3.PoolManager(
            retries=retries, timeout=urllib3.Timeout(limits.socket_timeout), headers={"User-Agent": "seedcnn-device"}
        )

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()

    def get(self, url: str) -> Generator[bytes, None, None]:
        """Fetch ``url``: check the status of the response, then return its body in pieces.

        Raises:
            HttpStatusError: if the server answers with an error.
            TransferError: if the server cannot be reached, breaks off or is too slow, or the deadline has passed.
        """
        self._check_deadline(url)
        try:
            response = self._pool.request("GET", url, preload_content=False)
        except urllib3.exceptions.HTTPError as error:
            reason = getattr(error, "reason", None) or error
            raise TransferError(f"{url} cannot be reached: {reason}") from None
        if response.status >= 400:
            self._discard(url, response)
            raise HttpStatusError(url, response.status)
        return self._chunks(url, response)

    def _discard(self, url: str, response: BaseHTTPResponse) -> None:
        """Read a short error page to its end, so that the connection can be reused."""
        received = 0
        with suppress(TransferError), closing(self._chunks(url, response)) as chunks:
            for chunk in chunks:
                received += len(chunk)
                if received > _CHUNK:
                    break

    def _chunks(self, url: str, response: BaseHTTPResponse) -> Generator[bytes, None, None]:
        started, received = time.monotonic(), 0
        try:
            # read1 returns what has arrived; read and stream would wait for a full piece, however slow the server is.
            while chunk := response.read1(_CHUNK):
                received += len(chunk)
                self._check_deadline(url)
                self._check_rate(url, received, time.monotonic() - started)
                yield chunk
        except urllib3.exceptions.HTTPError as error:
            raise TransferError(f"{url} broke off after {received} bytes: {error}") from None
        finally:
            response.close()

    def _check_deadline(self, url: str) -> None:
        if time.monotonic() > self._end:
            raise TransferError(f"{url} was given up: the deadline of {self._limits.deadline:g} s has passed")

    def _check_rate(self, url: str, received: int, elapsed: float) -> None:
        if elapsed > self._limits.grace and received < self._limits.min_rate * elapsed:
            raise TransferError(
                f"{url} was given up: {received / elapsed:.0f} bytes per second on average; "
                f"at least {self._limits.min_rate:g} are required"
            )
