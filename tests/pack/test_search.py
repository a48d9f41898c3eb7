"""Choosing a grid on real answers, and packing on a parent's grid."""

from __future__ import annotations

import copy
import dataclasses
import math
import os
import signal

import numpy as np
import pytest
import torch

from seedcnn.bundle import grid_of_step, read_bundle
from seedcnn.bundle.delta import apply_delta, read_delta
from seedcnn.convert import GhostConfig, GroupNLConfig, MonoConfig, convert_
from seedcnn.errors import BundleError, ConfigError, ExportError
from seedcnn.evaluate import torch_predictor
from seedcnn.export import absorbed_norms, fold, to_onnx
from seedcnn.export.bundles import OnGrid, grids_of_step, is_weight, vector_grids
from seedcnn.models import create_model
from seedcnn.pack import Parent, Search, pack
from seedcnn.pack.measuring import Runtime
from seedcnn.pack.memory import Inputs, Memory
from seedcnn.pack.parent import _prices
from seedcnn.pack.search import search_grids
from seedcnn.pack.statistics import fisher_information
from tests.few import few
from tests.pack.trained import INFO, small_trained


@pytest.fixture(scope="module")
def trained():
    return small_trained()


@pytest.fixture(scope="module")
def fine(trained):
    """The network in steps of 1/512."""
    return pack(trained[0], INFO, *trained[1:], step=1 / 512)


@pytest.fixture(scope="module")
def coarse(trained):
    """The network in steps of 1/100."""
    return pack(trained[0], INFO, *trained[1:], step=0.01)


@pytest.fixture(scope="module")
def exported(trained):
    return to_onnx(fold(trained[0]))


@pytest.fixture(scope="module")
def unsure(trained):
    """Noise for calibration, with the network's own answers as labels: it is not sure of them, so steps soon show."""
    noise = np.random.default_rng(5).integers(0, 256, (300, 32, 32, 3), np.uint8)
    own = torch_predictor(trained[0], (0.5,) * 3, (0.25,) * 3)(noise).argmax(1)
    return Search(noise, own, 1.0)


@pytest.fixture(scope="module")
def found(trained, unsure):
    return pack(trained[0], INFO, *trained[1:], search=unsure)


def test_the_search_takes_the_coarsest_grid_that_is_good_enough(fine, found):
    chosen = [each for each in found.tried if each.accepted][-1]
    assert [each.step for each in found.tried] == sorted(each.step for each in found.tried)
    assert chosen.drop + chosen.error <= 1
    assert (found.step, found.weight_bytes) == (chosen.step, chosen.weight_bytes)
    rejected = [each for each in found.tried if not each.accepted]
    assert all(each.drop + each.error > 1 and each.step > chosen.step for each in rejected)
    assert any(each.step == pytest.approx(chosen.step * 2**0.25) for each in rejected)
    sizes = [each.weight_bytes for each in found.tried]
    assert sizes == sorted(sizes, reverse=True)
    assert found.bits_per_weight < fine.bits_per_weight - 1  # how much, depends on the rounding of the training
    assert found.export.max_rel < 1e-5


def test_every_tensor_is_on_a_grid_or_too_short_for_one(found):
    for entry in read_bundle(found.data).manifest.tensors:
        if entry.seeded is None:
            assert entry.grid is not None or entry.elements < 8


def test_what_remains_per_channel_is_as_coarse_as_the_loss_allows(fine, found):
    plain, searched = (
        {e.name: e for e in read_bundle(data).manifest.tensors if e.grid is not None and not is_weight(e.shape)}
        for data in (fine.data, found.data)
    )
    assert plain.keys() == searched.keys()
    coarser = {name: entry.grid.step / plain[name].grid.step for name, entry in searched.items()}
    assert all(ratio >= 1 and ratio == 2 ** round(math.log2(ratio)) for ratio in coarser.values())
    assert len(set(coarser.values())) > 1


def _dividing_by_little(model):
    """A network whose graph divides by a number far below a coarse step."""
    broken = copy.deepcopy(model)
    broken.stages[0][0].bn1.bias.data[8:] = -100.0  # dead: the loss depends on no factor that the seeds are divided by
    broken.stages[0][0].bn1.bias.data[:8] = 0.0
    broken.stages[0][0].bn1.weight.data[0] = 1e-3
    return broken.eval()


def test_what_the_graph_divides_by_is_known(exported):
    absorbed = {f"{name}.scale" for name, found in absorbed_norms(exported.graph).items() if found}
    assert exported.divisors == absorbed != set()


def test_a_small_divisor_is_known(trained, exported):
    absorb = dict.fromkeys(absorbed_norms(exported.graph), True)
    assert "stages.0.0.conv1.scale" in to_onnx(fold(_dividing_by_little(trained[0]), absorb=absorb)).divisors


@pytest.mark.parametrize("how", few(["step", "search", "parent", "priced parent"], [1, 3]))
def test_what_the_graph_divides_by_is_not_rounded_to_zero(trained, coarse, how):
    model, images, labels = trained
    images, labels = images[:100], labels[:100]
    broken, parent, name = _dividing_by_little(model), read_bundle(coarse.data), "stages.0.0.conv1.scale"
    ways = {
        "step": {"step": 0.01},
        "search": {"search": Search(images, labels, 101.0)},
        "parent": {"parent": Parent(parent)},
        "priced parent": {"parent": Parent(parent, images, price=1e9)},
    }
    result = pack(broken, dataclasses.replace(INFO, release=5), images, labels, **ways[how])
    bundle = read_bundle(result.data)
    assert (bundle.tensors()[name] != 0).all()
    assert all(each.agreement > 0 for each in result.tried)
    assert result.export.max_rel < 1e-4


def test_a_divisor_of_wide_range_has_no_grid():
    wide = np.geomspace(1e-6, 1.0, 16, dtype=np.float32)
    narrow = np.geomspace(1e-2, 1.0, 16, dtype=np.float32)
    grids = vector_grids({"wide": wide, "narrow": narrow, "bias": wide}, {"wide", "narrow"})
    assert grids.keys() == {"narrow", "bias"}
    assert grids["narrow"].grid.step <= 1e-2 / 4
    assert grids_of_step({"w": wide.reshape(4, 4)}, 0.01, {"w"}) == {}


def test_steps_differ_by_sensitivity(coarse, found):
    entries = read_bundle(found.data).manifest.tensors
    steps = {e.grid.step for e in entries if e.grid is not None and len(e.shape) == 4}
    assert max(steps) > 1.5 * min(steps)
    plain = read_bundle(coarse.data).manifest.tensors
    assert len({e.grid for e in plain if e.grid is not None and len(e.shape) == 4}) == 1


@pytest.mark.parametrize("compression", ["zstd", "zlib", "xz"])
def test_the_integers_are_stored_as_asked(trained, coarse, compression):
    model, images, labels = trained
    result = pack(model, INFO, images[:50], labels[:50], step=0.01, compression=compression)
    manifest = read_bundle(result.data).manifest
    assert manifest.integers == compression
    plain = read_bundle(coarse.data).manifest
    assert (plain.integers, plain.tensors_sha256) == ("entropy", manifest.tensors_sha256)
    assert result.weight_bytes > coarse.weight_bytes


@pytest.mark.parametrize(
    "config", [GhostConfig(), MonoConfig(seed_filters=4), GroupNLConfig.paper(sparse=True)], ids=str
)
def test_other_forms(config):
    torch.manual_seed(0)
    model = create_model("resnet8_cifar", widths=(16, 16, 32), patch=4)
    convert_(model, config)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (96, 32, 32, 3), np.uint8)
    model.train()(torch.randn(16, 3, 32, 32))  # the norms' statistics
    result = pack(model.eval(), INFO, images, rng.integers(0, 10, 96), search=Search(images, np.zeros(96, np.int64), 5))
    assert result.export.max_rel < 1e-4
    assert any(each.accepted for each in result.tried)


def test_what_cannot_be_searched(trained):
    model, images, labels = trained
    with pytest.raises(ExportError, match=r"even a grid step of .* costs .* on 128 calibration images; at most"):
        pack(model, INFO, images, labels, search=Search(images[:400], labels[:400], -100.0))
    with pytest.raises(ValueError, match="holds 0 calibration images and `labels` 0; a search needs at least one"):
        Search(images[:0], labels[:0])
    with pytest.raises(ValueError, match="holds 400 calibration images and `labels` 3"):
        Search(images[:400], labels[:3])


class Stopped:
    """A user who presses Ctrl-C when ``count`` candidates are told."""

    def __init__(self, count):
        self.count, self.lines = count, []

    def __call__(self, text):
        self.lines.append(text)
        if sum(line.startswith("grid step") for line in self.lines) == self.count:
            self.count = -1
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("count", [1, 2])
def test_an_interrupted_search_says_what_it_had_found(trained, unsure, count):
    model, images, labels = trained
    user = Stopped(count)
    with pytest.raises(KeyboardInterrupt):
        pack(model, INFO, images, labels, search=unsure, progress=user)
    told = [line for line in user.lines if line.startswith("grid step") and line.endswith(": accepted")]
    best = max(told, key=lambda line: float(line.split()[2].rstrip(":")))
    size = best.split(": ")[1].split(" bytes")[0]
    assert user.lines[-1].startswith("interrupted; the best grid so far has a step of ")
    assert user.lines[-1].endswith(f": {size} bytes of weights")


def test_an_interrupt_before_any_grid_was_accepted(trained):
    model, images, labels = trained
    user = Stopped(1)
    with pytest.raises(KeyboardInterrupt):
        pack(model, INFO, images, labels, search=Search(images[:300], labels[:300], -100.0), progress=user)
    assert user.lines[-1] == "interrupted before a grid was accepted"


def test_where_the_time_went_is_told(found):
    assert set(found.seconds) == {
        *("folding and comparing", "exporting", "sensitivity of the weights", "statistics of the layers' inputs"),
        *("searching the grid", "coding", "accuracy before packing", "accuracy of the bundle"),
    }
    assert all(seconds > 0 for seconds in found.seconds.values())


def test_little_memory_changes_the_pieces_and_hardly_the_result(trained, unsure, exported, found):
    model, images, labels = trained
    parts = (fold(model), exported, INFO.preprocessing, unsure, Runtime("onnxruntime", 1, ()))
    grids, tried = search_grids(*parts, memory=Memory(700_000))
    assert max(each.step for each in tried if each.accepted) == pytest.approx(found.step, rel=0.5)
    assert grids.keys() == search_grids(*parts)[0].keys()
    with pytest.raises(ConfigError, match=r"`memory` is 0.1 MB, and a sixth of it is for activations; those of one im"):
        search_grids(*parts, memory=Memory(100_000))
    with pytest.raises(ConfigError, match=r"`memory` is 100.0 MB, but Python, torch and the network take .* give more"):
        pack(model, INFO, images, labels, memory="100MB", search=unsure)


def test_a_child_on_its_parent_s_grid_travels_as_a_small_delta(trained, coarse):
    model, images, labels = trained
    tuned = copy.deepcopy(model)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in tuned.parameters():
            parameter.add_(torch.randn_like(parameter) * 1e-4)
    info = dataclasses.replace(INFO, release=5)
    opened = read_bundle(coarse.data)
    child = pack(tuned, info, images, labels, parent=Parent(opened))
    assert {e.name: e.grid for e in read_bundle(child.data).manifest.tensors} == {
        e.name: e.grid for e in opened.manifest.tensors
    }
    assert child.step is None
    opened_delta = read_delta(child.delta)
    assert len(child.delta) < child.weight_bytes / 3 + 500
    made = read_bundle(apply_delta(opened, opened_delta))
    assert made.manifest.content_sha256() == read_bundle(child.data).manifest.content_sha256()


def test_on_a_coarse_grid_few_weights_change_and_the_answers_follow(trained, found):
    model, images, labels = trained
    parent = read_bundle(found.data)
    tuned = copy.deepcopy(model)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in tuned.parameters():
            parameter.add_(torch.randn_like(parameter) * parameter.std().nan_to_num(0) * 0.1)
    info = dataclasses.replace(INFO, release=5)
    plain = pack(tuned, info, images, labels, parent=Parent(parent))
    near = pack(tuned, info, images, labels, parent=Parent(parent, images[:200], price=0.1))
    dear = pack(tuned, info, images, labels, parent=Parent(parent, images[:200], price=1e9))
    assert len(dear.delta) < len(near.delta) < len(plain.delta)
    assert near.after.top1 >= plain.after.top1 - 2
    assert not read_delta(dear.delta).tensors  # biases and norms neither


def test_a_child_keeps_the_graph_of_its_parent(trained, coarse):
    """Even where its norms would now be folded in another way."""
    model, images, labels = trained
    parent = read_bundle(coarse.data)
    tuned = copy.deepcopy(model)
    tuned.stages[1][0].bn2.weight.data[0], tuned.stages[1][0].bn2.bias.data[0] = 1e-4, 0.1
    info = dataclasses.replace(INFO, release=5)
    child = read_bundle(pack(tuned, info, images[:50], labels[:50], parent=Parent(parent)).data)
    alone = read_bundle(pack(tuned, info, images[:50], labels[:50], step=0.01).data)
    assert child.graph() == parent.graph() != alone.graph()


def test_a_change_costs_by_what_it_does_to_the_loss(trained, found):
    model, images, _ = trained
    folded = fold(model)
    grids = {e.name: OnGrid(e.grid) for e in read_bundle(found.data).manifest.tensors if e.grid is not None}
    weights = [name for name in grids if is_weight(tuple(folded.get_parameter(name).shape))]
    pictures = Inputs(images[:64], INFO.preprocessing)
    prices = _prices(0.5, grids, folded, pictures, weights)
    sizes = [folded.get_parameter(name).numel() for name in weights]
    logs = [math.log(prices[name] / 0.5) for name in weights]
    assert sum(size * log for size, log in zip(sizes, logs, strict=True)) == pytest.approx(0, abs=1e-6)
    finer = grids | {"conv1.bias": OnGrid(grid_of_step(grids["conv1.bias"].grid.step / 2))}
    again = _prices(0.5, finer, folded, pictures, weights)
    assert again["conv1.bias"] == pytest.approx(4 * prices["conv1.bias"])  # half a step, a quarter of the loss
    assert again["fc.weight"] == pytest.approx(prices["fc.weight"])
    others = [name for name in grids if name not in weights]
    shares = fisher_information(folded, pictures, weights, other=others).shares
    assert prices["conv1.bias"] / prices["fc.weight"] == pytest.approx(
        (grids["fc.weight"].grid.step / shares["fc.weight"] * shares["conv1.bias"] / grids["conv1.bias"].grid.step) ** 2
    )


def test_a_parent_of_another_architecture(trained, coarse):
    _, images, labels = trained
    parent = read_bundle(coarse.data)
    for options in ({"widths": (16, 16, 48)}, {"widths": (16, 16, 32), "num_classes": 9}):
        torch.manual_seed(0)
        other = create_model("resnet8_cifar", patch=4, **options).eval()
        with pytest.raises(BundleError, match=r"the parent, small release 4, has another architecture; these tensors"):
            pack(other, dataclasses.replace(INFO, release=5), images, labels, parent=Parent(parent))
