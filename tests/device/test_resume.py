"""A partial download outlives the transfer, the process and a change of server, and is bounded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from seedcnn.device.fetcher import DownloadLimits, PacedClient, TransferError
from seedcnn.device.part import Part, drop_parts
from seedcnn.device.transfer import fetch
from seedcnn.errors import UpdateError
from tests.device.fleet import expected_logits
from tests.device.hostile import Request, hostile

LIMITS = DownloadLimits(connects=2, backoff=0.01, socket_timeout=5)


def half(request: Request) -> None:
    request.serve(lambda begin, end: (begin + end) // 2 if request.number == 0 else begin)


def good(request: Request) -> None:
    request.serve()


def parts(device) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in device.home.glob("download/*")}


@pytest.fixture
def broken(device, fleet):
    """A device at release 1 with the first half of release 2, from a server that then broke off; and its content."""
    fleet.publish(2)
    with hostile(fleet.directory / "public", half, ".bundle") as (_, url), pytest.raises(UpdateError, match="broke"):
        device.update(url, LIMITS)
    return device


def test_the_next_update_asks_for_the_rest_only(broken, fleet):
    size = fleet.artefact(2).stat().st_size
    digest = fleet.artefact(2).name.partition(".")[0]
    assert parts(broken)[f"{digest}.part"] == size // 2
    with hostile(fleet.directory / "public", good, ".bundle") as (server, url):
        assert broken.update(url, LIMITS).release == 2
    (request,) = server.spoiled
    assert request.fields["range"] == f"bytes={size // 2}-"
    assert request.fields["if-range"] == request.etag
    assert request.fields["accept-encoding"] == "identity"
    assert request.sent == size - size // 2
    assert all(each.fields["accept-encoding"] == "gzip" for each in server.requests if each.path.endswith(".json"))
    assert parts(broken) == {}


@pytest.mark.parametrize("kills", [1, pytest.param(9, marks=pytest.mark.slow)])
def test_kill_9_in_the_middle_of_a_download(device, fleet, tmp_path, kills):
    answers = {1: device.logits(), 2: expected_logits(fleet.publish(2), tmp_path)}
    size = fleet.artefact(2).stat().st_size
    stops = [size * kill // (kills + 1) for kill in range(1, kills + 1)]

    def held(request: Request) -> None:
        request.serve(lambda begin, end: stops[request.number])
        request.hang()

    with hostile(fleet.directory / "public", held, ".bundle") as (first, url):
        path = device.home / "config.json"
        path.write_text(path.read_text().replace(fleet.url, url))
        for stop in stops:
            line = [sys.executable, "-m", "seedcnn.device.main", "--home", str(device.home), "update"]
            process = subprocess.Popen(line)
            deadline = time.monotonic() + 60
            while stop not in parts(device).values() and time.monotonic() < deadline:
                time.sleep(0.01)
            os.kill(process.pid, signal.SIGKILL)
            assert process.wait(timeout=60) == -signal.SIGKILL
    np.testing.assert_array_equal(device.logits(), answers[1])
    with hostile(fleet.directory / "public", good, ".bundle") as (last, url):
        assert device.update(url).release == 2
    assert sum(each.sent for each in first.spoiled + last.spoiled) == size
    np.testing.assert_array_equal(device.logits(), answers[2])


@pytest.mark.parametrize("spoiled", ["bytes", "too long", "whole", "etag", "empty"])
def test_a_part_that_is_not_what_it_seems_does_not_harm(broken, fleet, spoiled):
    (part,) = broken.home.glob("download/*.part")
    (etag,) = broken.home.glob("download/*.etag")
    size = fleet.artefact(2).stat().st_size
    if spoiled == "etag":
        etag.write_bytes(b'"x"\r\nHost: elsewhere')
    else:
        length = {"bytes": size // 2, "too long": size + 5, "whole": size, "empty": 0}[spoiled]
        part.write_bytes(bytes(length))
    with hostile(fleet.directory / "public", good, ".bundle") as (server, url):
        assert broken.update(url, LIMITS).release == 2
    assert sum(each.sent for each in server.spoiled) <= 1.5 * size + 1
    assert not any("elsewhere" in str(each.fields) for each in server.spoiled)


def test_another_artefact_drops_the_part(broken, fleet):
    fleet.publish(3)
    with hostile(fleet.directory / "public", half, ".bundle") as (_, url), pytest.raises(UpdateError, match="broke"):
        broken.update(url, LIMITS)
    digest = fleet.artefact(3).name.partition(".")[0]
    assert set(parts(broken)) == {f"{digest}.part", f"{digest}.etag"}
    assert broken.update().release == 3
    assert parts(broken) == {}


def test_a_bundle_that_could_not_be_tried_is_not_fetched_again(device, fleet):
    """As without memory, or without the runtime: what is verified stays."""
    fleet.publish(2)
    blocked = "import sys; sys.modules['onnxruntime'] = None; from seedcnn.device.main import main; sys.exit(main())"
    line = [sys.executable, "-c", blocked, "--home", str(device.home), "update"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "onnxruntime" in done.stderr
    fleet.artefact(2).unlink()
    assert device.update().release == 2


def test_a_missing_delta_does_not_cost_the_part_of_the_whole(fleet, device):
    fleet.publish(2, parent=1, deltas=1)
    (delta,) = (fleet.directory / "public" / "targets" / "demo").glob("*.delta")
    delta.unlink()
    size = fleet.artefact(2).stat().st_size
    with hostile(fleet.directory / "public", half, ".bundle") as (_, url), pytest.raises(UpdateError, match="broke"):
        device.update(url, LIMITS)
    with hostile(fleet.directory / "public", good, ".bundle") as (server, url):
        assert device.update(url, LIMITS).release == 2
    assert [each.sent for each in server.spoiled] == [size - size // 2]


def test_no_room_is_known_before_anything_is_fetched(tmp_path):
    with hostile(tmp_path, good, "x") as (server, url):
        client = PacedClient(LIMITS)
        (tmp_path / "x").write_bytes(b"content")
        with pytest.raises(OSError, match="No space left on device"):
            fetch(client, f"{url}/x", Part(tmp_path, "0" * 64, 1 << 60))
        client.close()
    assert len(server.requests) == 1
    drop_parts(tmp_path)
    assert not list(tmp_path.glob("download/*"))


@pytest.mark.parametrize("share", [0.3, 0.01])
def test_a_large_file_in_pieces(tmp_path, share):
    data = np.random.default_rng(1).bytes(3_000_000)
    (tmp_path / "x").write_bytes(data)

    def behave(request: Request) -> None:
        request.serve(lambda begin, end: min(end, begin + int(end * share)))

    with hostile(tmp_path, behave, "x") as (server, url):
        client = PacedClient(LIMITS)
        part = Part(tmp_path, "0" * 64, len(data))
        fetch(client, f"{url}/x", part)
        client.close()
    assert part.path.read_bytes() == data
    assert len(server.requests) == -(-1 // share)
    assert sum(each.sent for each in server.requests) == len(data)


def test_a_server_that_brings_less_than_the_minimum_rate_is_given_up_and_resumed_later(tmp_path):
    (tmp_path / "x").write_bytes(bytes(100_000))

    def slowly(request: Request) -> None:
        request.head("200 OK", "Content-Length: 100000")
        request.drip(bytes(1000), pause=0.01)

    part = Part(tmp_path, "0" * 64, 100_000)
    with hostile(tmp_path, slowly, "x") as (_, url):
        client = PacedClient(replace(LIMITS, grace=0.3, min_rate=5000))
        with pytest.raises(TransferError, match="bytes per second on average"):
            fetch(client, f"{url}/x", part)
        client.close()
    kept = part.size
    assert kept > 0
    with hostile(tmp_path, good, "x") as (server, url):
        client = PacedClient(LIMITS)
        fetch(client, f"{url}/x", part)
        client.close()
    assert server.requests[0].start == kept
