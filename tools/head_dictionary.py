"""Write ``seedcnn/bundle/head.dictionary``: manifests and graphs of this exporter in small pieces, the commonest last.

Whoever writes it again changes the format: bundles made before are refused. Run it only with a new format.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import onnx
import timm
import torch

from recipes import demo
from seedcnn.bundle import Preprocessing, read_bundle, read_delta, write_delta
from seedcnn.bundle.head import manifest_of
from seedcnn.export import BundleInfo, fold, to_bundle, to_onnx
from seedcnn.export.onnx_graphs import OnnxModel
from seedcnn.train import build_model

ROOT = Path(__file__).resolve().parents[1]
HEADER = ROOT / "examples" / "reader" / "dictionary.h"
PLACE = ROOT / "seedcnn" / "bundle" / "head.dictionary"
MOST = 6 << 10
TIMM = ("mobilenetv3_small_050", "resnet18")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def exported() -> list[tuple[OnnxModel, Preprocessing]]:
    """The networks of the demo, and two of timm."""
    torch.manual_seed(0)
    rule = Preprocessing.exact((32, 32), mean=(0.4914, 0.4822, 0.4465), std=(0.247, 0.2435, 0.2616))
    found = [(build_model(config()), rule) for config in (demo.vanilla, demo.groupnl, demo.recommended)]
    large = Preprocessing.crop(64, short_side=73, filter="bicubic", mean=MEAN, std=STD)
    found += [(timm.create_model(name, num_classes=10), large) for name in TIMM]
    return [(to_onnx(fold(model.eval()), each.shape), each) for model, each in found]


def manifest(model: OnnxModel, rule: Preprocessing) -> bytes:
    """The text of a manifest, with zeros for digests and few tensors."""
    info = BundleInfo("resnet8_cifar", "cifar-groupnl", 1, rule, [str(label) for label in range(10)])
    bundle = read_bundle(to_bundle(model, info, step=1 / 64))
    value = json.loads(manifest_of(bundle.container.head, bundle.container.manifest_size))
    value["tensors"] = value["tensors"][:3]
    value["tensors_sha256"] = value["graph"]["sha256"] = value["canned"]["sha256"] = ""
    value["canned"]["pictures_sha256"] = ""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def delta(model: OnnxModel, rule: Preprocessing) -> bytes:
    """The text of a delta's manifest, with zeros for digests and few tensors."""
    info = BundleInfo("resnet8_cifar", "cifar-groupnl", 1, rule, [str(label) for label in range(10)])
    both = ((info, 1 / 64), (replace(info, release=2), 1 / 32))
    old, new = (read_bundle(to_bundle(model, each, step=step)) for each, step in both)
    value = json.loads(read_delta(write_delta(old, new)).dump())
    value["tensors"], value["parent"], value["result"] = value["tensors"][:2], "", ""
    value["difference-i8"], value["difference-i16"] = list(range(20)), [0, 1, 3, 5, 7]
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def pieces(model: OnnxModel) -> list[bytes]:
    """The nodes and initializers of a graph, as they are written."""
    graph = onnx.load_model_from_string(model.graph).graph
    return [part.SerializeToString() for part in (*graph.node, *graph.initializer)]


def key(piece: bytes) -> bytes:
    """Bytes that two pieces share if they differ only in names: of nodes the attributes, of initializers the end."""
    at = piece.find(b'"')
    return piece[-14:] if b"location" in piece else piece[at:]


def in_c(data: bytes) -> str:
    """The dictionary as a C header."""
    lines = [", ".join(f"0x{byte:02x}" for byte in data[begin : begin + 19]) for begin in range(0, len(data), 19)]
    head = "/* The bytes of seedcnn/bundle/head.dictionary, written by tools/head_dictionary.py. */\n\n"
    return f"{head}static const unsigned char DICTIONARY[] = {{\n    " + ",\n    ".join(lines) + "};\n"


def main() -> None:
    """Write the file and print its SHA-256, which docs/bundle-format.md states."""
    models = exported()
    counts: Counter[bytes] = Counter()
    example: dict[bytes, bytes] = {}
    for model, _ in models:
        for piece in pieces(model):
            counts[key(piece)] += 1
            if len(piece) < 400:
                example.setdefault(key(piece), piece)
    texts = [delta(*models[0]), *(manifest(*models[index]) for index in (3, 0))]
    parts, room = [], MOST - sum(map(len, texts))
    for found, _ in counts.most_common():
        if found in example and len(example[found]) <= room:
            parts.append(example[found])
            room -= len(example[found])
    data = b"".join([*reversed(parts), *texts])
    PLACE.write_bytes(data)
    HEADER.write_text(in_c(data))
    print(f"{PLACE}: {len(data):,} bytes, SHA-256 {hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    main()
