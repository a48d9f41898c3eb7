"""Costs of detectors and segmenters: multiply-accumulates as torch counts them, memory, parts that are refused."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models as torchvision_models

from seedcnn.convert import GhostConfig, GroupNLConfig, MonoConfig, convert_
from seedcnn.evaluate.costs import cost
from seedcnn.models import create_model, list_models
from seedcnn.models.raw import raw_outputs
from tests.few import few

DETECTORS, SEGMENTERS = list_models("detection"), list_models("segmentation")
FORMS = {
    "vanilla": None,
    "mono": MonoConfig(scope="stride1", pointwise=True),
    "groupnl": GroupNLConfig(),
    "ghost": GhostConfig(),
}
CASES = [(name, form) for form in FORMS for name in [*DETECTORS, *SEGMENTERS]]


def small(name, form="vanilla", **options):
    model = create_model(name, num_classes=5, width=0.25, pyramid=64, **options).eval()
    if FORMS[form] is not None:
        convert_(model, FORMS[form])
    return model


def keep_all_regions(model):
    """Let the first stage suppress nothing, so that the second looks at as many boxes as it can."""
    model.rpn.nms_thresh, model.rpn.min_size = 1.0, 0.0


def counted_by_torch(model, x):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x)
    return counter.get_total_flops()


@pytest.mark.parametrize(("name", "form"), few(CASES, quick=(0, 1, 2, 3, 4, 11)))
def test_macs_are_half_of_torchs_count_of_the_eval_pass(name, form):
    model = small(name, form)
    if name.startswith("faster"):
        keep_all_regions(model)
    assert 2 * cost(model, (3, 90, 120)).macs == counted_by_torch(model, torch.rand(1, 3, 90, 120))


def test_a_detector_of_torchvision_is_counted_at_the_size_to_which_it_resizes():
    options = {"weights": None, "weights_backbone": None, "min_size": 64, "max_size": 96, "num_classes": 3}
    model = torchvision_models.get_model("fasterrcnn_mobilenet_v3_large_320_fpn", **options).eval()
    keep_all_regions(model)
    found = cost(model, (3, 30, 40))
    assert 2 * found.macs == counted_by_torch(model, torch.rand(1, 3, 30, 40))
    assert not found.unsupported


def test_the_count_does_not_depend_on_the_weights_nor_on_the_mode():
    torch.manual_seed(0)
    first = small("fasterrcnn_resnet18_fpn")
    torch.manual_seed(1)
    second = small("fasterrcnn_resnet18_fpn")
    assert cost(first, (3, 64, 64)).to_dict() == cost(second.train(), (3, 64, 64)).to_dict()
    assert second.training
    assert second.transform.training


@pytest.mark.parametrize("name", DETECTORS)
def test_rows_and_memory_of_a_detector(name):
    found = cost(small(name), (3, 64, 64))
    assert sum(row.params for row in found.layers) == found.params
    assert sum(row.macs for row in found.layers) == found.macs
    assert any(row.name.startswith("backbone.body.layer4") and row.macs for row in found.layers)
    # Three quarters of the image, three quarters of the memory, except what stands for the second stage's boxes.
    wide = cost(small(name), (3, 64, 128))
    assert found.saved_bytes < wide.saved_bytes <= 2 * found.saved_bytes
    frozen = cost(small(name, norm="frozen"), (3, 64, 64))
    assert frozen.saved_bytes < found.saved_bytes
    assert frozen.fp32_bytes == found.fp32_bytes
    assert frozen.params < found.params


def test_saved_bytes_are_those_of_a_training_step_without_its_losses():
    """Autograd keeps for the heads' outputs of two images what is counted for two, less what does not grow."""
    model = small("retinanet_resnet18_fpn").train()
    kept = {p.untyped_storage().data_ptr() for p in [*model.parameters(), *model.buffers()]}

    def saved(count):
        found = {}

        def pack(tensor):
            if tensor.untyped_storage().data_ptr() not in kept:
                found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            outputs = raw_outputs(model, torch.rand(count, 3, 64, 64))
        assert outputs["cls_logits"].requires_grad
        return sum(storage.nbytes() for storage in found.values())

    assert cost(model, (3, 64, 64)).saved_bytes == 2 * saved(2) - saved(3)


def test_raw_outputs_are_those_of_torchvisions_heads():
    model = small("fcos_resnet18_fpn")
    images = torch.rand(2, 3, 50, 70)
    with torch.no_grad():
        found = raw_outputs(model, images)
        padded, _ = model.transform(list(images))
        expected = model.head(list(model.backbone(padded.tensors).values()))
    assert padded.tensors.shape == (2, 3, 64, 96)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_networks_that_cannot_be_counted():
    options = {"weights": None, "weights_backbone": None, "num_classes": 3}
    with torch.device("meta"):
        masks = torchvision_models.get_model("maskrcnn_resnet50_fpn", **options)
    with pytest.raises(ValueError, match="MaskRCNN also predicts masks or keypoints of each object"):
        cost(masks, (3, 64, 64))
    with pytest.raises(ValueError, match=r"FCOS cannot take `input_size` \(=\(1, 64, 64\)\)"):
        cost(small("fcos_resnet18_fpn"), (1, 64, 64))
