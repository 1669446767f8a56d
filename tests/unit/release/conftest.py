"""A clock, and a project whose releases follow it."""

from __future__ import annotations

import pytest
from release_servers import project
from releases import MOMENT

from cumulant.testing.clock import ManualClock


@pytest.fixture
def clock():
    return ManualClock(MOMENT)


@pytest.fixture
def late(tmp_path, clock):
    with project(tmp_path / "late", clock=clock) as found:
        yield found
