"""Pairing of mirrored rows with the answers that they copy; its cost is that of new rows, not of the day's log.

A mirrored row of an earlier call was compared with all rows that were there, so that only new rows can be its
other half. One that is new is compared with the rows of its time as well: a request and its copy are sent together.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl

from cumulant.outcomes.join.log_rows import COLUMNS, IDENTITY, as_frame, is_referenced, with_refs
from cumulant.outcomes.join.mirrored_pairs import pair_rows
from cumulant.outcomes.logs import LISTINGS, vanishing_parts_error
from cumulant.ports.log import Log

if TYPE_CHECKING:
    from cumulant.serving.prediction_log.storage.log_reader import Rows

#: a request and its copy are answered within this time
_APART = timedelta(hours=1)
_READ = [name for name in COLUMNS if name != "request"]


class Pairing:
    """`waiting`: mirrored rows of earlier calls, without columns where there are none."""

    def __init__(self, waiting: pl.DataFrame) -> None:
        self.waiting = waiting
        self._ids = _ids(waiting) if waiting.height else None
        self._answered: list[pl.DataFrame] = []
        self._mirrored: list[pl.DataFrame] = []

    def add(self, rows: pl.DataFrame) -> None:
        """Take rows of a file that is new."""
        mirrored = rows.filter("shadow")
        if mirrored.height:
            self._mirrored.append(with_refs(mirrored, ()).drop("place", "id_ref", "key_ref", "request", strict=False))
        if self._ids is not None:
            self._answered += _answers(rows, self._ids)

    def pairs(self, log: Log) -> Iterator[pl.DataFrame]:
        """The pairs that can be made now, in `log`; afterwards `waiting` is what has no other half yet.

        Raises:
            StorageError: a file of the log cannot be read.
        """
        for answered in self._answered:
            pairs = pair_rows(answered, self.waiting)
            self.waiting = _unpaired(self.waiting, pairs)
            yield pairs
        if not self._mirrored:
            return
        fresh = pl.concat(self._mirrored).unique(IDENTITY, maintain_order=True)
        for answered in _candidate_answers(log, fresh) if fresh.height else ():
            pairs = pair_rows(answered, fresh)
            fresh = _unpaired(fresh, pairs)
            yield pairs
        both = [rows for rows in (self.waiting, fresh) if rows.height]
        self.waiting = pl.concat(both).unique(IDENTITY, maintain_order=True) if both else fresh


def _candidate_answers(log: Log, mirrored: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Answers with the ids of these rows, of the days and files that may have them; some of them twice, where files
    are merged meanwhile.
    """
    from cumulant.serving.prediction_log.storage.log_reader import iterate_files

    ids, first = _ids(mirrored), _moment(mirrored["time"].min()) - _APART
    last = _moment(mirrored["time"].max()) + _APART
    for _ in range(LISTINGS):
        gone = False
        for part, read in iterate_files(log, since=first.date(), until=last.date()):
            if part.modified >= first.timestamp():
                try:
                    yield from _answers_in(read, ids)
                except FileNotFoundError:
                    gone = True
        if not gone:
            return
    raise vanishing_parts_error(log)


def _answers_in(read: Rows, ids: pl.Series) -> Iterator[pl.DataFrame]:
    if any(as_frame(head)["id"].is_in(ids.implode()).any() for head in read(["id"])):
        for batch in read(_READ):
            yield from _answers(as_frame(batch), ids)


def _answers(rows: pl.DataFrame, ids: pl.Series) -> list[pl.DataFrame]:
    wanted = rows.filter(is_referenced(ids, pl.Series([], dtype=pl.Int64)) & ~pl.col("shadow"))
    return [with_refs(wanted, ())] if wanted.height else []


def _unpaired(rows: pl.DataFrame, pairs: pl.DataFrame) -> pl.DataFrame:
    return rows.join(pairs, on=IDENTITY, how="anti")


def _ids(rows: pl.DataFrame) -> pl.Series:
    return rows["id"].unique()


def _moment(value: object) -> datetime:
    assert isinstance(value, datetime)
    return value
