"""A static HTTP server over the public half of a repository; any web server or CDN can take its place.

It answers GET and HEAD of plain files over HTTP/1.1 with keep-alive, byte ranges and ETags, compresses metadata for
clients that take gzip, and never lists a directory. Starlette and uvicorn do the work. A 404 has a short body, because
a device that has nothing to fetch receives one at every check.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
from pathlib import Path
from types import TracebackType

import uvicorn
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from seedcnn.errors import RepositoryError

__all__ = ["StaticServer", "serve"]

_BACKLOG = 128
_KEPT_OPEN, _ENDING = 60, 1  # seconds: an idle connection, and requests that run when the server stops
_SMALLEST = 256  # bytes of metadata that are worth compressing


class _Public(StaticFiles):
    """Published files by their exact names."""

    def get_path(self, scope: Scope) -> str:
        """Return the path as it was asked for; nothing is normalised away."""
        return str(scope["path"])

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        """Find the published file that a request names."""
        try:
            names = path.split("/")[1:]
            # No published name starts with a dot; parent directories and half-written files do.
            if any(not name or name.startswith(".") or "\\" in name for name in names):
                return "", None
            assert self.directory is not None
            found = os.path.realpath(os.path.join(self.directory, *names))
            if not Path(found).is_relative_to(self.directory) or not os.path.isfile(found):
                return "", None
            return found, os.stat(found)
        except (ValueError, OSError):  # not a possible file name, or pruned meanwhile
            return "", None

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        """Answer with the file or 304; its type is JSON or plain bytes, whatever the system's table says."""
        kind = "application/json" if os.fspath(full_path).endswith(".json") else "application/octet-stream"
        response = FileResponse(full_path, status_code, stat_result=stat_result, media_type=kind)
        return _NotModified(response) if self.is_not_modified(response.headers, Headers(scope=scope)) else response


class _NotModified(Response):
    """A 304 with the ETag of the file."""

    def __init__(self, file: Response) -> None:
        super().__init__(status_code=304, headers={"etag": file.headers["etag"]})


class _Compressed:
    """Gzip for whole JSON files. Ranges are of the file itself, and bundles have been compressed once."""

    def __init__(self, app: ASGIApp) -> None:
        self._plain, self._gzip = app, GZipMiddleware(app, minimum_size=_SMALLEST)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not scope["path"].endswith(".json") or "range" in Headers(scope=scope):
            await self._plain(scope, receive, send)
            return

        async def weak(message: Message) -> None:
            # The compressed file is not the same bytes, so no range of the plain one may complete it.
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if "content-encoding" in headers and "etag" in headers:
                    headers["etag"] = f"W/{headers['etag']}"
            await send(message)

        await self._gzip(scope, receive, weak)


async def _absent(_: Request, __: Exception) -> Response:
    return PlainTextResponse("not found\n", 404)


def _listening(host: str, port: int) -> socket.socket:
    """Bind; "::" takes IPv4 too, whatever the system's default is."""
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    # A name may have addresses of both families; IPv4 is what it has always meant here.
    family, kind, protocol, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        bound.bind(address)
        bound.listen(_BACKLOG)
    except BaseException:
        bound.close()
        raise
    return bound


def _authority(host: str, port: int) -> str:
    """Return HOST:PORT as a URL has it, with an IPv6 address in brackets."""
    return f"[{host.replace('%', '%25')}]:{port}" if ":" in host else f"{host}:{port}"


class StaticServer:
    """A bound server. As a context manager it serves in a thread; :meth:`run` serves until stopped."""

    def __init__(self, public: Path, host: str, port: int, *, access_log: bool = False) -> None:
        address = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        try:
            self._socket = _listening(address, port)
        except (OSError, OverflowError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or error
            raise RepositoryError(f"cannot serve on {_authority(address, port)}: {why}") from None
        app = _Compressed(ExceptionMiddleware(_Public(directory=public.resolve()), handlers={404: _absent}))
        config = uvicorn.Config(
            app,
            access_log=access_log,
            log_config=None,
            log_level="error",
            lifespan="off",
            ws="none",
            server_header=False,
            timeout_keep_alive=_KEPT_OPEN,
            timeout_graceful_shutdown=_ENDING,
        )
        if access_log:
            _log_to_standard_error()
        self._server = uvicorn.Server(config)
        self._thread: threading.Thread | None = None
        host_name, found_port = self._socket.getsockname()[:2]
        self.url = f"http://{_authority(host_name, found_port)}"
        """The base URL without a trailing slash."""

    def run(self) -> None:
        """Serve in this thread until interrupted from the keyboard."""
        try:
            self._server.run(sockets=[self._socket])
        except KeyboardInterrupt:
            pass
        finally:
            self._socket.close()

    def __enter__(self) -> StaticServer:
        self._thread = threading.Thread(target=self.run, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join()


def _log_to_standard_error() -> None:
    """Write a line for each request: time, address, request, status."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger = logging.getLogger("uvicorn.access")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)


def serve(directory: str | Path, host: str = "127.0.0.1", port: int = 0, *, access_log: bool = False) -> StaticServer:
    """Bind a static server to ``directory/public``.

    Args:
        directory: a repository made by :func:`seedcnn.server.repository.init_repository`.
        host: a name, an IPv4 address or an IPv6 address, with or without brackets.
        port: 0 lets the system choose; see :attr:`StaticServer.url`.
        access_log: write a line for each request to standard error.

    Raises:
        RepositoryError: if there is no repository, or the address cannot be bound.
    """
    public = Path(directory) / "public"
    if not (public / "metadata").is_dir():
        raise RepositoryError(f"{directory} is not a repository: it has no public/metadata")
    return StaticServer(public, host, port, access_log=access_log)
