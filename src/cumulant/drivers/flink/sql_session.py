"""Sessions of Flink's SQL gateway: statements one after the other, by its REST interface."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from cumulant.core.errors import CumulantError, DeadlineError, StorageError
from cumulant.drivers.flink.rest import FlinkRest

#: until a statement ends: a large query is planned, a large state is written to a savepoint
STATEMENT_SECONDS = 900.0
_POLL_FIRST, _POLL_LAST, _POLL_GROWTH = 0.02, 0.5, 1.5
Row = dict[str, Any]


@contextmanager
def sql_session(gateway: FlinkRest, settings: Mapping[str, str]) -> Iterator[SqlSession]:
    """A session with these settings of Flink, whose times are in UTC; it is closed afterwards."""
    properties = {"table.local-time-zone": "UTC", **settings}
    handle = str(gateway.call("POST", "/v3/sessions", {"properties": properties}).get("sessionHandle", ""))
    try:
        yield SqlSession(gateway, f"/v3/sessions/{handle}")
    finally:
        with suppress(CumulantError):  # it ends by itself
            gateway.call("DELETE", f"/v3/sessions/{handle}")


class SqlSession:
    """Statements of one session, one after the other."""

    def __init__(self, gateway: FlinkRest, path: str) -> None:
        self._gateway, self._path = gateway, path

    def run(self, statement: str) -> list[Row]:
        """The rows of a statement, once it has ended."""
        try:
            return self._run(statement)
        except (KeyError, TypeError, AttributeError):
            text = "the answer to a statement is not that of a SQL gateway of Flink"
            hint = "check that the port of stream_engine is that of the gateway"
            raise StorageError(text, subject="stream_engine", hint=hint) from None

    def _run(self, statement: str) -> list[Row]:
        answer = self._gateway.call("POST", f"{self._path}/statements", {"statement": statement})
        uri: str | None = f"{self._path}/operations/{answer['operationHandle']}/result/0"
        columns: list[str] = []
        rows: list[Row] = []
        pause, deadline = _POLL_FIRST, time.monotonic() + STATEMENT_SECONDS
        while uri is not None:
            page = self._gateway.call("GET", uri)
            results = page.get("results") or {"data": []}
            columns = [column["name"] for column in results.get("columns", [])] or columns
            rows += [dict(zip(columns, row["fields"], strict=True)) for row in results["data"]]
            uri = page.get("nextResultUri")
            if uri is not None and not results["data"]:
                if time.monotonic() > deadline:
                    raise DeadlineError(
                        f"Flink has not ended a statement after {STATEMENT_SECONDS:.0f} s", subject="stream_engine"
                    )
                time.sleep(pause)
                pause = min(pause * _POLL_GROWTH, _POLL_LAST)
        return rows
