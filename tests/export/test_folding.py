"""Folding and ONNX: the same function with fewer operations."""

from __future__ import annotations

import copy
import dataclasses
import functools

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from seedcnn.bundle import open_bundle, read_bundle
from seedcnn.convert import GroupNLConfig
from seedcnn.errors import BundleError, ExportError
from seedcnn.export import BundleInfo, absorbed_norms, fold, load_tensors, to_bundle, to_onnx
from seedcnn.export.bundles import is_weight
from seedcnn.layers import GroupNLConv2d
from seedcnn.layers.forms import DepthwiseSum
from seedcnn.layers.group_nl_form import FoldedGroupNL
from seedcnn.ops.group_nl import NLFS
from seedcnn.pack import preprocessing_of
from seedcnn.runtime.session import open_session
from tests.export.small import small_resnet
from tests.few import few

CONFIGS = {
    "vanilla": None,
    "sine": GroupNLConfig.paper(),
    "sine, batch norm on seeds": GroupNLConfig.paper(normalize="batch"),
    "r = 4": GroupNLConfig.paper(reduction_ratio=4, nlf_groups=2, normalize="batch"),
    "abs": GroupNLConfig.paper(nlf="abs"),
    "abs, r = 4": GroupNLConfig.paper(nlf="abs", reduction_ratio=4),
    "identity": GroupNLConfig.paper(nlf="identity"),
    "sparse": GroupNLConfig.paper(sparse=True, normalize="batch"),
    "groups of 4, shuffled": GroupNLConfig.paper(groups=4, shuffle=True),
    "reference": GroupNLConfig.paper(variant="reference"),
}
INFO = BundleInfo("tiny", "tests", 1, preprocessing_of((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)), list("abcdefghij"))


def settle(model, seed=0):
    """Running statistics and affines as after training: nothing is zero or one by accident."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value, low, high in (
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.4, 0.4),
                (module.running_mean, -0.3, 0.3),
                (module.running_var, 0.5, 2.0),
            ):
                value.uniform_(low, high, generator=generator)
    return model.eval()


def network(name):
    return settle(small_resnet(CONFIGS[name]))


@functools.cache
def exported_network(name):
    """The graph of ``network(name)``, made once: an export takes seconds."""
    return to_onnx(fold(network(name)))


def relative(a, b):
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize("name", CONFIGS)
def test_folded_network_is_the_same_function(name):
    model = network(name)
    x = torch.randn(4, 3, 32, 32)
    folded = fold(model)
    with torch.no_grad():
        assert relative(folded(x), model(x)) < 1e-5
    assert not any(isinstance(m, (nn.BatchNorm2d, GroupNLConv2d)) for m in folded.modules())
    assert not any(p.requires_grad for p in folded.parameters())
    assert any(isinstance(m, nn.BatchNorm2d) for m in model.modules())  # the original is untouched


def test_channels_that_never_vary_leave_no_huge_numbers():
    """As after training: a filter that reads a dead channel, and norms whose variances went to nothing."""
    model = network("sine, batch norm on seeds")
    conv, norm = model.stages[0][0].conv1, model.stages[0][0].bn1
    model.bn1.bias.data[0] = -30.0
    conv.weight.data[1, 1:] = 0
    x = torch.randn(4, 3, 32, 32)
    for each in (conv.norm, norm):  # where the channel is, and what it answers
        seen = {}
        handle = each.register_forward_pre_hook(lambda module, inputs, seen=seen: seen.update(x=inputs[0]))
        with torch.no_grad():
            model(x)
        handle.remove()
        still = seen["x"].std((0, 2, 3)) < 1e-6
        assert still.any()
        each.running_mean[still] = seen["x"].mean((0, 2, 3))[still]
        each.running_var[still] = 1e-13
    folded = fold(model)
    with torch.no_grad():
        assert relative(folded(x), model(x)) < 1e-5
    weights = [values for values in folded.parameters() if sum(size > 1 for size in values.shape) >= 2]
    assert max(float(values.abs().max()) for values in weights) < 50
    tensors = read_bundle(to_bundle(to_onnx(folded), INFO, step=1 / 512)).tensors()
    load_tensors(folded, tensors)
    with torch.no_grad():
        assert relative(folded(x), model(x)) < 0.05  # the still channels spoil nobody's grid


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("gamma", [0.0, 0.001, 1.0])
def test_a_channel_of_variance_zero_is_the_same_function(name, gamma):
    """One rule for plain convolutions and for ours, whatever the channel answers now."""
    model = network(name)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var[:2] = 0.0
            module.weight.data[:2] = gamma
    x = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        assert relative(fold(model)(x), model(x)) < 1e-4


@pytest.mark.parametrize("target", few(["onnxruntime", "openvino", "onnxruntime-custom-op"], [0]))
def test_a_parent_s_choice_of_what_is_absorbed_is_read_from_its_graph_and_kept(target):
    torch.manual_seed(0)
    options = {"padding": 1, "reduction_ratio": 4, "nlf_groups": 2, "normalize": "batch"}
    layers = [GroupNLConv2d(3, 16, 3, **options), nn.BatchNorm2d(16), nn.ReLU()]
    layers += [GroupNLConv2d(16, 16, 3, **options), nn.BatchNorm2d(16), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    model, size = settle(nn.Sequential(*layers)), (3, 8, 8)
    other = copy.deepcopy(model)
    other[4].weight.data[0] = 1e-4  # too little to be divided by, as a rule
    graphs = [to_onnx(fold(each, target=target), size).graph for each in (model, other)]
    ours, theirs = (absorbed_norms(graph) for graph in graphs)
    assert ours == {"0": True, "3": True}
    assert theirs == {"0": True, "3": False}
    x = torch.randn(2, *size)
    for each, absorb, graph in ((model, theirs, graphs[1]), (other, ours, graphs[0])):
        folded = fold(each, target=target, absorb=absorb)
        assert to_onnx(folded, size).graph == graph
        with torch.no_grad():
            assert relative(folded(x), each(x)) < 1e-3
    other[4].weight.data[0] = 0.0  # nothing can be divided by this
    assert absorbed_norms(to_onnx(fold(other, target=target, absorb=ours), size).graph) == theirs


@pytest.mark.parametrize("name", few(CONFIGS, [0, 2, 5, 7]))
def test_exported_graph_agrees_and_holds_no_weights(name):
    model, exported = network(name), exported_network(name)
    bundle = read_bundle(to_bundle(exported, INFO, step=None))
    session = open_session(bundle.graph(), bundle.tensors())
    x = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        expected = model(x)
    for batch in (x, x[:1]):
        (logits,) = session.run(["logits"], {"image": batch.numpy()})
        assert relative(torch.from_numpy(logits), expected[: len(batch)]) < 1e-5
    graph = onnx.load_from_string(exported.graph).graph
    inside = [t for t in graph.initializer if t.data_location != onnx.TensorProto.EXTERNAL]
    assert all(t.data_type == onnx.TensorProto.INT64 or list(t.dims) in ([], [1]) for t in inside)
    assert b"/" + b"seedcnn/" not in exported.graph  # no source paths
    assert {t.name for t in graph.initializer} - {t.name for t in inside} == set(bundle.tensors())


def test_seeded_tensors_come_back_bit_equal_to_the_layer():
    model = network("r = 4")
    bundle = read_bundle(to_bundle(exported_network("r = 4"), INFO, step=None))
    layer = model.stages[0][0].conv1
    tensors = bundle.tensors()
    n = layer.seed_channels // layer.nlf_groups
    expected = layer.omega.repeat_interleave(n).numpy()
    np.testing.assert_array_equal(tensors["stages.0.0.conv1.omega"].ravel(), expected)
    seeded = [entry.name for entry in bundle.manifest.tensors if entry.seeded]
    assert len(seeded) == 2 * 5
    left = sum(entry.elements for entry in bundle.manifest.tensors if not entry.seeded)
    assert sum(map(len, bundle.stored.floats.values())) == 4 * left


def test_numbers_of_a_public_checkpoint_travel_as_numbers():
    """They have no seed, so nothing may be drawn in their place."""
    torch.manual_seed(0)
    layer = GroupNLConv2d(3, 16, 3, padding=1, variant="reference")
    model = settle(nn.Sequential(layer, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)))
    state = model.state_dict()
    state["0.periods"] = torch.tensor([1.25, 1.5, 1.75, 1.875])
    model.load_state_dict(state)
    bundle = read_bundle(to_bundle(to_onnx(fold(model)), INFO, step=1 / 512))
    assert not any(entry.seeded for entry in bundle.manifest.tensors)
    omega = bundle.tensors()["0.omega"].ravel()
    np.testing.assert_array_equal(omega, np.repeat([1.25, 1.5, 1.75, 1.875], 2).astype(np.float32))


def test_sparse_seed_convolution_becomes_depthwise_and_sum():
    torch.manual_seed(0)
    layer = GroupNLConv2d(16, 16, 3, padding=1, sparse=True, bias=True)
    model = nn.Sequential(layer, nn.BatchNorm2d(16))
    folded = fold(settle(model))
    (form,) = (m for m in folded.modules() if isinstance(m, FoldedGroupNL))
    assert isinstance(form.seed_conv, DepthwiseSum)
    x = torch.randn(2, 16, 6, 6)
    with torch.no_grad():
        torch.testing.assert_close(folded(x), model(x), rtol=1e-5, atol=1e-5)


def test_scale_too_small_to_undo_is_not_absorbed():
    torch.manual_seed(0)
    model = settle(nn.Sequential(GroupNLConv2d(8, 16, 3), nn.BatchNorm2d(16)))
    x = torch.randn(2, 8, 8, 8)
    for weight, absorbed in ((1.0, True), (1e-6, False), (0.0, False)):
        model[1].weight.data[0] = weight
        folded = fold(model)
        (form,) = (m for m in folded.modules() if isinstance(m, FoldedGroupNL))
        assert form.absorbed == absorbed
        with torch.no_grad():
            torch.testing.assert_close(folded(x), model(x), rtol=1e-5, atol=1e-5)


class Beside(nn.Module):
    """Layers of one function beside each other: few and many seeds, with and without a norm after them."""

    def __init__(self, nlf):
        super().__init__()
        options = {"nlf": nlf, "normalize": "batch"}
        self.few = GroupNLConv2d(3, 16, 3, seed_channels=4, **options)
        self.as_many = nn.Sequential(GroupNLConv2d(3, 16, 3, seed_channels=8, **options), nn.BatchNorm2d(16))
        self.only = nn.Sequential(GroupNLConv2d(3, 16, 3, seed_channels=16, **options), nn.BatchNorm2d(16))
        self.last = nn.Linear(3 * 256, 10)

    def forward(self, x):
        return self.last(torch.cat([self.few(x), self.as_many(x), self.only(x)], 1).flatten(1))


@pytest.mark.parametrize("nlf", list(NLFS))
def test_every_function_with_and_without_a_norm_after_it(nlf):
    torch.manual_seed(0)
    model = settle(Beside(nlf))
    x = torch.randn(2, 3, 6, 6)
    folded = fold(model)
    exported = to_onnx(folded, (3, 6, 6))
    tensors = read_bundle(to_bundle(exported, replace_size(INFO, 6), step=None)).tensors()
    (logits,) = open_session(exported.graph, tensors).run(["logits"], {"image": x.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(folded(x), model(x), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(torch.from_numpy(logits), model(x), rtol=1e-4, atol=1e-5)


def replace_size(info, side):
    return dataclasses.replace(info, preprocessing=dataclasses.replace(info.preprocessing, height=side, width=side))


def test_grid_rounds_weights_and_leaves_the_rest():
    exported = exported_network("sine, batch norm on seeds")
    bundle = read_bundle(to_bundle(exported, INFO, step=1 / 64))
    entries = {entry.name: entry for entry in bundle.manifest.tensors if not entry.seeded}
    tensors = bundle.tensors()
    assert is_weight(entries["fc.weight"].shape)
    assert not is_weight(entries["stages.0.0.conv1.scale"].shape)
    for name, entry in entries.items():
        values, error = tensors[name], np.abs(tensors[name] - exported.tensors[name]).max()
        if is_weight(entry.shape):
            assert np.all(values * 64 == np.rint(values * 64))
            assert error <= 1 / 128
        elif len(values) < 8:
            assert error == 0
        else:
            assert error <= np.abs(values).max() / 900  # half a step of 500 levels or more


def test_bundle_weights_loaded_back_into_torch_give_the_bundle_s_answers():
    model = network("sine")
    folded = fold(model)
    bundle = read_bundle(to_bundle(exported_network("sine"), INFO, step=1 / 32))
    x = torch.randn(2, 3, 32, 32)
    (logits,) = open_session(bundle.graph(), bundle.tensors()).run(["logits"], {"image": x.numpy()})
    with torch.no_grad():
        assert relative(folded(x), torch.from_numpy(logits)) > 1e-3  # the grid is coarse
        load_tensors(folded, bundle.tensors())
        assert relative(folded(x), torch.from_numpy(logits)) < 1e-5
    with pytest.raises(ExportError, match="'nobody'"):
        load_tensors(folded, {"nobody": np.zeros(3, np.float32)})


def test_bundle_is_deterministic(tmp_path):
    first = to_bundle(exported_network("sine"), INFO, step=1 / 128)
    second = to_bundle(to_onnx(fold(network("sine"))), INFO, step=1 / 128)
    assert first == second
    (tmp_path / "a.bundle").write_bytes(first)
    assert open_bundle(tmp_path / "a.bundle").manifest.model == "tiny"


def test_weights_that_are_not_finite_are_refused():
    exported = exported_network("vanilla")
    weight = exported.tensors["fc.weight"].copy()
    weight[3, 4] = float("nan")
    broken = dataclasses.replace(exported, tensors=exported.tensors | {"fc.weight": weight})
    with pytest.raises((BundleError, ExportError), match=r"fc\.weight.*not finite"):
        to_bundle(broken, INFO, step=1 / 128)


def test_logits_that_no_device_could_check_are_refused():
    exported = exported_network("vanilla")
    loud = dataclasses.replace(exported, tensors=exported.tensors | {"fc.weight": exported.tensors["fc.weight"] * 1e9})
    with pytest.raises(ExportError, match=r"logits up to \d\.\de\+\d+; at most 1e\+06"):
        to_bundle(loud, INFO, step=None)


def test_labels_that_do_not_fit_are_refused():
    with pytest.raises(ExportError, match="there are 3 labels"):
        to_bundle(exported_network("vanilla"), dataclasses.replace(INFO, labels=list("abc")), step=None)


def test_a_submodule_that_branches_is_kept_whole_and_the_rest_is_folded():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = GroupNLConv2d(8, 8, 3, padding=1, seed=5)

        def forward(self, x):
            return self.conv(x) if x.shape[-1] > 4 else self.conv(F.pad(x, (2, 2, 2, 2)))

    torch.manual_seed(0)
    model = settle(
        nn.Sequential(
            nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)),
            nn.Sequential(nn.Sequential(Branching(), nn.ReLU())),
            nn.Upsample(scale_factor=2),
            nn.Flatten(),
            nn.Linear(8 * 256, 10),
        )
    )
    folded = fold(model)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    exported = to_onnx(folded, (3, 6, 6))
    assert {name.rpartition(".")[2] for name in exported.seeded} == {"omega", "phi"}
    tensors = read_bundle(to_bundle(exported, replace_size(INFO, 6), step=None)).tensors()
    x = torch.randn(2, 3, 6, 6)
    (logits,) = open_session(exported.graph, tensors).run(["logits"], {"image": x.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(folded(x), model(x), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(torch.from_numpy(logits), model(x), rtol=1e-4, atol=1e-5)


def test_a_convolution_called_twice_is_refused_by_name():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x):
            return self.conv(self.conv(x))

    with pytest.raises(ExportError, match="conv is called 2 times"):
        fold(Twice())


def test_the_memory_format_of_training_changes_no_graph():
    """Training returns networks in channels_last; a later release must have its parent's graph."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), GroupNLConv2d(8, 8, 3))
    model.append(nn.AdaptiveAvgPool2d(1)).append(nn.Flatten()).append(nn.Linear(8, 10))
    plain = to_onnx(fold(settle(model)), (3, 16, 16))
    last = to_onnx(fold(model.to(memory_format=torch.channels_last)), (3, 16, 16))
    assert last.graph == plain.graph
