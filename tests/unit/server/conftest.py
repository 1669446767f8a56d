"""A project, and a client of a server that has it."""

import sys
from pathlib import Path

import httpx
import pytest

# The releases of the tests of releases.
sys.path.insert(0, str(Path(__file__).parents[1] / "release"))

from api_server import PROJECT, ROWS, serving

from cumulant.project.file.loading import load


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "churn"
    folder.mkdir()
    (folder / "cumulant.yaml").write_text(PROJECT)
    (folder / "payments.csv").write_text(ROWS)
    with load(folder, via="http") as loaded:
        yield loaded


@pytest.fixture
def api(project):
    """A client below the project's path."""
    with serving({project.name: project}) as url, httpx.Client(base_url=f"{url}/v1/projects/churn", timeout=60) as http:
        yield http
