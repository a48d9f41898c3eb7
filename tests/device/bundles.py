"""Small real bundles for tests: Conv, a seeded phase, Sin, mean, Gemm; 3x32x32 images, ten labels; no torch."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from seedcnn.bundle import Preprocessing, Seeded, encode_grid, encode_raw, encode_seeded, grid_of_step, write_bundle
from seedcnn.rng import FixedPoint, random_bytes
from seedcnn.runtime.pictures import canned_pictures
from seedcnn.runtime.session import open_session, preprocess

LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
RULE = Preprocessing(32, 32, (49139968, 48215841, 44653091), (24703223, 24348513, 26158784))
CANNED_SEED, CANNED_COUNT = 7, 8


def _external(name: str, shape: tuple[int, ...]) -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="weights")
    return tensor


# An operator that only one runtime has: 1 / x of positive numbers, and x * sigmoid(x).
ONLY = {
    "onnxruntime": [("Exp", "", "r", "e"), ("Inverse", "com.microsoft", "e", "f")],
    "openvino": [("Swish", "org.openvinotoolkit", "r", "f")],
    "": [("Identity", "", "r", "f")],
}


def _graph(width: int, only: str, fragile: bool) -> bytes:
    if fragile:  # the root of 1.5 minus the mean of the input, times 0, is added to the features
        spoil = [
            helper.make_node("ReduceMean", ["x", "all"], ["mean"], keepdims=1),
            helper.make_node("Sub", ["limit", "mean"], ["left"]),
            helper.make_node("Sqrt", ["left"], ["root"]),
            helper.make_node("Mul", ["root", "zero"], ["nothing"]),
            helper.make_node("Add", ["f", "nothing"], ["g"]),
        ]
    else:
        spoil = [helper.make_node("Identity", ["f"], ["g"])]
    nodes = [
        helper.make_node("Conv", ["x", "conv.weight"], ["c"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c", "phase"], ["p"]),
        helper.make_node("Sin", ["p"], ["s"]),
        helper.make_node("ReduceMean", ["s", "axes"], ["r"], keepdims=1),
        *(helper.make_node(name, [given], [made], domain=domain) for name, domain, given, made in ONLY[only]),
        *spoil,
        helper.make_node("Flatten", ["g"], ["m"]),
        helper.make_node("Gemm", ["m", "fc.weight", "fc.bias"], ["logits"]),
    ]
    shapes = {"conv.weight": (width, 3, 3, 3), "phase": (1, width, 1, 1), "fc.weight": (width, 10), "fc.bias": (10,)}
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 32, 32])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(np.array([2, 3], np.int64), "axes")]
        + [
            numpy_helper.from_array(np.array([1, 2, 3], np.int64), "all"),
            numpy_helper.from_array(np.array(1.5, np.float32), "limit"),
            numpy_helper.from_array(np.array(0.0, np.float32), "zero"),
        ]
        * fragile
        + [_external(name, shape) for name, shape in shapes.items()],
    )
    opsets = [
        helper.make_opsetid(domain, 18 if domain == "" else 1)
        for domain in dict.fromkeys(["", *(row[1] for row in ONLY[only])])
    ]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return model.SerializeToString()


@lru_cache
def make_bundle(
    release: int = 1,
    *,
    family: str = "demo",
    min_release: int = 0,
    width: int = 16,
    tolerance: float = 1e-3,
    logit_error: float = 0.0,
    only: str = "",
    parent: int = 0,
    rule: Preprocessing = RULE,
    wrong_pictures: bool = False,
    fragile: bool = False,
) -> bytes:
    """A bundle whose weights depend on ``release``; ``logit_error`` spoils the canned logit of image 3, class 2.

    ``only`` names the one runtime that can run it. With ``parent`` the weights are that release's except for a few.
    ``wrong_pictures`` spoils the digest of the canned pictures. A ``fragile`` one answers bright images with NaN.
    """
    rng = np.random.default_rng(parent or release)
    weight = rng.normal(0, 0.4, (width, 3, 3, 3))
    weight[0, 0] += 0.03 * release if parent else 0.0
    phases = Seeded(parent or release, 1, 0, FixedPoint.from_range(-3, 3), width, 1)
    coded = [
        encode_grid("conv.weight", weight, grid_of_step(0.006)),
        encode_seeded("phase", (1, width, 1, 1), phases),
        encode_raw("fc.weight", rng.normal(0, 8, (width, 10))),
        encode_raw("fc.bias", rng.normal(0, 0.1, 10)),
    ]
    graph = _graph(width, only, fragile)
    tensors = {item.entry.name: item.expanded for item in coded}
    session = open_session(graph, tensors, runtime=only or "onnxruntime")
    count = CANNED_COUNT * 32 * 32 * 3
    images = random_bytes(CANNED_SEED, tensor_id=0, count=count).reshape(CANNED_COUNT, 32, 32, 3)
    (logits,) = session.run(["logits"], {"x": preprocess(images, rule)})
    logits[3, 2] += logit_error
    pictures = canned_pictures(CANNED_SEED, rule)
    if wrong_pictures:
        pictures = pictures._replace(sha256="0" * 64)
    return write_bundle(
        model="tiny",
        family=family,
        release=release,
        min_release=min_release,
        graph=graph,
        graph_input="x",
        graph_output="logits",
        tensors=coded,
        preprocessing=rule,
        labels=LABELS,
        canned_seed=CANNED_SEED,
        canned_logits=logits,
        canned_tolerance=max(tolerance, 1e-4 * float(np.abs(logits).max())),
        canned_pictures=pictures,
    )
