"""The notebook is committed without outputs, runs from top to bottom, and shows its results as tables."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "examples" / "first_steps.ipynb"


def execute(notebook: nbformat.NotebookNode, directory: Path) -> None:
    """Run all cells in a kernel of this Python."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONPATH": path, "TMPDIR": str(directory)}
    client = NotebookClient(notebook, timeout=280, resources={"metadata": {"path": str(directory)}})
    client.execute(env=environment)


def shown(cell: nbformat.NotebookNode, kind: str = "text/html") -> str:
    """The results of a cell in one form."""
    return "".join(str(each["data"].get(kind, "")) for each in cell.outputs if "data" in each)


def printed(cell: nbformat.NotebookNode, stream: str = "stdout") -> str:
    return "".join(each.text for each in cell.outputs if each.output_type == "stream" and each.name == stream)


def test_the_committed_notebook_has_no_outputs_and_no_paths():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count, cell.metadata) == ([], None, {})
    assert not re.search(r"/(home|root|tmp|Users)/", NOTEBOOK.read_text())


@pytest.mark.slow
def test_it_runs_and_shows_its_results(tmp_path):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    start = time.monotonic()
    execute(notebook, tmp_path)
    print(f"{time.monotonic() - start:.1f} s")
    cells = {word: cell for cell in notebook.cells if cell.cell_type == "code" for word in [cell.source.split()[-1]]}
    report, costs, answers = cells["report"], cells["converted"], cells["found"]
    assert "replaced 8 convolutions, left 1 alone" in shown(report)
    assert "MACs 3,064,064 -> 1,5" in printed(costs)
    assert re.search(r"MACs \(conv-linear\)</td><td[^>]*>1,5", shown(costs))
    assert shown(costs, "text/plain").startswith("Cost(params=39,588, ")
    (accuracy,) = re.findall(r"Top-1 accuracy ([\d.]+) ±", shown(answers))
    assert float(accuracy) > 60
    assert "<tr><td>gaussian_noise</td><td>" in shown(cells["robust"])
    assert "bits a weight" in shown(cells["packed"])
    assert re.fullmatch(r"PackResult\(\d\d,\d+ bytes, .*, n=400\)", shown(cells["packed"], "text/plain"))
    (right,) = re.findall(r"([\d.]+) % of 400 pictures; the first is stripes\n", printed(cells["bundle"]))
    assert abs(float(right) - float(accuracy)) <= 2
    assert shown(cells["bundle"], "text/plain").startswith("Bundle('shapes', release 1 of 'shapes', ")
    for cell in cells.values():
        assert all(len(line) < 300 for line in shown(cell, "text/plain").splitlines())
        assert "Warning" not in printed(cell, "stderr")


STAGE = """
from seedcnn.progress import Progress
import time
with Progress().steps("timing layers", 60) as advance:
    for _ in range(60):
        time.sleep(0.05)
        advance()
"""


@pytest.mark.parametrize("widgets", [True, False])
def test_a_long_job_shows_a_bar_or_says_what_bars_need(widgets, tmp_path):
    hidden = "" if widgets else "import sys\nsys.modules['ipywidgets'] = None\n"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(hidden + STAGE)])
    execute(notebook, tmp_path)
    (cell,) = notebook.cells
    text = shown(cell, "text/plain") + printed(cell) + printed(cell, "stderr")
    drawn = "application/vnd.jupyter.widget-view+json" in str(cell.outputs) or "widget" in str(notebook.metadata)
    assert drawn == widgets
    assert "Warning" not in text
    if not widgets:
        assert "bars in Jupyter need ipywidgets: pip install ipywidgets" in text
        assert "timing layers: done in 3 s" in text
