"""A small bundle with every coding, and tools to rewrite a bundle and sign it again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from seedcnn.bundle import (
    Preprocessing,
    Seeded,
    as_scale,
    encode_grid,
    encode_raw,
    encode_seeded,
    grid_of_step,
    read_bundle,
    write_bundle,
)
from seedcnn.bundle.container import BYTES, FORMAT, Container, read_container, write_container
from seedcnn.bundle.head import graph_of, manifest_of, pack_head
from seedcnn.rng import FixedPoint
from seedcnn.runtime.pictures import canned_pictures

RULE = Preprocessing(
    4, 4, (49_139_968, 48_215_827, 44_653_124), (24_703_233, 24_348_505, 26_158_768), resize="crop", short_side=5
)


def tiny_tensors(bias: float = 0.0) -> list[Any]:
    """One tensor of each coding: raw in three precisions, int8, int16, seeded; and a scaled one with its scale."""
    values = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
    scale = as_scale(encode_grid("deep.weight.scale", np.abs(values[0, :3]), grid_of_step(2.0**-12)))
    return [
        encode_raw("head.bias", values[0] + np.float32(bias)),
        encode_grid("conv.weight", values, grid_of_step(0.05)),
        encode_grid("head.weight", values.reshape(5, 3) * 4, grid_of_step(1e-3)),
        encode_seeded("conv.phase", (2, 7), Seeded(0xFEED, 1, 2, FixedPoint.from_range(-1, 1), 5, 3)),
        encode_raw("norm.half", values[1], "raw-f16"),
        encode_raw("norm.bf16", values[2], "raw-bf16"),
        encode_grid("deep.weight", values.reshape(3, 5, 1), grid_of_step(0.03), scale=scale),
        scale,
    ]


def tiny_bundle(**changes: Any) -> bytes:
    """A complete bundle of about 3 kB; ``changes`` replace arguments of ``write_bundle``."""
    arguments: dict[str, Any] = {
        "model": "tiny",
        "family": "demo",
        "release": 3,
        "min_release": 1,
        "graph": b"not a real graph, but " * 9,
        "graph_input": "image",
        "graph_output": "logits",
        "tensors": tiny_tensors(),
        "preprocessing": RULE,
        "labels": ["cat", "dog", "häß"],
        "canned_seed": 77,
        "canned_logits": np.arange(6, dtype=np.float32).reshape(2, 3),
        "canned_tolerance": 1e-3,
        "canned_pictures": canned_pictures(77, changes.get("preprocessing", RULE)),
    }
    return write_bundle(**(arguments | changes))


def explore(bundle: Any) -> None:
    """Read everything in a bundle."""
    bundle.tensors()
    bundle.graph()
    bundle.canned_images()
    bundle.canned_logits()
    list(bundle.canned_pictures())


def with_manifest(data: bytes, change: Callable[[dict[str, Any]], Any]) -> bytes:
    """The bundle with ``change`` applied to its manifest, in canonical form and with the right digest."""
    bundle = read_container(data, FORMAT)
    text = manifest_of(bundle.head, bundle.manifest_size)
    value = json.loads(text)
    graph = graph_of(bundle.head, len(text), value["graph"]["size"])
    change(value)
    return with_text(data, json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode(), graph)


def with_text(data: bytes, text: bytes, graph: bytes | None = None) -> bytes:
    """The bundle with another text of the manifest, and perhaps another graph."""
    bundle = read_container(data, FORMAT)
    if graph is None:
        old = manifest_of(bundle.head, bundle.manifest_size)
        graph = graph_of(bundle.head, len(old), json.loads(old)["graph"]["size"])
    return with_head(data, pack_head(text, graph), len(text))


def with_head(data: bytes, head: bytes, size: int | None = None) -> bytes:
    """The bundle with another compressed head, of a manifest of ``size`` bytes, and the right digest."""
    bundle = read_container(data, FORMAT)
    payloads = dict(bundle.payloads) | {BYTES: head + bytes(bundle.rest)}
    return write_container(Container(FORMAT, bundle.manifest_size if size is None else size, len(head), payloads))


def integers_of(data: bytes) -> bytes:
    """The stored integers of all tensors."""
    return bytes(read_bundle(data).stored.integers)


def with_integers(data: bytes, integers: bytes) -> bytes:
    """The bundle with other stored integers and the right digest."""
    bundle = read_container(data, FORMAT)
    logits = bytes(bundle.rest)[len(integers_of(data)) :]
    payloads = dict(bundle.payloads) | {BYTES: bytes(bundle.head) + integers + logits}
    return write_container(replace(bundle, payloads=payloads))


def with_payloads(data: bytes, change: Callable[[dict[str, Any]], Any]) -> bytes:
    """The bundle with ``change`` applied to its payloads, and the right digest."""
    bundle = read_container(data, FORMAT)
    payloads = {name: bytes(each) for name, each in bundle.payloads.items()}
    change(payloads)
    return write_container(replace(bundle, payloads=payloads))


def with_header(data: bytes, change: Callable[[dict[str, Any]], Any]) -> bytes:
    """The bundle with ``change`` applied to its header (payload table), the payload bytes unchanged."""
    length = int.from_bytes(data[:8], "little")
    value = json.loads(data[8 : 8 + length])
    change(value)
    return with_header_text(data, json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode())


def with_header_text(data: bytes, text: bytes) -> bytes:
    """The bundle with another header text, padded to a valid length."""
    length = int.from_bytes(data[:8], "little")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def replace_one(value: Any, pick: int, junk: Any) -> None:
    """Replace the ``pick``-th node of a tree by ``junk``."""
    places = []

    def walk(node: Any) -> None:
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, item in items:
            places.append((node, key))
            walk(item)

    walk(value)
    node, key = places[pick % len(places)]
    node[key] = junk
