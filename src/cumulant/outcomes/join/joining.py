"""The join of predictions and labels, and of mirrored requests with each other: what release and monitoring read."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING

import msgspec
import polars as pl
import pyarrow as pa

from cumulant.core.clock import Clock
from cumulant.core.plan import Field
from cumulant.outcomes import scanning
from cumulant.outcomes.join.log_rows import IDENTITY, PREDICTION_COLUMNS, as_frame, is_referenced, split_refs
from cumulant.outcomes.join.mirrored_pairs import (
    GRADED,
    PAIRS,
    GradedPair,
    MirroredPair,
    grade_pairs,
    to_graded,
    to_pairs,
)
from cumulant.outcomes.join.numbered_table import NumberedTable, TableParts
from cumulant.outcomes.join.pairing import Pairing
from cumulant.outcomes.labelled_log import LabelledLog
from cumulant.outcomes.labels.batches import MERGED, LabelBatches
from cumulant.outcomes.labels.label_snapshot import WINDOW, UsableLabels, same_frame, window_parts
from cumulant.outcomes.logs import LISTINGS, OutcomeLogs, vanishing_parts_error
from cumulant.ports.log import Log, LogCursor
from cumulant.serving.prediction_log.storage.part_writer import SCHEMA

if TYPE_CHECKING:
    from cumulant.ports.log import PartInfo
    from cumulant.serving.prediction_log.storage.log_reader import Rows

    #: of the prediction log, each with what reads its rows
    LoggedParts = list[tuple[PartInfo, Rows]]

_TIME = pa.timestamp("us", "UTC")
_LABEL = [*IDENTITY, "label", "value", "label_known_time", "weight"]
#: the join's columns
_JOINED = pa.schema(
    [
        *(SCHEMA.field(name) for name in PREDICTION_COLUMNS),
        pa.field("score", pa.float64()),
        pa.field("label", pa.string()),
        pa.field("value", pa.float64()),
        pa.field("label_known_time", _TIME),
        pa.field("provenance", pa.string(), nullable=False),
        pa.field("weight", pa.float64()),
        pa.field("worker", pa.string(), nullable=False),
        pa.field("sequence", pa.int64(), nullable=False),
    ]
)


class JoinResult(msgspec.Struct, frozen=True, kw_only=True):
    """Result of one `advance`: predictions that got their first label, pairs, and pairs with a label."""

    labelled: int
    pairs: int
    graded: int


class Outcomes(LabelledLog):
    """As `LabelledLog`, with the joined rows: predictions with their labels, mirrored requests in pairs."""

    def __init__(
        self,
        logs: OutcomeLogs,
        predictions: Log,
        *,
        key: Sequence[Field] | Callable[[], Sequence[Field]] = (),
        clock: Clock | None = None,
    ) -> None:
        super().__init__(logs, predictions, key=key, clock=clock)
        self._parts = TableParts(logs.joined)
        self._joined = NumberedTable(self._parts, "labelled", _JOINED, IDENTITY)
        self._pairs = NumberedTable(self._parts, "pairs", PAIRS, IDENTITY)
        self._graded = NumberedTable(self._parts, "graded", GRADED, IDENTITY)

    @property
    def tables(self) -> tuple[NumberedTable, NumberedTable, NumberedTable]:
        """The joined rows, the pairs, and the pairs with a label."""
        return self._joined, self._pairs, self._graded

    def labelled(self, cursor: str = "", *, limit: int | None = None) -> tuple[pl.DataFrame, str]:
        """Predictions that got a label since the cursor, each once, with that label; and the next cursor.

        A label that is corrected later is not given again: `table` has what is known now.
        """
        return self._joined.since(cursor, limit=limit)

    def pairs(self, cursor: str = "", *, limit: int | None = None) -> tuple[list[MirroredPair], str]:
        """Mirrored rows that both arms have scored since the cursor, each once; and the next cursor."""
        rows, after = self._pairs.since(cursor, limit=limit)
        return to_pairs(rows), after

    def graded(self, cursor: str = "", *, limit: int | None = None) -> tuple[list[GradedPair], str]:
        """As `pairs`, those whose label has come, with each arm's loss."""
        rows, after = self._graded.since(cursor, limit=limit)
        return to_graded(rows), after

    def newest_pairs(self, limit: int) -> list[MirroredPair]:
        """The newest pairs, oldest first."""
        return to_pairs(self._pairs.newest(limit))

    def newest_graded(self, limit: int) -> list[GradedPair]:
        """As `newest_pairs`, those whose label has come."""
        return to_graded(self._graded.newest(limit))

    @property
    def end_of_graded(self) -> str:
        """The cursor after the newest pair whose label has come."""
        return self._graded.end

    # --- the join

    def advance(self) -> JoinResult:
        """Join labels and predictions that have come since the last time.

        Killed at any moment and called again, on any machine, it joins the same, and nothing twice. The caller holds a
        lease, so that no two processes do the same work.

        Raises:
            StorageError: something cannot be read or written.
            LeaseHeldError: another process has joined meanwhile.
        """
        from cumulant.serving.prediction_log.storage.log_reader import iterate_files

        now = self._clock.now()
        progress, batches = read_progress(self.logs.joined), LabelBatches(self.logs.labels)
        news, due = _news(batches, progress), progress.is_due(now)
        parts, position = list(iterate_files(self.log)), LogCursor.parse(progress.cursor)
        if not news and not due and all(position.includes(part) for part, _ in parts):
            return JoinResult(labelled=0, pairs=0, graded=0)
        with self._parts.joining():
            return self._advance(progress, batches, news, parts, now)

    def _advance(
        self, progress: JoinProgress, batches: LabelBatches, news: list[str], parts: LoggedParts, now: datetime
    ) -> JoinResult:
        pairing, due = Pairing(progress.waiting_rows()), progress.is_due(now)
        with self.labels(batches.names) as known:
            labels = UsableLabels(known, now)
            rows = self._rows(
                progress, parts, labels, lambda: self._referenced_rows(labels, None if due else news), pairing
            )
            joined = (frame.filter(pl.col("label").is_not_null()) for frame, _ in self._join(rows, labels, WINDOW))
            labelled = sum(map(self._joined.append, joined))
            ahead = known.next_known(now)
        pairs = self._pair(progress, pairing, now)
        new_losses = self._grade(progress)
        progress.batches, progress.next_due = set(batches.names), ahead
        self._parts.confirm()
        write_progress(self.logs.joined, progress)
        for table in self.tables:
            table.compact()
        return JoinResult(labelled=labelled, pairs=pairs, graded=new_losses)

    def has_news(self) -> bool:
        """Whether `advance` has something to join. Raises StorageError."""
        progress = read_progress(self.logs.joined)
        if progress.is_due(self._clock.now()) or _news(LabelBatches(self.logs.labels), progress):
            return True
        return bool(self.log.read(progress.cursor, limit=1).parts)  # last: it may list each day of the log

    def _referenced_rows(self, labels: UsableLabels, news: list[str] | None) -> pl.Expr | None:
        """Whether a row of the log may be referenced by one of these labels, or of those of the batches `news`."""
        if news is None:
            refs = labels.refs
        else:
            with self.labels(news) as known:
                refs = UsableLabels(known, labels.until).refs
        return is_referenced(*split_refs(refs)) if len(refs) else None

    def _rows(
        self,
        progress: JoinProgress,
        parts: LoggedParts,
        labels: UsableLabels,
        referenced: Callable[[], pl.Expr | None],
        pairing: Pairing,
    ) -> Iterator[pl.DataFrame]:
        """The rows of new ones of the log's `parts`, and of old ones those that new labels may mean.

        A file that is merged before it is read is listed again: else its rows would miss these labels for ever.
        """
        from cumulant.serving.prediction_log.storage.log_reader import iterate_files

        referenced = cache(referenced)
        for attempt in range(LISTINGS):
            if attempt:
                parts = list(iterate_files(self.log))
            position = LogCursor.parse(progress.cursor)
            listed = [(part, read, position.includes(part)) for part, read in parts]
            position.forget_before(listed[0][0].day if listed else None)
            old = [part for part, _, seen in listed if seen]
            wanted = referenced() if old else None
            try:
                named_in = set() if wanted is None else scanning.find_parts_with(self.log, old, wanted)
            except FileNotFoundError:
                continue
            gone = False
            for part, read, seen in listed:
                if seen and part.key not in named_in:
                    continue
                try:
                    yield from self._rows_of(read, labels, wanted if seen else None, None if seen else pairing)
                except FileNotFoundError:
                    gone = True
                    continue
                position.add(part)
                progress.cursor = position.text
            if not gone:
                return
        raise vanishing_parts_error(self.log)

    def _rows_of(
        self, read: Rows, labels: UsableLabels, wanted: pl.Expr | None, pairing: Pairing | None
    ) -> Iterator[pl.DataFrame]:
        """The rows of a part, or the `wanted` ones. Raises FileNotFoundError before the first one."""
        for batch in read(self._columns(labels)):
            answered = as_frame(batch)
            if pairing is not None:
                pairing.add(answered)
            chosen = answered if wanted is None else answered.filter(wanted)
            if chosen.height and labels.any:
                yield self._frame(chosen, labels)

    # --- mirrored requests

    def _pair(self, progress: JoinProgress, pairing: Pairing, now: datetime) -> int:
        added = sum(self._pairs.append(rows) for rows in pairing.pairs(self.log))
        if pairing.waiting.width:
            progress.keep_waiting(pairing.waiting, now)
        return added

    def _grade(self, progress: JoinProgress) -> int:
        """Losses of the pairs and labels since the last time; the progress is recorded when they are stored."""
        last_label, last_pair, added = self._joined.last, self._pairs.last, 0
        if last_label > progress.graded_labels:
            added += self._losses(0, progress.graded_labels)
        if last_pair > progress.graded_pairs:
            added += self._losses(progress.graded_pairs, 0)
        progress.graded_labels, progress.graded_pairs = last_label, last_pair
        return added

    def _losses(self, pairs: int, labels: int) -> int:
        """How many losses of pairs and labels after the ones of these numbers are new."""
        added = 0
        for window in window_parts(self._pairs.frames(after=pairs), WINDOW, frame=same_frame):
            some = pl.concat(window)
            answered = some.select(worker="answered_worker", sequence="answered_sequence", row="row")
            known = [
                frame.join(answered, on=IDENTITY, how="semi") for frame in self._joined.frames(_LABEL, after=labels)
            ]
            if known:
                added += self._graded.append(grade_pairs(some, pl.concat(known)))
        return added


#: of the log `joined`
_PROGRESS = "progress"
#: a mirrored row whose other half has not come for so long will not get one
_PATIENCE = timedelta(days=1)


class JoinProgress(msgspec.Struct, kw_only=True):
    """`cursor`: which parts of the prediction log were read."""

    batches: set[str] = set()
    cursor: str = ""
    #: when the first of the labels that lie in the future is known
    next_due: datetime | None = None
    #: up to which appends labels and pairs were read for losses
    graded_labels: int = 0
    graded_pairs: int = 0
    #: mirrored rows that stay without a pair
    alone: int = 0
    #: mirrored rows that wait for their other half, in Arrow's file format; stored with the cursor that read them
    waiting: bytes = b""

    def is_due(self, now: datetime) -> bool:
        """Whether a label that lay in the future is known by now."""
        return self.next_due is not None and now >= self.next_due

    def waiting_rows(self) -> pl.DataFrame:
        """Mirrored rows that wait for their other half; without columns where there are none."""
        return pl.read_ipc(io.BytesIO(self.waiting)) if self.waiting else pl.DataFrame()

    def keep_waiting(self, rows: pl.DataFrame, now: datetime) -> None:
        recent = rows.filter(pl.col("time") > now - _PATIENCE)
        self.alone += rows.height - recent.height
        self.put_waiting(recent)

    def put_waiting(self, rows: pl.DataFrame) -> None:
        self.waiting = b""
        if rows.height:
            rows.write_ipc(buffer := io.BytesIO(), compression="zstd")
            self.waiting = buffer.getvalue()


def read_progress(joined: Log) -> JoinProgress:
    """The progress; where there is none, or a damaged one, all is joined anew, and nothing twice."""
    content = joined.state(_PROGRESS)
    if content:
        with contextlib.suppress(msgspec.MsgspecError):
            return msgspec.msgpack.decode(content, type=JoinProgress)
    return JoinProgress()


def write_progress(joined: Log, progress: JoinProgress) -> None:
    """Raises StorageError."""
    joined.put_state(_PROGRESS, msgspec.msgpack.encode(progress))


def _news(batches: LabelBatches, progress: JoinProgress) -> list[str]:
    """The batches that were not joined."""
    return [name for name in batches.names if not _is_joined(batches, name, progress)]


def _is_joined(batches: LabelBatches, name: str, progress: JoinProgress) -> bool:
    """Whether a batch was joined, be it before it was merged."""
    if name in progress.batches:
        return True
    ingested = batches.find(name) if name.startswith(MERGED) else None
    return ingested is not None and progress.batches.issuperset(ingested.made_of)
