"""How often garbage is collected in the process of a command, how many threads numpy starts in it, and how they wait."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import atexit, gc, sys
atexit.register(lambda: print(gc.get_threshold()[0], file=sys.stderr))
from cumulant.cli import main
main()
"""


@pytest.mark.parametrize(("line", "rare"), [("runs list", True), ("data validate", False)])
def test_garbage_is_collected_rarely_where_a_command_only_reads(line: str, rare: bool, tmp_path: Path) -> None:
    program = [sys.executable, "-c", PROGRAM, *line.split()]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert "no cumulant.yaml" in done.stderr
    assert (int(done.stderr.split()[-1]) > gc.get_threshold()[0]) is rare


@pytest.mark.parametrize(
    ("line", "given", "threads"),
    [("runs list", None, "1"), ("review decide a 1", None, "1"), ("data validate", None, "None"), ("ps", "3", "3")],
)
def test_a_short_command_computes_on_one_thread(line: str, given: str | None, threads: str, tmp_path: Path) -> None:
    program = PROGRAM.replace("gc.get_threshold()[0]", "os.environ.get('OPENBLAS_NUM_THREADS')").replace("gc", "os")
    name = "OPENBLAS_NUM_THREADS"
    env = {key: value for key, value in os.environ.items() if key != name} | ({} if given is None else {name: given})
    command = [sys.executable, "-c", program, *line.split()]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr.split()[-1] == threads


@pytest.mark.skipif(sys.platform != "linux", reason="LightGBM has another OpenMP there")
@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, "10000"), ({"GOMP_SPINCOUNT": "5"}, "5"), ({"OMP_WAIT_POLICY": "passive"}, "0")],
)
def test_threads_of_a_training_soon_sleep_where_they_wait(given: dict[str, str], spins: str, tmp_path: Path) -> None:
    program = PROGRAM.replace("print(gc.get_threshold()[0], file=sys.stderr)", "__import__('lightgbm')")
    env = {key: value for key, value in os.environ.items() if key not in {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}}
    command = [sys.executable, "-c", program, "data", "validate"]
    env |= given | {"OMP_DISPLAY_ENV": "verbose"}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert f"GOMP_SPINCOUNT = '{spins}'" in done.stderr


def test_what_lives_at_the_end_is_not_collected_and_functions_at_exit_run(tmp_path: Path) -> None:
    program = PROGRAM.replace("gc.get_threshold()[0]", "gc.get_freeze_count()")
    command = [sys.executable, "-c", program, "runs", "list"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2, done.stderr
    assert int(done.stderr.split()[-1]) > 1000, "objects that the last collection does not search"


def test_what_was_written_to_a_file_that_is_left_open_is_there(tmp_path):
    (tmp_path / "trainers.py").write_text(
        "LOG = open('log.txt', 'w')\n\n\ndef forest():\n    LOG.write('fitted')\n\n\nforest.itself = forest\n"
    )
    code = "import trainers; trainers.forest(); from cumulant.cli.process_settings import collect_no_more; collect_no_more()"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert (tmp_path / "log.txt").read_text() == "fitted"
