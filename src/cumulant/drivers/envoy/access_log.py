"""Envoy's access log, read line by line and written as exchanges. Callers' keys are written as hashes only."""

from __future__ import annotations

import os
import sys
import threading
from typing import IO

import msgspec

from cumulant.core.masking import mask
from cumulant.core.traffic import LONGEST_ID, Exchange, predicts
from cumulant.drivers.envoy.clusters import arm_of
from cumulant.drivers.envoy.exchanges import ExchangeWriter

#: statuses: the caller closed the connection before the response; its request was not complete in time
CLOSED, SLOW = 499, 408
_CHUNK = 256 * 1024
#: Envoy's response flags; the first one present gives the fault
_FAULTS = (
    ("UT", "timeout"),
    ("SI", "timeout"),
    ("DT", "timeout"),
    ("UPE", "reset"),
    ("RL", "rate"),
    ("UO", "overflow"),
    ("RLSE", "rate"),
    ("UF", "connect"),
    ("UH", "connect"),
    ("NC", "connect"),
    ("UC", "reset"),
    ("UR", "reset"),
    ("LR", "reset"),
)


class LogLine(msgspec.Struct):
    """One line of the log, with the fields of `bootstrap.LOGGED`."""

    request: str | None = None
    caller_id: str | None = None
    method: str | None = None
    path: str | None = None
    start: str | int | None = None
    took: str | int | None = None
    took_ms: str | int | None = None
    model: str | None = None
    revision: str | int | None = None
    forced: str | int | None = None
    assigned: str | None = None
    served: str | None = None
    cluster: str | None = None
    status: str | int | None = None
    flags: str | None = None
    details: str | None = None
    key: str | None = None


def exchange_of(line: LogLine, salt: bytes) -> Exchange | None:
    """The exchange of a line; None if its request was for no model. Keys are hashed with `salt`, or left out."""
    if not line.model:
        return None
    answered = line.details == "via_upstream"
    took = _number(line.took) if line.took is not None else _number(line.took_ms) * 1000
    request, caller_id = (line.request or "")[:LONGEST_ID], line.caller_id or ""
    return Exchange(
        request=request,
        caller_id="" if caller_id == request or len(caller_id) > LONGEST_ID else caller_id,
        time=_number(line.start) + took,
        model=line.model,
        assigned=line.assigned or arm_of(line.cluster or "", line.model),
        served=(line.served or "") if answered else "",
        status=_number(line.status) or CLOSED,
        duration_us=took,
        key=mask(line.key, salt) if line.key and salt else "",
        forced=_number(line.forced) == 1,
        fault="" if answered or _number(line.status) == SLOW else _fault(line.flags or ""),
        revision=_number(line.revision),
        predicts=predicts(line.method or "POST", line.path or "/"),
    )


def _fault(flags: str) -> str:
    present = set(flags.split(","))
    return next((fault for flag, fault in _FAULTS if flag in present), "")


def _number(value: str | int | None) -> int:
    if isinstance(value, int):
        return value
    return int(value) if value and value.isdigit() else 0


_decode = msgspec.json.Decoder(LogLine).decode


class AccessLogReader(threading.Thread):
    """Reads `source` to its end. On a full disk lines are lost and counted; requests are not affected."""

    def __init__(self, source: IO[bytes], writer: ExchangeWriter, salt: bytes) -> None:
        super().__init__(name="exchanges", daemon=True)
        self._source = source
        self._writer = writer
        self._salt = salt
        self.lost = 0

    def run(self) -> None:
        rest = b""
        while chunk := os.read(self._source.fileno(), _CHUNK):
            *lines, rest = (rest + chunk).split(b"\n")
            self._write([exchange for line in lines if (exchange := self._exchange(line)) is not None])
        self._writer.close()

    def _exchange(self, line: bytes) -> Exchange | None:
        try:
            return exchange_of(_decode(line), self._salt)
        except msgspec.DecodeError as error:
            self._count_lost(1, f"a line of Envoy's log cannot be read: {error}")
            return None

    def _write(self, exchanges: list[Exchange]) -> None:
        if not exchanges:
            return
        try:
            self._writer.write(exchanges)
        except OSError as error:
            self._count_lost(len(exchanges), f"exchanges cannot be written: {error}")

    def _count_lost(self, count: int, reason: str) -> None:
        if not self.lost:
            sys.stderr.write(f"{reason}\n")
        self.lost += count
