"""One of two processes of the DDP law; run by test_laws.py with the path of the shared store and the rank."""

from __future__ import annotations

import sys

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from tests.layers.families import FAMILIES, IN, build, fixed_numbers


def check(form: str, rank: int) -> None:
    """Train two steps; count what the gradient hook sends, and see that each process keeps its own fixed numbers."""
    layer = build(form)
    marks = {}
    for name, value in fixed_numbers(layer).items():
        value += rank  # only a broadcast could make the two processes equal again
        marks[name] = value.clone()
    model = DistributedDataParallel(nn.Sequential(layer, nn.ReLU()))
    sent = 0

    def hook(_, bucket):
        nonlocal sent
        sent += bucket.buffer().numel() * bucket.buffer().element_size()
        return distributed.all_reduce(bucket.buffer(), async_op=True).get_future().then(lambda f: f.value()[0] / 2)

    model.register_comm_hook(None, hook)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    learnable = sum(value.numel() for value in layer.parameters() if value.requires_grad)
    for step in range(2):
        sent = 0
        generator = torch.Generator().manual_seed(10 * step + rank)
        model(torch.randn(2, IN, 5, 7, generator=generator)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        if sent != 4 * learnable:
            raise SystemExit(f"{form}: {sent} bytes sent for {learnable} learnable parameters")
    for name, value in marks.items():
        if not torch.equal(fixed_numbers(layer)[name], value):
            raise SystemExit(f"{form}: {name} was overwritten by the other process")
    summed = torch.cat([value.detach().flatten() for value in layer.parameters()]).double()
    both = [torch.zeros_like(summed) for _ in range(2)]
    distributed.all_gather(both, summed)
    if not torch.equal(*both):
        raise SystemExit(f"{form}: the two processes ended with different weights")


def main() -> None:
    """Join the other process, check every family."""
    store, rank = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    for form in FAMILIES:
        check(form, rank)
    distributed.destroy_process_group()
    print("checked", len(FAMILIES))


if __name__ == "__main__":
    main()
