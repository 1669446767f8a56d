"""A program that serves goes on where its standard error cannot be written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FULL = Path("/dev/full")
SAYS = """
import sys
from cumulant.core.system.stderr import lossy_stderr
if {lossy}:
    lossy_stderr()
sys.stderr.write("the first words\\n")
sys.stderr.buffer.write(b"bytes too\\n")
sys.stderr.buffer.flush()
print("goes on")
"""


def said(stream, *, lossy=True):
    line = [sys.executable, "-c", SAYS.format(lossy=lossy)]
    return subprocess.run(line, stdout=subprocess.PIPE, stderr=stream, text=True, check=False)


@pytest.mark.skipif(not FULL.exists(), reason="this system has no disk that is always full")
@pytest.mark.parametrize(("lossy", "goes_on"), [(True, True), (False, False)])
def test_a_full_disk_costs_the_words_only(lossy, goes_on):
    with FULL.open("wb") as full:
        ended = said(full, lossy=lossy)
    assert (ended.returncode == 0, ended.stdout == "goes on\n") == (goes_on, goes_on)


def test_words_come_at_once_and_in_their_order(tmp_path):
    with (tmp_path / "log").open("wb") as log:
        assert said(log).returncode == 0
    assert (tmp_path / "log").read_text() == "the first words\nbytes too\n"
