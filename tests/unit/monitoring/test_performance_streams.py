"""Detectors of streams find a step, and say what is missing where river is not installed."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest

from cumulant.core.errors import DataError
from cumulant.monitoring.performance.streams import changes

needs_river = pytest.mark.skipif(importlib.util.find_spec("river") is None, reason="river is not installed")


@needs_river
@pytest.mark.parametrize("detector", ["adwin", "page_hinkley"])
def test_a_step_in_the_losses_is_found_soon_and_nothing_before(detector):
    generator = np.random.default_rng(1)
    losses = (generator.random(4000) < np.where(np.arange(4000) < 2000, 0.1, 0.4)).astype(float)
    found = changes(losses, detector)
    assert 2000 < found[0] < 2300


@needs_river
def test_settings_are_rivers_own():
    generator = np.random.default_rng(2)
    losses = generator.random(3000)
    assert len(changes(losses, "adwin", delta=1e-6)) <= len(changes(losses, "adwin", delta=0.5))
    with pytest.raises(DataError, match="refuses a setting"):
        changes(losses, "adwin", nonsense=1.0)


def test_a_value_that_is_none_is_refused():
    with pytest.raises(DataError, match="not finite"):
        changes(np.array([0.1, np.nan]), "adwin")


def test_without_river_the_install_line_is_told():
    code = """
import sys
sys.modules["river"] = None  # as if it were not installed
import numpy as np
from cumulant.core.errors import MissingPartError
from cumulant.monitoring.performance.streams import changes
try:
    changes(np.zeros(3), "adwin")
except MissingPartError as error:
    print(error.message, "|", error.hint)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 'pip install "cumulant[river]"' in ran.stdout
