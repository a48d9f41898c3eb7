"""Runs the Triton kernels in their interpreter on the CPU, against the reference. TRITON_INTERPRET=1 must be set.

Prints how many cases were compared.
"""

from __future__ import annotations

import itertools

import torch

from seedcnn.ops.group_nl import NLFS, group_nl_reference
from seedcnn.ops.group_nl import triton as kernels

# c_seed, out_channels, groups, height, width: odd maps, crops, one group, long runs in several pieces
SHAPES = ((3, 6, 1, 3, 5), (4, 12, 2, 5, 1), (4, 7, 2, 3, 3), (4, 10, 4, 2, 3), (2, 4, 1, 33, 17))
# Rounding once from float32 leaves at most one unit in the last place.
TOLERANCE = {torch.float32: (2e-6, 2e-5), torch.bfloat16: (8e-3, 2e-2), torch.float16: (1e-3, 4e-3)}


def compare(nlf: str, shape: tuple[int, ...], dtype: torch.dtype, channels_last: bool) -> None:
    """Output and gradient, from the output and from the seeds."""
    c, out_channels, groups, height, width = shape
    memory = torch.channels_last if channels_last else torch.contiguous_format
    generator = torch.Generator().manual_seed(0)
    seeds = torch.randn(2, c, height, width, generator=generator).to(dtype).contiguous(memory_format=memory)
    seeds[0, 0, 0, 0] = 0
    count = groups * (-(-out_channels // c) - 1)
    omega, phi = torch.rand(count, generator=generator) + 1, torch.rand(count, generator=generator) * 4 + 1
    how = {"nlf_groups": groups, "nlf": nlf}
    x = seeds.detach().clone().requires_grad_()
    expected = group_nl_reference(x, omega, phi, out_channels=out_channels, **how)
    grad = torch.randn(expected.shape, generator=generator).to(dtype).contiguous(memory_format=memory)
    expected.backward(grad)
    out = torch.full_like(grad, float("nan"))
    kernels.forward(seeds, omega, phi, out, channels_last=channels_last, **how)
    forward, backward = TOLERANCE[dtype]
    torch.testing.assert_close(out, expected.detach(), rtol=forward, atol=forward)
    for maps in (out, seeds):
        found = torch.full_like(seeds, float("nan"))
        kernels.backward(grad, maps, omega, phi, found, channels_last=channels_last, **how)
        torch.testing.assert_close(found, x.grad, rtol=backward, atol=backward)


def main() -> None:
    torch.set_num_threads(1)
    cases = [(nlf, SHAPES[1], dtype, cl) for nlf, dtype, cl in itertools.product(NLFS, TOLERANCE, (False, True))]
    cases += [("sine", shape, dtype, cl) for shape, dtype, cl in itertools.product(SHAPES, TOLERANCE, (False, True))]
    for case in cases:
        compare(*case)
    print(len(cases))


if __name__ == "__main__":
    main()
