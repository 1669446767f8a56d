"""Callers that are slow on purpose, or too many, at a gateway that waits for seconds only."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import served, status, talk

from cumulant.core.traffic import Arm, Routes
from cumulant.drivers.envoy.client import EnvoyTraffic
from cumulant.ports.traffic import GatewayAddress
from cumulant.testing.gateways import Reader, wait_for

#: the program of the driver, with bounds that a test can wait for
HASTY = """
import sys
from cumulant.drivers.envoy import bootstrap
bootstrap._HEAD, bootstrap._WHOLE, bootstrap._IDLE, bootstrap.STALL, bootstrap._CONNECTIONS = 1, 3, 2, 1, 8
from cumulant.drivers.envoy.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
POST = b"POST /v1/models/m/predict HTTP/1.1\r\nhost: a\r\n"
CHUNKED = POST + b"transfer-encoding: chunked\r\n\r\n"
METRICS = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hasty")


@pytest.fixture(scope="module")
def traffic(folder: Path) -> EnvoyTraffic:
    return EnvoyTraffic(f"envoy://{folder}")


@pytest.fixture(scope="module")
def address(traffic: EnvoyTraffic, folder: Path) -> Iterator[GatewayAddress]:
    pytest.importorskip("envoy")
    line = [sys.executable, "-c", HASTY, str(folder), "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    with served() as server, (folder / "out").open("wb") as output:
        arm = Arm(name="champion", version="1", endpoints=(server.url,))
        traffic.apply(Routes(model="m", revision=1, champion=arm, key="card"))
        process = subprocess.Popen(line, stdout=output, stderr=output)
        try:
            yield wait_for(traffic.address)
        finally:
            process.terminate()
            process.wait()


def connect(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)))


def drip(address: GatewayAddress, head: bytes, part: bytes) -> bytes:
    """What comes back to bytes that are sent one after the other, until something does or the connection ends."""
    with connect(address.url.removeprefix("http://")) as connection:
        connection.settimeout(0.05)
        ends = time.monotonic() + 60
        connection.sendall(head)
        while time.monotonic() < ends:
            with contextlib.suppress(TimeoutError):
                return connection.recv(65536)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(part)
    raise AssertionError("it was waited for")


@pytest.mark.parametrize(
    ("head", "part"),
    [
        (b"GET / HTTP/1.1\r\nhost: a\r\n", b"x"),
        (POST + b"content-length: 1000000\r\n\r\n", b"x"),
        (POST + b"content-length: 1000000\r\n\r\n", b""),
        (CHUNKED, b"1\r\nx\r\n"),
        (CHUNKED + b"1;x=", b"y"),
    ],
    ids=["head", "body", "no body", "chunks", "a chunk's head"],
)
def test_what_comes_byte_by_byte_is_ended(address: GatewayAddress, head: bytes, part: bytes) -> None:
    assert status(drip(address, head, part)) == 408


def test_a_trailer_without_end_is_refused(address: GatewayAddress) -> None:
    assert status(drip(address, CHUNKED + b"0\r\nx: ", b"y" * 65536)) == 431


def test_a_slow_caller_is_no_fault_of_the_arm(address: GatewayAddress, traffic: EnvoyTraffic) -> None:
    assert status(drip(address, POST + b"content-length: 9\r\n\r\n", b"")) == 408
    told = wait_for(lambda: [one for one in Reader(traffic).read() if one.status == 408])
    assert {(one.fault, one.served) for one in told} == {("", "")}


def test_idle_connections_are_ended(address: GatewayAddress) -> None:
    with connect(address.url.removeprefix("http://")) as connection:
        connection.settimeout(60)
        assert connection.recv(1) == b""


def test_connections_beyond_the_bound_are_closed_and_figures_are_there(address: GatewayAddress) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(connect(address.url.removeprefix("http://"))).setblocking(False)
        text = talk(address.admin.removeprefix("http://"), METRICS)
    assert status(text) == 200
    lines = [line for line in text.split(b"\n") if b"downstream_global_cx_overflow" in line and b"{" in line]
    assert sum(int(line.split()[-1]) for line in lines) > 0


def test_it_holds_as_many_files_as_the_system_grants(address: GatewayAddress) -> None:
    if not Path("/proc").exists():
        pytest.skip("only Linux shows another process's limits")
    [envoy] = Path(f"/proc/{address.pid}/task/{address.pid}/children").read_text().split()
    rows = Path(f"/proc/{envoy}/limits").read_text().splitlines()
    soft, hard = next(row.split()[3:5] for row in rows if row.startswith("Max open files"))
    assert soft == hard
