"""Updates over https: the same limits hold, and a certificate that nobody vouches for is one sentence."""

from __future__ import annotations

import ssl
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from seedcnn.device.fetcher import DownloadLimits
from seedcnn.errors import UpdateError
from tests.device.certificates import server_context, write_certificate
from tests.device.hostile import Request, forever, hostile

LIMITS = DownloadLimits(deadline=1.0, socket_timeout=60.0, grace=60.0, backoff=0.01)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a certificate for 127.0.0.1 that has signed itself, and its key."""
    now = datetime.now(UTC)
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    return write_certificate(path, now - timedelta(days=1), now + timedelta(days=1))


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    return server_context(certificate)


def good(request: Request) -> None:
    request.serve()


def cut(request: Request) -> None:
    request.serve(lambda begin, end: begin + -(-(end - begin) * 3 // 10))


def test_an_unknown_certificate_is_one_sentence_at_once(device, fleet, tls):
    with hostile(fleet.directory / "public", good, ".bundle", tls) as (server, url):
        begin = time.monotonic()
        with pytest.raises(UpdateError, match="certificate verify failed"):
            device.update(url, replace(LIMITS, deadline=20.0, backoff=5.0))
        assert time.monotonic() - begin < 4  # without another try
    assert server.requests == []


def test_an_update_over_https_in_pieces(device, fleet, tls, certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    fleet.publish(2)
    with hostile(fleet.directory / "public", cut, ".bundle", tls) as (server, url):
        assert device.update(url).release == 2
    assert sum(each.sent for each in server.spoiled) == fleet.artefact(2).stat().st_size


def test_the_deadline_holds_over_https(device, fleet, tls, certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    fleet.publish(2)

    def drip(request: Request) -> None:
        request.drip(forever(b"HTTP/1.1 100 Continue\r\n\r\n"))

    with hostile(fleet.directory / "public", drip, ".bundle", tls) as (_, url):
        begin = time.monotonic()
        with pytest.raises(UpdateError, match="the deadline of 1 s has passed"):
            device.update(url, LIMITS)
        assert time.monotonic() - begin < 2
    assert device.release() == 1
    assert device.update().release == 2
