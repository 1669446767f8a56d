"""Rows of the prediction log as the join needs them: their identity, references and outputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import polars as pl

from cumulant.core.plan import Field
from cumulant.core.prediction import read_object
from cumulant.outcomes.join import prediction_losses
from cumulant.outcomes.prediction_refs import BY_ID, SEPARATOR, key_refs
from cumulant.ports.log import Log

if TYPE_CHECKING:
    import pyarrow as pa

#: columns of a prediction in the join
PREDICTION_COLUMNS = ["id", "row", "time", "event_time", "model", "version", "arm", "served_arm", "shadow", "outputs"]
#: the identity of a row of the log
IDENTITY = ["worker", "sequence", "row"]
COLUMNS = [*PREDICTION_COLUMNS, "request", "worker", "sequence"]
_TIME = pl.Datetime("us", "UTC")
#: of `COLUMNS`, as Polars reads them from a file of any version of the log
TYPES: dict[str, pl.DataType] = {
    **dict.fromkeys(COLUMNS, pl.String()),
    "row": pl.Int32(),
    "time": _TIME,
    "event_time": _TIME,
    "shadow": pl.Boolean(),
    "sequence": pl.Int64(),
}
#: the columns by which a label may be for a row
HEAD = ["id", "event_time"]
#: not so of a request without rows, which earlier versions logged as one row with an empty answer
ANSWERED = pl.col("outputs") != "{}"


def as_frame(rows: pa.Table | pa.RecordBatch) -> pl.DataFrame:
    """Rows as Arrow read them."""
    frame = pl.from_arrow(rows)
    assert isinstance(frame, pl.DataFrame)
    return frame


def with_refs(rows: pl.DataFrame, key: Sequence[Field]) -> pl.DataFrame:
    """Rows of the log with `id_ref`, `key_ref` and `place`, their number, and with `score` where they have `outputs`.

    Without a key the requests may be missing.
    """
    frame = rows.select([name for name in COLUMNS if name in rows.columns])
    if "outputs" in frame.columns:
        frame = frame.filter(ANSWERED)
        scores = prediction_losses.scores(frame["outputs"].to_list())
        frame = frame.with_columns(pl.Series("score", scores, dtype=pl.Float64))
    return frame.with_columns(
        pl.concat_str(pl.lit(BY_ID), "row", pl.lit(SEPARATOR), "id").alias("id_ref"), _key_refs(frame, key)
    ).with_row_index("place")


def scan_log(predictions: Log, key: Sequence[Field], *, since: datetime, until: datetime) -> Iterator[pl.DataFrame]:
    """The rows of the log in `predictions` that were answered from `since` on and before `until`, batch by batch.

    Columns as `with_refs`, with the request: its personal values are keyed hashes.

    Raises:
        StorageError: the log cannot be read.
    """
    for rows in _scan_answered(predictions, COLUMNS, since, until):
        yield with_refs(rows, key)


def scan_log_keys(
    predictions: Log, key: Sequence[Field], *, since: datetime, until: datetime
) -> Iterator[pl.DataFrame]:
    """As `scan_log`, only the identity of rows, their `time` and their `key_ref`.

    Raises:
        StorageError: the log cannot be read.
    """
    for rows in _scan_answered(predictions, [*IDENTITY, "time", "event_time", "request"], since, until):
        yield rows.select(*IDENTITY, "time").with_columns(_key_refs(rows, key))


def _scan_answered(predictions: Log, columns: list[str], since: datetime, until: datetime) -> Iterator[pl.DataFrame]:
    import pyarrow as pa
    import pyarrow.compute as pc

    from cumulant.serving.prediction_log.storage.scanning import batches

    first, end = (pa.scalar(moment, pa.timestamp("us", "UTC")) for moment in (since, until))
    within = (pc.field("time") >= first) & (pc.field("time") < end)
    for batch in batches(predictions, columns, wanted=within, since=since.date(), until=until.date()):
        if batch.num_rows:
            yield as_frame(batch)


def split_refs(refs: pl.Series) -> tuple[pl.Series, pl.Series]:
    """The ids, and the event times in microseconds, that labels name by these references, each given once."""
    parts = refs.str.splitn(SEPARATOR, 3).struct.unnest()
    ids = parts.filter(pl.col("field_0") == "i")["field_2"]
    return ids, parts.filter(pl.col("field_0") == "k")["field_1"].cast(pl.Int64).unique()


def is_referenced(ids: pl.Series, times: pl.Series) -> pl.Expr:
    """Whether a row may be named by one of these ids, or event times: the others need not be parsed."""
    wanted = pl.col("id").is_in(ids.implode())
    return wanted | pl.col("event_time").cast(pl.Int64).is_in(times.implode()) if len(times) else wanted


def _key_refs(rows: pl.DataFrame, key: Sequence[Field]) -> pl.Expr | pl.Series:
    """The column `key_ref` of these rows; nulls without a key."""
    if not key:
        return pl.lit(None, pl.String).alias("key_ref")
    requests = [read_object(text) for text in rows["request"].to_list()]
    columns = [[request.get(field.name) for request in requests] for field in key]
    refs = key_refs(columns, key, rows["event_time"].cast(pl.Int64).to_list())
    return pl.Series("key_ref", refs, dtype=pl.String)
