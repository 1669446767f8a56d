"""Rows of the prediction log whose stored features were logged, chosen by the hash of their id."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from cumulant.core.ids import digest
from cumulant.core.prediction import read_object
from cumulant.core.units import to_micros

if TYPE_CHECKING:
    import pyarrow as pa

    from cumulant.project.project import Project

_TEXTS = ["id", "model", "version", "fingerprint", "request", "features", "incomplete"]
_COLUMNS = [*_TEXTS, "row", "time", "latency_us", "shadow"]


class ServedRow(NamedTuple):
    """A logged row with its stored features. `begun`, `ended`: of the request, in microseconds. `incomplete`: it was
    answered for a moment before what was stored of its key began, and says so.
    """

    id: str
    row: int
    model: str
    version: str
    fingerprint: str
    request: dict[str, Any]
    served: dict[str, Any]
    begun: int
    ended: int
    incomplete: bool


class RowSample(NamedTuple):
    """The rows that are verified, in the order of their hashes. `logged`: how many could be."""

    rows: list[ServedRow]
    logged: int


def choose_rows(project: Project, since: datetime, until: datetime, count: int) -> RowSample:
    """Of the rows whose stored features were logged, the `count` with the smallest hashes of their ids.

    No others are decoded: memory is that of `count` rows and a batch of the log.

    Raises:
        StorageError: the log cannot be read.
    """
    chosen = list[tuple[int, int, dict[str, Any]]]()  # a heap, the largest hash first
    logged = 0
    for batch in _batches(project, since, until):
        names = zip(batch["id"].to_pylist(), batch["row"].to_pylist(), strict=True)
        for place, name in enumerate(names):
            logged += 1
            order = -int(digest([*name]), 16)
            if len(chosen) < count:
                heapq.heappush(chosen, (order, logged, batch.slice(place, 1).to_pylist()[0]))
            elif order > chosen[0][0]:
                heapq.heapreplace(chosen, (order, logged, batch.slice(place, 1).to_pylist()[0]))
    return RowSample([_decoded(row) for _, _, row in sorted(chosen, key=lambda each: -each[0])], logged)


def _decoded(row: dict[str, Any]) -> ServedRow:
    ended = to_micros(row["time"])
    return ServedRow(
        row["id"],
        row["row"],
        row["model"],
        row["version"],
        row["fingerprint"],
        read_object(row["request"]),
        read_object(row["features"]),
        ended - row["latency_us"],
        ended,
        bool(row["incomplete"]),
    )


def _batches(project: Project, since: datetime, until: datetime) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa
    import pyarrow.compute as pc

    from cumulant.serving.prediction_log.storage.scanning import batches

    first = pa.scalar(since, pa.timestamp("us", "UTC"))
    wanted = (pc.field("time") >= first) & (pc.field("features") != "") & ~pc.field("shadow")
    return batches(project.log(), _COLUMNS, wanted=wanted, since=since.date(), until=until.date())
