"""Projects of the console's tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

# The releases of the tests of releases, and the console of the tests of a browser.
sys.path.insert(0, str(Path(__file__).parents[1] / "release"))

from console_support import console_client, make_project
from console_trained import make_trained

from cumulant.project.file.loading import load


@pytest.fixture
def project(tmp_path):
    with make_project(tmp_path / "late") as loaded:
        yield loaded


@pytest.fixture
def client(project):
    return console_client(project)


@pytest.fixture(scope="session")
def trained_folder(tmp_path_factory):
    """A trained project with hostile names and values, which tests only read."""
    return make_trained(tmp_path_factory.mktemp("trained") / "shop")


@pytest.fixture
def trained(trained_folder):
    with load(trained_folder, via="http") as loaded:
        yield loaded
