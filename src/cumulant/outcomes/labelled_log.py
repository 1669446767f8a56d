"""The prediction log with the labels of its rows, read only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import date, datetime
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

import polars as pl

from cumulant.core.clock import Clock, SystemClock
from cumulant.core.plan import Field
from cumulant.outcomes import scanning
from cumulant.outcomes.join.log_rows import ANSWERED, COLUMNS, TYPES, as_frame, is_referenced, split_refs, with_refs
from cumulant.outcomes.labels.label_facts import RefFilter
from cumulant.outcomes.labels.label_snapshot import (
    LabelSnapshot,
    UsableLabels,
    label_snapshot,
    same_frame,
    window_parts,
)
from cumulant.outcomes.logs import OutcomeLogs
from cumulant.outcomes.matching import READ, filter_usable, has_key_refs, match_labels, resolve_labels
from cumulant.outcomes.prediction_refs import BY_KEY
from cumulant.ports.log import Log

if TYPE_CHECKING:
    import pyarrow as pa

    from cumulant.serving.prediction_log.storage.log_reader import Rows

Item = TypeVar("Item")
#: the join's columns
JOINED = [
    *("id", "row", "time", "event_time", "model", "version", "arm", "served_arm", "shadow", "outputs", "score"),
    *("label", "value", "label_known_time", "provenance", "weight", "worker", "sequence"),
]
#: by which a label names a prediction, apart from its key
_HEAD = ["id", "row", "model"]
#: what a report counts
_COUNTED = [*_HEAD, "time", "version", "arm", "shadow"]
#: bytes of the log's files with about as many rows as a window
_BYTES = 2 << 20
#: requests are the most of a log, and only keys are read from them
_WITHOUT_REQUEST = [name for name in COLUMNS if name != "request"]


class LabelledLog:
    """The labels of `logs`, and the log `predictions`, which is `log` afterwards.

    `key` are the fields of the model's request by which labels may name a prediction, beside its id; or what reads
    them, called where a label does.
    """

    def __init__(
        self,
        logs: OutcomeLogs,
        predictions: Log,
        *,
        key: Sequence[Field] | Callable[[], Sequence[Field]] = (),
        clock: Clock | None = None,
    ) -> None:
        self.logs, self.log, self._given = logs, predictions, key
        self._clock = clock or SystemClock()

    @cached_property
    def _key(self) -> tuple[Field, ...]:
        return tuple(self._given() if callable(self._given) else self._given)

    def table(
        self, *, since: date | None = None, until: date | None = None, as_of: datetime | None = None
    ) -> Iterator[pl.DataFrame]:
        """All predictions of the days `since` to `until` with what is known of them by `as_of`, batch by batch.

        `provenance` is `labelled`, `corrected`, `contradicted` or `none`; without a label it is null.

        Raises:
            StorageError: a file cannot be read.
        """
        with self.labels() as known:
            labels = UsableLabels(known, as_of or self._clock.now())
            for joined, _ in self._batches(labels, since=since, until=until):
                yield joined

    def join_files(
        self, files: Iterable[tuple[Item, Rows]], labels: LabelSnapshot, as_of: datetime
    ) -> Iterator[tuple[Item, pl.DataFrame, pl.Series]]:
        """As `table`, the rows of files of the log, and when each label of theirs became or becomes known.

        `labels`: also those that become known after `as_of`.
        """
        ever = UsableLabels(labels, None)
        read = ((item, rows) for item, file in files for rows in self._framed(file, ever))
        for window in window_parts(read, ever.window, frame=lambda part: part[1]):
            facts = ever.of(pl.concat([rows.select("id_ref", "key_ref") for _, rows in window]))
            for item, rows in window:
                pairs = match_labels(rows, facts)
                yield item, _with_labels(rows, filter_usable(pairs, as_of)), pairs["known_time"]

    def of(self, request: str) -> tuple[pl.DataFrame, RefFilter]:
        """The rows of one request, joined, and what labels that name it by its id are for (as `named`).

        Raises:
            StorageError: a file cannot be read.
        """
        parts = scanning.scan_predictions(self.log, lambda rows: rows.select(COLUMNS).filter(pl.col("id") == request))
        rows = pl.concat([pl.DataFrame(schema={name: TYPES[name] for name in COLUMNS}), *parts])
        heads = with_refs(rows.select(_HEAD), ())
        meant = pl.col("ref").is_in(heads["id_ref"].implode()) | pl.col("ref").str.starts_with(BY_KEY)
        facts = filter_usable(self.label_facts(wanted=meant), self._clock.now())
        # To take every request apart for its key costs more than all the rest; labels by id need none of it.
        framed = with_refs(rows, self._key if has_key_refs(facts) else ())
        joined = _with_labels(framed, match_labels(framed, facts))
        return joined.sort("time", "row", "shadow"), lambda facts: match_labels(heads, facts)[["ref", "model"]].unique()

    def named(self, facts: pl.DataFrame) -> pl.DataFrame:
        """Of the references and models (`ref`, `model`) in `facts`, those that a prediction of the log has.

        Raises:
            StorageError: a file cannot be read.
        """
        wanted = facts.select("ref", "model").unique()
        key = self._key if has_key_refs(wanted) else ()
        meant = is_referenced(*split_refs(wanted["ref"].unique()))
        columns = COLUMNS if key else [*_HEAD, "event_time"]
        predictions = scanning.scan_predictions(self.log, lambda rows: rows.select(columns).filter(meant))
        pairs = (
            match_labels(with_refs(rows, key), wanted)[["ref", "model"]]
            for rows in (predictions if wanted.height else ())
        )
        return pl.concat([wanted.clear(), *pairs]).unique()

    def with_states(self, labels: UsableLabels) -> Iterator[tuple[pl.DataFrame, pl.Series]]:
        """All predictions with their `labels`, without their requests, answers and scores; and the numbers
        of the labels that were of use.

        Raises:
            StorageError: a file cannot be read.
        """
        if labels.by_key and self._key:  # requests may be large: they are read in batches
            yield from self._batches(labels)
            return
        size = _BYTES if labels.windowed else None
        read = scanning.scan_predictions(self.log, lambda rows: rows.filter(ANSWERED).select(_COUNTED), size=size)
        yield from self._join((with_refs(rows, ()) for rows in read), labels)

    def labels(self, batches: Sequence[str] | None = None) -> AbstractContextManager[LabelSnapshot]:
        """All label facts as they are now, unusable ones included; or those of these batches."""
        return label_snapshot(self.logs.labels, batches)

    def label_facts(self, batches: Sequence[str] | None = None, *, wanted: pl.Expr | None = None) -> pl.DataFrame:
        """All label facts, unusable ones included; or those of these batches, or those that are `wanted`."""
        chosen = pl.lit(value=True) if wanted is None else wanted
        facts = scanning.collect_facts(self.logs.labels, lambda rows: rows.filter(chosen).select(list(READ)), batches)
        return pl.DataFrame(schema=READ) if facts is None else facts

    def _batches(
        self, labels: UsableLabels, *, since: date | None = None, until: date | None = None
    ) -> Iterator[tuple[pl.DataFrame, pl.Series]]:
        from cumulant.serving.prediction_log.storage.scanning import scan

        scanned = scan(self.log, since=since, until=until)

        def read(columns: list[str]) -> Iterator[pa.RecordBatch]:
            return (batch for batch in scanned.batches(columns) if batch.num_rows)

        return self._join(self._framed(read, labels), labels)

    def _framed(
        self, read: Callable[[list[str]], Iterable[pa.Table | pa.RecordBatch]], labels: UsableLabels
    ) -> Iterator[pl.DataFrame]:
        """The rows that `read` gives, as `match_labels` needs them to find these labels, without their requests."""
        for batch in read(self._columns(labels)):
            yield self._frame(as_frame(batch), labels)

    def _columns(self, labels: UsableLabels) -> list[str]:
        # To take every request apart for its key costs more than all the rest; labels by id need none of it.
        return COLUMNS if labels.by_key and self._key else _WITHOUT_REQUEST

    def _frame(self, rows: pl.DataFrame, labels: UsableLabels) -> pl.DataFrame:
        return with_refs(rows, self._key if labels.by_key else ()).drop("request", strict=False)

    def _join(
        self, frames: Iterable[pl.DataFrame], labels: UsableLabels, rows: int | None = None
    ) -> Iterator[tuple[pl.DataFrame, pl.Series]]:
        """Frames of `framed` with their labels, put together to windows of so many `rows`, and the labels' numbers."""
        for window in window_parts(frames, labels.window if rows is None else rows, frame=same_frame):
            frame = window[0] if len(window) == 1 else pl.concat(window).drop("place").with_row_index("place")
            pairs = match_labels(frame, labels.of(frame))
            yield _with_labels(frame, pairs), pairs[scanning.FACT]


def _with_labels(rows: pl.DataFrame, pairs: pl.DataFrame) -> pl.DataFrame:
    """Rows of `with_refs` with their labels, in the columns of JOINED."""
    joined = rows.join(resolve_labels(pairs, ["place"]), on="place", how="left", maintain_order="left").with_columns(
        pl.col("state").fill_null("none").alias("provenance")
    )
    return joined.select([name for name in JOINED if name in joined.columns])
