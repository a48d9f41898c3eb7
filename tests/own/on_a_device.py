"""What a device makes of pictures: run as a program where there is no torch.

It reads {"root": DIRECTORY, "files": [NAME], "rules": [RULE]} from standard input and prints, for each rule, what
each file becomes: the SHA-256 of its bytes, or why it is refused; then the versions of what it ran on.
"""

from __future__ import annotations

import hashlib
import json
import sys
from importlib.util import find_spec
from pathlib import Path


def main() -> None:
    import numpy
    import PIL

    from seedcnn.bundle import Preprocessing
    from seedcnn.errors import ImageError
    from seedcnn.runtime.pictures import load_picture

    asked = json.load(sys.stdin)
    found = []
    for rule in (Preprocessing.from_json(each) for each in asked["rules"]):
        row = {}
        for name in asked["files"]:
            path = Path(asked["root"], name)
            try:
                row[name] = hashlib.sha256(load_picture(path, rule).tobytes()).hexdigest()
            except ImageError as error:
                row[name] = str(error).removeprefix(f"{path} ")
        found.append(row)
    versions = {"pillow": PIL.__version__, "numpy": numpy.__version__, "torch": bool(find_spec("torch"))}
    print(json.dumps({"found": found, "versions": versions}))


if __name__ == "__main__":
    main()
