"""A bundle, generator or field of a later version: refused by name, not misread."""

from __future__ import annotations

import json

import pytest

from seedcnn.bundle.container import KEY
from tests.bundle.bundles import with_header, with_header_text, with_manifest, with_text

VERSIONS = ["seedcnn-bundle/2", "seedcnn-bundle/10", "SEEDCNN-BUNDLE/1", "", "x" * 5000]


@pytest.mark.parametrize("version", VERSIONS)
def test_format_in_the_header(tiny, refused, version):
    def change(header):
        header["__metadata__"]["seedcnn"] = header["__metadata__"]["seedcnn"].replace("seedcnn-bundle/1", version)

    refused(with_header(tiny, change), "bundle format is .*reads 'seedcnn-bundle/1'")


@pytest.mark.parametrize("version", VERSIONS)
def test_format(tiny, refused, version):
    refused(with_manifest(tiny, lambda m: m.update(format=version)), "bundle format is .*reads 'seedcnn-bundle/1'")


@pytest.mark.parametrize("version", [1, [], {}, ["seedcnn-bundle/1"]])
def test_format_of_another_type(tiny, refused, version):
    refused(with_manifest(tiny, lambda m: m.update(format=version)), "bundle format is")


def test_the_version_is_looked_at_before_any_other_field(tiny, refused):
    text = json.dumps({"format": "seedcnn-bundle/2", "what": {"nobody": ["knows"]}}, separators=(",", ":"))
    refused(with_text(tiny, text.encode()), "bundle format is 'seedcnn-bundle/2'")


def test_the_version_is_looked_at_before_all_else_in_the_header(tiny, refused):
    refused(tiny.replace(b"seedcnn-bundle/1", b"seedcnn-bundle/2"), "bundle format is 'seedcnn-bundle/2'")
    header = {"__metadata__": {"seedcnn": "seedcnn-bundle/2 of the future"}, "more": {"nobody": "knows"}}
    refused(with_header_text(tiny, json.dumps(header, separators=(",", ":")).encode()), "bundle format is")


def test_a_bundle_of_before(tiny, refused):
    old = {"__metadata__": {"seedcnn.manifest": "{}", "seedcnn.manifest.sha256": "0" * 64}}
    text = json.dumps(old, separators=(",", ":")).encode()
    refused(with_header_text(tiny, text), "a bundle or delta of an earlier version of seedcnn, .* pack again")


def test_no_version(tiny, refused):
    refused(with_manifest(tiny, lambda m: m.pop("format")), "bundle format is None")


def test_generator(tiny, refused):
    refused(with_manifest(tiny, lambda m: m.update(rng="seedcnn-rng/2")), "'seedcnn-rng/2'; this version .* reads")


def test_more_metadata(tiny, refused):
    refused(with_header(tiny, lambda h: h["__metadata__"].update(more="x")), "metadata must hold exactly")


def test_less_metadata(tiny, refused):
    refused(with_header(tiny, lambda h: h["__metadata__"].pop(KEY)), "metadata must hold exactly")
    refused(with_header(tiny, lambda h: h.pop("__metadata__")), "metadata must hold exactly")


def test_a_plain_safetensors_file(refused):
    import numpy as np
    from safetensors.numpy import save

    refused(save({"weight": np.zeros(3, np.float32)}), "metadata must hold exactly")


@pytest.mark.parametrize(
    "facts",
    [
        "seedcnn-bundle/1",
        "seedcnn-bundle/1 1 1",
        "seedcnn-bundle/1 01 1 " + "0" * 64,
        "seedcnn-bundle/1 -1 1 " + "0" * 64,
        "seedcnn-bundle/1 1 1 " + "F" * 64,
        "seedcnn-bundle/1 1 1 " + "0" * 65,
        "seedcnn-bundle/1 1 1  " + "0" * 64,
        "seedcnn-bundle/1 1 99999999999 " + "0" * 64,
    ],
)
def test_facts_that_are_none(tiny, refused, facts):
    refused(with_header(tiny, lambda h: h["__metadata__"].update(seedcnn=facts)), "a format, two sizes, a SHA-256")
