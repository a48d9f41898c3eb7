"""Compare the rebuilt Icons-50 with the original: the table of docs/data.md.

``python tools/icons50_nearness.py ORIGINAL`` with the directory of Icons-50 in the authors' layout. The rebuilt set is
downloaded if it is not cached.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from seedcnn.data.sets.icons50 import load_icons50
from seedcnn.data.sets.icons50_rebuilt import load_icons50_rebuilt

SAME = 12  # mean absolute difference of 255 below which two images show the same drawing
REAL_NAMES = {"emojione": "emoji-one", "messenger": "facebook", "fluent3d": "microsoft"}


def distances(ours: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Return the mean absolute differences [len(ours), len(real)]."""
    flat = real.reshape(len(real), real[0].size if len(real) else ours[0].size).astype(np.int16)
    rows = [np.abs(flat - one.reshape(-1)).mean(1) for one in ours.astype(np.int16)]
    return np.array(rows).reshape(len(ours), len(real))


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("original", type=Path)
    real, rebuilt = load_icons50(parser.parse_args().original), load_icons50_rebuilt()
    print("| style | rebuilt | original | median distance | same as original | originals recovered | other vendors |")
    ours, theirs = np.asarray(rebuilt.styles), np.asarray(real.styles)
    for style in sorted(set(ours)):
        name = REAL_NAMES.get(style, style)
        nearest, found, others = [], [], []
        for label in range(len(rebuilt.classes)):
            mine = rebuilt.images[(ours == style) & (rebuilt.labels == label)]
            same = real.labels == label
            table = distances(mine, real.images[same & (theirs == name)])
            rest = distances(mine, real.images[same & (theirs != name)])
            if table.size:
                nearest += table.min(1).tolist()
                found += (table.min(0) < SAME).tolist()
            elif table.shape[1]:
                found += [False] * table.shape[1]
            others += rest.min(1).tolist() if rest.size else []
        counts = f"{(ours == style).sum():,} | {(theirs == name).sum():,}"
        shares = f"{100 * np.mean(np.array(nearest) < SAME):.0f} % | {100 * np.mean(found):.0f} %"
        print(f"| {style} | {counts} | {np.median(nearest):.1f} | {shares} | {np.median(others):.1f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
