"""A gateway's process and its callers, for tests of the port `traffic`."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Self, TypeVar
from urllib.parse import urlsplit

import msgspec

from cumulant.core.traffic import ARM_HEADER, Exchange
from cumulant.ports.traffic import Gateway, GatewayAddress, ListenOptions

#: seconds; generous, because machines of tests are busy
PATIENCE = 60.0

T = TypeVar("T")


def wait_for(condition: Callable[[], T | None], *, within: float = PATIENCE) -> T:
    """The first truthy value of `condition`.

    Raises:
        AssertionError: there was none in `within` seconds.
    """
    deadline = time.monotonic() + within
    while not (value := condition()):
        assert time.monotonic() < deadline, f"it did not happen within {within} s: {condition}"
        time.sleep(0.02)
    return value


class GatewayAnswer(msgspec.Struct, frozen=True):
    """What a caller got. Header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def arm(self) -> str:
        return self.headers.get(ARM_HEADER, "")

    @property
    def served_by(self) -> str:
        return str(json.loads(self.body)["served_by"])


class Caller:
    """One connection, opened anew when it was closed between two requests."""

    def __init__(self, url: str, model: str) -> None:
        self._where = urlsplit(url)
        self._path = f"/v1/models/{model}/predict"
        self._connection: http.client.HTTPConnection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def post(self, body: object = None, headers: Mapping[str, str] | None = None, *, path: str = "") -> GatewayAnswer:
        """The answer to one request; anything but an HTTP answer raises."""
        connection = self._connection or http.client.HTTPConnection(
            self._where.hostname or "", self._where.port, timeout=PATIENCE
        )
        self._connection = None
        document = json.dumps({"x": 1.0} if body is None else body)
        try:
            connection.request("POST", path or self._path, document, dict(headers or {}))
            got = connection.getresponse()
            answer = GatewayAnswer(got.status, {n.lower(): v for n, v in got.getheaders()}, got.read())
        except BaseException:
            connection.close()
            raise
        if got.will_close:
            connection.close()
        else:
            self._connection = connection
        return answer


class GatewayProcess:
    """The process of a driver's `command`, which the test may kill."""

    def __init__(self, traffic: Gateway, opening: ListenOptions, output: IO[bytes]) -> None:
        self._traffic = traffic
        self._opening = opening
        self._output = output
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://{self._opening.http}"

    def start(self) -> GatewayAddress:
        command = self._traffic.command(self._opening)
        self._process = subprocess.Popen(command, stdout=self._output, stderr=subprocess.STDOUT)
        return wait_for(self._opened)

    def _opened(self) -> GatewayAddress | None:
        process = self._process
        assert process is not None
        assert process.poll() is None, f"the gateway ended with {process.returncode}: see its output"
        return self._traffic.address()

    def kill(self) -> None:
        self.end(signal.SIGKILL)

    def end(self, by: int = signal.SIGTERM) -> int:
        """Its exit code after the signal `by`."""
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(by)
        try:
            return process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


class Reader:
    """Reads a gateway's log from its begin on, as a controller does."""

    def __init__(self, traffic: Gateway) -> None:
        self._traffic = traffic
        self.cursor = ""
        self.exchanges: list[Exchange] = []

    def read(self, *, limit: int = 100_000) -> list[Exchange]:
        exchanges, self.cursor = self._traffic.exchanges(self.cursor, limit=limit)
        self.exchanges += exchanges
        return exchanges

    def until(self, count: int) -> list[Exchange]:
        """All exchanges, once it is `count`; more is an error."""

        def enough() -> bool:
            self.read()
            return len(self.exchanges) >= count

        wait_for(enough)
        time.sleep(0.3)
        self.read()
        assert len(self.exchanges) == count, f"{len(self.exchanges)} exchanges were read, not {count}"
        return self.exchanges


@contextlib.contextmanager
def running(traffic: Gateway, opening: ListenOptions, output: IO[bytes]) -> Iterator[GatewayProcess]:
    """A gateway that is started, and ended with the block."""
    gateway = GatewayProcess(traffic, opening, output)
    gateway.start()
    try:
        yield gateway
    finally:
        gateway.end(signal.SIGTERM)


def load(
    address: str, model: str, change: Callable[[], object], *, callers: int = 4
) -> tuple[list[GatewayAnswer], list[str]]:
    """What callers at `address` (`HOST:PORT`) got while `change` ran, and the connections that broke instead."""
    answers: list[GatewayAnswer] = []
    faults: list[str] = []
    done = threading.Event()

    def call() -> None:
        with Caller(f"http://{address}", model) as caller:
            while not done.is_set():
                try:
                    answers.append(caller.post())
                except (OSError, http.client.HTTPException) as error:
                    faults.append(repr(error))

    threads = [threading.Thread(target=call) for _ in range(callers)]
    for thread in threads:
        thread.start()
    try:
        change()
    finally:
        done.set()
        for thread in threads:
            thread.join()
    return answers, faults
