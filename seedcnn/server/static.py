"""A small static HTTP server over the public half of a repository; any web server or CDN can take its place.

It answers GET and HEAD of plain files over HTTP/1.1 with keep-alive and never lists a directory. A 404 has a short
body, because a device that has nothing to fetch receives one at every check.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

from seedcnn.errors import RepositoryError

__all__ = ["StaticServer", "serve"]


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "seedcnn"
    sys_version = ""
    timeout = 60
    # Send head and body in one packet; a second packet would wait 40 ms for the acknowledgement of the first.
    wbufsize = 64 << 10
    disable_nagle_algorithm = True

    def translate_path(self, path: str) -> str:
        """Return the published file that a request names, or "", which does not open and so becomes a 404."""
        try:
            names = unquote(urlsplit(path).path).split("/")[1:]
            # No published name starts with a dot; parent directories and half-written files do.
            if any(not name or name.startswith(".") or "\\" in name for name in names):
                return ""
            found = os.path.realpath(os.path.join(self.directory, *names))
        except ValueError:  # not a URL, or not a possible file name
            return ""
        return found if Path(found).is_relative_to(self.directory) and os.path.isfile(found) else ""

    def guess_type(self, path: str | os.PathLike[str]) -> str:
        """Return the type: JSON for metadata and rules, else plain bytes, whatever the system's table says."""
        return "application/json" if os.fspath(path).endswith(".json") else "application/octet-stream"

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer 404 in a few bytes and keep the connection open; leave other errors to the base class."""
        if code != HTTPStatus.NOT_FOUND:
            super().send_error(code, message, explain)
            return
        body = b"not found\n"
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing; a public server's log belongs to the web server in front of it."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, host: str, port: int, handler: Any) -> None:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        # A name may have addresses of both families; IPv4 is what it has always meant here.
        self.address_family, _, _, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
        super().__init__(address, handler)  # type: ignore[arg-type]  # four numbers and names for IPv6

    def server_bind(self) -> None:
        """Bind; "::" takes IPv4 too, whatever the system's default is."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def handle_error(self, request: Any, client_address: Any) -> None:
        # Ignore clients that hang up, and nothing else.
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


def _authority(host: str, port: int) -> str:
    """Return HOST:PORT as a URL has it, with an IPv6 address in brackets."""
    return f"[{host.replace('%', '%25')}]:{port}" if ":" in host else f"{host}:{port}"


class StaticServer:
    """A bound server. As a context manager it serves in a thread; :meth:`run` serves until stopped."""

    def __init__(self, public: Path, host: str, port: int) -> None:
        handler = partial(_Handler, directory=str(public.resolve()))
        address = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        try:
            self._server = _Server(address, port, handler)
        except (OSError, OverflowError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or error
            raise RepositoryError(f"cannot serve on {_authority(address, port)}: {why}") from None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The base URL without a trailing slash."""
        host, port = self._server.server_address[:2]
        return f"http://{_authority(host if isinstance(host, str) else host.decode(), port)}"

    def run(self) -> None:
        """Serve in this thread until interrupted from the keyboard."""
        try:
            self._server.serve_forever()
        except KeyboardInterrupt:
            pass
        finally:
            self._server.server_close()

    def __enter__(self) -> StaticServer:
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        if self._thread is not None:
            self._thread.join()


def serve(directory: str | Path, host: str = "127.0.0.1", port: int = 0) -> StaticServer:
    """Bind a static server to ``directory/public``.

    Args:
        directory: a repository made by :func:`seedcnn.server.repository.init_repository`.
        host: a name, an IPv4 address or an IPv6 address, with or without brackets.
        port: 0 lets the system choose; see :attr:`StaticServer.url`.

    Raises:
        RepositoryError: if there is no repository, or the address cannot be bound.
    """
    public = Path(directory) / "public"
    if not (public / "metadata").is_dir():
        raise RepositoryError(f"{directory} is not a repository: it has no public/metadata")
    return StaticServer(public, host, port)
