"""The command, as a user or a service types it."""

from __future__ import annotations

import hashlib
import json
import re

import numpy as np
import pytest
from PIL import Image

from seedcnn.device.main import DEFAULT_HOME, main
from seedcnn.device.records import SlotRecord
from tests.device.bundles import LABELS, make_bundle
from tests.device.fleet import IMAGES, Device

COMMANDS = [
    "init",
    "update",
    "run",
    "rollback",
    "forget-bad",
    "adapt",
    "predict",
    "evaluate",
    "bench",
    "history",
    "status",
]


def test_the_whole_way(fleet, tmp_path):
    fleet.publish(1)
    device = Device(tmp_path / "home")
    root = fleet.directory / "root.json"
    done = device.command("init", "--root", root, "--url", fleet.url, "--family", "demo")
    assert (done.returncode, done.stderr) == (0, "")
    done = device.command("update")
    assert (done.returncode, done.stdout) == (0, "release 1 is installed in slot a (before: none)\n")
    Image.fromarray(IMAGES[0]).save(tmp_path / "p.png")
    np.save(tmp_path / "all.npy", IMAGES)
    done = device.command("predict", tmp_path / "p.png", tmp_path / "all.npy")
    lines = done.stdout.splitlines()
    assert len(lines) == 6
    best = device.logits().argmax(axis=1)
    assert lines[0].startswith(f"{tmp_path / 'p.png'}: {LABELS[best[0]]} 0.")
    assert lines[5].startswith(f"{tmp_path / 'all.npy'}[4]: {LABELS[best[4]]} ")
    done = device.command("status", "--json")
    assert json.loads(done.stdout)["active"]["release"] == 1


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
    line = (
        rf"demo  no release yet \| last: the check failed, \d+ seconds? ago: {fleet.url} has published nothing for .*\n"
    )
    assert re.match(line, capsys.readouterr().out)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["predict", "DIR/folder"], "folder is a directory without a picture"),
        (["predict", "DIR/absent.png"], "does not exist"),
        (["predict", "DIR/absent.npy"], "does not exist"),
        (["predict", "/dev/null"], "is not a picture of a known format"),
        (["predict", "DIR/[/b]:ghost:.png"], "[/b]:ghost:.png does not exist"),
        (["predict", "n" * 300], "File name too long"),
        (["evaluate", "DIR/file"], "file is not a directory of class folders"),
        (["evaluate", "DIR/absent"], "absent is not a directory of class folders"),
        (["evaluate", "DIR/folder"], "folder holds no class folder; the model knows airplane, automobile"),
        (["evaluate", "DIR"], "the model does not know the class config, folder, home, repository in "),
        (["update"], "http://127.0.0.1:1/metadata/2.root.json cannot be reached"),
        (["--home", "DIR/file", "status"], "is not initialised"),
        (["--home", "DIR/file/x", "update"], "is not initialised"),
        (["--home", "n" * 300, "bench"], "is not initialised"),
        (["--home", "DIR/config", "status"], "is not initialised"),
        (["init", "--root", "DIR/folder"], "cannot be initialised: Is a directory"),
        (["init", "--root", "DIR/file"], "the trust anchor was refused"),
        (["init", "--root", "ROOT"], "is already initialised"),
        (["--home", "DIR/new", "init", "--root", "DIR/absent"], "cannot be initialised: No such file"),
        (["--home", "DIR/file", "init", "--root", "ROOT"], "cannot be initialised: Not a directory"),
        (["--home", "DIR/file/x", "init", "--root", "ROOT"], "cannot be initialised: Not a directory"),
        (["--home", "/proc/x", "init", "--root", "ROOT"], "cannot be initialised: No such file"),
        (["--home", "DIR/new", "init", "--root", "ROOT", "--factory", "DIR/folder"], "Is a directory"),
        (["--home", "DIR/new", "init", "--root", "ROOT", "--factory", "DIR/file"], "file has 0 bytes"),
    ],
    ids=lambda value: "-".join(value)[:60] if isinstance(value, list) else "",
)
def test_what_a_user_can_type_is_one_sentence(fleet, tmp_path, make_bundle, arguments, words):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "config" / "config.json").mkdir(parents=True)
    (tmp_path / "f.bundle").write_bytes(make_bundle(1))
    device = fleet.device(tmp_path / "home", url="http://127.0.0.1:1", factory=tmp_path / "f.bundle")
    places = {"ROOT": str(fleet.directory / "root.json"), "DIR": str(tmp_path)}
    for name, place in places.items():
        arguments = [text.replace(name, place) for text in arguments]
    more = ["--url", fleet.url, "--family", "demo"] if "init" in arguments else []
    done = device.command(*arguments, *more)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("seedcnn-device: ")
    assert words in line
    assert device.release() == 1


def test_the_table_of_commands_is_frozen(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert re.findall(r"^    ([a-z-]+)(?: |$)", text, re.MULTILINE) == COMMANDS


def test_runtimes_from_init_to_status(fleet, tmp_path, capsys):
    pytest.importorskip("openvino")
    fleet.publish(1)
    np.save(tmp_path / "all.npy", IMAGES)
    home = ["--home", str(tmp_path / "home")]
    root = str(fleet.directory / "root.json")
    assert main([*home, "init", "--root", root, "--url", fleet.url, "--family", "demo", "--runtime", "auto"]) == 0
    assert main([*home, "status", "--verbose"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^runtime +auto$", out, re.MULTILINE)
    assert re.search(r"^choices +none yet$", out, re.MULTILINE)
    assert main([*home, "update"]) == 0
    assert main([*home, "status", "--verbose"]) == 0
    assert re.search(
        r"choices +(onnxruntime|openvino), 1 thread \(onnxruntime [\d.]+ ms, openvino [\d.]+ ms\)",
        capsys.readouterr().out,
    )
    answers = []
    for extra in ([], ["--runtime", "onnxruntime"], ["--runtime", "openvino"], ["--runtime", "auto"]):
        assert main([*home, "predict", str(tmp_path / "all.npy"), "--json", *extra]) == 0
        answers.append([item["index"] for item in json.loads(capsys.readouterr().out)])
    assert answers == [answers[0]] * 4


def test_predict_in_a_runtime_that_init_did_not_choose_tests_the_model_first(fleet, tmp_path, capsys):
    pytest.importorskip("openvino")
    fleet.publish(1, only="openvino")
    device = fleet.device(tmp_path / "home", runtime="openvino")
    device.update()
    np.save(tmp_path / "all.npy", IMAGES)
    predict = ["--home", str(device.home), "predict", str(tmp_path / "all.npy")]
    assert main(predict) == 0
    capsys.readouterr()
    assert main([*predict, "--runtime", "onnxruntime"]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "does not accept the graph" in err
    factory = tmp_path / "factory.bundle"
    factory.write_bytes(make_bundle(1, logit_error=0.5))
    # A slot that has passed no self-test, as if another runtime had answered differently.
    model = device.slots.path("a") / "model.bundle"
    model.write_bytes(factory.read_bytes())
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    record = SlotRecord("demo", 1, 0, digest, model.stat().st_size, "c" * 64, digest)
    device.slots.complete(device.slots.path("a"), record)
    assert main([*predict, "--runtime", "onnxruntime"]) == 1
    assert "the self-test failed: canned image 3 is off by 0.5" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "required: COMMAND"),
        (["fly"], "invalid choice"),
        (["predict"], "required: PATH"),
        (["predict", "x.png", "--resize"], "unrecognized arguments: --resize"),
        (["evaluate"], "required: DIR"),
        (["evaluate", "a", "b"], "unrecognized arguments: b"),
        (["init", "--root", "r", "--url", "ftp://x", "--family", "demo"], "`url` (='ftp://x')"),
        (["init", "--root", "r", "--url", "http://x", "--family", "../x"], "`family` (='../x')"),
        (
            ["init", "--root", "r", "--url", "http://x", "--family", "x", "--runtime", "tflite"],
            "invalid choice: 'tflite'",
        ),
        (["predict", "x.png", "--threads", "0"], "'0' must be a whole number, at least 1"),
        (["predict", "x.png", "--threads", "99999999999"], "'99999999999' must be at most 1024"),
        (["bench", "--runtime", "auto"], "invalid choice: 'auto'"),
        (["bench", "--rounds", "-1"], "'-1' must be a whole number"),
    ],
)
def test_wrong_arguments_exit_with_2(arguments, says, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_ends_with_an_example(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"Example: seedcnn-device {command}")
    assert str(DEFAULT_HOME) == "/var/lib/seedcnn-device"
