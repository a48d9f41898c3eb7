"""An idle check asks for the timestamp on the condition that it is new, and believes nothing without cause."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator

import pytest

from seedcnn.server.refresh import refresh
from tests.device.fleet import Device


class Recorder:
    """Forwards connections to a server and keeps what the server has sent."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._to, self.up, self.down = (host, int(port)), bytearray(), bytearray()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._socket.accept()
            except OSError:
                return
            far = socket.create_connection(self._to)
            for source, target, kept in ((near, far, self.up), (far, near, self.down)):
                threading.Thread(target=self._pump, args=(source, target, kept), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, kept: bytearray) -> None:
        try:
            while data := source.recv(1 << 16):
                kept += data  # before it is sent on, so that whoever has an answer finds it here
                target.sendall(data)
        except OSError:
            pass
        source.close()
        target.close()

    def of(self, device: Device) -> tuple[bytes, bytes]:
        """The bytes that a check of a device sends and receives."""
        self.up.clear()
        self.down.clear()
        device.update(self.url)
        return bytes(self.up), bytes(self.down)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def recorder(fleet) -> Iterator[Recorder]:
    found = Recorder(fleet.url)
    yield found
    found.close()


def test_an_idle_check_receives_no_metadata(device, fleet, recorder):
    _, first = recorder.of(device)
    assert b" 304 " not in first  # another address has given no tag yet
    for _ in range(2):
        up, down = recorder.of(device)
        assert (up.count(b"GET "), down.count(b" 304 "), down.count(b" 404 ")) == (2, 1, 1)
        assert len(up) < 400
        assert len(down) < 400


def test_new_metadata_is_fetched(device, fleet, recorder):
    recorder.of(device)
    refresh(fleet.directory)
    before = (device.home / "metadata" / "timestamp.json").read_bytes()
    _, down = recorder.of(device)
    assert b" 304 " not in down
    assert (device.home / "metadata" / "timestamp.json").read_bytes() != before
    assert b" 304 " in recorder.of(device)[1]
    fleet.publish(2)
    assert device.update(recorder.url).release == 2


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("validator.json", b"{}"),
        ("validator.json", b"\xff"),
        ("metadata/timestamp.json", b""),
        ("metadata/timestamp.json", b"{}"),
    ],
)
def test_damage_leads_to_the_whole_file(device, recorder, name, text):
    recorder.of(device)
    (device.home / name).write_bytes(text)
    _, down = recorder.of(device)
    assert b" 304 " not in down
    assert b" 304 " in recorder.of(device)[1]


@pytest.mark.parametrize("tag", ["plain", '"a\r\nX: y"', '"' + "x" * 300 + '"', 7])
def test_a_tag_that_is_none_is_not_sent(device, recorder, tag):
    recorder.of(device)
    path = device.home / "validator.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "tag": tag}))
    up, _ = recorder.of(device)
    assert b"If-None-Match" not in up
