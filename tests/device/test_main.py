"""The command, as a user or a service types it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from seedcnn.device.main import DEFAULT_HOME, main
from tests.device.bundles import LABELS
from tests.device.fleet import PICTURES, Device


def test_the_whole_way(fleet, tmp_path):
    fleet.publish(1)
    device = Device(tmp_path / "home")
    root = fleet.directory / "root.json"
    done = device.command("init", "--root", root, "--url", fleet.url, "--family", "demo")
    assert (done.returncode, done.stderr) == (0, "")
    done = device.command("update")
    assert (done.returncode, done.stdout) == (0, "release 1 is installed in slot a (before: none)\n")
    Image.fromarray(PICTURES[0]).save(tmp_path / "p.png")
    np.save(tmp_path / "all.npy", PICTURES)
    done = device.command("predict", tmp_path / "p.png", tmp_path / "all.npy")
    lines = done.stdout.splitlines()
    assert len(lines) == 6
    best = device.logits().argmax(axis=1)
    assert lines[0].startswith(f"{tmp_path / 'p.png'}: {LABELS[best[0]]} 0.")
    assert lines[5].startswith(f"{tmp_path / 'all.npy'}[4]: {LABELS[best[4]]} ")
    done = device.command("status", "--json")
    assert json.loads(done.stdout)["active"]["release"] == 1


def test_predict_json_resize_and_refusals(device, tmp_path, capsys):
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(tmp_path / "wide.png")
    predict = ["--home", str(device.home), "predict", str(tmp_path / "wide.png")]
    assert main(predict) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "is 50 x 40 pixels; the model takes 32 x 32" in err
    assert main([*predict, "--resize", "--json", "--threads", "2"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert set(answer) == {"image", "index", "label", "probability"}
    assert answer["label"] == LABELS[answer["index"]]
    assert 0.1 <= answer["probability"] <= 1


def test_failures_are_one_sentence_and_code_1(tmp_path, fleet, capsys):
    home = ["--home", str(tmp_path / "home")]
    assert main([*home, "status"]) == 1
    assert "is not initialised; run: seedcnn-device" in capsys.readouterr().err
    init = [*home, "init", "--root", str(fleet.directory / "root.json"), "--url", fleet.url, "--family", "demo"]
    assert main([*init, "--factory", str(tmp_path / "absent.bundle")]) == 1
    assert "No such file" in capsys.readouterr().err
    assert main(init) == 0
    capsys.readouterr()
    assert main([*home, "predict", "x.png"]) == 1
    assert "no usable model" in capsys.readouterr().err
    assert main([*home, "update"]) == 1
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"seedcnn-device: {fleet.url} has published nothing for family 'demo'\n")
    assert main([*home, "status"]) == 0
    assert "last: state REFUSED" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "required: COMMAND"),
        (["fly"], "invalid choice"),
        (["predict"], "required: IMAGE"),
        (["init", "--root", "r", "--url", "ftp://x", "--family", "demo"], "`url` (='ftp://x')"),
        (["init", "--root", "r", "--url", "http://x", "--family", "../x"], "`family` (='../x')"),
    ],
)
def test_wrong_arguments_exit_with_2(arguments, says, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("command", ["init", "update", "predict", "status"])
def test_every_help_ends_with_an_example(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"Example: seedcnn-device {command}")
    assert str(DEFAULT_HOME) == "/var/lib/seedcnn-device"
