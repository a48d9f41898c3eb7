"""A server on real sockets that misbehaves in one way for some of a repository's files and serves the rest well."""

from __future__ import annotations

import gzip
import hashlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

LINE = b"\r\n"


@dataclass
class Request:
    """One request: its path, its fields in lower case, the file's content (None for 404), and how many came before."""

    server: Hostile
    sock: socket.socket
    path: str
    fields: dict[str, str]
    data: bytes | None
    number: int
    sent: int = 0

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)
        self.sent += len(data)

    def head(self, status: str = "200 OK", *fields: str) -> None:
        self.sock.sendall(LINE.join([f"HTTP/1.1 {status}".encode(), *(each.encode() for each in fields), b"", b""]))

    def reply(self, body: bytes, status: str = "200 OK", *fields: str) -> None:
        self.head(status, f"Content-Length: {len(body)}", *fields)
        self.send(body)

    @property
    def start(self) -> int:
        """Where the range that was asked for begins, or 0."""
        text = self.fields.get("range", "bytes=0-")
        return int(text.removeprefix("bytes=").removesuffix("-"))

    @property
    def etag(self) -> str:
        return f'"{hashlib.sha1(self.data or b"").hexdigest()}"'

    def serve(self, upto: Callable[[int, int], int] = lambda begin, end: end) -> None:
        """Answer well, ranges included, as far as ``upto(first, end)``."""
        if self.data is None:
            self.reply(b"not found\n", "404 Not Found")
            return
        begin, end = self.start, len(self.data)
        if self.fields.get("if-range", self.etag) != self.etag:
            begin = 0
        fields = [f"Content-Length: {end - begin}", f"ETag: {self.etag}"]
        if begin:
            self.head("206 Partial Content", f"Content-Range: bytes {begin}-{end - 1}/{end}", *fields)
        else:
            self.head("200 OK", *fields)
        self.send(self.data[begin : upto(begin, end)])

    def drip(self, data: Iterator[bytes] | bytes, pause: float = 0.02) -> None:
        """Send byte by byte until nobody listens any more."""
        for each in data:
            self.send(bytes([each]) if isinstance(each, int) else each)
            if self.server.stopped.wait(pause):
                return

    def hang(self) -> None:
        """Send nothing more, and wait until the other side closes."""
        self.sock.settimeout(0.05)
        while not self.server.stopped.is_set():
            with suppress(TimeoutError):
                if not self.sock.recv(4096):
                    return

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


Behaviour = Callable[[Request], None]


@dataclass
class Hostile:
    """Misbehaves by ``behave`` for files whose names end with ``suffix``, and closes the connection after it."""

    public: Path
    behave: Behaviour
    suffix: str
    tls: ssl.SSLContext | None = None
    stopped: threading.Event = field(default_factory=threading.Event)
    requests: list[Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]

    @property
    def spoiled(self) -> list[Request]:
        return [each for each in self.requests if each.path.endswith(self.suffix)]

    def accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.connection, args=(sock,), daemon=True).start()

    def connection(self, sock: socket.socket) -> None:
        sock.settimeout(30)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(OSError):
            self.converse(sock if self.tls is None else self.tls.wrap_socket(sock, server_side=True))

    def converse(self, sock: socket.socket) -> None:
        with sock:
            if self.suffix == "":  # before the request
                self.behave(Request(self, sock, "", {}, None, len(self.requests)))
                return
            while (request := self.parse(sock)) is not None:
                self.requests.append(request)
                if request.path.endswith(self.suffix):
                    self.behave(request)
                    return
                request.serve()

    def parse(self, sock: socket.socket) -> Request | None:
        data = b""
        while not data.endswith(LINE * 2):
            if not (piece := sock.recv(4096)):
                return None
            data += piece
        first, *lines = data.decode().strip().split("\r\n")
        path = first.split()[1]
        file = self.public / path.lstrip("/").partition("?")[0]
        fields = {name.lower(): text.strip() for name, _, text in (line.partition(":") for line in lines)}
        number = sum(each.path == path for each in self.requests)
        return Request(self, sock, path, fields, file.read_bytes() if file.is_file() else None, number)


@contextmanager
def hostile(
    public: Path, behave: Behaviour, suffix: str, tls: ssl.SSLContext | None = None
) -> Iterator[tuple[Hostile, str]]:
    """Run such a server; yields it and its URL."""
    server = Hostile(public, behave, suffix, tls)
    thread = threading.Thread(target=server.accept, daemon=True)
    thread.start()
    try:
        yield server, f"{'https' if tls else 'http'}://127.0.0.1:{server.port}"
    finally:
        server.stopped.set()
        server.listener.shutdown(socket.SHUT_RDWR)
        server.listener.close()
        thread.join()


@lru_cache
def bomb(size: int) -> bytes:
    """A gzip file of many members that expands to ``size`` zero bytes."""
    member = gzip.compress(bytes(16 << 20), 9)
    return member * (size >> 24)


def forever(data: bytes) -> Iterator[bytes]:
    while True:
        yield data


def at_once_forever(request: Request, data: bytes) -> None:
    """Send the same bytes again and again, as fast as they are taken."""
    while not request.server.stopped.is_set():
        request.send(data)
