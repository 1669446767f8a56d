"""The tour notebook runs from top to bottom in a kernel of its own."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest


@pytest.mark.slow
def test_the_tour_runs(tour: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the notebook's own packages
        import nbformat
        from nbclient import NotebookClient

        notebook = nbformat.read(tour, as_version=4)
        NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            assert output.get("output_type") != "error"
            assert "@example.com" not in str(output.get("data", "")) or "visits" in cell.source
    shown = [
        output for cell in notebook.cells for output in cell.get("outputs", ()) if "text/html" in output.get("data", {})
    ]
    assert len(shown) >= 8


def test_the_tour_is_stored_without_outputs(tour: Path) -> None:
    import json

    cells = json.loads(tour.read_text())["cells"]
    assert not [cell for cell in cells if cell["cell_type"] == "code" and (cell["outputs"] or cell["execution_count"])]
