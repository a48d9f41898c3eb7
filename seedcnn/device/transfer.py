"""Completing a partial download over a link that breaks and from a server that may lie.

Nothing that a server says about ranges is trusted: an answer that does not fit the request begins the file anew, and
the digest of the whole decides at the end.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from seedcnn.device.fetcher import BrokenTransferError, HttpStatusError, PacedClient, TransferError
from seedcnn.device.part import Part
from seedcnn.errors import UpdateError

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse

__all__ = ["fetch"]

_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")
_ANEW = 2  # after this many answers that do not fit, no more ranges are asked for


def fetch(client: PacedClient, url: str, part: Part) -> None:
    """Complete a part, as far as its length goes; its digest is not checked. It is flushed when this returns or fails.

    Transfers that break off are continued as long as each brings something new.

    Raises:
        TransferError: if the transfer fails or is too slow; the part stays, for the next update.
        UpdateError: if the server sends more than ``part.length`` bytes. The part is removed.
        OSError: if the disk refuses.
    """
    part.resumed = part.size > 0
    client.retrying(url, _Transfer(client, url, part).run, lambda: part.size)


class _MisfitError(Exception):
    """An answer to a request for a range that does not continue the part."""


class _Transfer:
    def __init__(self, client: PacedClient, url: str, part: Part) -> None:
        self._client, self._url, self._part = client, url, part
        self._misfits = 0

    def run(self) -> None:
        """Send one request, or another for the whole if the answer to the first does not fit, and store its body."""
        while self._part.size != self._part.length:
            try:
                self._request()
            except _MisfitError:
                self._misfits += 1
                self._part.drop()
            else:
                return

    def _request(self) -> None:
        part = self._part
        if part.size > part.length:
            part.drop()
        have = part.size if self._misfits < _ANEW else 0
        headers = {"Accept-Encoding": "identity"}  # a range counts the bytes of the file itself
        if have:
            headers |= {"Range": f"bytes={have}-"} | ({"If-Range": part.etag} if part.etag else {})
        try:
            response = self._client.open(self._url, headers)
        except HttpStatusError as error:
            if have and error.status == 416:
                raise _MisfitError from None
            raise
        with closing(response):
            end = part.length
            if response.status != 206:
                part.begin(response.headers.get("ETag", ""))
            elif not have:
                raise TransferError(f"{self._url} answered with a range to a request for the whole file")
            else:
                end = self._end_of_range(response.headers, have)
                part.resumed = True
            self._store(response, end)

    def _end_of_range(self, headers: Mapping[str, str], have: int) -> int:
        """Return where the range of a response ends.

        Raises:
            _MisfitError: if it does not begin where the part ends, or is of another file.
        """
        part = self._part
        found = _RANGE.fullmatch(headers.get("Content-Range", "").strip())
        if found is None or headers.get("Content-Encoding", "identity") != "identity":
            raise _MisfitError
        first, last, total = map(int, found.groups())
        if first != have or total != part.length or not first <= last < total:
            raise _MisfitError
        if headers.get("Content-Length", str(last + 1 - first)) != str(last + 1 - first):
            raise _MisfitError
        if part.etag and headers.get("ETag", part.etag) != part.etag:
            raise _MisfitError
        return last + 1

    def _store(self, response: BaseHTTPResponse, end: int) -> None:
        part, ranged = self._part, response.status == 206
        # Without a buffer each piece is safe from a kill at once.
        with open(part.path, "ab", buffering=0) as file:
            size = part.size
            try:
                for chunk in self._client.body(self._url, response):
                    size += len(chunk)
                    if size > end:
                        self._refuse_excess(ranged)
                    _write(file.fileno(), chunk)
            except BaseException:
                with suppress(OSError):
                    os.fsync(file.fileno())
                raise
            os.fsync(file.fileno())
        # A file that is shorter on the server is left to the check of its length.
        known = "Content-Length" in response.headers or "Transfer-Encoding" in response.headers
        if size < part.length and (ranged or not known):
            raise BrokenTransferError(f"{self._url} broke off after {size} of {part.length} bytes")

    def _refuse_excess(self, ranged: bool) -> None:
        if ranged:
            raise _MisfitError
        self._part.drop()
        raise UpdateError(
            f"{self._url} was refused: it sends more than the {self._part.length} bytes signed", "transfer"
        )


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
