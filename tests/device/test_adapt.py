"""Learning the statistics of a place: what is refused, what is kept, what answers, and what a new release drops."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from seedcnn.bundle import encode_grid, encode_raw, grid_of_step, read_bundle, write_bundle
from seedcnn.bundle.adaptable import Site
from seedcnn.bundle.codings import as_norms
from seedcnn.device.adapted import FILE, SHIPPED, LearnedSet, read_sets, write_sets
from seedcnn.device.adaptive import LEAST_WINDOW, AdaptiveModel
from seedcnn.device.learning import LEAST_IMAGES, adapt, classes_left, undo
from seedcnn.device.live import LiveModel
from seedcnn.device.runtime import Model
from seedcnn.device.status import status
from seedcnn.errors import AdaptError, DeviceError, ImageError
from seedcnn.runtime.pictures import canned_pictures
from seedcnn.runtime.session import open_session, preprocess
from seedcnn.server.repository import publish
from tests.device.bundles import CANNED_COUNT, CANNED_SEED, LABELS, RULE, _external
from tests.device.fleet import Device

WIDTH = 12


def images(n=64, *, noise=0.0, seed=0, lift=0):
    """Smooth pictures, and with noise the same pictures with noise."""
    rng = np.random.default_rng(seed)
    smooth = rng.normal(128, 50, (n, 4, 4, 3)).repeat(8, 1).repeat(8, 2)
    return np.clip(smooth + lift + rng.normal(0, 1, smooth.shape) * noise, 0, 255).astype(np.uint8)


def faint(pictures):
    return (128 + (pictures.astype(np.float32) - 128) / 12).astype(np.uint8)


def adaptable(release=1, *, collapse=False):
    """A convolution with a bias, a norm's place, ReLU, mean, and a classifier; statistics of smooth pictures."""
    rng = np.random.default_rng(3)
    weights = {
        "conv.weight": rng.normal(0, 0.3, (WIDTH, 3, 3, 3)),
        "conv.bias": rng.normal(0, 0.1, WIDTH),
        "fc.weight": rng.normal(0, 1, (WIDTH, 10)) + release / 100,
        "fc.bias": np.zeros(10),
    }
    known = images(256, seed=9)
    if collapse:  # of dull pictures, which all are of class 5; strong ones are of any
        known = faint(known)
        weights["fc.weight"][:, 5] = 0
        weights["fc.bias"][5] = 0.9
    weights = {name: values.astype(np.float32) for name, values in weights.items()}
    nodes = [
        helper.make_node("Conv", ["x", "conv.weight", "conv.bias"], ["z"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["z"], ["r"]),
        helper.make_node("ReduceMean", ["r", "axes"], ["m"], keepdims=0),
        helper.make_node("Gemm", ["m", "fc.weight", "fc.bias"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 32, 32])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(np.array([2, 3], np.int64), "axes")]
        + [_external(name, values.shape) for name, values in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()
    tapped = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    tapped.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, None))
    (z,) = open_session(tapped.SerializeToString(), weights).run(["z"], {"x": preprocess(known, RULE)})
    seen = np.stack([z.mean((0, 2, 3)), z.std((0, 2, 3))])
    blank = Model.of_bundle(read_bundle(_written(model, weights, seen, release, np.zeros((CANNED_COUNT, 10)))), "x")
    return _written(model, weights, seen, release, blank.logits(blank.bundle.canned_images()))


def _written(graph, weights, seen, release, logits):
    norms = as_norms(encode_grid("norms", seen.astype(np.float32), grid_of_step(2.0**-10)))
    return write_bundle(
        model="tiny",
        family="demo",
        release=release,
        min_release=0,
        graph=graph,
        graph_input="x",
        graph_output="logits",
        tensors=[*(encode_raw(name, values) for name, values in weights.items()), norms],
        preprocessing=RULE,
        labels=LABELS,
        canned_seed=CANNED_SEED,
        canned_logits=np.asarray(logits, np.float32),
        canned_tolerance=1e-2,
        canned_pictures=canned_pictures(CANNED_SEED, RULE),
        norms=(Site("z", WIDTH, ((0, 1, 0),)),),
    )


@pytest.fixture
def place(fleet, tmp_path):
    """A device that runs an adaptable release 1."""
    publish(fleet.directory, adaptable(1))
    device = fleet.device(tmp_path / "home")
    device.update()
    return device


def beside(device) -> AdaptiveModel:
    return AdaptiveModel.beside(Model.load(device.slots), device.slots)


NOISY = images(64, noise=90)


def test_a_learned_set_answers_where_it_was_learned_and_nowhere_else(place):
    shipped = Model.load(place.slots)
    assert type(beside(place)) is Model
    found = adapt(place.home, NOISY, name="night")
    assert (found.name, found.images, found.norms) == ("night", 64, 1)
    model = beside(place)
    noisy, clean, other = images(64, noise=90, seed=5), images(64, seed=5), images(64, seed=5, lift=120)
    assert not np.allclose(model.logits(noisy), shipped.logits(noisy), atol=0.01)
    assert model.chosen == "night"
    # With the set, noisy pictures look to the layers behind the norm as smooth ones did.
    for strange in (clean, other):
        assert np.array_equal(model.logits(strange), shipped.logits(strange))
        assert model.chosen == SHIPPED
    few = noisy[: LEAST_WINDOW - 1]
    assert np.array_equal(model.logits(few), shipped.logits(few))
    assert len(model.predict(noisy).labels) == 64


def test_several_sets_side_by_side(place):
    adapt(place.home, NOISY, name="night")
    adapt(place.home, images(64, lift=100), name="snow")
    model = beside(place)
    for name, window in {
        "night": images(64, noise=90, seed=4),
        "snow": images(64, lift=100, seed=4),
        SHIPPED: images(64, seed=4),
    }.items():
        model.logits(window)
        assert model.chosen == name
    assert [row["name"] for row in status(place.home)["sets"]] == ["night", "snow"]
    adapt(place.home, images(32, noise=90), name="night")
    assert [(row["name"], row["images"]) for row in status(place.home)["sets"]] == [("snow", 64), ("night", 32)]
    assert undo(place.home, "snow") == ("snow",)
    assert undo(place.home) == ("night",)
    assert not (place.home / FILE).exists()
    with pytest.raises(AdaptError, match=r"no set was learned for release 1 \(known: none\)"):
        undo(place.home)
    assert place.states()[-5:] == ["ADAPTED", "ADAPTED", "ADAPTED", "UNADAPTED", "UNADAPTED"]


def test_what_is_refused_leaves_everything_as_it_was(place, fleet, tmp_path):
    adapt(place.home, NOISY)
    before = (place.home / FILE).read_bytes()
    with pytest.raises(AdaptError, match=f"9 images are too few .*; at least {LEAST_IMAGES} are needed"):
        adapt(place.home, NOISY[:9])
    with pytest.raises(AdaptError, match="64 images, 1 of them distinct are too few"):
        adapt(place.home, np.repeat(NOISY[:1], 64, 0))
    with pytest.raises(ValueError, match=r"`images` is uint8 \(64, 16, 32, 3\)"):
        adapt(place.home, NOISY[:, :16])
    np.save(tmp_path / "small.npy", NOISY[:, :16])
    with pytest.raises(ImageError, match=r"small\.npy holds uint8 \(64, 16, 32, 3\)"):
        adapt(place.home, [tmp_path / "small.npy"])
    with pytest.raises(ImageError, match="absent"):
        adapt(place.home, [tmp_path / "absent.png"])
    for name in ("", SHIPPED, "a\nb", "x" * 65):
        with pytest.raises(ValueError, match="`set`"):
            adapt(place.home, NOISY, name=name)
    assert (place.home / FILE).read_bytes() == before
    fleet.publish(2)
    place.update()
    assert not (place.home / FILE).exists()
    with pytest.raises(AdaptError, match=r"tiny release 2 cannot be adapted: .* pack it with --adaptable"):
        adapt(place.home, NOISY)


def test_answers_that_collapse_are_refused(fleet, tmp_path):
    publish(fleet.directory, adaptable(1, collapse=True))
    device = fleet.device(tmp_path / "home")
    device.update()
    pool = images(2000, seed=7)
    answers = Model.load(device.slots).logits(pool).argmax(1)
    strong = pool[np.concatenate([np.flatnonzero(answers == each)[:12] for each in np.unique(answers)])]
    shipped = Model.load(device.slots).logits(strong)
    assert classes_left(shipped) > 2.6
    with pytest.raises(AdaptError, match=r"collapse from \d\.\d classes to 1\.0; at least 0\.4 of"):
        adapt(device.home, strong)
    assert not (device.home / FILE).exists()
    # Images that the shipped model too takes for one class say nothing against the set.
    assert adapt(device.home, faint(strong)).shipped_classes == 1


def test_how_many_classes_answers_spread_over():
    logits = np.zeros((100, 10))
    logits[np.arange(100), np.arange(100) % 10] = 1
    assert classes_left(logits) == pytest.approx(10)
    logits[:, 3] = 2
    assert classes_left(logits) == pytest.approx(1)


def test_a_new_release_drops_the_sets_and_another_model_does_not_take_them(place, fleet):
    adapt(place.home, NOISY)
    sha256 = place.slots.active().record.sha256
    sets = read_sets(place.home, sha256)
    assert len(sets) == 1
    assert read_sets(place.home, "0" * 64) == ()
    publish(fleet.directory, adaptable(2))
    place.update()
    assert not (place.home / FILE).exists()
    write_sets(place.home, sha256, sets)  # as if the power had gone before they were removed
    assert type(beside(place)) is Model
    assert status(place.home)["sets"] == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda value: value.pop("sets"),
        lambda value: value.update(format="seedcnn-adapted/2"),
        lambda value: value["sets"].append(value["sets"][0]),
        lambda value: value["sets"][0].update(means="AAAA!"),
        lambda value: value["sets"][0].update(means="AAAA"),
        lambda value: value["sets"][0].update(images=0),
        lambda value: value["sets"][0].update(name=SHIPPED),
        lambda value: value["sets"][0].update(more=1),
    ],
)
def test_a_damaged_file_is_as_none(place, spoil, caplog):
    adapt(place.home, NOISY)
    value = json.loads((place.home / FILE).read_bytes())
    spoil(value)
    (place.home / FILE).write_text(json.dumps(value))
    assert type(beside(place)) is Model
    assert "so the model answers as shipped" in caplog.text
    assert adapt(place.home, NOISY).images == 64


def test_statistics_that_cannot_be_are_refused(place):
    sha256 = place.slots.active().record.sha256
    good = np.ones(WIDTH, "<f4").tobytes()
    for bad in (np.full(WIDTH, -1, "<f4"), np.full(WIDTH, np.nan, "<f4"), np.ones(3, "<f4")):
        short = good[: len(bad.tobytes())]
        write_sets(place.home, sha256, [LearnedSet("bad", 20, 1, short, bad.tobytes())])
        with pytest.raises(DeviceError, match="the learned set 'bad' has"):
            beside(place)


KILLER = """
import os, signal, sys
import numpy as np
from seedcnn.device.learning import adapt
home, images, at = sys.argv[1], np.load(sys.argv[2]), int(sys.argv[3])
count = 0
def hook(event, arguments):
    global count
    names = [os.fsdecode(each) for each in arguments if isinstance(each, (str, bytes))]
    if event in {"open", "os.rename", "os.remove"} and any(home in each for each in names):
        count += 1
        if count == at:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
adapt(home, images)
print(count)
"""


def killed(device: Device, path, at: int) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-c", KILLER, str(device.home), str(path), str(at)]
    return subprocess.run(line, capture_output=True, text=True, timeout=120, check=False, env=dict(os.environ))


def test_killed_at_the_end_of_its_work_the_old_or_the_new_sets_answer(place, tmp_path):
    np.save(tmp_path / "noisy.npy", NOISY)
    done = killed(place, tmp_path / "noisy.npy", 0)
    assert done.returncode == 0, done.stderr
    calls = int(done.stdout)
    undo(place.home)
    shipped = Model.load(place.slots).logits(NOISY)
    kept = set()
    for at in range(max(1, calls - 9), calls + 1):
        assert killed(place, tmp_path / "noisy.npy", at).returncode == -signal.SIGKILL
        model = beside(place)
        answers = model.logits(NOISY)
        kept.add(type(model) is AdaptiveModel)
        assert np.array_equal(answers, shipped) != (type(model) is AdaptiveModel)
        if type(model) is AdaptiveModel:
            undo(place.home)
    assert kept == {False, True}
    assert adapt(place.home, NOISY).images == 64


def test_a_full_disk_keeps_the_old_sets(place, tmp_path):
    small = tmp_path / "disk"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(small)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    try:
        subprocess.run(["cp", "-a", str(place.home), str(small / "home")], check=True)
        home = small / "home"
        adapt(home, NOISY, name="old")
        before = (home / FILE).read_bytes()
        free = os.statvfs(small)
        (small / "ballast").write_bytes(bytes(free.f_bavail * free.f_frsize))
        with pytest.raises(AdaptError, match="nothing was learned: No space left on device"):
            adapt(home, NOISY, name="new")
        assert (home / FILE).read_bytes() == before
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_live_model_chooses_by_its_last_images(place):
    live = LiveModel(place.home, keep=48)
    noisy = images(96, noise=90, seed=6)
    shipped = Model.load(place.slots)
    for image in noisy[:48]:
        live.predict(image[None])
    with pytest.raises(AdaptError, match="48 images are in memory; 49 were asked for"):
        live.adapt(49)
    assert live.adapt(48, "night").images == 48
    for image in noisy[48:]:
        found = live.predict(image[None])
    assert live.model.chosen == "night"
    assert not np.allclose(found.probabilities, shipped.predict(noisy[-1:]).probabilities, atol=1e-4)
    for image in images(48, seed=8):
        found = live.predict(image[None])
    assert live.model.chosen == SHIPPED
    assert np.array_equal(found.probabilities, shipped.predict(images(48, seed=8)[-1:]).probabilities)
    with pytest.raises(ValueError, match="`keep`"):
        LiveModel(place.home, keep=0)


def test_the_commands(place, tmp_path):
    np.save(tmp_path / "noisy.npy", NOISY)
    done = place.command("adapt", "--images", tmp_path / "noisy.npy", "--set", "night")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("learned the set night from 64 images: 1 norms; the answers spread over")
    done = place.command("status", "--verbose")
    assert "last: learned night: 64 images" in done.stdout
    assert "learned    night (64 images, " in done.stdout
    done = place.command("adapt", "--last", "10")
    assert done.returncode == 1
    assert "--last needs a process that keeps its last images in memory" in done.stderr
    done = place.command("adapt", "--images", tmp_path / "noisy.npy", "--set", SHIPPED)
    assert (done.returncode, "`set` (='shipped')" in done.stderr) == (1, True)
    assert place.command("adapt", "--undo").stdout == "forgotten: night\n"
    assert place.command("adapt", "--undo").returncode == 1


def test_openvino_adapts_as_onnx_runtime_does(place):
    pytest.importorskip("openvino")
    adapt(place.home, NOISY)
    sets = read_sets(place.home, place.slots.active().record.sha256)
    other = images(64, noise=90, seed=5)
    found = [
        AdaptiveModel.of_model(Model.load(place.slots, runtime=runtime), sets)
        for runtime in ("onnxruntime", "openvino")
    ]
    answers = [model.logits(other) for model in found]
    assert [model.chosen for model in found] == ["here", "here"]
    np.testing.assert_allclose(*answers, atol=1e-3)
