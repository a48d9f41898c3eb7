"""``torchrun -m seedcnn.cli``: one table, one voice, and a record that goes on after kill -9."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from seedcnn.train import Checkpoint, TrainConfig, build_model, save_checkpoint
from tests.cli.calls import as_process, command, in_process

SOME = ["--images", 1000, "--corruptions", "gaussian_noise,contrast,pixelate"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "seedcnn.cli"]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, cifar10, one_thread):
    """a.ckpt, an untrained network, and nan.ckpt, one that answers NaN."""
    folder = tmp_path_factory.mktemp("models")
    config = TrainConfig(model="resnet8_cifar", model_options={"widths": (4, 4, 8), "patch": 8}, epochs=1)
    torch.manual_seed(0)
    model = build_model(config).eval()
    save_checkpoint(folder / "a.ckpt", Checkpoint(config, 1, model.state_dict()))
    broken = {name: torch.full_like(value, torch.nan) for name, value in model.state_dict().items() if "fc" in name}
    save_checkpoint(folder / "nan.ckpt", Checkpoint(config, 1, {**model.state_dict(), **broken}))
    return folder


def start(*arguments):
    words = [*TORCHRUN, *map(str, arguments)]
    return subprocess.Popen(words, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)


def one(*arguments):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        return as_process(*arguments).stdout


def workers(parent):
    """The processes of the run below torchrun."""
    return [int(each) for each in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def test_the_first_process_alone_prints_and_writes(folder, tmp_path, start_group):
    """In processes that torchrun's environment joins; the command takes the data and the network as they are."""
    arguments = ["evaluate", folder / "a.ckpt", "--images", 100, "--corruptions", "contrast", "--json", "--csv"]
    for process in start_group(2, command, tmp_path / "told", [*arguments, tmp_path / "two.csv"]):
        process.join()
        assert process.exitcode == 0
    alone = in_process(*arguments, tmp_path / "one.csv")
    assert (tmp_path / "told.0.out").read_text() == alone.stdout
    assert "evaluating" in (tmp_path / "told.0.err").read_text()
    assert (tmp_path / "told.1.out").read_text() == (tmp_path / "told.1.err").read_text() == ""
    assert (tmp_path / "two.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()


@pytest.mark.slow
def test_two_processes_print_one_table(folder, tmp_path):
    arguments = ["evaluate", folder / "a.ckpt", *SOME, "--json"]
    run = start(*arguments, "--csv", tmp_path / "two.csv")
    out, err = run.communicate()
    assert run.returncode == 0, err
    assert out == one(*arguments, "--csv", tmp_path / "one.csv")
    assert (tmp_path / "two.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()
    assert err.count("evaluating ") == 1
    assert json.loads(out)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nan.ckpt", *SOME], "hold NaN"),
        (["a.ckpt", *SOME, "--seeds", 0], "--seeds 0: it must be at least 1"),
        (["a.ckpt", *SOME, "--record", "nowhere/r.json"], "record nowhere/r.json cannot be written"),
    ],
    ids=["NaN", "option", "record"],
)
def test_an_error_is_one_sentence(folder, arguments, words):
    run = start("evaluate", folder / arguments[0], *arguments[1:])
    out, err = run.communicate(timeout=200)
    assert (run.returncode, out) == (1, "")
    assert err.count("seedcnn: ") == 1, err
    assert words in next(line for line in err.splitlines() if line.startswith("seedcnn: "))
    assert err.count("Traceback") == err.count("ChildFailedError:") == 1, err  # torchrun's own report


@pytest.mark.slow
@pytest.mark.parametrize("restarts", [0, 1])
def test_a_killed_worker(folder, tmp_path, restarts):
    """Torchrun ends the run, which the record continues with one process; or it starts the group again itself."""
    record, whole = tmp_path / "r.json", tmp_path / "whole.json"
    arguments = ["evaluate", folder / "a.ckpt", *SOME, "--seeds", 4, "--json", "--record"]
    expected = one(*arguments, whole)
    TORCHRUN[4:4] = [f"--max-restarts={restarts}"]
    try:
        run = start(*arguments, record)
    finally:
        del TORCHRUN[4]
    deadline = time.monotonic() + 100
    while not record.exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(workers(run.pid)[1], signal.SIGKILL)
    out, err = run.communicate(timeout=200)
    assert run.returncode == (0 if restarts else 1), err
    assert (out or one(*arguments, record)) == expected
    assert record.read_bytes() == whole.read_bytes()
