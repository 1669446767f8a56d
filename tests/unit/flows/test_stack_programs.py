"""Which processes a desired state asks for, what its versions need, and where their ports come from."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from cumulant.cli.serving.stack_table import document, host_documents
from cumulant.core.errors import EngineUnavailableError, IntegrityError
from cumulant.core.traffic import Arm, Routes
from cumulant.flows.deployment.host_report import HostReport
from cumulant.flows.ledger.processes import this_process
from cumulant.flows.stack import served_versions
from cumulant.flows.stack.child_process import Child, log_file
from cumulant.flows.stack.desired_state import DesiredState, ServedVersion, change_desired_state, read_desired_state
from cumulant.flows.stack.health import ServerHealth, is_drained, server_health
from cumulant.flows.stack.identity import Home
from cumulant.flows.stack.reconcile import WantedProcess
from cumulant.flows.stack.stack_processes import Stack, server_hosts, wanted_processes
from cumulant.flows.stack.status import Status
from cumulant.flows.stack.supervisor import server_trouble
from cumulant.testing.traffic import MemoryTraffic

NOW = datetime(2026, 11, 24, tzinfo=UTC)
LINE = ("python", "-m", "cumulant.serving", "/models/1", "--online", "sqlite:///o.db", "--state-table", "state_1")
STACK = Stack(
    state=Path("/state"),
    uses=Path("/state/uses"),
    model="m",
    environment="local",
    gateway=("gateway",),
    controller=("control",),
)


def served(version, **more):
    return ServedVersion(version=version, command=LINE, port=20_000 + int(version), **more)


def desired(**more):
    return DesiredState(model="m", versions={one: served(one) for one in ("1", "2", "3")}, **more)


def test_both_arms_and_what_is_warm():
    warm = desired(champion="2", candidate="3")
    warm.versions["1"] = served("1", warm_until=NOW + timedelta(hours=1))
    names = ["server-1", "server-2", "server-3", "gateway", "controller"]
    assert list(wanted_processes(STACK, warm, NOW)) == names
    assert list(wanted_processes(STACK, warm, NOW + timedelta(hours=1))) == names[1:]
    one = wanted_processes(STACK, warm, NOW)["server-2"]
    assert one.command == (*LINE, "--http", "127.0.0.1:20002")
    assert (one.url, one.version) == ("http://127.0.0.1:20002", "2")


def test_a_machine_that_was_one_of_servers_and_is_a_gateway_now_starts_none():
    stack = msgspec.structs.replace(STACK, roles=("gateway",), controller=())
    assert list(wanted_processes(stack, desired(champion="2"), NOW)) == ["gateway"]
    stack = msgspec.structs.replace(STACK, roles=("servers",), gateway=(), controller=())
    assert list(wanted_processes(stack, desired(champion="2"), NOW)) == ["server-2"]


@pytest.mark.parametrize(
    ("http", "names"),
    [("127.0.0.1:8080", ["a"]), ("localhost:0", ["a"]), ("[::1]:1", ["a"]), ("0.0.0.0:8080", ["a", "*"])],
)
def test_servers_know_the_names_that_callers_of_the_gateway_use(http, names):
    stack = msgspec.structs.replace(STACK, hosts=server_hosts(("a",), http))
    line = wanted_processes(stack, desired(champion="2"), NOW)["server-2"].command
    assert [after for option, after in itertools.pairwise(line) if option == "--allow-host"] == names


def test_nothing_served_yet():
    assert list(wanted_processes(STACK, DesiredState(model="m"), NOW)) == ["gateway", "controller"]


def test_what_every_version_of_the_book_needs_is_kept(tmp_path):
    assert served_versions.references_of(read_desired_state(tmp_path, "m")) == (set(), set())
    change_desired_state(tmp_path, "m", lambda _: desired())
    assert served_versions.references_of(read_desired_state(tmp_path, "m")) == ({"/models/1"}, {"state_1"})
    assert [path.name for path in (tmp_path / "stack").iterdir()] == ["desired_state.json"]
    assert json.loads((tmp_path / "stack" / "desired_state.json").read_text())["edition"] == 1
    (tmp_path / "stack" / "desired_state.json").write_text("{")
    with pytest.raises(IntegrityError, match=r"desired_state\.json cannot be read"):
        read_desired_state(tmp_path, "m")


def test_ports_are_lasting_free_and_not_given_twice(monkeypatch):
    first = served_versions.free_port("here", ())
    assert served_versions.free_port("here", ()) == first
    second = served_versions.free_port("here", {first})
    assert second != first
    with socket.create_server(("127.0.0.1", first)):
        assert not served_versions.is_free("127.0.0.1", first)
        assert served_versions.free_port("here", ()) != first
    monkeypatch.setattr(served_versions, "is_free", lambda _host, port: port == 0)  # any port, so the address is there
    with pytest.raises(EngineUnavailableError, match="no port from 20000"):
        served_versions.free_port("here", ())


def test_the_address_is_taken_out_of_a_command():
    assert served_versions.without_option(["a", "--http", "x:1", "--b"], "--http") == ["a", "--b"]


def arm(name, version):
    return Arm(name=name, version=version, endpoints=("http://127.0.0.1:1",))


def routes(revision, **more):
    return Routes(model="m", revision=revision, champion=arm("champion", "1"), **more)


def test_a_version_is_drained_when_no_request_is_under_way_to_it_and_none_will_be():
    traffic = MemoryTraffic()
    assert is_drained(traffic, "m", "2")
    traffic.apply(routes(1, candidate=arm("candidate", "2"), weight=10.0))
    assert not is_drained(traffic, "m", "1")
    assert not is_drained(traffic, "m", "2")
    traffic.apply(routes(2, candidate=arm("candidate", "2"), mirror=100.0))
    assert not is_drained(traffic, "m", "2")
    # Rolled back: it stays named, at no weight.
    traffic.apply(routes(3, candidate=arm("candidate", "2")))
    traffic.busy["m", "candidate"] = 3
    assert not is_drained(traffic, "m", "2")
    traffic.busy["m", "candidate"] = 0
    assert is_drained(traffic, "m", "2")
    # Another candidate's requests are not its own.
    traffic.apply(routes(4, candidate=arm("candidate", "3"), weight=5.0))
    traffic.busy["m", "candidate"] = 7
    assert is_drained(traffic, "m", "2")


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_a_server_that_sends_without_end_is_not_ready_and_stops_no_probe(start):
    async def endless(_, writer):
        writer.write(start + b"x" * 200_000)
        await writer.drain()

    async def checked():
        async with await asyncio.start_server(endless, "127.0.0.1", 0) as server:
            return await server_health(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")

    assert not asyncio.run(checked()).ready


def health_of(document: bytes, *, length: int | None = None):
    """The health of a server that answers its readiness check with `document`, and closes the connection."""
    content_length = b"" if length is None else b"content-length: %d\r\n" % length

    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        for part in (b"HTTP/1.1 200 OK\r\n", b"content-type: application/json\r\n", content_length, b"\r\n", document):
            writer.write(part)
            await writer.drain()
        writer.close()

    async def checked():
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            return await server_health(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")

    return asyncio.run(checked())


def health_of_kept(sent: bytes):
    """The health of a server that sends these bytes and keeps the connection open."""

    async def checked():
        closed = asyncio.Event()

        async def answer(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(sent)
            await reader.read()  # until the check closes it
            writer.close()
            await writer.wait_closed()
            closed.set()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            health = await server_health(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            await closed.wait()
        return health

    return asyncio.run(checked())


def test_a_server_of_another_program_is_ready_by_its_status_code():
    head, body = b"HTTP/1.1 200 OK\r\n", b'{"ready":true,"unreachable":["online"]}'
    assert health_of(b'{"status":"ok"}') == ServerHealth(ready=True)
    length = b"Content-Length: %d\r\n\r\n" % len(body)
    assert health_of_kept(head + length + body) == ServerHealth(ready=True, unreachable=("online",))


@pytest.mark.parametrize(
    "sent", [b"", b"\r\n{", b"content-length: 15\r\n\r\n", b'content-length: 15\r\n\r\n{"ready": tr']
)
def test_a_server_whose_answer_is_not_complete_is_not_ready(sent):
    assert health_of_kept(b"HTTP/1.1 200 OK\r\n" + sent) == ServerHealth(ready=False)


def test_a_server_that_closes_the_connection_in_an_answer_is_not_ready():
    assert health_of(b'{"ready"', length=15) == ServerHealth(ready=False)
    assert health_of(b'{"ready": true}', length=15) == ServerHealth(ready=True)


def test_a_server_that_lacks_its_online_store_is_ready_and_shown_with_the_store(tmp_path):
    assert health_of(b'{"ready":true}') == ServerHealth(ready=True)
    assert health_of(b"ready") == ServerHealth(ready=True)
    lacking = health_of(b'{"ready":true,"unreachable":["online"]}')
    assert lacking == ServerHealth(ready=True, unreachable=("online",))

    command = ("server", "--online", "valkey://m:secret@10.0.0.9:6379/0")
    child = Child(WantedProcess(name="server-1", kind="server", command=command), log_file(tmp_path, "server-1"))
    child.ready, child.trouble = True, server_trouble(child, lacking)
    shown = child.status(0.0)
    assert "valkey://m:***@10.0.0.9:6379/0 does not answer" in shown.trouble
    process = this_process()
    status = Status(
        model="m", environment="prod", supervisor=process, since=NOW, at=NOW, url=None, children=(shown,),
        home=Home(folder="", inode=0, host="", device=None),
    )  # fmt: skip
    assert document(status)["processes"][0]["trouble"] == shown.trouble
    report = HostReport(host="a", roles=("servers",), supervisor=process, status=status, trouble="a disk is full")
    assert host_documents([report])[0]["trouble"] == f"a disk is full; {shown.trouble}"
    child.trouble = server_trouble(child, health_of(b'{"ready":true}'))
    assert child.status(0.0).trouble == ""
