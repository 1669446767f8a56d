"""`compute: worker://`: a training whose steps workers run, with the same results, and workers that are killed."""

import os
import re
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

import e2e_shop
import pytest
from e2e_support import check_whole, finishes, kill, opened, outcome, run, start, wait_for

from cumulant.ports.step_queue import QUEUED_STEP, StepTaken, read_queued

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="workers need symbolic links")]

PROJECT = e2e_shop.PROJECT.replace("  trials: 3\n", "  trials: 3\n  final_fit: all\n")
QUEUED = PROJECT + "environments:\n  local: {compute: worker://}\n"


@contextmanager
def worker(folder, *words):
    process = start(folder, "worker", *words)
    try:
        yield process
    finally:
        kill(process)


def trials(folder):
    """How many files of trials the search has stored."""
    return sum(len(files) for _, _, files in os.walk(Path(folder, ".cumulant", "search")))


def test_a_search_goes_on_at_another_worker_and_the_results_are_the_same(tmp_path):
    inline, queued = e2e_shop.make(tmp_path / "a" / "shop", project=PROJECT), tmp_path / "b" / "shop"
    e2e_shop.make(queued, project=QUEUED)
    run(inline, "train", "--trials", "6")
    command = start(queued, "train", "--trials", "6")
    try:
        with worker(queued) as first:
            wait_for(command, lambda: trials(queued) > 1)
            os.kill(first.pid, signal.SIGKILL)
            first.communicate(timeout=60)
        with worker(queued, "--drain") as second:
            out, err = command.communicate(timeout=480)
            assert command.returncode == 0, (out, err)
            second.send_signal(signal.SIGTERM)
            out, err = second.communicate(timeout=60)
            assert second.returncode == 0, (out, err)
            lines = err.splitlines()
            (begun,) = (at for at, line in enumerate(lines) if re.fullmatch(r"search \w{12}: begins, attempt 2", line))
            assert re.fullmatch(r"search \w{12}: done after [\d.]+ s, attempt 2", lines[begun + 1]), err
    finally:
        kill(command)
    with opened(inline) as one, opened(queued) as other:
        assert outcome(one) == outcome(other)
        check_whole(other)
        assert set(finishes(other).values()) == {1}
        taken = [event.data for event in other.journal().events(kinds=(StepTaken.kind,))]
        assert [event["attempt"] for event in taken if event["name"] == "search"] == [1, 2]
        assert {read_queued(row).status for row in other.journal().rows(QUEUED_STEP)} == {"collected"}


def test_an_error_of_a_step_is_that_of_the_command(tmp_path):
    folder = e2e_shop.make(tmp_path / "shop", project=QUEUED.replace("target: returned", 'target: "amount / 0"'))
    inline = e2e_shop.make(tmp_path / "a" / "shop", project=PROJECT.replace("target: returned", 'target: "amount / 0"'))
    expected = run(inline, "train", codes=(1, 2, 4))
    with worker(folder):
        assert run(folder, "train", codes=(1, 2, 4))["error"] == expected["error"]
