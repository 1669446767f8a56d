"""A rolling restart beside other commands that change the desired state: real files, locks and routes.

The supervisor is a thread that starts what the desired state names; a server is an entry of its status.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from cumulant.core.errors import ConflictError, EngineUnavailableError, LeaseHeldError
from cumulant.core.traffic import Routes
from cumulant.flows.ledger.processes import this_process
from cumulant.flows.release.rollback import choose_arm
from cumulant.flows.stack import restart as restarting
from cumulant.flows.stack.desired_state import ServedVersion, change_desired_state, read_desired_state
from cumulant.flows.stack.identity import home_of
from cumulant.flows.stack.lock import hold_lock
from cumulant.flows.stack.restart import hold_restart_lock, restart
from cumulant.flows.stack.status import ChildStatus, Status, write_status
from cumulant.project.file.loading import load

AT = datetime(2026, 11, 27, tzinfo=UTC)
#: far from now
LATER = datetime(2100, 1, 1, tzinfo=UTC)


def served(version, port, **more):
    line = ("python", "-m", "cumulant.serving", f"/models/{version}", "--queue", "5ms", "--behind-gateway")
    return ServedVersion(version=version, command=line, port=port, **more)


@pytest.fixture
def project(tmp_path):
    (tmp_path / "cumulant.yaml").write_text("version: 1\nmodel: {name: m}\n")
    with load(tmp_path) as found:
        versions = {"1": served("1", 20_001, warm_until=LATER), "2": served("2", 20_002)}
        change_desired_state(
            found.state,
            "m",
            lambda desired: msgspec.structs.replace(desired, champion="2", former=("1",), versions=versions),
        )
        found.gateway().apply(
            Routes(model="m", revision=1, champion=read_desired_state(found.state, "m").arm("2", "champion"))
        )
        yield found


@contextmanager
def supervised(project, ready=lambda one: True):
    """A supervisor that runs what the desired state names; `ready` says which servers answer."""
    ended = threading.Event()

    def work():
        while not ended.is_set():
            running = read_desired_state(project.state, "m").running(datetime.now(UTC))
            write_status(
                project.state,
                Status(
                    model="m",
                    environment="local",
                    supervisor=this_process(),
                    since=AT,
                    at=AT,
                    url=None,
                    children=tuple(child(one, ready(one)) for one in running),
                    home=home_of(project.state),
                ),
            )
            time.sleep(0.01)

    with hold_lock(project.state):
        thread = threading.Thread(target=work)
        thread.start()
        until((project.state / "stack" / "status.json").exists)
        try:
            yield
        finally:
            ended.set()
            thread.join()


def child(one, ready):
    return ChildStatus(
        name=one.name,
        kind="server",
        version=one.version,
        state="ready" if ready else "starting",
        url=one.endpoint,
        ready=ready,
        restarts=0,
        not_ready_since=None,
        since=AT,
    )


def until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def in_background(project, failed):
    def work():
        try:
            restart(project, principal=project.principal())
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    yield
    thread.join(60)
    assert not thread.is_alive()


def test_every_server_is_replaced_once_and_routes_follow(project):
    with supervised(project):
        restart(project, principal=project.principal())
    desired = read_desired_state(project.state, "m")
    assert [one.name for one in desired.running(AT)] == ["server-1.1", "server-2.1"]
    assert project.gateway().in_force("m").champion.endpoints == (desired.versions["2"].endpoint,)


def test_a_second_restart_is_refused_until_the_first_has_ended(project):
    answering, failed = threading.Event(), []
    with supervised(project, lambda one: not one.generation or answering.is_set()), in_background(project, failed):
        until(lambda: any(one.generation for one in read_desired_state(project.state, "m").running(AT)))
        with pytest.raises(LeaseHeldError) as caught:
            restart(project, principal=project.principal())
        assert "wait until that ends" in caught.value.hint
        answering.set()
    assert failed == []
    assert [one.generation for one in read_desired_state(project.state, "m").running(AT)] == [1, 1]
    with hold_restart_lock(project.state):
        pass  # free again


def test_a_rollback_while_a_new_server_starts_uses_the_one_that_answers(project, monkeypatch):
    monkeypatch.setattr(restarting, "_READY_SECONDS", 0.5)
    before = read_desired_state(project.state, "m").versions
    with supervised(project, lambda one: not one.generation):
        failed = []
        with in_background(project, failed):
            until(lambda: len(read_desired_state(project.state, "m").running(AT)) == 3)
            arm = choose_arm("m", read_desired_state(project.state, "m"), None, "1")
            assert arm.endpoints == (before["1"].endpoint,)
    assert isinstance(failed[0], EngineUnavailableError)
    after = read_desired_state(project.state, "m")
    assert (after.versions, after.starting, after.retiring) == (before, (), ())


def test_routes_that_a_rollback_has_just_written_stay(project):
    """It moves the routes before it changes the desired state, and knows the servers of before."""
    answering, failed = threading.Event(), []
    with supervised(project, lambda one: not one.generation or answering.is_set()), in_background(project, failed):
        until(lambda: len(read_desired_state(project.state, "m").running(AT)) == 3)
        arm = choose_arm("m", read_desired_state(project.state, "m"), None, "1")
        traffic = project.gateway()
        traffic.apply(traffic.in_force("m").all_to(arm, revision=2))
        answering.set()
    assert failed == []
    champion = traffic.in_force("m").champion
    assert (champion.version, champion.endpoints) == (
        "1",
        (read_desired_state(project.state, "m").versions["1"].endpoint,),
    )


def test_what_a_rollback_writes_during_a_restart_stays(project):
    """Version 1 becomes the champion while its server is replaced, and version 2 stays warm for a day."""
    answering, failed = threading.Event(), []
    until_then = datetime.now(UTC) + timedelta(days=1)
    with supervised(project, lambda one: not one.generation or answering.is_set()), in_background(project, failed):
        until(lambda: len(read_desired_state(project.state, "m").running(AT)) == 3)

        def back(desired):
            warm = msgspec.structs.replace(desired.versions["2"], warm_until=until_then)
            one = msgspec.structs.replace(desired.versions["1"], warm_until=None)
            return msgspec.structs.replace(desired, champion="1", former=(), versions={"1": one, "2": warm})

        change_desired_state(project.state, "m", back)
        answering.set()
    assert failed == []
    desired = read_desired_state(project.state, "m")
    assert (desired.versions["1"].warm_until, desired.versions["2"].warm_until) == (None, until_then)
    assert [one.generation for one in desired.versions.values()] == [1, 1]


@pytest.mark.parametrize(("at", "generations"), [(3, [0, 0]), (4, [1, 0])])
def test_a_release_that_starts_meanwhile_ends_the_restart(project, monkeypatch, at, generations):
    """While the first server is made ready, or before the second one is."""
    calls = []

    def look(project):
        calls.append(1)
        if len(calls) == at:
            raise ConflictError("a release is under way")

    monkeypatch.setattr(restarting, "_check_no_release", look)
    with supervised(project), pytest.raises(ConflictError):
        restart(project, principal=project.principal())
    desired = read_desired_state(project.state, "m")
    assert [one.generation for one in desired.versions.values()] == generations
    assert (desired.starting, desired.retiring) == ((), ())
