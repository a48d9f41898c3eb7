"""Write docs/timm.md: convert timm CNNs of many families, run, train, save, load and export them, and list failures.

python tools/timm_table.py [--jobs 2] [--only resnet18 mobilenetv2_050]
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from seedcnn.convert import ConversionReport, GroupNLConfig, convert_
from seedcnn.convert.filters import spatial_width
from seedcnn.errors import ConversionError, SeedCNNError
from seedcnn.export import fold, to_onnx
from seedcnn.runtime.session import open_session

PAGE = Path(__file__).parents[1] / "docs" / "timm.md"
SIZES = (64, 96, 128, 224, 256)
CHOSEN = [
    "resnet10t",
    "resnet18d",
    "resnet26",
    "legacy_seresnet18",
    "skresnet18",
    "resnext50_32x4d",
    "resnetv2_50",
    "resnetaa50",
    "vgg11_bn",
    "repvgg_a0",
    "regnetx_002",
    "regnety_002",
    "nf_regnet_b0",
    "gernet_s",
    "dla34",
    "hrnet_w18_small",
    "selecsls42b",
    "ese_vovnet19b_dw",
    "cspresnet50",
    "darknet17",
    "hgnetv2_b0",
    "fasternet_t0",
    "densenet121",
    "inception_v3",
    "mobilenetv2_050",
    "mobilenetv3_small_050",
    "mobilenetv4_conv_small",
    "mnasnet_small",
    "semnasnet_075",
    "fbnetc_100",
    "efficientnet_lite0",
    "efficientnet_es",
    "tf_efficientnet_lite0",
    "lcnet_050",
    "mixnet_s",
    "ghostnet_050",
    "rexnet_100",
    "mobileone_s0",
    "starnet_s1",
    "convnext_atto",
    "convnextv2_atto",
    "poolformer_s12",
]
# Drawn by `draw`, so that nobody chose what works.
DRAWN = [
    "regnetz_b16_evos",
    "efficientnetv2_s",
    "tf_efficientnetv2_b3",
    "cs3darknet_focus_x",
    "bat_resnext26ts",
    "nf_seresnet26",
    "mobileone_s2",
    "densenet161",
    "resnet33ts",
    "efficientformerv2_s2",
    "resnetv2_50d",
    "efficientnet_el_pruned",
    "coatnet_0_rw_224",
    "tf_efficientnet_b2",
    "efficientnet_b3_g8_gn",
    "rexnetr_130",
    "mobilenetv1_100h",
    "eca_halonext26ts",
    "eca_botnext26ts_256",
    "coatnet_rmlp_nano_rw_224",
    "regnetz_040_h",
    "efficientnet_b3",
    "mobilenet_edgetpu_v2_m",
    "resnet50_mlp",
    "iformer_l_distilled",
    "ecaresnet50d_pruned",
    "tf_efficientnet_b1",
    "hardcorenas_e",
    "nf_regnet_b3",
    "tf_efficientnet_el",
    "resnetv2_18",
    "fastvit_sa24",
    "dla102",
    "cs3darknet_focus_m",
    "repvit_m1_5",
    "nfnet_l0",
    "hardcorenas_c",
    "coatnet_bn_0_rw_224",
    "tf_efficientnet_lite4",
    "seresnext26t_32x4d",
    "dpn92",
    "regnetz_d32",
    "shvit_s3",
    "hrnet_w30",
    "repghostnet_130",
    "ghostnetv3_160",
    "cs3darknet_l",
    "tinynet_e",
    "convnext_nano_ols",
    "cs3sedarknet_xdw",
    "legacy_xception",
    "seresnet34",
    "efficientvim_m3_dist",
    "mobilenet_edgetpu_100",
    "resnetv2_50t",
    "regnetx_016",
    "skresnet50",
    "tf_mobilenetv3_small_minimal_100",
    "starnet_s050",
    "gcresnet50t",
]
MODELS = [*CHOSEN, *DRAWN]
_CLASSES = 10
_MOST_PARAMETERS = 40_000_000


@dataclass(frozen=True)
class Row:
    """Result for one network; ``failures`` is empty if everything worked."""

    model: str
    size: int
    how: str
    replaced: int
    left: int
    reasons: str
    params: tuple[int, int]
    macs: tuple[int, int]
    failures: tuple[str, ...]


def convert(model: nn.Module, seed: int = 0) -> tuple[str, ConversionReport]:
    """Convert in place with scope "paper", or "pointwise" if that matches nothing; indivisible widths are left.

    Returns:
        The scope used, and the report.

    Raises:
        ConversionError: if neither scope matches anything.
    """
    step = GroupNLConfig.paper().reduction_ratio * GroupNLConfig.paper().nlf_groups
    odd = {
        name: None
        for name, module in model.named_modules()
        if type(module) is nn.Conv2d and spatial_width(model, name, module) % step
    }
    problem: ConversionError | None = None
    for scope in ("paper", "pointwise"):
        for overrides in ({}, odd) if odd else ({},):
            try:
                report = convert_(model, GroupNLConfig.paper(scope=scope), seed=seed, overrides=overrides)
            except ConversionError as error:
                problem = error
                continue
            return scope + (", widths of 8n only" if overrides else ""), report
    raise problem or ConversionError("no convolution matched")


def _count(model: nn.Module, size: int) -> tuple[int, int]:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.empty(1, 3, size, size, device="meta"))
    return sum(p.numel() for p in model.parameters()), counter.get_total_flops() // 2


def _create(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=_CLASSES)
    for module in model.modules():
        # The last norms of residual blocks start at zero, which would hide the layers before them.
        if isinstance(module, nn.BatchNorm2d) and module.affine:
            nn.init.uniform_(module.weight, 0.5, 1.0)
    return model


def smallest_size(name: str) -> int:
    """Return the smallest of 64, 96, 128, 224, 256 pixels that a network accepts."""
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=_CLASSES)
    for size in SIZES[:-1]:
        try:
            _count(model, size)
        except (RuntimeError, AssertionError, ValueError):
            continue
        return size
    return SIZES[-1]


def draw(count: int = 60, seed: int = 0) -> list[str]:
    """Draw timm networks of at most 40 million parameters whose convolutions do half of the multiply-adds or more."""
    names = sorted(timm.list_models())
    random.Random(seed).shuffle(names)
    drawn: list[str] = []
    for name in names:
        if len(drawn) < count and name not in CHOSEN and _is_small_cnn(name):
            drawn.append(name)
    return drawn


def _is_small_cnn(name: str) -> bool:
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=_CLASSES).eval()
    if sum(p.numel() for p in model.parameters()) > _MOST_PARAMETERS:
        return False
    for size in SIZES:
        try:
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                model(torch.empty(1, 3, size, size, device="meta"))
        except (RuntimeError, AssertionError, ValueError):
            continue
        counts = counter.get_flop_counts()["Global"]
        return 2 * sum(n for what, n in counts.items() if "conv" in str(what)) >= sum(counts.values())
    return False


def _train(model: nn.Module, size: int) -> None:
    out = model.train()(torch.rand(2, 3, size, size))
    (out[0] if isinstance(out, tuple) else out).square().mean().backward()
    bad = [name for name, p in model.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    missing = sum(p.grad is None for p in model.parameters())
    if bad or missing:
        raise RuntimeError(f"{missing} parameters without a gradient, {len(bad)} with one that is not finite")
    model.zero_grad()


def _save_and_load(model: nn.Module, name: str, x: torch.Tensor) -> None:
    other = _create(name)
    convert(other, seed=1)
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(other.eval()(x), model.eval()(x), rtol=0, atol=0)


def _export(model: nn.Module, x: torch.Tensor) -> None:
    folded = fold(model)
    exported = to_onnx(folded, (x.shape[1], x.shape[2], x.shape[3]))
    parameters = {name: p.detach().numpy() for name, p in folded.named_parameters()}
    names = [*exported.tensors, *exported.seeded]
    session = open_session(exported.graph, {name: parameters[name] for name in names})
    found = torch.from_numpy(session.run(None, {"image": x.numpy()})[0])
    with torch.no_grad():
        expected = model.eval()(x)
    error = (found - expected).abs().max() / expected.abs().max()
    if not error < 1e-3:
        raise RuntimeError(f"ONNX Runtime differs by {error:.1e} of the largest logit")


def examine(name: str) -> Row:
    """Measure everything that the table shows for one network."""
    torch.set_num_threads(1)
    size = smallest_size(name)
    failures: list[str] = []
    with torch.device("meta"):
        before = timm.create_model(name, num_classes=_CLASSES)
        params, macs = _count(before, size)
        try:
            how, report = convert(before)
        except ConversionError as error:
            return Row(name, size, "-", 0, 0, "", (params, params), (macs, macs), (f"convert: {error}",))
        params_after, macs_after = _count(before, size)
    model = _create(name)
    convert(model)
    x = torch.rand(2, 3, size, size)
    steps: dict[str, Callable[[], None]] = {
        "forward and backward": lambda: _train(model, size),
        "save and load": lambda: _save_and_load(model, name, x),
        "ONNX": lambda: _export(model, x),
    }
    for step, run in steps.items():
        try:
            run()
        except (SeedCNNError, RuntimeError, AssertionError, ValueError, TypeError) as error:
            failures.append(f"{step}: {type(error).__name__}: {' '.join(str(error).split())[:160]}")
    kinds: dict[str, int] = {}
    for item in report.skipped:
        kind = _kind(item.reason)
        kinds[kind] = kinds.get(kind, 0) + 1
    reasons = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items(), key=lambda pair: -pair[1]))
    counts = len(report.replaced), len(report.skipped)
    return Row(name, size, how, *counts, reasons, (params, params_after), (macs, macs_after), tuple(failures))


def _kind(reason: str) -> str:
    """Shorten a reason to fit a cell, without its numbers."""
    for word, kind in (
        ("stem", "stem"),
        ("depthwise", "depthwise"),
        ("grouped", "grouped"),
        ("with a bias", "with bias"),
        ("min_saved_macs", "too few channels"),
        ("narrows", "narrowing"),
        ("overrides", "width not 8n"),
        ("pointwise", "1x1"),
        ("kernel", "k > 1"),
    ):
        if word in reason:
            return kind
    return reason.split()[0]


def line_of(row: Row) -> str:
    """Format one row of the table."""
    cells = [row.model, str(row.size), row.how, str(row.replaced), f"{row.left} ({row.reasons})"]
    for before, after in (row.params, row.macs):
        cells += [f"{before / 1e6:.2f} -> {after / 1e6:.2f}", f"{after / before:.2f}"]
    return f"| {' | '.join([*cells, '; '.join(row.failures).replace('|', '/')])} |"


def page(lines: dict[str, str]) -> str:
    """Compose docs/timm.md from the line of each network."""
    clean = sum(line.endswith("|  |") for line in lines.values())
    head = [
        "# timm networks, converted\n",
        "Written by `tools/timm_table.py` (`make docs-timm`); do not edit.",
        f"timm {timm.__version__}, {len(lines)} networks with {_CLASSES} classes, `GroupNLConfig.paper()`, r = 2.",
        f"The first {len(CHOSEN)} were chosen; the other {len(DRAWN)} were drawn (seed 0) from timm's networks of at",
        "most 40 million parameters whose convolutions do at least half of the multiply-adds.",
        'The scope is "paper" if it matches anything, else "pointwise"; with "widths of 8n only", `overrides` left the',
        "other layers out. Each converted network ran forward and backward, was saved and loaded into a network of",
        "another seed (logits bit-equal), and was folded, exported and compared in ONNX Runtime (1e-3 of the largest",
        f"logit). All of this worked for {clean} of {len(lines)}. Parameters and MACs are counts, not times.\n",
        "| network | input | scope | replaced | left | parameters, M | ratio | MACs, M | ratio | fails |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    return "\n".join([*head, *(lines[name] for name in MODELS if name in lines)]) + "\n"


def read_page() -> dict[str, str]:
    """Read the lines of docs/timm.md by network."""
    text = PAGE.read_text(encoding="utf-8").splitlines() if PAGE.exists() else []
    return {line.split(" | ")[0].strip("| "): line for line in text if line.split(" | ")[0].strip("| ") in MODELS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--drawn", action="store_true", help="draw anew, and print the names")
    parser.add_argument("--only", nargs="+", choices=MODELS, metavar="NAME", help="renew only these rows of the page")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    if arguments.drawn:
        print("\n".join(draw()))
        return
    lines = read_page() if arguments.only else {}
    with multiprocessing.get_context("spawn").Pool(arguments.jobs) as pool:
        for row in pool.imap_unordered(examine, arguments.only or MODELS, chunksize=1):
            lines[row.model] = line_of(row)
            print(lines[row.model], flush=True)
            PAGE.write_text(page(lines), encoding="utf-8")  # a long run may be stopped and taken up with --only
        pool.close()
        pool.join()
    PAGE.write_text(page(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
