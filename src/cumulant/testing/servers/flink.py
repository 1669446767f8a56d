"""A Flink of its own for tests: the SQL gateway, whose queries run in its own process, and a client of it."""

from __future__ import annotations

import http.client
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cumulant.testing.servers.java_server import java_server
from cumulant.testing.servers.programs import free_port, required_program

#: seconds until a query ends, on a busy machine
_QUERY_SECONDS = 300.0
#: of a server that soon ends: code is compiled once, and not well
_JAVA = (
    "-Xms600m",
    "-Xmx600m",
    "-Xmn300m",
    "-XX:MetaspaceSize=256m",
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
)
_GATEWAY = "org.apache.flink.table.gateway.SqlGateway"
_SETTINGS = {
    "execution.target": "local",
    "rest.port": "0",
    "parallelism.default": "1",
    "sql-gateway.endpoint.type": "rest",
    "sql-gateway.endpoint.rest.address": "127.0.0.1",
    "sql-gateway.endpoint.rest.bind-address": "127.0.0.1",
    "taskmanager.memory.network.min": "16mb",
    "taskmanager.memory.network.max": "16mb",
    "taskmanager.memory.managed.size": "32mb",
    # watermarks follow the rows closely, as in a stream that never ends
    "pipeline.auto-watermark-interval": "1 ms",
}
Rows = list[dict[str, Any]]


class FlinkError(Exception):
    """A statement failed; the message is Flink's own, of the innermost cause."""


class FlinkSession:
    """Statements of one session of a gateway, by its REST interface."""

    def __init__(self, port: int, settings: Mapping[str, str]) -> None:
        self._port = port
        self._session = self._call("POST", "/sessions", {"properties": dict(settings)})["sessionHandle"]

    def run(self, statement: str) -> Rows:
        """The rows of a statement, once it has ended."""
        path = f"/sessions/{self._session}"
        operation = self._call("POST", f"{path}/statements", {"statement": statement})["operationHandle"]
        uri: str | None = f"/v3{path}/operations/{operation}/result/0"
        columns: Sequence[str] = ()
        rows: Rows = []
        deadline = time.monotonic() + _QUERY_SECONDS
        while uri is not None:
            page = self._call("GET", uri.removeprefix("/v3"))
            results = page.get("results", {"data": []})
            columns = [column["name"] for column in results.get("columns", [])] or columns
            rows += [dict(zip(columns, row["fields"], strict=True)) for row in results["data"]]
            uri = page.get("nextResultUri")
            if page["resultType"] != "PAYLOAD" or not results["data"]:
                time.sleep(0.05)
            if time.monotonic() > deadline:
                raise TimeoutError(f"Flink has not ended after {_QUERY_SECONDS:.0f} s: {statement[:80]}")
        return rows

    def _call(self, method: str, path: str, body: object = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_QUERY_SECONDS)
        try:
            connection.request(method, f"/v3{path}", None if body is None else json.dumps(body))
            answer = connection.getresponse()
            content = json.loads(answer.read())
        finally:
            connection.close()
        if answer.status != 200:
            lines = "\n".join(content["errors"]).splitlines()
            causes = [line.removeprefix("Caused by: ") for line in lines if line.startswith("Caused by: ")]
            raise FlinkError((causes or lines)[-1])
        return content


@contextmanager
def flink_gateway(folder: Path, *, java: Sequence[str] = _JAVA, settings: Mapping[str, str] = {}) -> Iterator[int]:
    """The port of a running gateway, which is gone afterwards. `java`: options of the virtual machine.

    Raises:
        FileNotFoundError: it is not installed.
    """
    program, port = required_program("flink-run"), free_port()
    named = {**_SETTINGS, "sql-gateway.endpoint.rest.port": str(port), "io.tmp.dirs": str(folder), **settings}
    (folder / "config.yaml").write_text("".join(f"{key}: {value}\n" for key, value in named.items()), encoding="utf-8")
    environment = {**os.environ, "FLINK_CONF_DIR": str(folder)}
    command = [program, *java, _GATEWAY]
    with java_server(command, folder / "gateway.log", lambda: _answers(port), env=environment):
        yield port


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/v3/info")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
