"""Norms that a device can adapt: in every form the graph answers as torch does with its norms in training mode."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from seedcnn.bundle import read_bundle
from seedcnn.convert import (
    ConditionalReductionConfig,
    DepthwiseSeparableConfig,
    GhostConfig,
    GroupNLConfig,
    LocalBinaryConfig,
    MonoConfig,
    ShiftConfig,
    SineFMConfig,
    convert_,
)
from seedcnn.errors import ExportError
from seedcnn.export import BundleInfo, fold, to_bundle, to_onnx
from seedcnn.export.norm_sites import find_norms
from seedcnn.models import create_model
from seedcnn.pack import preprocessing_of
from seedcnn.runtime.adapting import Norms, adapted, measure
from seedcnn.runtime.answerer import Answerer
from seedcnn.runtime.session import open_session, preprocess
from tests.few import few

RULE = preprocessing_of((0.5,) * 3, (0.25,) * 3)
FORMS = {
    "plain": None,
    "group_nl": GroupNLConfig(),
    "group_nl_batch": GroupNLConfig.paper(nlf_groups=2, normalize="batch"),
    "group_nl_sparse": GroupNLConfig.paper(nlf_groups=2, normalize="batch", sparse=True),
    "group_nl_l2": GroupNLConfig(normalize="l2"),
    "mono": MonoConfig(),
    "mono_expanded": MonoConfig(),
    "ghost": GhostConfig(),
    "dws": DepthwiseSeparableConfig(),
    "sine_fm": SineFMConfig(),
    "shift": ShiftConfig(),
    "local_binary": LocalBinaryConfig(),
    "local_binary_norm": LocalBinaryConfig(norm=True),
    "conditional": ConditionalReductionConfig(),
}


def network(form=None, model="resnet8_cifar", widths=(8, 8, 16), seed=0):
    torch.manual_seed(seed)
    made = create_model(model, widths=widths)
    if form is not None:
        convert_(made, form)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            with torch.no_grad():
                module.weight.uniform_(0.5, 1.5)
                module.weight[::3] *= -1
                module.bias.uniform_(-0.5, 0.5)
            module.momentum = 1.0
    images = pictures(seed=1)
    made.train()
    with torch.no_grad():
        made(torch.from_numpy(preprocess(images, RULE)))
    return made.eval()


def pictures(n=64, seed=0, contrast=1.0):
    rng = np.random.default_rng(seed)
    noise = rng.normal(128, 40 * contrast, (n, 32, 32, 3)) + rng.normal(0, 40, (n, 1, 1, 3))
    return np.clip(noise, 0, 255).astype(np.uint8)


def bundle_of(made, **options):
    folded = fold(made, check=torch.from_numpy(preprocess(pictures(8), RULE)), **options)
    exported = to_onnx(folded, RULE.shape)
    norms = find_norms(folded, exported, RULE.shape)
    info = BundleInfo("m", "f", 1, RULE, [str(i) for i in range(10)])
    return read_bundle(to_bundle(exported, info, norms=norms)), norms


def answers(bundle, tensors, images):
    return Answerer.of_manifest(open_session(bundle.graph(), tensors), bundle.manifest).logits(images)


def in_training(made, images, left=()):
    """The answers of the network with the statistics of these images in every BatchNorm that is not left."""
    for name, module in made.named_modules():
        if name not in left and isinstance(module, nn.BatchNorm2d):
            module.train()
    with torch.no_grad():
        found = made(torch.from_numpy(preprocess(images, RULE))).numpy()
    made.eval()
    return found


@pytest.mark.parametrize("name", few(FORMS, [0, 2, 5, 7]))
def test_every_form_adapts_as_torch_does(name):
    made = network(FORMS[name])
    bundle, found = bundle_of(made, **({"mono": "expanded"} if name == "mono_expanded" else {}))
    if name == "sine_fm":  # the norms of its views are mixed by the convolution behind them
        assert len(found.left) == 8 * 5
        assert all(".norms." in each for each in found.left)
    else:
        assert found.left == ()
    other = pictures(seed=2, contrast=0.3)
    norms, tensors = Norms.of(bundle), bundle.tensors()
    before = answers(bundle, tensors, other)
    changed = adapted(tensors, norms, measure(bundle, norms, tensors, other))
    wanted = in_training(made, other, found.left)
    got = answers(bundle, changed, other)
    size = np.abs(wanted).max()
    assert np.abs(before - wanted).max() > 0.05 * size
    assert np.abs(got - wanted).max() < 0.01 * size


@pytest.mark.parametrize("absorb", [True, False])
def test_a_norm_that_is_absorbed_and_one_that_is_not(absorb):
    made = network(GroupNLConfig.paper(nlf_groups=2, normalize="batch"))
    layers = [name for name, module in made.named_modules() if type(module).__name__ == "GroupNLConv2d"]
    bundle, found = bundle_of(made, absorb=dict.fromkeys(layers, absorb))
    assert len(found.channels) == sum(isinstance(module, nn.BatchNorm2d) for module in made.modules())
    other = pictures(seed=2, contrast=0.3)
    norms, tensors = Norms.of(bundle), bundle.tensors()
    got = answers(bundle, adapted(tensors, norms, measure(bundle, norms, tensors, other)), other)
    wanted = in_training(made, other)
    assert np.abs(got - wanted).max() < 0.01 * np.abs(wanted).max()


def test_norms_that_stay_scale_and_shift():
    made = network(model="air_cifar", widths=(8, 8, 16))
    bundle, found = bundle_of(made)
    assert (len(found.channels), found.left) == (6, ())
    other = pictures(seed=2, contrast=0.3)
    norms, tensors = Norms.of(bundle), bundle.tensors()
    got = answers(bundle, adapted(tensors, norms, measure(bundle, norms, tensors, other)), other)
    wanted = in_training(made, other)
    assert np.abs(got - wanted).max() < 0.01 * np.abs(wanted).max()


def test_the_images_of_training_change_nothing():
    made = network()
    bundle, _ = bundle_of(made)
    norms, tensors = Norms.of(bundle), bundle.tensors()
    images = pictures(seed=1)
    changed = adapted(tensors, norms, measure(bundle, norms, tensors, images))
    before, after = answers(bundle, tensors, images), answers(bundle, changed, images)
    assert np.abs(before - after).max() < 0.02 * np.abs(before).max()
    exact = adapted(tensors, norms, norms.shipped)
    assert np.abs(before - answers(bundle, exact, images)).max() < 1e-4 * np.abs(before).max()


def test_dead_channels_and_still_images_stay_finite():
    made = network()
    with torch.no_grad():
        made.bn1.weight[:2] = 0
        made.bn1.running_var[2] = 0
    bundle, _ = bundle_of(made)
    norms, tensors = Norms.of(bundle), bundle.tensors()
    still = np.full((16, 32, 32, 3), 7, np.uint8)
    got = answers(bundle, adapted(tensors, norms, measure(bundle, norms, tensors, still)), still)
    assert np.isfinite(got).all()


def test_a_network_without_norms_is_refused():
    made = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)).eval()
    with pytest.raises(ExportError, match="nothing can be adapted on a device: the network has no norm"):
        bundle_of(made)


def test_what_one_module_shares_stays_as_it_is():
    """A norm that is called twice has two values: it stays, and is named."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3)
            self.own, self.after = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
            self.fc = nn.Linear(4, 10)

        def forward(self, x):
            y = self.bn(torch.relu(self.bn(self.conv(x).abs())))
            return self.fc(self.after(self.own(y)).mean((2, 3)))

    bundle, found = bundle_of(Twice().eval())
    assert found.left == ("bn",)
    assert [site.channels for site in bundle.manifest.norms] == [4]
