"""Put the table of results/demo.json into README.md, or check that it stands there.

results/demo.json is demo-out/demo.json of a `make demo` run.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- demo table, written by tools/demo_table.py -->", "<!-- end of demo table -->"


def table() -> str:
    """The record as a Markdown table and its verdict."""
    record = json.loads((ROOT / "results" / "demo.json").read_text())
    lines = [f"| | {' | '.join(record['networks'])} |", "|---" * (len(record["networks"]) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(cells)} |" for name, cells in record["rows"].items()]
    lines += [
        "",
        f"In brackets: ratio to vanilla. {record['verdict']}",
        "",
        *(f"- {note}" for note in record["device"]),
    ]
    return "\n".join(lines)


def main() -> int:
    """0 if README shows the record (or was made to), 1 if it does not."""
    path = ROOT / "README.md"
    text = path.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    new = f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"
    if "--check" in sys.argv:
        if new != text:
            print("README.md does not show results/demo.json; run: make docs", file=sys.stderr)
        return int(new != text)
    path.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
