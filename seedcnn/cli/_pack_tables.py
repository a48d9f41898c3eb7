"""What ``seedcnn pack`` prints and draws besides its two lines."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from seedcnn.pack import PackResult, Search
    from seedcnn.train import TrainConfig

__all__ = ["draw_search", "say_delta", "say_int8", "say_search", "say_sizes"]


def say_search(result: PackResult, search: Search) -> None:
    """The grids that were tried."""
    table = Table("step", "weights, bytes", "bits a weight", "points lost", "same first class", "", title="grids tried")
    for each in result.tried:
        verdict = "taken" if each.step == result.step else "" if each.accepted else "loses too much"
        cells = (f"{each.step:.4g}", f"{each.weight_bytes:,}", f"{each.bits_per_weight:.2f}")
        lost = f"{each.drop:+.2f} ± {each.error:.2f}"
        table.add_row(*cells, lost, f"{each.agreement:.2f} %", verdict)
    console = Console(highlight=False)
    console.print(table)
    console.print(
        f"on {len(search.images):,} calibration pictures; ± is the standard error, and the loss with it stays within "
        f"{search.max_drop:g} points",
        soft_wrap=True,
    )


def draw_search(result: PackResult) -> str:
    """Points lost against bytes of the weights, as SVG."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "seedcnn-pack"}):
        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.subplots()
        sizes = [each.weight_bytes / 1000 for each in result.tried]
        axes.errorbar(sizes, [each.drop for each in result.tried], [each.error for each in result.tried], marker="o")
        taken = next(each for each in result.tried if each.step == result.step)
        axes.plot(taken.weight_bytes / 1000, taken.drop, "ks", markersize=9, fillstyle="none", label="taken")
        axes.set(xscale="log", xlabel="weights, kB", ylabel="accuracy lost, points")
        axes.grid(alpha=0.3)
        axes.legend()
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def say_int8(result: PackResult) -> None:
    """What int8 did, if it was asked for."""
    found = result.int8
    if found is not None:
        ranges = f"{found.calibration} calibration images" if found.calibration else "the parent's ranges"
        typer.echo(
            f"int8, {ranges}: {found.logits.agreement:.2f} % same first class as "
            f"float32; {found.float32_latency.median_ms:.3f} -> {found.latency.median_ms:.3f} ms a picture in "
            f"{found.runtime} (medians of {found.latency.n}, one thread, this machine)"
        )


def say_delta(result: PackResult, path: Path) -> None:
    """Write the delta and say how large it is."""
    assert result.delta is not None
    path.write_bytes(result.delta)
    share = 100 * len(result.delta) / len(result.data)
    typer.echo(f"{path}: {len(result.delta):,} bytes, {share:.1f} % of the bundle")


def say_sizes(result: PackResult, config: TrainConfig) -> None:
    """Other codings of the same tensors, and the network as it was before it was converted."""
    from seedcnn.evaluate import cost
    from seedcnn.pack.sizes import plain_sizes
    from seedcnn.train import build_model

    sizes = {"this bundle": len(result.data)} | plain_sizes(result.learned)
    if config.convert is not None:
        vanilla = build_model(replace(config, convert=None, overrides={}, distill=None))
        sizes["vanilla network, float32"] = cost(vanilla).fp32_bytes
    table = Table("coding", "bytes", "ratio", title="the same tensors otherwise")
    for name, size in sizes.items():
        table.add_row(name, f"{size:,}", f"{size / len(result.data):.2f}")
    Console(highlight=False).print(table)
