"""What an idle server keeps, and what it teaches its models with."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from cumulant.serving.models.sample_inputs import make_noise

_HELD = """
from pathlib import Path
from cumulant.serving.freed_memory import release_memory
def held():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
junk = [bytes(1000) for _ in range(50_000)]
last = bytes(1000)  # above all others: what is free below it stays with the process
del junk
before = held()
release_memory()
print(before - held())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems give memory back by themselves, or not at all")
def test_what_was_freed_goes_back_to_the_system():
    found = subprocess.run([sys.executable, "-c", _HELD], capture_output=True, text=True, check=True)
    assert int(found.stdout) > 40_000_000


def test_made_up_numbers_are_spread_evenly_and_the_same_each_time():
    values = make_noise((500, 8), seed=3)
    assert values.shape == (500, 8)
    assert values.min() >= -2
    assert values.max() < 2
    assert abs(values.mean()) < 0.1
    assert 1.1 < values.std() < 1.2
    assert np.array_equal(values, make_noise((500, 8), seed=3))
    assert not np.array_equal(values, make_noise((500, 8), seed=4))


def test_a_server_starts_without_numpys_generators():
    code = "import sys, cumulant.serving.workers.server; print('numpy.random' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
