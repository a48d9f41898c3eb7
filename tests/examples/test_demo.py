"""The demo runs from end to end, in short, and its report agrees with what the device answered."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from seedcnn.convert import GroupNLConfig, convert_
from seedcnn.evaluate import cost
from seedcnn.models import create_model
from seedcnn.plan import narrow_to_macs
from seedcnn.train import build_model, find_recipe

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "examples" / "demo.py"


@pytest.mark.parametrize("file", ["demo", "resnet8"])
def test_narrowed_recipe_is_what_the_planner_gives(file):
    vanilla, grown = find_recipe(f"{file}:vanilla"), build_model(find_recipe(f"{file}:groupnl"))
    widths = narrow_to_macs(vanilla.model, cost(grown).macs, **vanilla.model_options)
    assert find_recipe(f"{file}:narrow").model_options["widths"] == widths


def test_recipe_docstrings_state_the_counts():
    counts = {
        "resnet8": (create_model("resnet8_cifar", widths=(32, 64, 128), patch=2), (308_170, 12.2), (156_234, 6.1)),
        "demo": (create_model("air_cifar", widths=(16, 64, 128)), (272_122, 12.8), (137_738, 6.6)),
    }
    for file, (model, vanilla, seeds) in counts.items():
        assert (cost(model).params, round(cost(model).macs / 1e6, 1)) == vanilla
        convert_(model, GroupNLConfig())
        assert (cost(model).params, round(cost(model).macs / 1e6, 1)) == seeds
        text = (ROOT / "recipes" / f"{file}.py").read_text()
        assert f"{vanilla[0]:,} parameters, {vanilla[1]} MMACs" in text
        assert f"{seeds[0]:,} parameters, {seeds[1]} MMACs" in text


def in_process(arguments, capsys):
    spec = importlib.util.spec_from_file_location("demo", DEMO)
    demo = importlib.util.module_from_spec(spec)
    sys.modules["demo"] = demo  # where its dataclasses look for their names
    try:
        spec.loader.exec_module(demo)
        demo.main(arguments)
    finally:
        del sys.modules["demo"]
    return capsys.readouterr().out


def as_process(arguments, capsys):
    done = subprocess.run([sys.executable, DEMO, *arguments], text=True, capture_output=True, timeout=560)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("run", "images", "corrupted", "epochs"),
    [(in_process, 1000, 20, 4), pytest.param(as_process, 6000, 60, 1, marks=pytest.mark.slow)],
    ids=["short", "long"],
)
def test_demo_end_to_end(run, images, corrupted, epochs, tmp_path, cifar10, capsys):
    out = tmp_path / "out"
    short = ["--epochs", str(epochs), "--images", str(images), "--corrupted", str(corrupted)]
    text = run(["--out", str(out), *short], capsys)
    for words in (
        "release 1 is installed in slot a",
        "release 2 is installed in slot b",
        "; by a delta of ",
        "release 3 is installed in slot a",
        "refused 4, ",
        "release 3 still answers, as before",
    ):
        assert words in text
    assert str(out) not in text.rstrip().rpartition("\n")[0]
    assert "[{" not in text
    for stage in re.split(r"^.* ─+$", text, flags=re.MULTILINE):
        lines = stage.strip().splitlines()
        assert len(lines) <= 24, stage
        assert max(map(len, lines), default=0) <= 110  # a command is not broken
    found = re.findall(r"device ([\d.]+) % of 1000 images\ntorch with the shipped weights ([\d.]+)", text)
    assert len(found) == 3
    for device, torch_same in found:
        assert abs(float(device) - float(torch_same)) <= 0.1
        assert float(device) > 12  # better than guessing, by two standard errors
    assert text.rstrip().splitlines()[-1] == f"report: {out / 'report.html'}"
    html = (out / "report.html").read_text()
    first = re.search(r"^Take (vanilla|narrowed|GroupNL r=2|recommended)", text, re.MULTILINE)
    assert first is not None
    assert f'<p class="first">{first[0]}' in html
    assert html.index("Which to take") < html.index("At a glance")
    for words in (
        "GroupNL r=2",
        "narrowed",
        "vanilla",
        "recommended",
        "137,738",
        "272,122",
        "gaussian_noise, severity 3",
        "<svg",
    ):
        assert words in html
