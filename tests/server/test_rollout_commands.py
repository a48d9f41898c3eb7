"""``seedcnn rollout`` as typed: the ten commands of the docs, and what a user can mistype."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from seedcnn.bundle.report import Report
from seedcnn.cli.app import app
from seedcnn.cli.rollout import per_mille_of
from seedcnn.errors import ConfigError, RepositoryError

ROOT = Path(__file__).parents[2]


def invoke(*arguments):
    result = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def fleet(tmp_path, make_bundle):
    for release in (6, 7):
        (tmp_path / f"cifar-{release}.bundle").write_bytes(make_bundle(release, family="cifar"))
    (tmp_path / "reports").mkdir()
    return tmp_path / "fleet"


def typed(fleet, line):
    """A line of the docs, in the directory of ``fleet``."""
    names = {path.name: str(path) for path in fleet.parent.iterdir()} | {"fleet": str(fleet)}
    return [names.get(word, word) for word in shlex.split(line)][1:]


def test_the_ten_commands_of_the_docs(fleet):
    (block,) = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "rollouts.md").read_text(), re.DOTALL)
    said = [invoke(*typed(fleet, line)) for line in block.splitlines()]
    assert len(said) == 10
    assert said[4] == "Release 7 of cifar is offered to 1% of the devices; the others run release 6\n"
    lines = said[5].splitlines()
    assert lines[0] == "Release 7 of cifar, running: base release 6"
    assert lines[1] == "  dial: 1% of the devices, wave 1 of 4"
    assert lines[3] == "  rule 2: release 7 for 1% of the devices; the others run release 6"
    assert said[6] == "Release 7 of cifar is offered to 5% of the devices; the rollout is running\n"
    assert said[7].startswith("Wait: the soak of the wave at 5% lasts ")
    assert "  devices: 0 committed, 0 failed, 0 silent, 0 trying\n" in said[7]
    assert said[8] == "Paused at 5% of the devices\n"
    assert said[9] == "Release 6 of cifar is offered to every device\n"
    assert "Release 7 of cifar, stopped" in invoke("rollout", "status", fleet, "cifar")


def test_every_option_reaches_the_rule(fleet):
    for line in ("init fleet", "add-family fleet cifar", "publish fleet cifar-6.bundle"):
        invoke(*typed(fleet, f"seedcnn repo {line}"))
    invoke(*typed(fleet, "seedcnn repo publish fleet cifar-7.bundle --hold"))
    options = "--waves 0.5%,30% --soak 2h --deadline 1d --stop-at 0.1% --on-stop pause --cohort lab --cohort a "
    options += "--answers 5 --seconds 60 --max-bad 1 --latency-ms 20 --max-late 2%"
    said = invoke(*typed(fleet, f"seedcnn rollout start fleet cifar 7 {options}"))
    assert "is offered to 0.5% of the devices of a, lab" in said
    found = json.loads(invoke("rollout", "status", fleet, "cifar", "--json"))
    assert {name: found[name] for name in ("waves", "soak", "deadline", "stop_at", "on_stop", "cohorts", "dial")} == {
        "waves": [5, 300],
        "soak": 7200,
        "deadline": 86400,
        "stop_at": 1,
        "on_stop": "pause",
        "cohorts": ["a", "lab"],
        "dial": 5,
    }
    probation = {"answers": 5, "seconds": 60, "max_bad": 1, "latency_ms": 20, "max_late_per_mille": 20}
    assert (found["rule"]["probation"], "salts" in found) == (probation, False)
    # A failure, and many reports of another family.
    device = next(name for name in map(str, range(9999)) if _selected(found["salt"], name, 5))
    for number in range(25):
        family = "cifar" if number == 0 else "other"
        report = Report(f"{number:032x}", device, "lab", family, 2, 7, "ROLLED_BACK", found["started"], "probe")
        (fleet.parent / "reports" / str(number)).write_bytes(report.dump())
    said = invoke(*typed(fleet, "seedcnn rollout advance fleet cifar --reports reports"))
    assert "Stop: 1 of 1 devices failed (0 of them by silence), more than 0.1%" in said
    assert "  reasons of failures: probe 1\n" in said
    assert said.count("it is about family 'other'") == 20
    assert "Attention: ignored 4 more" in said
    assert said.rstrip().endswith("Paused") or "Paused\n" in said
    assert invoke("rollout", "resume", fleet, "cifar") == "Running at 0.5% of the devices of a, lab\n"
    assert invoke("rollout", "dial", fleet, "cifar", "0%", "--down").endswith("the rollout is running\n")
    with pytest.raises(RepositoryError, match="release 7 is not below 7"):
        invoke("rollout", "revert", fleet, "cifar", "--to", 7)
    assert invoke("rollout", "revert", fleet, "cifar", "--to", 6) == "Release 6 of cifar is offered to every device\n"


def _selected(salt, name, per_mille):
    from seedcnn.bundle.rollout import bucket

    return bucket(salt, name) < per_mille


@pytest.mark.parametrize(("text", "value"), [("5%", 50), ("0.1%", 1), ("12.50%", 125), ("100%", 1000), ("200%", 2000)])
def test_percentages(text, value):
    assert per_mille_of("--x", text) == value


@pytest.mark.parametrize("text", ["", "5", "%", "-1%", "0.05%", "1e1%", "\u0665%", "5 %", "1,5%", "99999%"])
def test_what_is_no_percentage(text):
    match = "can be no finer than 0.1%" if text == "0.05%" else "it must be a percentage, such as 5% or 0.1%"
    with pytest.raises(ConfigError, match=re.escape(f"--x {text!r}") + f".*{match}"):
        per_mille_of("--x", text)


@pytest.mark.parametrize("command", ["start", "status", "pause", "resume", "dial", "revert", "advance"])
def test_every_help_ends_with_an_example(command):
    assert f"Example: seedcnn rollout {command} fleet cifar" in invoke("rollout", command, "--help")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("status fleet cifar", "there is no rollout of 'cifar'"),
        ("pause fleet cifr", "has no family 'cifr'; did you mean cifar?"),
        ("start fleet cifar 7 --waves 5%,1%", "waves are 5%, 1%; each must be above the one before it"),
        ("start fleet cifar 7 --waves 1%,101%", "each must be from 0.1% to 100%"),
        ("start fleet cifar 7 --waves 0.25%", "a percentage can be no finer than 0.1%"),
        ("start fleet cifar 7 --soak 0h", "--soak 0h: it must be a number and a unit"),
        ("start fleet cifar 7 --deadline=-3d", "--deadline -3d: it must be a number and a unit"),
        ("start fleet cifar 7 --cohort LAB", "`cohort` (='LAB') must be 1 to 64 of a-z"),
        ("start fleet cifar 7 --max-late 200%", "probation.max_late_per_mille is 2000"),
        ("start fleet cifar 8", "release 8 of 'cifar' is not signed"),
        ("dial fleet cifar 5", "SHARE '5': it must be a percentage"),
        ("dial absent cifar 5%", "absent is not a repository"),
    ],
)
def test_what_a_user_can_type_is_one_sentence(made, arguments, words):
    line = [sys.executable, "-m", "seedcnn.cli", "rollout", *shlex.split(arguments)]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=60, cwd=made, env=ENVIRONMENT)
    assert (done.returncode, done.stdout) == (1, "")
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith("seedcnn: ")
    assert words in sentence


ENVIRONMENT = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}


@pytest.fixture(scope="module")
def made(tmp_path_factory, make_bundle):
    place = tmp_path_factory.mktemp("typed")
    (place / "7.bundle").write_bytes(make_bundle(7, family="cifar"))
    invoke("repo", "init", place / "fleet")
    invoke("repo", "add-family", place / "fleet", "cifar")
    invoke("repo", "publish", place / "fleet", place / "7.bundle", "--hold")
    return place
