"""A bundle, generator or field of a later version: refused by name, not misread."""

from __future__ import annotations

import json

import pytest

from seedcnn.bundle.container import DIGEST_KEY, write_container
from tests.bundle.bundles import with_header, with_manifest


@pytest.mark.parametrize("version", ["seedcnn-bundle/2", "seedcnn-bundle/10", "SEEDCNN-BUNDLE/1", "", "x" * 5000])
def test_format(tiny, refused, version):
    refused(with_manifest(tiny, lambda m: m.update(format=version)), "bundle format is .*reads 'seedcnn-bundle/1'")


@pytest.mark.parametrize("version", [1, [], {}, ["seedcnn-bundle/1"]])
def test_format_of_another_type(tiny, refused, version):
    refused(with_manifest(tiny, lambda m: m.update(format=version)), "bundle format is")


def test_the_version_is_looked_at_before_any_other_field(refused):
    text = json.dumps({"format": "seedcnn-bundle/2", "what": {"nobody": ["knows"]}}, separators=(",", ":"))
    refused(write_container(text.encode(), {}), "bundle format is 'seedcnn-bundle/2'")


def test_the_version_is_looked_at_before_the_manifest_digest(tiny, refused):
    refused(tiny.replace(b"seedcnn-bundle/1", b"seedcnn-bundle/2"), "bundle format is 'seedcnn-bundle/2'")


def test_no_version(tiny, refused):
    refused(with_manifest(tiny, lambda m: m.pop("format")), "bundle format is None")


def test_generator(tiny, refused):
    refused(with_manifest(tiny, lambda m: m.update(rng="seedcnn-rng/2")), "'seedcnn-rng/2'; this version .* reads")


def test_more_metadata(tiny, refused):
    refused(with_header(tiny, lambda h: h["__metadata__"].update(more="x")), "metadata must hold exactly")


def test_less_metadata(tiny, refused):
    refused(with_header(tiny, lambda h: h["__metadata__"].pop(DIGEST_KEY)), "metadata must hold exactly")
    refused(with_header(tiny, lambda h: h.pop("__metadata__")), "metadata must hold exactly")


def test_a_plain_safetensors_file(refused):
    import numpy as np
    from safetensors.numpy import save

    refused(save({"weight": np.zeros(3, np.float32)}), "metadata must hold exactly")
