from __future__ import annotations

import platform

import pytest

from seedcnn.machine import computes_in_bf16, processor


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (
            "processor\t: 0\nmodel\t\t: 17\nmodel name\t: Maker X: 2 GHz\n\nprocessor\t: 1\nmodel name\t: other\n",
            "Maker X: 2 GHz",
        ),
        ("processor\t: 0\nCPU part\t: 0xd08\n\nModel\t\t: Board 4\n", "0xd08"),
        ("Hardware\t: x\nModel\t\t: Board 4\n", "Board 4"),
    ],
)
def test_the_first_name_in_the_list_is_taken(tmp_path, text, name):
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    assert processor(path) == name


def test_without_a_list_the_platform_is_asked(tmp_path):
    (tmp_path / "nameless").write_text("processor\t: 0\nmodel name\t:\n")
    for path in (tmp_path / "absent", tmp_path / "nameless"):
        assert processor(path) == (platform.processor() or "unknown")


def test_this_machine_has_a_name():
    assert processor().strip() == processor() != ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16\n", True),
        ("flags\t\t: fpu amx_bf16 amx_tile\n", True),
        ("Features\t: fp asimd bf16\n", True),
        ("flags\t\t: fpu avx512f avx2\n", False),
        ("model name\t: bf16\n", False),
    ],
)
def test_a_processor_that_computes_in_bf16(tmp_path, text, expected):
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    assert computes_in_bf16(path) is expected
    assert computes_in_bf16(tmp_path / "missing") is False
