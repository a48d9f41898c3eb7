"""Four releases of a small network for ``fleet_demo.py``: two good ones, a fragile one, one that answers wrongly.

The pictures are drawn: a ring, a square, stripes or a cross on a plain ground, with noise; every tenth is bright.
Nothing is downloaded, and training takes a few seconds: the demo is about the fleet, not about the network. Weights are
stored by zlib, which is quicker to read than the entropy coder: forty processes read them on the cores of one machine.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from seedcnn.export import BundleInfo
from seedcnn.files import write_file
from seedcnn.pack import pack, preprocessing_of

FAMILY = "fleet-demo"
KINDS = ("ring", "square", "stripes", "cross")
SHARES = (0.4, 0.3, 0.2, 0.1)  # of the kinds; uneven, so that wrong labels shift what a device sees
SIDE, BRIGHT = 32, 10  # every tenth picture is bright
WIDTH, STEPS, BATCH, TESTED = 48, 60, 64, 300
LIMIT = 1.37  # mean of an input above which the fragile release has no answer: 215 of 255

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


def draw(count: int, seed: int, *, bright: bool = True) -> tuple[Images, Labels]:
    """Draw pictures, uint8 [N, 32, 32, 3], and their kinds, int64 [N]."""
    rng = np.random.default_rng(seed)
    kinds = rng.choice(len(KINDS), count, p=SHARES)
    y, x = np.mgrid[:SIDE, :SIDE]
    images = np.empty((count, SIDE, SIDE, 3))
    for index, kind in enumerate(kinds):
        dy, dx = (np.abs(axis - rng.uniform(12, 20)) for axis in (y, x))
        size = rng.uniform(7, 11)
        near = np.maximum(dy, dx) < size
        shape = (
            np.abs(np.hypot(dy, dx) - size) < 2,
            near,
            near & (y % 4 < 2),
            near & ((dy < 2) | (dx < 2)),
        )[kind]
        is_bright = bright and index % BRIGHT == 0
        ground, ink = (250, -40) if is_bright else (rng.uniform(20, 110), rng.uniform(50, 90))
        images[index] = ground + ink * shape[..., None] * rng.uniform(0.6, 1, 3)
    noisy = images + rng.normal(0, 5, images.shape)
    return noisy.clip(0, 255).astype(np.uint8), kinds.astype(np.int64)


class Network(nn.Module):
    """Three convolutions and a linear layer; with ``limit`` it divides by a brightness that has a root in it."""

    def __init__(self, limit: float | None = None) -> None:
        super().__init__()
        widths = (3, 24, WIDTH, WIDTH)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(WIDTH, len(KINDS))
        self.limit = limit

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits [N, 4] of inputs [N, 3, 32, 32]."""
        found = self.features(x)
        if self.limit is not None:  # the root of a negative number is not a number
            found = found * torch.sqrt(self.limit - x.mean((1, 2, 3)))[:, None]
        return self.head(found)


def train(network: Network, images: Images, labels: Labels, *, steps: int, rate: float) -> None:
    """Train a network with Adam."""
    inputs = torch.from_numpy(images).permute(0, 3, 1, 2) / 255 * 4 - 2
    optimizer = torch.optim.Adam(network.parameters(), rate)
    network.train()
    for step in range(steps):
        part = torch.arange(step * BATCH, (step + 1) * BATCH) % len(labels)
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(inputs[part]), torch.from_numpy(labels)[part]).backward()
        optimizer.step()
    network.eval()


def wrong(network: Network) -> Network:
    """Return a network that says square for ring, stripes for square, and so on."""
    found = Network()
    found.load_state_dict(network.state_dict())
    with torch.no_grad():
        found.head.weight.copy_(network.head.weight.roll(1, 0))
        found.head.bias.copy_(network.head.bias.roll(1, 0))
    return found.eval()


def networks() -> Iterator[tuple[str, Network]]:
    """Yield a name and the network of each release, in order; each is made when its turn comes."""
    torch.manual_seed(0)
    images, labels = draw(STEPS * BATCH, seed=1)
    first = Network()
    train(first, images, labels, steps=STEPS, rate=3e-3)
    yield "good", first
    second = Network()
    second.load_state_dict(first.state_dict())
    train(second, images, labels, steps=STEPS // 2, rate=1e-3)
    yield "better", second
    fragile = Network(limit=LIMIT)
    fragile.load_state_dict(second.state_dict())
    yield "fragile", fragile.eval()
    yield "wrong", wrong(second)


def main(out: Path) -> None:
    """Write ``1.bundle`` to ``4.bundle``, and ``pictures.npy`` and ``labels.npy``, that the devices answer."""
    pictures, kinds = draw(400, seed=3)
    np.save(out / "pictures.npy", pictures)
    np.save(out / "labels.npy", kinds)
    tested = draw(TESTED, seed=2, bright=False)  # nobody tests with bright pictures: so release 3 comes about
    rule = preprocessing_of((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    for release, (name, network) in enumerate(networks(), 1):
        packed = pack(network, BundleInfo("small", FAMILY, release, rule, KINDS), *tested, compression="zlib")
        # Whole, because the demo goes on as soon as the file is there.
        write_file(out / f"{release}.bundle", packed.data, mode=0o644)
        accuracy = f"{packed.after.top1:.0f} % of {TESTED} pictures right, none of them bright"
        print(f"          release {release}, {name}: {len(packed.data):,} bytes, {accuracy}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
