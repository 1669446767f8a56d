"""Erasure of predictions of a person, and of what was joined with them, from the parts of the logs.

A part is replaced by one without these rows, under its own name: numbers, cursors and facts about the part stay. The
caller holds the lease that guards the log. Cut off at any point and begun again, the same rows are erased: labels and
joined rows are found by the predictions, so that these are erased last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import polars as pl
import pyarrow.parquet as pq

from cumulant.core.plan import Field
from cumulant.core.prediction import read_object
from cumulant.outcomes import scanning
from cumulant.outcomes.join.joining import read_progress, write_progress
from cumulant.outcomes.join.log_rows import COLUMNS, IDENTITY, TYPES, as_frame, with_refs
from cumulant.outcomes.labels.store import filter_part, read_part
from cumulant.outcomes.logs import OutcomeLogs
from cumulant.ports.log import UNDATED, Log, PartInfo
from cumulant.serving.prediction_log.storage.part_writer import FILE_SCHEMA, OPTIONS, SCHEMA, with_all_columns

#: of a request that callers wrote in another way than we do: it is parsed, whatever it holds
_ESCAPED = ("\\u", "\\/")
#: what an erased row keeps: who answered it and when, so that numbers have no gap and requests are counted
_EMPTY: dict[str, str | None] = {
    "id": "",
    "request": "{}",
    "outputs": "{}",
    "fingerprint": "",
    "caller_id": None,
    "invalid": None,
    "features": None,
    "incomplete": None,
    "event_time": None,
}
_ANSWERED = {"answered_worker": "worker", "answered_sequence": "sequence", "row": "row"}


class SubjectRequests(NamedTuple):
    """Requests of a person: `chosen` says of the fields of one whether it is; each has one of the `texts` in it."""

    texts: Sequence[str]
    chosen: Callable[[Mapping[str, object]], bool]


class PartRows(NamedTuple):
    """Rows of one part of a log; `wanted`: which ones of labels and joined rows they are."""

    part: PartInfo
    rows: pl.DataFrame
    wanted: pl.Expr = pl.lit(value=False)


def find_predictions(log: Log, requests: SubjectRequests) -> Iterator[PartRows]:
    """The predictions of these requests by part, with the columns of the join; of parts that were merged, too.

    Raises:
        StorageError: a part cannot be read.
    """
    patterns = [*requests.texts, *_ESCAPED]
    for day in log.days():
        for part in log.parts(day):
            try:
                rows = scanning.scan_part(
                    log, part, lambda rows: rows.filter(pl.col("request").str.contains_any(patterns)).select(COLUMNS)
                )
            except FileNotFoundError:  # merged and deleted meanwhile
                continue
            chosen = [requests.chosen(read_object(text)) for text in rows["request"].to_list()]
            rows = rows.filter(pl.Series(chosen, dtype=pl.Boolean))
            if rows.height:
                yield PartRows(part, rows)


def all_rows(parts: Sequence[PartRows]) -> pl.DataFrame:
    """The predictions of several parts as one frame."""
    return pl.concat([pl.DataFrame(schema={name: TYPES[name] for name in COLUMNS}), *(part.rows for part in parts)])


def erase_predictions(log: Log, parts: Sequence[PartRows]) -> None:
    """Empty these rows: they keep their number, as those of a request without rows. Raises StorageError."""
    for part, rows, _ in parts:
        with (
            log.open(part) as file,
            pq.ParquetFile(file) as source,
            log.replace(part) as stream,
            pq.ParquetWriter(stream, FILE_SCHEMA, **OPTIONS) as writer,
        ):
            for group in range(source.num_row_groups):
                table = with_all_columns(source.read_row_group(group, use_threads=False))
                writer.write_table(_emptied(as_frame(table), rows).to_arrow().cast(SCHEMA))


def _emptied(rows: pl.DataFrame, erased: pl.DataFrame) -> pl.DataFrame:
    types = rows.schema
    mark = erased.select(IDENTITY).unique().with_columns(erased=pl.lit(value=True))
    marked = rows.join(mark, on=IDENTITY, how="left", maintain_order="left")
    empty = [
        pl.when(pl.col("erased").is_null()).then(pl.col(name)).otherwise(pl.lit(value, types[name])).alias(name)
        for name, value in _EMPTY.items()
    ]
    return marked.with_columns(empty).select(rows.columns)


def find_labels(
    logs: OutcomeLogs, predictions: pl.DataFrame, key: Sequence[Field], named: Callable[[str], bool]
) -> Iterator[PartRows]:
    """Labels of these predictions, and those whose key is `named`.

    Raises:
        StorageError: a part cannot be read.
    """
    answered = with_refs(predictions, key)
    refs = pl.concat([answered["id_ref"], answered["key_ref"].drop_nulls()])
    for part, rows in _parts(logs.labels, ["ref", "key"]):
        keys = [text for text in rows["key"].drop_nulls().unique().to_list() if named(text)]
        by_key = pl.col("key").is_in(pl.Series(keys, dtype=pl.String).implode()).fill_null(value=False)
        wanted = pl.col("ref").is_in(refs.implode()) | by_key
        if (rows := rows.filter(wanted)).height:
            yield PartRows(part, rows, wanted)


def erase_labels(logs: OutcomeLogs, parts: Sequence[PartRows]) -> None:
    """Raises StorageError."""
    for part, _, wanted in parts:
        filter_part(logs.labels, part, ~wanted)


def find_joined(logs: OutcomeLogs, predictions: pl.DataFrame) -> Iterator[PartRows]:
    """Joined rows of these predictions. Raises StorageError."""
    if not predictions.height:
        return
    for part, rows in _parts(logs.joined, None):
        wanted = _is_of(rows, predictions)
        if (rows := rows.filter(wanted)).height:
            yield PartRows(part, rows, wanted)


def _is_of(rows: pl.DataFrame, predictions: pl.DataFrame) -> pl.Expr:
    """Whether a row is of one of these predictions, as itself or as the answer that was mirrored."""
    known = predictions.select(pl.struct(IDENTITY).alias("identity"))["identity"]
    wanted = _identity(*IDENTITY).is_in(known.implode())
    if set(_ANSWERED) <= set(rows.columns):
        wanted |= _identity(*_ANSWERED).is_in(known.implode())
    return wanted


def _identity(worker: str, sequence: str, row: str) -> pl.Expr:
    return pl.struct(pl.col(worker).alias("worker"), pl.col(sequence).alias("sequence"), pl.col(row).alias("row"))


def erase_joined(logs: OutcomeLogs, predictions: pl.DataFrame, parts: Sequence[PartRows]) -> None:
    """Erase joined rows, and what waits for its other half. Raises StorageError."""
    for part, _, wanted in parts:
        filter_part(logs.joined, part, ~wanted)
    progress = read_progress(logs.joined)
    waiting = progress.waiting_rows()
    if waiting.height and predictions.height:
        others = waiting.filter(~_is_of(waiting, predictions))
        if others.height < waiting.height:
            progress.put_waiting(others)
            write_progress(logs.joined, progress)


def _parts(log: Log, columns: list[str] | None) -> Iterator[tuple[PartInfo, pl.DataFrame]]:
    for part in log.parts(UNDATED):
        try:
            yield part, as_frame(read_part(log, part, columns))
        except FileNotFoundError:  # merged and deleted meanwhile
            continue
