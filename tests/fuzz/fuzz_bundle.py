"""Coverage-guided fuzzing of the reader: bundles, deltas and everything in them.

    make fuzz                         # ten minutes
    make fuzz ARGS="-runs=10000000"

An input is a file. It is opened, expanded and, if it is a delta, applied to a fixed parent. The reader may refuse it
with ``BundleError``. Any other exception ends the run, and so do an answer that takes over a second and a peak of
memory 18 MB higher than before (a file that declares over 2 MB is only opened). Half of the mutations change manifest
or payloads and make lengths and digests right again, as somebody with the keys would, so that the checks behind the
digests are reached.
"""

from __future__ import annotations

import json
import random
import resource
import struct
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
try:
    import atheris
except ImportError:  # the corpus alone is tested without it
    atheris = None

with atheris.instrument_imports(include=["seedcnn"]) if atheris else nullcontext():
    from seedcnn.bundle import read_bundle
    from seedcnn.bundle.compression import compress, decompress
    from seedcnn.bundle.container import BYTES, FORMAT, Container, read_container, write_container
    from seedcnn.bundle.delta import DELTA_FORMAT, DIFFERENCES, apply_delta, read_delta
    from seedcnn.bundle.head import graph_of, manifest_of, pack_head
    from seedcnn.errors import BundleError

CORPUS = Path(__file__).parent / "corpus"
DECLARED = 2 << 20  # bytes; a file that declares more is only opened
SPARE = 16 << 20
LARGEST_INPUT = 8192
PARENT_LOGITS = 6
SHAPES = ((5,), (3, 5), (5, 3), (2, 7), (5,), (5,), (3, 5, 1), (3,))
NUMBERS = (-1, 0, 1, 255, 2**31, 2**53, 2**63, 10**40, 0.5)
JUNK: tuple[Any, ...] = (*NUMBERS, "", "raw-f32", "grid-i8", "difference-i16", "entropy", "scale", None, True, [], {})

Mutate = Callable[[bytes, int], bytes]


def _declared(manifest: Any) -> int:
    """Bytes that a manifest says its tensors, graph and pictures take."""
    rule, canned = manifest.preprocessing, manifest.canned
    tensors = sum(4 * max(entry.elements, 1) for entry in manifest.tensors)
    images = canned.count * rule.height * rule.width * rule.channels
    return int(tensors + manifest.graph.size + images + sum(h * w * c for h, w, c in canned.pictures.sizes))


def parent() -> Any:
    """The bundle that every delta is applied to."""
    return read_bundle((CORPUS / "parent.bundle").read_bytes())


def answer(data: bytes, base: Any) -> str:
    """What the reader says of a file: "refused", "large", or what it is."""
    try:
        if DELTA_FORMAT.encode() in data:
            delta = read_delta(data)
            apply_delta(base, delta)
            return "delta"
        bundle = read_bundle(data)
        if _declared(bundle.manifest) > DECLARED:
            return "large"
        bundle.tensors()
        bundle.graph()
        bundle.canned_images()
        bundle.canned_logits()
        for _ in bundle.canned_pictures():
            pass
    except BundleError:
        return "refused"
    return "bundle"


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a JSON tree."""
    items = list(tree.items()) if isinstance(tree, dict) else list(enumerate(tree)) if isinstance(tree, list) else []
    return [place for key, item in items for place in ((tree, key), *_places(item))]


def _change_manifest(manifest: Any, rng: random.Random, mutate: Mutate) -> None:
    """One place gets another value: junk, another place's, a number nearby, a mutated text; or it goes."""
    places = _places(manifest)
    node, key = rng.choice(places)
    value, kind = node[key], rng.randrange(5)
    if kind == 0:
        node[key] = rng.choice(JUNK)
    elif kind == 1:
        other, place = rng.choice(places)
        node[key] = json.loads(json.dumps(other[place]))
    elif kind == 2 and isinstance(value, int):
        node[key] = value + rng.choice((-1, 1, -value, value, rng.randrange(1 << 20)))
    elif kind == 3 and isinstance(value, str):
        node[key] = mutate(value.encode(), 64).decode("utf-8", "replace")
    elif kind == 4:
        del node[key]


def _change_rest(manifest: Any, payloads: dict[str, bytes], rest: bytes, rng: random.Random, mutate: Mutate) -> bytes:
    """Mutate the stored integers and logits, the bytes inside their compression, or a payload of floats."""
    floats = sorted(set(payloads) - {BYTES})
    if floats and rng.randrange(3) == 0:
        name = rng.choice(floats)
        payloads[name] = mutate(payloads[name], len(payloads[name]))[: len(payloads[name])].ljust(
            len(payloads[name]), b"\0"
        )
        return rest
    if rng.randrange(2) or manifest.get("integers") == "entropy":
        return mutate(rest, len(rest) + 64)
    logits = 2 * (manifest["canned"]["count"] * len(manifest["labels"]) if "canned" in manifest else PARENT_LOGITS)
    stored, tail = rest[: len(rest) - logits], rest[len(rest) - logits :]
    inner = decompress(stored, _stored_size(manifest), "integers", manifest["integers"])
    return compress(mutate(inner, len(inner) + 16), manifest["integers"], fast=True) + tail


def _stored_size(manifest: Any) -> int:
    """Bytes of all integers before compression; a delta's differences are as many as the parent's values."""
    sizes = 0
    changed = [{"index": i, "coding": name} for name in DIFFERENCES for i in manifest.get(name, ())]
    for entry in (*changed, *manifest["tensors"]):
        shape = entry["shape"] if "shape" in entry else SHAPES[entry["index"]]
        elements = 1
        for size in shape:
            elements *= int(size)
        sizes += elements * {"i8": 1, "i16": 2}.get(entry["coding"].rpartition("-")[2], 0)
    return min(sizes, 1 << 16)


def mutated(data: bytes, largest: int, seed: int, mutate: Mutate) -> bytes:
    """A changed file; in half of the cases sealed again."""
    rng = random.Random(seed)
    if rng.randrange(2):
        return mutate(data, largest)
    wanted = DELTA_FORMAT if DELTA_FORMAT.encode() in data else FORMAT
    try:
        container = read_container(data, wanted)
        text = manifest_of(container.head, container.manifest_size)
        manifest = json.loads(text)
        graph = graph_of(container.head, len(text), manifest["graph"]["size"]) if "graph" in manifest else b""
        payloads = {name: bytes(each) for name, each in container.payloads.items()}
        rest = bytes(container.rest)
        for _ in range(rng.randint(1, 3)):
            if rng.randrange(2):
                rest = _change_rest(manifest, payloads, rest, rng, mutate)
            else:
                _change_manifest(manifest, rng, mutate)
        text = json.dumps(manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        head = pack_head(text, graph)
        payloads[BYTES] = head + rest
        made = write_container(Container(wanted, len(text), len(head), payloads))
    except (BundleError, UnicodeError, ValueError, AttributeError, TypeError, KeyError, IndexError, struct.error):
        return mutate(data, largest)  # it is too broken to be sealed
    return made if len(made) <= largest else mutate(data, largest)


def main() -> None:
    """Run libFuzzer; its options follow the corpus directory."""
    if atheris is None:
        raise SystemExit("atheris is not installed: pip install 'seedcnn[fuzz]'")
    base = parent()
    for path in sorted(CORPUS.iterdir()):
        answer(path.read_bytes(), base)  # what is imported or cached on first use is not the input's memory
    peak = 0

    def one_input(data: bytes) -> None:
        nonlocal peak
        answer(data, base)
        now = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if peak and now - peak > DECLARED + SPARE:
            raise MemoryError(f"one input raised the peak of memory by {(now - peak) >> 20} MB")
        peak = now

    def mutator(data: bytes, largest: int, seed: int) -> bytes:
        return mutated(data, min(largest, LARGEST_INPUT), seed, atheris.Mutate)

    atheris.Setup([sys.argv[0], f"-max_len={LARGEST_INPUT}", *sys.argv[1:]], one_input, custom_mutator=mutator)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
