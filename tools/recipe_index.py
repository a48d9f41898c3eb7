"""Write recipes/index.json, the list of all recipes, by executing every recipe file, or check that it is up to date."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from seedcnn.recipe_index import INDEX, recipe_directory
from seedcnn.train.recipes import build_index


def render() -> str:
    """Compose the file."""
    found = {name: asdict(file) for name, file in build_index().items()}
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def main() -> int:
    """Write the index, or with ``--check`` compare it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if the index is out of date")
    path, text = recipe_directory() / INDEX, render()
    if not parser.parse_args().check:
        path.write_text(text, encoding="utf-8")
        return 0
    if not path.exists() or path.read_text("utf-8") != text:
        print(f"recipes/{INDEX} is not what the recipe files say; run: make docs", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
