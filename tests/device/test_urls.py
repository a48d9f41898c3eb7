"""URLs of repositories: what is accepted reaches the server, and everything else is refused by name before any work."""

from __future__ import annotations

import json

import pytest

from seedcnn.device.agent import init, update
from seedcnn.device.config import check_url
from seedcnn.errors import DeviceError, UpdateError
from seedcnn.server.static import serve
from tests.device.fleet import Device

WRONG = [
    "",
    "ftp://host/",
    "file:///etc",
    "host:8000",
    "http://",
    "http://:80",
    "http://host:0",
    "http://host:65536",
    "http://host:x",
    "http://[::1",
    "http://::1:8000",
    "http://[nonsense]/",
    "http://host/?",
    "http://host/?a=b",
    "http://host/#x",
    "http://ho st",
    "http://host\n",
    "http://host\\x",
    "http://host/\x1b[31m",
    None,
    5,
    b"http://host",
]


@pytest.mark.parametrize("url", WRONG, ids=repr)
def test_what_is_no_url_is_refused_by_name(url):
    with pytest.raises(ValueError, match=r"^`url` ") as caught:
        check_url(url)
    assert repr(url) in str(caught.value)


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("https://[2001:db8::1]/models/", "https://[2001:db8::1]/models"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000"),
        ("HTTP://Host", "HTTP://Host"),
    ],
)
def test_what_is_a_url_is_kept_without_the_last_slash(url, kept):
    assert check_url(url) == kept


def test_a_device_updates_over_ipv6(fleet, tmp_path):
    fleet.publish(1)
    with serve(fleet.directory, "::1") as server:
        assert server.url.startswith("http://[::1]:")
        device = Device(tmp_path / "home")
        root = fleet.directory / "root.json"
        done = device.command("init", "--root", root, "--url", server.url, "--family", "demo")
        assert (done.returncode, done.stderr) == (0, "")
        done = device.command("update")
        assert (done.returncode, done.stdout) == (0, "release 1 is installed in slot a (before: none)\n")


@pytest.mark.parametrize("url", ["ftp://host", "", "http://[::1"])
def test_a_wrong_url_is_refused_before_any_work(device, fleet, tmp_path, url):
    states = device.states()
    with pytest.raises(ValueError, match="`url`"):
        update(device.home, url)
    assert device.states() == states
    with pytest.raises(ValueError, match="`url`"):
        init(tmp_path / "new", fleet.directory / "root.json", url, "demo")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [("url", "ftp://host", "`url` "), ("family", "../x", "`family` "), ("runtime", "tflite", "tflite")],
)
def test_a_config_that_somebody_edited_is_one_sentence(device, field, value, words):
    path = device.home / "config.json"
    content = json.loads(path.read_bytes())
    path.write_text(json.dumps({**content, field: value}))
    with pytest.raises(DeviceError, match=rf"config\.json cannot be read: .*{words}"):
        device.update()
    for command in ("update", "status"):
        done = device.command(command)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert words in line


@pytest.mark.parametrize("host", ["no.such.host.invalid", "a..b", "x" * 70, "\u732b.invalid"])
def test_a_host_that_is_not_there_is_one_sentence(device, host):
    with pytest.raises(UpdateError, match="could not be downloaded") as caught:
        device.update(f"http://{host}/")
    assert "\n" not in str(caught.value)
