"""A project to back up, and an empty folder beside it."""

from __future__ import annotations

import pytest
from backup_support import made


@pytest.fixture
def root(tmp_path):
    return made(tmp_path / "original")


@pytest.fixture
def place(tmp_path):
    (tmp_path / "place").mkdir()
    return tmp_path / "place"
