"""The whole road as one program, so that it can run under another interpreter: what it printed and wrote, as JSON.

Arguments: a directory to work in, and one of pictures. It trains, measures, packs and publishes, and a device updates,
answers and measures, each through the program's entry point.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import sys
from pathlib import Path

SLOW = re.compile(r"^(?!.*images/s).*( \.\.\.|: done in .*| left)$|^\d+ (s|min \d+ s): ")
"""A line of progress, which only what takes long writes, or of where the time went."""


def main(place: Path, photos: Path) -> dict[str, object]:
    from seedcnn.cli import main as cloud
    from seedcnn.device.main import main as device
    from seedcnn.server.static import serve

    printed: list[str] = []

    def call(program, *arguments: object) -> None:
        out, err = io.StringIO(), io.StringIO()
        before, sys.argv = sys.argv, ["seedcnn", *map(str, arguments)]
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = program() if program is cloud else program(sys.argv[1:])
        except SystemExit as end:
            code = end.code
        finally:
            sys.argv = before
        # The directory differs from run to run, and so do times. Matplotlib says that there is no HOME.
        said = "".join(line for line in err.getvalue().splitlines(True) if "atplotlib" not in line)
        said = "".join(line for line in said.splitlines(True) if not SLOW.search(line))
        said = re.sub(r"\d+ images/s .*", "", out.getvalue() + said)
        printed.append(f"{code or 0}: {said}".replace(str(place), "PLACE"))

    checkpoint, bundle, fleet, home = (place / name for name in ("a.ckpt", "a.bundle", "fleet", "home"))
    settings = ("--input", 16, "--set", "epochs=2", "--device", "cpu")
    call(cloud, "train", "resnet8_cifar", "--data", photos, *settings, "--out", checkpoint)
    call(cloud, "evaluate", checkpoint, "--corruptions", "none", "--json")
    call(cloud, "pack", checkpoint, "--step", 0.002, "--out", bundle, "--family", "own", "--release", 1)
    call(cloud, "evaluate", bundle, "--data", photos, "--corruptions", "none", "--json")
    call(cloud, "repo", "init", fleet)
    call(cloud, "repo", "add-family", fleet, "own")
    call(cloud, "repo", "publish", fleet, bundle)
    with serve(fleet) as server:
        start = ("--root", fleet / "root.json", "--url", server.url, "--family", "own")
        call(device, "--home", home, "init", *start)
        call(device, "--home", home, "update")
    call(device, "--home", home, "evaluate", photos / "val", "--json")
    call(device, "--home", home, "predict", photos / "val", "--json")
    digest = hashlib.sha256(bundle.read_bytes()).hexdigest() if bundle.exists() else ""
    return {"bundle": digest, "printed": printed}


if __name__ == "__main__":
    found = main(*map(Path, sys.argv[1:]))
    sys.stdout.write(json.dumps(found) + "\n")
