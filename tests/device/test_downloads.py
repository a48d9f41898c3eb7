"""Servers that are slow, break off or lie, on real sockets."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from seedcnn.device.fetcher import DownloadLimits, HttpStatusError, PacedClient, TransferError
from seedcnn.errors import UpdateError
from tests.device.fleet import Fleet


@contextmanager
def server(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            try:
                answer(self)
            except ConnectionError:
                self.close_connection = True

        def log_message(self, *arguments: object) -> None: ...

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_port}"
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


def head(handler: BaseHTTPRequestHandler, length: int, status: int = 200) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(length))
    handler.end_headers()


def drip(handler: BaseHTTPRequestHandler) -> None:
    head(handler, 1000)
    for _ in range(1000):
        handler.wfile.write(b"x")
        handler.wfile.flush()
        time.sleep(0.02)


def fetch(url: str, **limits: float) -> bytes:
    client = PacedClient(DownloadLimits(**limits))
    try:
        return b"".join(client.get(url))
    finally:
        client.close()


def test_whole_answer_arrives():
    def answer(handler):
        head(handler, 200_000)
        handler.wfile.write(bytes(200_000))

    with server(answer) as url:
        assert fetch(url) == bytes(200_000)


def test_slow_drip_is_given_up_by_rate():
    with server(drip) as url:
        begin = time.monotonic()
        with pytest.raises(TransferError, match="bytes per second on average; at least 500 are required"):
            fetch(url, grace=0.3, min_rate=500)
        assert 0.3 < time.monotonic() - begin < 3


def test_slow_drip_is_given_up_by_deadline():
    with server(drip) as url:
        begin = time.monotonic()
        with pytest.raises(TransferError, match=r"deadline of 0.4 s has passed"):
            fetch(url, deadline=0.4)
        assert 0.4 < time.monotonic() - begin < 3


def test_silence_is_given_up():
    def answer(handler):
        head(handler, 1000)
        handler.wfile.flush()
        time.sleep(1.5)

    with server(answer) as url:
        begin = time.monotonic()
        with pytest.raises(TransferError, match=r"broke off after 0 bytes.*timed out"):
            fetch(url, socket_timeout=0.2)
        assert time.monotonic() - begin < 1.4


def test_broken_connection():
    def answer(handler):
        head(handler, 1000)
        handler.wfile.write(bytes(300))
        handler.close_connection = True

    with server(answer) as url, pytest.raises(TransferError, match="broke off after 300 bytes"):
        fetch(url)


def test_nobody_there():
    with pytest.raises(TransferError, match=r"cannot be reached.*refused"):
        fetch("http://127.0.0.1:1/x")


def test_error_status_keeps_the_connection():
    ports = []

    def answer(handler):
        ports.append(handler.client_address[1])
        head(handler, 9, 404)
        handler.wfile.write(b"not found")

    with server(answer) as url:
        client = PacedClient(DownloadLimits())
        for _ in range(3):
            with pytest.raises(HttpStatusError, match="HTTP status 404"):
                client.get(url)
        client.close()
    assert len(set(ports)) == 1


def test_endless_error_page_is_not_read():
    def answer(handler):
        head(handler, 1 << 40, 500)
        while True:
            handler.wfile.write(bytes(65536))

    with server(answer) as url, pytest.raises(HttpStatusError, match="HTTP status 500"):
        fetch(url)


def proxy(fleet: Fleet, spoil: Callable[[BaseHTTPRequestHandler, bytes], None], suffix: str) -> Callable:
    """Serve the fleet's files, but let ``spoil`` send those whose name ends with ``suffix``."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        path = fleet.directory / "public" / handler.path.lstrip("/")
        if not path.is_file():
            head(handler, 0, 404)
            return
        data = path.read_bytes()
        if path.name.endswith(suffix):
            spoil(handler, data)
        else:
            head(handler, len(data))
            handler.wfile.write(data)

    return answer


def endless(handler: BaseHTTPRequestHandler, data: bytes) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    while True:
        handler.wfile.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")


def half(handler: BaseHTTPRequestHandler, data: bytes) -> None:
    head(handler, len(data))
    handler.wfile.write(data[: len(data) // 2])
    handler.close_connection = True


def slow(handler: BaseHTTPRequestHandler, data: bytes) -> None:
    head(handler, len(data))
    for byte in data:
        handler.wfile.write(bytes([byte]))
        handler.wfile.flush()
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("spoil", "suffix", "match"),
    [
        (endless, ".bundle", "sends more than the [0-9]+ bytes signed"),
        (endless, "timestamp.json", "sends more than the 16384 bytes allowed"),
        (endless, "demo.bundles.json", "sends more than the [0-9]+ bytes allowed"),
        (half, ".bundle", "could not be downloaded: .*broke off after"),
        (half, "snapshot.json", "could not be downloaded: .*broke off after"),
        (slow, ".bundle", "bytes per second on average"),
        (slow, "timestamp.json", "bytes per second on average"),
    ],
)
def test_lying_server(device, fleet, spoil, suffix, match):
    fleet.publish(2)
    limits = DownloadLimits(grace=0.2, min_rate=1000)
    with server(proxy(fleet, spoil, suffix)) as url:
        with pytest.raises(UpdateError, match=match):
            device.update(url, limits)
        assert device.slots.journal.last().state == "REFUSED"
        assert device.release() == 1
    assert device.update().release == 2
