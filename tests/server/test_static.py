from __future__ import annotations

import gzip
import http.client
import os
import re
import socket
import threading
import urllib.error
import urllib.request

import pytest

from seedcnn.errors import RepositoryError
from seedcnn.server.families import add_family
from seedcnn.server.repository import init_repository, publish
from seedcnn.server.static import serve


@pytest.fixture
def repository(tmp_path, make_bundle):
    init_repository(tmp_path / "r")
    add_family(tmp_path / "r", "demo")
    publish(tmp_path / "r", make_bundle(1))
    return tmp_path / "r"


@pytest.fixture
def server(repository):
    with serve(repository) as server:
        yield server


def ask(server, path, **headers):
    """One request with headers; underscores in their names stand for hyphens."""
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=10)
    connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response, body


def get(server, path, method="GET"):
    """One request with the path exactly as given; clients refuse to send some of these."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        raw.sendall(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode("latin-1"))
        response = http.client.HTTPResponse(raw, method=method)
        response.begin()
        return response, response.read()


def test_files_are_served_byte_for_byte(server, repository):
    public = repository / "public"
    for path in public.rglob("*.*"):
        if path.is_file():
            response, body = get(server, f"/{path.relative_to(public)}")
            assert (response.status, body) == (200, path.read_bytes())
            assert int(response.headers["Content-Length"]) == len(body)
            kind = "application/json" if path.suffix == ".json" else "application/octet-stream"
            assert response.headers["Content-Type"] == kind
    head, body = get(server, "/metadata/timestamp.json", "HEAD")
    assert (head.status, body) == (200, b"")
    assert int(head.headers["Content-Length"]) > 0
    assert get(server, "/metadata/timestamp.json?x=1")[0].status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/metadata",
        "/metadata/",
        "/absent",
        "/../keys/targets-1.pem",
        "/metadata/../../keys/targets-1.pem",
        "/%2e%2e/keys/targets-1.pem",
        "/metadata/%2e%2e/%2e%2e/keys/targets-1.pem",
        "/..%2fkeys/targets-1.pem",
        "//etc/passwd",
        "/metadata//timestamp.json",
        "/%00",
        "/metadata/%00timestamp.json",
        "/metadata/timestamp.json%00",
        f"/{'x' * 300}",
        f"/metadata/{'x' * 300}.json",
        f"/{'x/' * 3000}x",
        f"/{'x' * 60_000}",
        "/%",
        "/%zz/%2",
        "/%ff%fe.json",
        "/%ed%a0%80",
        "/metadata/timestamp.json/",
        "/metadata/timestamp.json/x",
        "http://[x/metadata/timestamp.json",
        "/loop/x",
        "/pipe",
        "/metadata/.seedcnn-0a.tmp",
        "/..\\keys\\targets-1.pem",
        "/link",
    ],
)
def test_nothing_else_is_served(server, repository, path, capsys):
    (repository / "public" / "metadata" / ".seedcnn-0a.tmp").write_bytes(b"half")
    (repository / "public" / "link").symlink_to(repository / "keys" / "targets-1.pem")
    (repository / "public" / "loop").symlink_to("loop")
    os.mkfifo(repository / "public" / "pipe")
    response, body = get(server, path)
    assert (response.status, body) == (404, b"not found\n")
    response, body = get(server, path, "HEAD")
    assert (response.status, body) == (404, b"")
    assert capsys.readouterr().err == ""


def test_what_is_no_request_gets_a_400(server, capsys):
    assert get(server, "/\xe4\xff")[0].status == 400
    assert get(server, "/metadata/timestamp.json")[0].status == 200
    assert capsys.readouterr().err == ""


@pytest.fixture
def bundle(repository):
    """URL path and bytes of the published bundle."""
    (path,) = (repository / "public" / "targets").rglob("*.bundle")
    return f"/{path.relative_to(repository / 'public')}", path.read_bytes()


def test_ranges_are_of_the_file(server, bundle):
    path, data = bundle
    whole, _ = ask(server, path)
    assert whole.headers["Accept-Ranges"] == "bytes"
    for asked, begin, end in (("0-9", 0, 10), ("100-", 100, len(data)), ("-7", len(data) - 7, len(data))):
        response, body = ask(server, path, Range=f"bytes={asked}", Accept_Encoding="gzip")
        assert (response.status, body) == (206, data[begin:end])
        assert response.headers["Content-Range"] == f"bytes {begin}-{end - 1}/{len(data)}"
        assert "Content-Encoding" not in response.headers
    response, _ = ask(server, path, Range=f"bytes={len(data)}-")
    assert (response.status, response.headers["Content-Range"]) == (416, f"bytes */{len(data)}")
    tag = whole.headers["ETag"]
    assert ask(server, path, Range="bytes=5-", If_Range=tag)[1] == data[5:]
    assert ask(server, path, Range="bytes=5-", If_Range='"other"')[1] == data


def test_what_a_client_has_is_not_sent_again(server, repository, make_bundle):
    path = "/metadata/timestamp.json"
    for encoding in ("identity", "gzip"):
        tag = ask(server, path, Accept_Encoding=encoding)[0].headers["ETag"]
        response, body = ask(server, path, Accept_Encoding=encoding, If_None_Match=tag)
        assert (response.status, body) == (304, b"")
    publish(repository, make_bundle(2))
    assert ask(server, path, If_None_Match=tag)[0].status == 200


def test_metadata_is_compressed_and_bundles_are_not(server, repository, bundle):
    data = (repository / "public" / "metadata" / "1.root.json").read_bytes()
    response, body = ask(server, "/metadata/1.root.json", Accept_Encoding="gzip")
    assert response.headers["Content-Encoding"] == "gzip"
    assert len(body) < len(data)
    assert gzip.decompress(body) == data
    plain, body = ask(server, "/metadata/1.root.json")
    assert body == data
    # Not the same bytes, so nobody completes one with a range of the other.
    assert response.headers["ETag"] == f"W/{plain.headers['ETag']}"
    part, body = ask(server, "/metadata/1.root.json", Accept_Encoding="gzip", Range="bytes=1-4")
    assert (part.status, body) == (206, data[1:5])
    response, body = ask(server, bundle[0], Accept_Encoding="gzip")
    assert "Content-Encoding" not in response.headers
    assert body == bundle[1]


def test_requests_are_logged_when_asked(repository, capfd):
    for wanted in (False, True):
        with serve(repository, access_log=wanted) as server:
            ask(server, "/absent?x=1")
        assert ('"GET /absent?x=1 HTTP/1.1" 404' in capfd.readouterr().err) is wanted


def by_address(server):
    """Ask for the timestamp by the URL that the server prints."""
    with urllib.request.urlopen(f"{server.url}/metadata/timestamp.json", timeout=20) as response:
        return response.status


@pytest.mark.parametrize(("host", "shown"), [("::1", "[::1]"), ("[::1]", "[::1]"), ("::", "[::]"), ("", "0.0.0.0")])
def test_the_url_of_every_kind_of_address_works(repository, host, shown):
    with serve(repository, host) as server:
        port = server.url.rsplit(":", 1)[1]
        assert server.url == f"http://{shown}:{port}"
        assert by_address(server) == 200
        if host == "::":
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metadata/timestamp.json", timeout=20) as response:
                assert response.status == 200
        with pytest.raises(RepositoryError, match=rf"cannot serve on {re.escape(server.url[7:])}: "):
            serve(repository, shown, int(port))


def test_a_name_means_its_ipv4_address(repository):
    with serve(repository, "localhost") as server:
        assert server.url.startswith("http://127.0.0.1:")


@pytest.mark.parametrize("host", ["nowhere.invalid", "a..b", "x" * 64, "fe80::1%nowhere", "1.2.3", "::g"])
def test_an_address_that_is_none_is_refused_in_words(repository, host):
    with pytest.raises(RepositoryError, match="cannot serve on"):
        serve(repository, host)


def test_only_reading_is_allowed(server):
    for method in ("POST", "PUT", "DELETE"):
        assert get(server, "/metadata/timestamp.json", method)[0].status == 405


def test_connections_are_kept_open(server):
    host, port = server.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    for path, status in (("/metadata/timestamp.json", 200), ("/absent", 404), ("/metadata/1.root.json", 200)):
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        assert response.status == status
        assert not response.will_close
    connection.close()


def test_many_readers_at_once(server, repository):
    wanted = (repository / "root.json").read_bytes()
    answers = []

    def read():
        with urllib.request.urlopen(f"{server.url}/metadata/1.root.json", timeout=20) as response:
            answers.append(response.read())

    threads = [threading.Thread(target=read) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [wanted] * 20


def test_a_client_that_hangs_up_is_no_event(server, capsys):
    host, port = server.url.removeprefix("http://").split(":")
    for _ in range(5):
        with socket.create_connection((host, int(port))) as raw:
            raw.sendall(b"GET /metadata/1.root.json HTTP/1.1\r\nHost: x\r\n\r\n")
    assert get(server, "/metadata/1.root.json")[0].status == 200
    assert capsys.readouterr().err == ""


def test_the_port_is_free_again_afterwards(repository):
    with serve(repository) as server:
        url = server.url
        port = int(url.rsplit(":", 1)[1])
        with pytest.raises(RepositoryError, match=rf"cannot serve on 127\.0\.0\.1:{port}"):
            serve(repository, port=port)
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{url}/metadata/1.root.json", timeout=5)


def test_a_directory_that_is_no_repository(tmp_path):
    with pytest.raises(RepositoryError, match="has no public/metadata"):
        serve(tmp_path)
