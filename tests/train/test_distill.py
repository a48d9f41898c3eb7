"""Distillation: losses by hand, a teacher that does not change, and stages found by name in every kind of network."""

from __future__ import annotations

import copy
import dataclasses
import json

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

from seedcnn.convert import METHODS, GroupNLConfig, config_for, convert_
from seedcnn.errors import ConfigError, TrainingError
from seedcnn.models import create_model
from seedcnn.train.building import build_model
from seedcnn.train.checkpoint import Checkpoint, save_checkpoint
from seedcnn.train.config import TrainConfig
from seedcnn.train.distill import Distiller, load_teacher, stage_names
from seedcnn.train.distill_config import DistillConfig

STAGEWISE = DistillConfig(kind="stagewise")
PUBLIC = DistillConfig(kind="stagewise", weights="public")
SIZE = (3, 16, 16)


def resnet(seed=0, widths=(4, 8, 16), name="resnet8_cifar", **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return create_model(name, widths=widths, **options)


@pytest.fixture
def pictures():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(6, *SIZE, generator=generator), torch.arange(6)


def pair(config, student=None, teacher=None, **options):
    student, teacher = student or resnet(1), teacher or resnet(2)
    return Distiller(config, student, teacher, **{"input_size": SIZE, **options})


# The complete loss, in float64


def walk(network, x):
    """Logits and the outputs of the stages, module by module."""
    x = torch.relu(network.bn1(network.conv1(x)))
    maps = []
    for stage in network.stages:
        x = stage(x)
        maps.append(x.clone())
    return network.fc(network.flatten(network.pool(x))), maps


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_logit_distillation_by_hand(pictures, temperature):
    distiller = pair(DistillConfig(temperature=temperature, alpha=0.25)).double()
    x, y = pictures[0].double(), pictures[1]
    loss, logits = distiller(x, y)
    expected, _ = walk(distiller.student, x)
    torch.testing.assert_close(logits, expected)
    hard = F.cross_entropy(expected, y)
    with torch.no_grad():
        p = F.softmax(walk(distiller.teacher, x)[0] / temperature, 1)
    q = F.softmax(expected / temperature, 1)
    divergence = (p * (p.log() - q.log())).sum(1).mean()
    torch.testing.assert_close(loss, 0.75 * hard + 0.25 * temperature**2 * divergence)


@pytest.mark.parametrize(("config", "soft", "stage"), [(STAGEWISE, 1.0, 1 / 3), (PUBLIC, 0.4, 0.1)], ids=str)
def test_stagewise_distillation_by_hand(pictures, config, soft, stage):
    """MonoCNN's loss as printed, over three stages, and with the weights of the public code, which skips the first."""
    distiller = pair(config).double()
    x, y = pictures[0].double(), pictures[1]
    loss, _ = distiller(x, y)
    logits, maps = walk(distiller.student, x)
    taught, taught_maps = walk(distiller.teacher, x)
    squares = [((a - b) ** 2).mean() for a, b in zip(maps, taught_maps, strict=True)]
    skipped = squares[1:] if config is PUBLIC else squares
    expected = F.cross_entropy(logits, y) + soft * F.cross_entropy(logits, taught.softmax(1)) + stage * sum(skipped)
    torch.testing.assert_close(loss, expected)


def test_the_criterion_is_the_callers(pictures):
    x, y = pictures
    smooth = nn.CrossEntropyLoss(label_smoothing=0.3)
    loss, logits = pair(DistillConfig(alpha=0), criterion=smooth)(x, y)
    torch.testing.assert_close(loss, smooth(logits, y))
    mixed = torch.full((6, 10), 0.1)
    loss, logits = pair(DistillConfig(alpha=0))(x, mixed)
    torch.testing.assert_close(loss, F.cross_entropy(logits, mixed))


def test_narrow_students_get_learnable_projections(pictures):
    wide, narrow = resnet(2, (6, 8, 20)), resnet(1)
    distiller = pair(STAGEWISE, narrow, wide).double()
    assert [type(fit) for fit in distiller.projections] == [nn.Conv2d, nn.Identity, nn.Conv2d]
    x, y = pictures[0].double(), pictures[1]
    loss, _ = distiller(x, y)
    logits, maps = walk(narrow, x)
    taught, taught_maps = walk(wide, x)
    fitted = [fit(m) for fit, m in zip(distiller.projections, maps, strict=True)]
    squares = sum(F.mse_loss(a, b) for a, b in zip(fitted, taught_maps, strict=True)) / 3
    torch.testing.assert_close(loss, F.cross_entropy(logits, y) + F.cross_entropy(logits, taught.softmax(1)) + squares)
    loss.backward()
    learned = {name for name, p in distiller.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert {"projections.0.weight", "projections.2.weight"} <= learned
    assert learned == set(dict(distiller.named_parameters()))


def test_low_precision_gives_a_loss_in_float32(pictures):
    x, y = pictures
    for config in (DistillConfig(), STAGEWISE):
        distiller = pair(config, teacher=resnet(2, (6, 8, 16)))
        exact, _ = distiller.eval()(x, y)
        with torch.autocast("cpu", torch.bfloat16):
            loss, logits = distiller(x, y)
        assert (loss.dtype, logits.dtype) == (torch.float32, torch.bfloat16)
        torch.testing.assert_close(loss, exact, rtol=0.05, atol=0.05)
        assert distiller.bfloat16()(x.bfloat16(), y)[0].dtype == torch.float32


# The teacher


@pytest.mark.parametrize("config", [DistillConfig(), STAGEWISE], ids=["logits", "stagewise"])
def test_nothing_reaches_the_teacher(pictures, config):
    distiller = pair(config)
    teacher, student = distiller.teacher, distiller.student
    assert not any(module.training for module in teacher.modules())
    before = copy.deepcopy(teacher.state_dict())
    moved = student.bn1.running_mean.clone()
    distiller.train()
    assert student.training
    assert not any(module.training for module in teacher.modules())
    graphs = []
    teacher.stages[0].register_forward_hook(lambda *args: graphs.append(args[2].requires_grad))
    optimizer = torch.optim.SGD(distiller.parameters(), 0.1)
    for _ in range(2):
        loss, _ = distiller(*pictures)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert graphs == [False, False]
    assert all(p.grad is None for p in teacher.parameters())
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())
    assert not torch.equal(student.bn1.running_mean, moved)


def test_the_teacher_is_in_no_state_dict_but_moves_along():
    distiller = pair(STAGEWISE, teacher=resnet(2, (6, 8, 16)))
    ours = {f"student.{name}" for name in distiller.student.state_dict()}
    assert set(distiller.state_dict()) == ours | {"projections.0.weight"}
    taught = {id(p) for p in distiller.teacher.parameters()}
    assert not taught & {id(p) for p in distiller.parameters()}
    assert distiller.teacher not in list(distiller.modules())
    distiller.double()
    assert distiller.teacher.conv1.weight.dtype == torch.float64
    assert distiller.to("meta").teacher.fc.weight.device.type == "meta"


def test_building_leaves_running_statistics_and_modes_alone():
    student = resnet(1).train()
    student.bn1.eval()
    before = copy.deepcopy(student.state_dict())
    pair(STAGEWISE, student)
    assert all(torch.equal(before[name], value) for name, value in student.state_dict().items())
    assert student.training
    assert not student.bn1.training
    assert student.stages[0][0].bn1.training


def test_students_learn_from_the_teacher_alone(pictures):
    distiller = pair(DistillConfig(alpha=1, temperature=2.0))
    optimizer = torch.optim.SGD(distiller.parameters(), 0.05, momentum=0.9)
    losses = []
    for _ in range(30):
        loss, _ = distiller(*pictures)
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.2 * losses[0]


def test_teachers_from_a_checkpoint(tmp_path):
    config = TrainConfig(model="resnet8_cifar", model_options={"widths": (4, 8, 16)})
    model = build_model(config)
    save_checkpoint(tmp_path / "t.ckpt", Checkpoint(config, 1, model.state_dict()))
    teacher = load_teacher(DistillConfig(teacher=str(tmp_path / "t.ckpt")))
    x = torch.randn(2, *SIZE)
    torch.testing.assert_close(teacher(x), model.eval()(x))
    with pytest.raises(ConfigError, match=r"distill\.teacher names no checkpoint"):
        load_teacher(DistillConfig())
    with pytest.raises(TrainingError, match="there is no checkpoint"):
        load_teacher(DistillConfig(teacher=str(tmp_path / "none.ckpt")))


# The stages


@pytest.mark.parametrize(
    ("name", "widths", "stages"),
    [
        ("resnet8_cifar", (4, 8, 16), ["stages.0", "stages.1", "stages.2"]),
        ("resnet20_cifar", (4, 8, 16), ["stages.0", "stages.1", "stages.2"]),
        ("resnet18_cifar", (4, 8, 8, 8), ["stages.0", "stages.1", "stages.2", "stages.3"]),
        ("vgg11_cifar", (4, 8, 8, 8, 8), ["features.2", "features.6", "features.13", "features.20", "features.27"]),
        ("crnet_cb", (8, 8, 8, 8), ["stages.0", "stages.2", "stages.3"]),
        ("crnet_cib", (8, 8, 8), ["blocks.4", "blocks.10", "blocks.15"]),
    ],
)
def test_stages_of_our_networks_end_before_the_maps_shrink(name, widths, stages):
    network = resnet(0, widths, name)
    assert list(stage_names(network)) == stages
    heights = []
    for stage in stages:
        network.get_submodule(stage).register_forward_hook(lambda *args: heights.append(args[2].shape[2]))
    network.eval()(torch.zeros(1, 3, 32, 32))
    assert heights == [32 >> index for index in range(len(stages))]


def test_stages_of_timm_networks_are_their_feature_info(pictures):
    assert stage_names(timm.create_model("test_resnet"))[1:] == ("layer1", "layer2", "layer3", "layer4")
    student, teacher = (timm.create_model("test_efficientnet", num_classes=10) for _ in range(2))
    convert_(student, GroupNLConfig.paper(scope="pointwise", normalize="batch"))
    assert stage_names(student) == ("blocks.0", "blocks.1", "blocks.2", "blocks.3", "blocks.4")
    loss, _ = pair(STAGEWISE, student, teacher, input_size=(3, 64, 64))(torch.randn(2, 3, 64, 64), torch.tensor([1, 2]))
    loss.backward()
    assert all(p.grad is not None for p in student.parameters())


def plain(width=4):
    layers = (nn.Conv2d(3, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))
    return nn.Sequential(*layers)


def test_stages_of_other_networks_are_named(pictures):
    with pytest.raises(ConfigError, match="stages of Sequential are unknown; name the modules"):
        pair(STAGEWISE, plain(), resnet(2))
    student, teacher = plain(), plain()
    distiller = pair(DistillConfig(kind="stagewise", stages=("1",)), student, teacher).double()
    x, y = pictures[0].double(), pictures[1]
    logits, taught = student(x), teacher(x)
    maps = F.mse_loss(student[:2](x), teacher[:2](x))
    expected = F.cross_entropy(logits, y) + F.cross_entropy(logits, taught.softmax(1)) + maps
    torch.testing.assert_close(distiller(x, y)[0], expected)
    named = DistillConfig(kind="stagewise", stages=("stages.1",), teacher_stages=("stages.0",))
    with pytest.raises(
        ConfigError, match=r"maps of stage 'stages\.1' are 8x8, those of the teacher's 'stages.0' 16x16"
    ):
        pair(named)


NETWORKS = {"resnet8_cifar": (16, 16, 32), "vgg11_cifar": (16, 16, 16, 32, 32)}


@pytest.mark.parametrize(
    ("method", "name"), [(m, n) for m in METHODS for n in NETWORKS if (m, n) != ("cr", "vgg11_cifar")]
)
def test_converted_students_keep_their_stages(method, name):
    """All families, but conditional reduction not in a VGG, which has none of its 1x1 convolutions."""
    student, teacher = (resnet(seed, NETWORKS[name], name) for seed in (1, 2))
    found = stage_names(student)
    assert convert_(student, config_for(method)).replaced
    assert stage_names(student) == found
    distiller = pair(STAGEWISE, student, teacher, input_size=(3, 32, 32))
    loss, _ = distiller(torch.randn(2, 3, 32, 32), torch.tensor([3, 4]))
    loss.backward()
    assert torch.isfinite(loss)
    assert all(p.grad is not None for p in student.parameters() if p.requires_grad)


def test_wrapped_networks_are_looked_into(pictures):
    expected, _ = pair(STAGEWISE)(*pictures)
    student, teacher = AveragedModel(resnet(1)), AveragedModel(resnet(2))
    torch.testing.assert_close(pair(STAGEWISE, student, teacher)(*pictures)[0], expected)
    with pytest.raises(ValueError, match="must be another network"):
        pair(STAGEWISE, student, student.module)


def test_students_can_be_copied_and_taps_taken_off(pictures):
    """An average of the weights is a deep copy of the student; kept maps with an autograd graph would prevent it."""
    student = resnet(1)
    distiller = pair(STAGEWISE, student).eval()
    expected, _ = distiller(*pictures)
    average = copy.deepcopy(student)
    nn.init.zeros_(average.conv1.weight)
    average(pictures[0])
    torch.testing.assert_close(distiller(*pictures)[0], expected)
    distiller.close()
    assert not any(module._forward_hooks for network in (student, distiller.teacher) for module in network.modules())


def test_it_compiles_in_one_graph(pictures):
    distiller = pair(DistillConfig(kind="stagewise", stages=("1",)), plain(), plain(6))
    expected, _ = distiller(*pictures)
    loss, logits = torch.compile(distiller, fullgraph=True, backend="eager")(*pictures)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert all(p.grad is not None for p in distiller.parameters())
    assert logits.shape == (6, 10)


# The cache


def counted(teacher):
    """The number of images that pass through a network, call by call."""
    calls = []
    teacher.register_forward_hook(lambda module, args, output: calls.append(len(args[0])))
    return calls


def test_a_cache_asks_the_teacher_once_for_each_picture(pictures):
    x, y = pictures
    plain, cached = (pair(DistillConfig(cache=cache), augmented=not cache) for cache in (False, True))
    plain.eval()
    cached.eval()
    calls = counted(cached.teacher)
    for picked, asked in (([0, 2], [2]), ([2, 5, 1], [2, 2]), ([5, 0, 1, 2], [2, 2]), ([3, 3], [2, 2, 2])):
        picked = torch.tensor(picked)
        loss, _ = cached(x[picked], y[picked], picked)
        assert calls == asked
        torch.testing.assert_close(loss, plain(x[picked], y[picked])[0])
    assert set(cached.state_dict()) == set(plain.state_dict())
    loss.backward()
    assert all(p.grad is None for p in cached.teacher.parameters())


def test_caches_that_cannot_be(pictures):
    x, y = pictures
    with pytest.raises(ConfigError, match="the same in every epoch"):
        pair(DistillConfig(cache=True))
    with pytest.raises(ConfigError, match=r"distill\.cache keeps only logits"):
        DistillConfig(kind="stagewise", cache=True)
    distiller = pair(DistillConfig(cache=True), augmented=False)
    for indices in (None, torch.arange(5), torch.arange(6.0), torch.arange(6) - 1):
        with pytest.raises(ValueError, match="`indices`"):
            distiller(x, y, indices)


# Wrong input


def test_configs_that_make_no_sense():
    for change, words in (
        ({"kind": "logit"}, r"distill\.kind \(='logit'\) must be one of logits, stagewise"),
        ({"kind": "stagewise", "weights": "mine"}, r"distill\.weights \(='mine'\) must be one of paper, public"),
        ({"temperature": 0}, r"distill\.temperature \(=0\.0\)"),
        ({"temperature": float("nan")}, r"distill\.temperature \(=nan\)"),
        ({"alpha": 1.5}, r"distill\.alpha \(=1.5\) must be in \[0, 1\]"),
        ({"kind": "stagewise", "alpha": 0.5}, "belong to kind 'logits'"),
        ({"kind": "stagewise", "temperature": 2.0}, "belong to kind 'logits'"),
        ({"weights": "public"}, "belong to kind 'stagewise'"),
        ({"stages": ("a",)}, "belong to kind 'stagewise'"),
    ):
        with pytest.raises(ConfigError, match=words):
            DistillConfig(**change)
    config = DistillConfig(kind="stagewise", stages=("a", "b"))
    assert DistillConfig(**json.loads(json.dumps(dataclasses.asdict(config)))) == config


def test_networks_that_do_not_go_together():
    one = resnet(1)
    named = lambda *stages: DistillConfig(kind="stagewise", stages=stages)  # noqa: E731
    with pytest.raises(ValueError, match="`teacher` must be another network"):
        pair(DistillConfig(), one, one)
    for config, teacher, words in (
        (
            DistillConfig(),
            resnet(2, num_classes=7),
            r"student \(10,\) and teacher \(7,\) must have the same classes",
        ),
        (
            STAGEWISE,
            resnet(2, (4, 8, 8, 8), "resnet18_cifar"),
            "need equally many stages; they have .*'stages.2'.*stages.3",
        ),
        (STAGEWISE, resnet(2, patch=2), "maps of stage 'stages.0' are 16x16, those of the teacher's 'stages.0' 8x8"),
        (named("stage.1"), resnet(2), "ResNetCifar has no module 'stage.1' to end a stage; did you mean stages.1"),
        (named(""), resnet(2), "has no module ''"),
    ):
        with pytest.raises(ConfigError, match=words):
            pair(config, resnet(1), teacher)
    with pytest.raises(TrainingError, match=r"module 'flatten' must return maps \[N, C, H, W\].*it returned \(1, 16\)"):
        pair(named("flatten"))
