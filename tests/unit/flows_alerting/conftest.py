"""A receiver, a clock and a project that tells the receiver."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "conformance"))


import pytest
from alerts_support import START, made
from notify_servers import Web

from cumulant.testing.clock import ManualClock


@pytest.fixture
def web():
    with Web() as found:
        yield found


@pytest.fixture
def clock():
    return ManualClock(START)


@pytest.fixture
def late(tmp_path, web):
    with made(tmp_path / "late", f"http://127.0.0.1:{web.port}/hook") as found:
        yield found
