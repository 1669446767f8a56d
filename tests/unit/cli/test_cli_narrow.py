"""Terminals that are narrow, or whose encoding lacks characters."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest
from rich.console import Console

from cumulant.cli.encoding import lookalikes
from cumulant.flows.reports.terminal import table

RUN = "20261127T142620-f4f351"


def printed(rows: list[tuple[str, ...]], width: int) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width).print(table(["run", "flow", "who", "started"], rows))
    return stream.getvalue()


@pytest.mark.parametrize("width", [60, 80])
def test_ids_are_never_folded(width):
    text = printed([(RUN, "train", "user:somebody@a-long-name.example.com", "2026-11-27T14:26:20Z")] * 2, width)
    assert text.count(RUN) == 2
    assert max(map(len, text.splitlines())) <= width


def test_a_long_first_column_is_folded():
    assert max(map(len, printed([("x" * 200, "train", "me", "now")], 60).splitlines())) <= 60


def test_every_character_that_cannot_be_written_becomes_one_that_can():
    text = "✓ – … ━ é 東"
    with pytest.raises(UnicodeEncodeError) as caught:
        text.encode("ascii")
    assert lookalikes(caught.value) == ("+", 1)
    assert len("".join(lookalikes(UnicodeEncodeError("ascii", one, 0, 1, ""))[0] for one in text)) == len(text)


@pytest.mark.parametrize("arguments", [["doctor"], ["--help"], ["models", "list", "--project", "näh"]])
def test_a_terminal_of_ascii_gets_its_answer(tmp_path, arguments):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "cumulant.cli", *arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "UnicodeEncodeError" not in done.stdout + done.stderr
    assert (done.stdout + done.stderr).isascii()
    assert done.stdout + done.stderr
