"""The supervisor with real processes: small programs in place of servers, gateway and controller."""

from __future__ import annotations

import asyncio
import sys
import threading
from datetime import UTC, datetime

import msgspec
import pytest

from cumulant.core.system.atomic_files import replace_file
from cumulant.core.traffic import Arm, Routes
from cumulant.flows.overview.problems import stack_problems
from cumulant.flows.release.controller.metrics_server import ControllerAddress
from cumulant.flows.stack.child_process import Child, LogFile
from cumulant.flows.stack.desired_state import DesiredState, ServedVersion, change_desired_state
from cumulant.flows.stack.reconcile import WantedProcess
from cumulant.flows.stack.served_versions import free_port
from cumulant.flows.stack.stack_processes import Stack
from cumulant.flows.stack.status import read_status
from cumulant.flows.stack.supervisor import StackSupervisor, controller_fault
from cumulant.testing.traffic import MemoryTraffic

WAITS = (sys.executable, "-c", "import time; time.sleep(600)")
SERVER = """
import http.server, sys
class Ready(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()
host, _, port = sys.argv[sys.argv.index("--http") + 1].partition(":")
http.server.ThreadingHTTPServer((host, int(port)), Ready).serve_forever()
"""
CONTROLLER = """
import sys, time
from pathlib import Path
from cumulant.flows.release.controller.metrics_server import serve_metrics
state = Path(sys.argv[1])
with serve_metrics(state / "stack", str, ready=lambda: not (state / "hang").exists()):
    time.sleep(600)
"""
MODULE = (sys.executable, "-c", SERVER, "/models/1")


@pytest.fixture
def stack(tmp_path):
    controller = (sys.executable, "-c", CONTROLLER, str(tmp_path))
    return Stack(
        state=tmp_path, uses=tmp_path / "uses", model="m", environment="local", gateway=WAITS, controller=controller
    )


def routes(served, revision):
    arm = Arm(name="champion", version=served.version, endpoints=(served.endpoint,))
    return Routes(model="m", revision=revision, champion=arm)


async def until(condition):
    for _ in range(800):
        if condition():
            return
        await asyncio.sleep(0.05)
    raise AssertionError


def test_the_controller_is_ready_while_its_loop_goes_on_and_restarted_by_a_cause(stack):
    facts, traffic = [], MemoryTraffic()
    first = ServedVersion(version="1", command=MODULE, port=free_port("a", ()), generation=1)
    second = msgspec.structs.replace(first, port=free_port("a", {first.port}), generation=2)

    def state_of(name):
        status = read_status(stack.state)
        return next((one.state for one in status.children if one.name == name), None) if status else None

    def put(one, controller):
        change_desired_state(
            stack.state,
            "m",
            lambda _: DesiredState(model="m", champion="1", versions={"1": one}, controller=controller),
        )

    async def scenario():
        supervisor = StackSupervisor(stack, traffic, traffic, report=facts.append)
        task = asyncio.create_task(supervisor.run())
        try:
            await until(lambda: state_of("server-1.1") == "ready" and state_of("controller") == "ready")
            assert (stack.logs / "server-1.1.log").exists()
            (stack.state / "hang").touch()
            await until(lambda: state_of("controller") == "not ready")
            [problem] = [one for one in stack_problems(read_status(stack.state)) if one.subject == "controller"]
            assert "controller is not ready: its loop has made no step for more than 120 s" in problem.sentence
            (stack.state / "hang").unlink()
            await until(lambda: state_of("controller") == "ready")
            put(second, controller=1)
            traffic.apply(routes(second, 2))
            await until(lambda: state_of("server-1.2") == "ready" and state_of("server-1.1") is None)
            assert not (stack.logs / "server-1.1.log").exists()
            assert (stack.logs / "server-1.2.log").exists()
        finally:
            supervisor._ended.set()
            await task

    put(first, controller=0)
    traffic.apply(routes(first, 1))
    asyncio.run(scenario())
    of_controller = [one.cause for one in facts if one.name == "controller"]
    assert of_controller == [
        "it should run",
        "its settings changed",
        "again, after its settings changed",
        "the supervisor ends",
    ]


def test_a_controller_that_does_not_answer_is_named_and_never_ended(stack, tmp_path):
    at, supervisor = datetime(2026, 11, 24, tzinfo=UTC), StackSupervisor(stack, MemoryTraffic(), MemoryTraffic())
    wanted = WantedProcess(name="controller", kind="controller", command=WAITS)
    child = Child(wanted, LogFile(tmp_path / "controller.log"))

    def state_at(now):
        status = child.status(now)
        return status.state, controller_fault(child).partition(":")[0]

    child.start(wanted, 100, at)
    pid = child.identity.pid
    assert asyncio.run(supervisor._controller_health(child)) is None, "it has not written where it is"
    assert state_at(219)[0] == "starting"
    assert state_at(221) == ("not ready", "it has not answered since it was started")
    child.observe(True, 222, at)
    assert state_at(222) == ("ready", "")
    (tmp_path / "stack").mkdir()
    replace_file(tmp_path / "stack" / "controller.json", msgspec.json.encode(ControllerAddress("http://x:1", pid + 1)))
    assert asyncio.run(supervisor._controller_health(child)) is None, "another controller's says nothing of this one"
    for now in (223, 100_000):
        child.observe(False, now, at)
        assert state_at(now) == (
            "not ready",
            "its loop has made no step for more than 120 s, or its port does not answer",
        )
    assert f"`kill -9 {pid}`" in controller_fault(child)
    child.reap(100_001, at)
    assert child.alive
    child.kill()
    child.process.wait(20)


def test_a_question_to_a_gateway_that_does_not_answer_holds_up_no_end(stack):
    asked, answers, answered = threading.Event(), threading.Event(), []

    class Hangs(MemoryTraffic):
        def in_force(self, model):
            asked.set()
            answered.append(answers.wait(20))
            return super().in_force(model)

    version = ServedVersion(version="1", command=MODULE, port=free_port("a", ()), generation=1)

    def put(**versions):
        change_desired_state(stack.state, "m", lambda _: DesiredState(model="m", champion="1", versions=versions))

    async def scenario():
        supervisor = StackSupervisor(stack, Hangs(), MemoryTraffic())
        task = asyncio.create_task(supervisor.run())
        try:
            await until(lambda: "server-1.1" in supervisor._children)
            put()
            await until(asked.is_set)
        finally:
            supervisor._ended.set()
            await task

    put(**{"1": version})
    asyncio.run(scenario())
    ended_first = not answered
    answers.set()
    assert ended_first
