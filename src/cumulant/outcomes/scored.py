"""Rows of the prediction log as the join needs them: what tells them apart, what they are about, what they said."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import msgspec
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from cumulant.core.plan import Field
from cumulant.core.units import from_micros
from cumulant.outcomes import losses
from cumulant.outcomes.labels import id_ref, key_ref, key_text
from cumulant.serving import log

#: told of a prediction in the join
TOLD = ["id", "row", "time", "event_time", "model", "version", "arm", "served_arm", "shadow", "outputs"]
#: what tells one row of the log from every other
IDENTITY = ["worker", "sequence", "row"]
COLUMNS = [*TOLD, "request", "worker", "sequence"]
_DECODE = msgspec.json.Decoder().decode
_TIME = pl.Datetime("us", "UTC")
_ARROW = pa.timestamp("us", "UTC")


def frame(table: pa.Table, key: Sequence[Field]) -> pl.DataFrame:
    """The rows of a batch of the log with `score`, `id_ref`, `key_ref` and `place`, their number in the batch.

    Without a key the requests may be missing.
    """
    found = pl.from_arrow(table.select([name for name in COLUMNS if key or name in table.column_names]))
    assert isinstance(found, pl.DataFrame)
    scores = [losses.score(losses.read_outputs(text)) for text in found["outputs"]]
    ids = [id_ref(request, row) for request, row in zip(found["id"], found["row"], strict=True)]
    return found.with_columns(
        pl.Series("score", scores, dtype=pl.Float64),
        pl.Series("id_ref", ids, dtype=pl.String),
        pl.Series("key_ref", _key_refs(found, key), dtype=pl.String),
    ).with_row_index("place")


def logged(predictions: Path, key: Sequence[Field], *, since: datetime, until: datetime) -> Iterator[pl.DataFrame]:
    """The rows of the log in `predictions` that were answered from `since` on and before `until`, batch by batch.

    Columns as `frame`, with the request: its personal values are keyed hashes.

    Raises:
        StorageError: the log cannot be read.
    """
    within = (pc.field("time") >= pa.scalar(since, _ARROW)) & (pc.field("time") < pa.scalar(until, _ARROW))
    for batch in log.batches(predictions, COLUMNS, wanted=within, since=since.date(), until=until.date()):
        if batch.num_rows:
            yield frame(pa.Table.from_batches([batch]), key)


def asked(table: pa.Table, ids: pa.Array, times: pa.Array) -> pa.Table:
    """The rows that may be meant by one of these ids, or event times: the others need not be taken apart."""
    wanted = pc.is_in(table["id"], ids)
    if len(times):
        wanted = pc.or_(wanted, pc.is_in(table["event_time"].cast(pa.int64()), times))
    return table.filter(wanted)


def _key_refs(found: pl.DataFrame, key: Sequence[Field]) -> list[str | None]:
    if not key:
        return [None] * found.height
    times = found["event_time"].cast(pl.Int64)
    refs: list[str | None] = []
    for request, when in zip(found["request"], times, strict=True):
        text = None if when is None else key_text(_object(request), key)
        refs.append(None if text is None or when is None else key_ref(text, from_micros(when)))
    return refs


def _object(text: str) -> dict[str, object]:
    try:
        found = _DECODE(text)
    except msgspec.DecodeError:
        return {}
    return found if isinstance(found, dict) else {}
