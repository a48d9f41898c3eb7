"""The choice of the runtime: given, or measured once and remembered; and damage to that memory."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace

import numpy as np
import pytest

from seedcnn.bundle import read_bundle
from seedcnn.device.choice import Choice, Key, current_key, installed_runtimes, recall, remember, remembered
from seedcnn.device.config import Config, dump_config
from seedcnn.device.expand import expand
from seedcnn.device.measure import choose
from seedcnn.device.runtime import Model
from seedcnn.device.slots import Slots
from seedcnn.device.status import status
from seedcnn.errors import DeviceError, SelfTestError, SlotError, UpdateError
from tests.device.fleet import IMAGES, Device

pytest.importorskip("openvino")
BOTH = ("onnxruntime", "openvino")
KEY = Key("ab" * 32, 1, "a machine", {"onnxruntime": "1.0", "openvino": "2.0"})
CHOICE = Choice(KEY, "openvino", {"onnxruntime": 2.0, "openvino": 1.5}, {})


@pytest.fixture
def slots(tmp_path) -> Slots:
    return Slots(tmp_path)


@pytest.fixture
def auto(fleet, tmp_path) -> Device:
    """A device that runs release 1 with runtime auto."""
    fleet.publish(1)
    device = fleet.device(tmp_path / "auto", runtime="auto")
    device.update()
    return device


def chosen(bundle: bytes) -> Choice:
    opened = read_bundle(bundle)
    return choose(opened, expand(opened))[0]


def test_both_runtimes_are_here():
    assert tuple(installed_runtimes()) == BOTH


def test_what_is_remembered_is_recalled_under_its_key_only(slots):
    assert recall(slots.home, KEY) is None
    remember(slots, CHOICE)
    assert recall(slots.home, KEY) == CHOICE
    for change in (
        {"sha256": "cd" * 32},
        {"threads": 2},
        {"machine": "another"},
        {"versions": {"onnxruntime": "1.0", "openvino": "2.1"}},
        {"versions": {"onnxruntime": "1.0"}},
    ):
        assert recall(slots.home, dataclasses.replace(KEY, **change)) is None
    again = dataclasses.replace(CHOICE, runtime="onnxruntime")
    remember(slots, again)
    assert remembered(slots.home) == [again]


def test_the_newest_eight_are_kept(slots):
    for threads in range(1, 12):
        remember(slots, dataclasses.replace(CHOICE, key=dataclasses.replace(KEY, threads=threads)))
    assert [choice.key.threads for choice in remembered(slots.home)] == list(range(4, 12))


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: b"",
        lambda text: text[:-20],
        lambda text: b"[" * 100_000,
        lambda text: b"\xff" + text,
        lambda text: b"[1]",
        lambda text: text.replace(b"seedcnn-runtime/1", b"seedcnn-runtime/9"),
        lambda text: text.replace(b'"threads"', b'"thread"'),
        lambda text: text.replace(b'"runtime": "openvino"', b'"runtime": "/bin/sh"'),
        lambda text: text.replace(b"1.5", b'"x"'),
        lambda text: text.replace(b'"failed": {}', b'"failed": 3'),
        lambda text: text.replace(b'"failed"', b'"fail"'),
    ],
)
def test_a_damaged_memory_is_empty_and_is_written_anew(slots, damage, caplog):
    remember(slots, CHOICE)
    path = slots.home / "runtime.json"
    text = path.read_bytes()
    path.write_bytes(damage(text))
    assert path.read_bytes() != text
    assert remembered(slots.home) == []
    assert "runtime.json cannot be read, so the runtimes are measured again" in caplog.text
    remember(slots, CHOICE)
    assert recall(slots.home, KEY) == CHOICE


def test_a_memory_that_cannot_be_written_is_said_and_no_more(slots, caplog):
    with slots.lock():
        remember(slots, CHOICE)
        assert "could not be remembered" in caplog.text
        assert remembered(slots.home) == []
        remember(slots, CHOICE, locked=True)
    assert remembered(slots.home) == [CHOICE]
    remember(Slots(slots.home / "absent"), CHOICE)


def test_choose_measures_both_and_takes_the_faster(make_bundle):
    choice = chosen(make_bundle(1))
    assert set(choice.medians_ms) == set(BOTH)
    assert choice.runtime == min(choice.medians_ms, key=choice.medians_ms.get)
    assert all(0 < value < 1000 for value in choice.medians_ms.values())
    assert choice.key == current_key(read_bundle(make_bundle(1)).sha256, 1)


@pytest.mark.parametrize(("only", "other"), [BOTH, BOTH[::-1]])
def test_where_one_runtime_passes_it_is_that_one(make_bundle, only, other):
    choice = chosen(make_bundle(1, only=only))
    assert (choice.runtime, choice.medians_ms, set(choice.failed)) == (only, {}, {other})
    assert "does not accept the graph" in choice.failed[other]


def test_where_none_passes_each_is_named(make_bundle):
    with pytest.raises(SelfTestError, match=r"no runtime .*onnxruntime: .* off by .*; openvino: .* off by"):
        chosen(make_bundle(1, logit_error=0.5))


def test_update_measures_and_loading_does_not(auto):
    (choice,) = remembered(auto.home)
    assert choice.key.sha256 == auto.slots.active().record.sha256
    path = auto.home / "runtime.json"
    before = path.stat().st_ino
    model = Model.load(auto.slots)
    assert model.session.runtime == choice.runtime
    assert path.stat().st_ino == before


@pytest.mark.parametrize("runtime", BOTH)
def test_loading_believes_the_memory(auto, runtime):
    (choice,) = remembered(auto.home)
    remember(auto.slots, dataclasses.replace(choice, runtime=runtime))
    assert Model.load(auto.slots).session.runtime == runtime
    assert Model.load(auto.slots, runtime="onnxruntime").session.runtime == "onnxruntime"


def test_another_number_of_threads_or_a_damaged_memory_is_measured_and_remembered(auto):
    Model.load(auto.slots, threads=2)
    assert [choice.key.threads for choice in remembered(auto.home)] == [1, 2]
    (auto.home / "runtime.json").write_bytes(b"{")
    Model.load(auto.slots)
    assert [choice.key.threads for choice in remembered(auto.home)] == [1]
    (auto.home / "runtime.json").unlink()
    with auto.slots.lock():
        assert np.isfinite(Model.load(auto.slots).logits(IMAGES)).all()
    assert remembered(auto.home) == []


def test_a_remembered_runtime_that_runs_no_more_is_replaced(fleet, tmp_path):
    fleet.publish(1, only="onnxruntime")
    device = fleet.device(tmp_path / "home", runtime="auto")
    device.update()
    (choice,) = remembered(device.home)
    assert choice.runtime == "onnxruntime"
    remember(device.slots, dataclasses.replace(choice, runtime="openvino"))
    assert Model.load(device.slots).session.runtime == "onnxruntime"
    assert remembered(device.home) == [choice]


def test_options_are_measured_but_not_remembered(auto):
    (auto.home / "runtime.json").unlink()
    assert Model.load(auto.slots, arena=False).session.runtime in BOTH
    assert remembered(auto.home) == []


@pytest.mark.parametrize("runtime", [*BOTH, "auto"])
def test_update_and_answers_in_each_runtime(fleet, tmp_path, runtime):
    bundle = read_bundle(fleet.publish(1))
    device = fleet.device(tmp_path / "home", runtime=runtime)
    device.update()
    assert device.states()[-4:] == ["EXPAND", "SELFTEST", "SWITCH", "COMMITTED"]
    model = Model.load(device.slots)
    assert runtime in (model.session.runtime, "auto")
    np.testing.assert_allclose(model.logits(bundle.canned_images()), bundle.canned_logits(), atol=1e-3)
    fleet.publish(2, logit_error=0.5)
    with pytest.raises(UpdateError, match=r"off by 0\.5"):
        device.update()
    assert device.release() == 1


@pytest.mark.parametrize(("runtime", "only"), [BOTH, BOTH[::-1]])
def test_a_model_that_the_devices_runtime_cannot_run_is_refused(fleet, tmp_path, runtime, only):
    fleet.publish(1)
    device = fleet.device(tmp_path / "home", runtime=runtime)
    device.update()
    fleet.publish(2, only=only)
    with pytest.raises(UpdateError, match="does not accept the graph") as caught:
        device.update()
    assert "\n" not in str(caught.value)
    assert device.release() == 1


def test_status_tells_choice_and_medians(auto):
    result = status(auto.home)
    (choice,) = remembered(auto.home)
    assert result["runtime"] == "auto"
    assert result["runtimes"] == installed_runtimes()
    assert result["choices"] == [
        {"threads": 1, "runtime": choice.runtime, "medians_ms": choice.medians_ms, "failed": {}}
    ]
    other = dataclasses.replace(choice, key=dataclasses.replace(choice.key, machine="another"))
    remember(auto.slots, other)
    assert len(status(auto.home)["choices"]) == 1
    assert "medians_ms" in json.dumps(result)


def test_a_home_of_an_older_version_is_refused_in_words(device):
    path = device.home / "config.json"
    path.write_text(path.read_text().replace("seedcnn-device/2", "seedcnn-device/1"))
    with pytest.raises(DeviceError, match=r"has the format 'seedcnn-device/1', .*; remove it and initialise it anew"):
        device.update()


GOOD = Config("http://x", "demo", "onnxruntime", "camera-1", "lab")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b'{"format": "seedcnn-device/2"}',
        dump_config(replace(GOOD, runtime="tensorrt")),
        dump_config(replace(GOOD, device_id="")),
        dump_config(replace(GOOD, device_id="a/b")),
        dump_config(replace(GOOD, cohort="a b")),
        dump_config(GOOD).replace(b'"url"', b'"uri"'),
        dump_config(GOOD).replace(b'"lab"', b"7"),
    ],
)
def test_a_config_that_is_none_is_refused(device, text):
    (device.home / "config.json").write_bytes(text)
    with pytest.raises(DeviceError, match=r"config.json cannot be read"):
        device.update()
    with pytest.raises(ValueError, match="`runtime` \\(='tensorrt'\\) must be one of onnxruntime, openvino, auto"):
        Model.load(device.slots, runtime="tensorrt")


def test_the_memory_is_only_a_cache_for_a_model_that_is_damaged(auto):
    model = auto.slots.path(auto.slots.current()) / "model.bundle"
    model.write_bytes(model.read_bytes()[:-1] + b"\0")
    with pytest.raises(SlotError):
        Model.load(auto.slots)
