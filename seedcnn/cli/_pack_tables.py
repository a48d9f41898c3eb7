"""Tables and plots of ``seedcnn pack``."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from seedcnn.progress import duration
from seedcnn.terminal import console as open_console
from seedcnn.terminal import prose

if TYPE_CHECKING:
    from rich.console import Console

    from seedcnn.pack import PackRequest, PackResult
    from seedcnn.train import TrainConfig

__all__ = ["draw_search", "say_result", "say_sizes"]


_TABLE = 76  # columns


def say_result(result: PackResult, request: PackRequest, out: Path) -> None:
    """Print the bundle's size and how packing changed the network."""
    from seedcnn.pack.request import SEARCHED_DROP

    console = open_console(highlight=False)
    if result.tried:
        _say_search(console, result, request.searched_drop)
    _say_int8(console, result)
    if result.plain:
        shown = ", ".join(result.plain[:6]) + (f" and {len(result.plain) - 6} more" if len(result.plain) > 6 else "")
        prose(console, f"convolutions packed as they are: {shown}")
    spent = sorted(result.seconds.items(), key=lambda each: -each[1])
    watch = open_console(stderr=True, highlight=False)
    prose(watch, f"{duration(sum(result.seconds.values()))}: " + ", ".join(f"{w} {duration(s)}" for w, s in spent[:4]))
    before, after = result.before, result.after
    whose = "" if result.int8 is None else "with float32 weights on the grid "
    prose(
        console,
        f"accuracy {before.top1:.2f} -> {after.top1:.2f} % on {before.n:,} test images: "
        f"{after.top1 - before.top1:+.2f} ± {result.drop_error:.2f} points (standard error of the difference; of each "
        f"accuracy alone ± {after.standard_error:.2f}); {whose}the top class stays the same for "
        f"{result.grid.agreement:.2f} % of them",
    )
    if result.drop > SEARCHED_DROP and request.max_accuracy_drop is None:
        why = "on the calibration images it was less" if result.tried else "--max-accuracy-drop would refuse it"
        prose(console, f"that loses more than {SEARCHED_DROP:g} points: {why}")
    on_parent = request.parent is not None
    float32 = result.step is None and not on_parent and not result.trained
    ways = {"the grid it was trained on": result.trained, "the parent's grids": on_parent, "float32 weights": float32}
    grid = next((way for way, taken in ways.items() if taken), f"grid step {result.step or 0:.3g}")
    rate = "" if float32 else f", {result.bits_per_weight:.2f} bits a weight"
    prose(console, f"{out}: {len(result.data):,} bytes ({grid}{rate}; {result.seeded_values} values travel as seeds)")
    if result.adapts is not None:
        kept = f"; left as they are: {', '.join(result.adapts.left)}" if result.adapts.left else ""
        prose(console, f"adaptable: {result.adapts.norms} norms, {result.adapts.size:,} bytes of these{kept}")
    if result.delta is not None:
        share = 100 * len(result.delta) / len(result.data)
        prose(console, f"{out}.delta: {len(result.delta):,} bytes, {share:.1f} % of the bundle")


def _say_search(console: Console, result: PackResult, max_drop: float) -> None:
    """Print the grids that were tried."""
    table = Table(title="grids tried")
    for name in ("step", "bytes", "bits", "points lost", "counted", "images"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for each in result.tried:
        verdict = "taken" if each.step == result.step else "" if each.accepted else "too much"
        cells = (f"{each.step:.3g}", f"{each.weight_bytes:,}", f"{each.bits_per_weight:.2f}")
        lost, counted = f"{each.drop:+.2f} ± {each.error:.2f}", f"{each.lost:+.2f} ± {each.lost_error:.2f}"
        table.add_row(*cells, lost, counted, f"{each.n:,}", verdict)
    if console.is_terminal and console.width < _TABLE:  # each grid had its line when it was tried
        return
    console.print(table)
    distinct = result.tried[0].distinct
    copies = " and their shifted copies" if any(each.n > distinct for each in result.tried) else ""
    prose(
        console,
        f"on {distinct:,} calibration images{copies}, as many of them as decide; bytes: of the weights alone; bits: of "
        "each; points lost: "
        f"smoothed over the answers' margins, with their standard error they must stay within {max_drop:g}; counted: "
        "images that turn wrong, less those that turn right",
    )


def draw_search(result: PackResult) -> str:
    """Plot points lost against bytes of the weights, as SVG."""
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


def _say_int8(console: Console, result: PackResult) -> None:
    """Print how int8 compares with float32, if it was requested."""
    found = result.int8
    if found is not None:
        ranges = f"{found.calibration} calibration images" if found.calibration else "the parent's ranges"
        prose(
            console,
            f"int8, {ranges}: the same top class as float32 for {found.logits.agreement:.2f} % of the test images; "
            f"{found.float32_latency.median_ms:.3f} -> {found.latency.median_ms:.3f} ms an image in "
            f"{found.runtime} (medians of {found.latency.n}, one thread, this machine)",
        )


def say_sizes(result: PackResult, config: TrainConfig) -> None:
    """Print the size of other codings of the same tensors, and of the network before it was converted."""
    from seedcnn.evaluate import cost
    from seedcnn.pack.sizes import other_storages, plain_sizes
    from seedcnn.train import build_model

    sizes = {"this bundle": len(result.data)} | other_storages(result.data) | plain_sizes(result.learned)
    if config.convert is not None:
        vanilla = build_model(replace(config, convert=None, overrides={}, distill=None))
        sizes["vanilla network, float32"] = cost(vanilla).fp32_bytes
    table = Table("coding", "bytes", "ratio", title="the same tensors in other codings")
    for name, size in sizes.items():
        table.add_row(name, f"{size:,}", f"{size / len(result.data):.2f}")
    open_console(highlight=False).print(table)
