"""`up --restart`: new settings for a running stack under load, without a lost request."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import e2e_stack
import httpx
import pytest
from e2e_stack import BODY, MODEL, until
from e2e_support import kill, run, start

from cumulant.flows.stack.desired_state import read_desired_state

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    with e2e_stack.stack(tmp_path_factory.mktemp("restart") / "place") as found:
        yield found


@pytest.fixture(autouse=True)
def settings(stack):
    """What the project file says at the beginning comes back after each test."""
    file = stack.folder / "cumulant.yaml"
    before = file.read_text()
    yield
    file.write_text(before)


def serving(stack, text):
    file = stack.folder / "cumulant.yaml"
    file.write_text(file.read_text().replace("serving: {", "serving: {" + text + ", "))


def commands(stack):
    """The command line of each server that runs."""
    found = {}
    for pid in stack.processes():
        words = []
        with suppress(FileNotFoundError):  # it has ended meanwhile
            words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        if "cumulant.serving" in words and "--parent" in words:
            found[pid] = words
    return found


def option(words, name):
    return words[words.index(name) + 1]


def test_new_settings_are_applied_under_load_without_a_lost_request(stack):
    before = stack.ready("server-1")
    controller = stack.ready("controller")
    with stack.load(100) as load:
        until(lambda: load.answered() > 50)
        serving(stack, "queue: 70ms, drain: 12s")
        told = run(stack.folder, "up", "--restart")
        answered = load.answered()
        until(lambda: load.answered() > answered + 50)
    assert [one for one in load.seen if one.failed] == []
    assert told["notes"] == [
        "version 1: drain: 10s -> 12s",
        "version 1: queue: 40ms -> 70ms",
    ]
    (words,) = commands(stack).values()
    assert (option(words, "--queue"), option(words, "--drain")) == ("70ms", "12s")
    after = stack.ready("server-1.1")
    assert after.url != before.url
    assert stack.child("server-1") is None
    assert stack.traffic.in_force(MODEL).champion.endpoints == (after.url,)
    assert read_desired_state(stack.project.state, MODEL).retiring == ()
    assert stack.ready("controller", other_than=controller.pid)


def test_settings_that_cannot_be_used_leave_the_server_that_serves(stack):
    (before,) = commands(stack)
    book = read_desired_state(stack.project.state, MODEL)
    with stack.load(50) as load:
        until(lambda: load.answered() > 10)
        serving(stack, "fallback: {servable: nowhere}")
        run(stack.folder, "up", "--restart", codes=(3,))
        until(lambda: list(commands(stack)) == [before])
        answered = load.answered()
        until(lambda: load.answered() > answered + 10)
    assert [one for one in load.seen if one.failed] == []
    after = read_desired_state(stack.project.state, MODEL)
    assert (after.versions, after.starting, after.retiring) == (book.versions, (), ())


def test_a_file_of_tokens_is_in_force_after_a_restart_and_out_of_force_after_another(stack):
    file, tokens = stack.folder / "cumulant.yaml", stack.project.root / "tokens"
    tokens.write_text("ada-0123456789abcdef ada\nconsole-0123456789abcdef\n")
    tokens.chmod(0o600)
    before = file.read_text()
    serving(stack, "token_file: tokens")
    shown = run(stack.folder, "up", "--restart")
    assert f"version 1: token-file: not set -> {tokens}" in shown["notes"]

    def status(**headers):
        return httpx.post(f"{shown['url']}/v2/models/{MODEL}/infer", content=BODY, headers=headers).status_code

    assert status() == 401
    assert status(authorization="Bearer other-0123456789abcdef") == 401
    for token in ("ada-0123456789abcdef", "console-0123456789abcdef"):
        assert status(authorization=f"Bearer {token}") == 200
    file.write_text(before)
    run(stack.folder, "up", "--restart")
    assert status() == 200


def test_a_restart_that_was_killed_is_finished_by_the_next(stack):
    with stack.load(50) as load:
        until(lambda: load.answered() > 10)
        process = start(stack.folder, "up", "--restart")
        until(lambda: read_desired_state(stack.project.state, MODEL).starting)
        kill(process, signal.SIGKILL)
        assert len(read_desired_state(stack.project.state, MODEL).running(datetime.now(UTC))) == 2
        run(stack.folder, "up", "--restart")
        until(lambda: len(commands(stack)) == 1)
        answered = load.answered()
        until(lambda: load.answered() > answered + 10)
    assert [one for one in load.seen if one.failed] == []
    book = read_desired_state(stack.project.state, MODEL)
    assert (book.starting, book.retiring) == ((), ())


def test_ps_and_doctor_on_a_full_disk(stack):
    if not os.path.ismount(stack.folder):
        pytest.skip("only root may make a small disk")
    ballast = stack.full()
    try:
        shown = until(lambda: (one := run(stack.folder, "ps")) and one["trouble"] and one, seconds=40)
        assert "the supervisor could not write this for" in shown["trouble"]
        servers = [one for one in shown["processes"] if one["kind"] != "controller"]
        assert {one["state"] for one in servers} == {"ready"}, "what lives is not called ended"
        found = {one["check"]: one["state"] for one in run(stack.folder, "doctor", codes=(1,))["checks"]}
        assert (found["write access"], found["free disk"]) == ("fail", "fail")
        with stack.load(20) as load:
            until(lambda: load.answered() > 10)
        assert [one for one in load.seen if one.failed] == []
    finally:
        ballast.unlink()
    until(lambda: not run(stack.folder, "ps")["trouble"], seconds=40)


def test_a_restart_waits_for_no_release_and_needs_a_stack(stack):
    stack.begin("2")
    stack.reached("shadow")
    pids = set(commands(stack))
    error = run(stack.folder, "up", "--restart", codes=(2,))["error"]
    assert "a restart would count against its versions" in error["error"]
    assert set(commands(stack)) == pids
    run(stack.folder, "rollback", MODEL, "--reason", "the restart waits")
    stack.over()


def test_what_served_before_serves_again_with_the_settings_of_today(stack):
    run(stack.folder, "down")
    error = run(stack.folder, "up", "--restart", codes=(2,))["error"]
    assert "`cumulant up` starts it" in error["hint"]
    serving(stack, "queue: 90ms, log: {keep: 30d}")
    told = run(stack.folder, "up", "--detach")
    assert "version 1: queue: 40ms -> 90ms" in told["notes"]
    assert "version 1: log-keep: 90d -> 30d" in told["notes"]
    words = next(iter(commands(stack).values()))
    assert (option(words, "--queue"), option(words, "--log-keep")) == ("90ms", "30d")
    assert os.path.realpath(words[0]) == os.path.realpath(e2e_stack.sys.executable)
