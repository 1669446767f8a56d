"""The join of predictions and labels, and of mirrored requests with each other: what release and monitoring read."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import polars as pl
import pyarrow as pa

from cumulant.core.clock import Clock
from cumulant.core.errors import StorageError
from cumulant.core.plan import Field
from cumulant.core.system.atomic_files import replace_file
from cumulant.core.system.json_files import read_json
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
from cumulant.outcomes.join.numbered_table import NumberedTable
from cumulant.outcomes.join.pairing import Pairing
from cumulant.outcomes.labelled_log import LabelledLog
from cumulant.outcomes.labels import outcome_folder, store
from cumulant.outcomes.labels.label_snapshot import WINDOW, UsableLabels, same_frame, window_parts
from cumulant.outcomes.labels.store import read_table, write_table, writing_to
from cumulant.ports.log import Log, LogCursor
from cumulant.serving.prediction_log.storage.part_writer import SCHEMA

if TYPE_CHECKING:
    from cumulant.serving.prediction_log.storage.log_reader import Rows

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
        folder: Path,
        predictions: Log,
        *,
        key: Sequence[Field] | Callable[[], Sequence[Field]] = (),
        clock: Clock | None = None,
    ) -> None:
        super().__init__(folder, predictions, key=key, clock=clock)
        self._joined = NumberedTable(folder / "joined", _JOINED, IDENTITY)
        self._pairs = NumberedTable(folder / "pairs", PAIRS, ["worker", "sequence", "row"])
        self._graded = NumberedTable(folder / "graded", GRADED, ["worker", "sequence", "row"])

    def labelled(self, cursor: int = 0, *, limit: int | None = None) -> tuple[pl.DataFrame, int]:
        """Predictions that got a label since the cursor, each once, with that label; and the next cursor.

        A label that is corrected later is not given again: `table` has what is known now.
        """
        return self._joined.since(cursor, limit=limit)

    def pairs(self, cursor: int = 0, *, limit: int | None = None) -> tuple[list[MirroredPair], int]:
        """Mirrored rows that both arms have scored since the cursor, each once; and the next cursor."""
        rows, after = self._pairs.since(cursor, limit=limit)
        return to_pairs(rows), after

    def graded(self, cursor: int = 0, *, limit: int | None = None) -> tuple[list[GradedPair], int]:
        """As `pairs`, those whose label has come, with each arm's loss."""
        rows, after = self._graded.since(cursor, limit=limit)
        return to_graded(rows), after

    @property
    def last_pair(self) -> int:
        """The cursor after the newest pair."""
        return self._pairs.last

    @property
    def last_graded(self) -> int:
        """The cursor after the newest pair whose label has come."""
        return self._graded.last

    # --- the join

    def advance(self) -> JoinResult:
        """Join labels and predictions that have come since the last time.

        Killed at any moment and called again it joins the same, and nothing twice.

        Raises:
            StorageError: something cannot be read or written.
            LeaseHeldError: another process joins.
        """
        now = self._clock.now()
        with store.lock_folder(self.folder):
            progress = read_progress(self.folder)
            names = outcome_folder.list_batches(self.folder)
            news = [name for name in names if not self._known(name, progress)]
            due = progress.next_due is not None and now >= progress.next_due
            if not news and not due and self._is_log_read(progress):
                return JoinResult(labelled=0, pairs=0, graded=0)
            pairing = Pairing(progress.halves(self.folder))
            with self.labels(names) as known:
                labels = UsableLabels(known, now)
                labelled = self._join_new(
                    progress, labels, lambda: self._referenced_rows(labels, None if due else news), pairing
                )
                ahead = known.next_known(now)
            pairs = self._pair(progress, pairing, now)
            new_losses = self._grade(progress)
            progress.batches, progress.next_due = set(names), ahead
            with store.writing_to(self.folder):
                write_progress(self.folder, progress)
        return JoinResult(labelled=labelled, pairs=pairs, graded=new_losses)

    def _is_log_read(self, progress: JoinProgress) -> bool:
        """Whether the log has nothing new, as at most calls."""
        return not self.log.read(progress.cursor, limit=1).parts

    def _referenced_rows(self, labels: UsableLabels, news: list[str] | None) -> pl.Expr | None:
        """Whether a row of the log may be referenced by one of these labels, or of those of the batches `news`."""
        if news is None:
            refs = labels.refs
        else:
            with self.labels(news) as known:
                refs = UsableLabels(known, labels.until).refs
        return is_referenced(*split_refs(refs)) if len(refs) else None

    def _join_new(
        self, progress: JoinProgress, labels: UsableLabels, referenced: Callable[[], pl.Expr | None], pairing: Pairing
    ) -> int:
        """Go through new files of the log, and through old ones for predictions that new labels name."""
        labelled = 0
        for joined, _ in self._join(self._rows(progress, labels, referenced, pairing), labels, WINDOW):
            labelled += self._joined.append(joined.filter(pl.col("label").is_not_null()))
        return labelled

    def _rows(
        self, progress: JoinProgress, labels: UsableLabels, referenced: Callable[[], pl.Expr | None], pairing: Pairing
    ) -> Iterator[pl.DataFrame]:
        """The rows of new files of the log, and of old ones those that new labels may mean.

        A file that is merged before it is read is listed again: else its rows would miss these labels for ever.
        """
        from cumulant.serving.prediction_log.storage.log_reader import iterate_files

        referenced = cache(referenced)
        for _ in range(outcome_folder.LISTINGS):
            position = LogCursor.parse(progress.cursor)
            listed = [(part, read, position.includes(part)) for part, read in iterate_files(self.log)]
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
        raise outcome_folder.vanishing_files_error(self.log.location)

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

    def _known(self, batch: str, progress: JoinProgress) -> bool:
        """Whether a batch was joined, be it before it was merged."""
        if batch in progress.batches:
            return True
        ingested = outcome_folder.find_ingested(self.folder, batch)
        return ingested is not None and bool(ingested.made_of) and progress.batches.issuperset(ingested.made_of)

    # --- mirrored requests

    def _pair(self, progress: JoinProgress, pairing: Pairing, now: datetime) -> int:
        added = sum(self._pairs.append(rows) for rows in pairing.pairs(self.log))
        if pairing.waiting.width:
            progress.keep_halves(self.folder, pairing.waiting, now)
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


_FILE, _HALVES = "progress.json", "halves.parquet"
#: a mirrored row whose other half has not come for so long will not get one
_PATIENCE = timedelta(days=1)


class JoinProgress(msgspec.Struct, kw_only=True):
    """`cursor`: which parts of the prediction log were read."""

    batches: set[str] = set()
    cursor: str = ""
    #: when the first of the labels that lie in the future is known
    next_due: datetime | None = None
    #: up to which numbers labels and pairs were read for losses
    graded_labels: int = 0
    graded_pairs: int = 0
    #: mirrored rows that stay without a pair
    alone: int = 0

    def halves(self, folder: Path) -> pl.DataFrame:
        """Mirrored rows that wait for their other half; without columns where there are none."""
        if (folder / _HALVES).exists():
            with contextlib.suppress(StorageError):
                rows = pl.from_arrow(read_table(folder / _HALVES))
                if isinstance(rows, pl.DataFrame) and rows.height:
                    return rows
        return pl.DataFrame()

    def keep_halves(self, folder: Path, halves: pl.DataFrame, now: datetime) -> None:
        """Raises StorageError."""
        recent = halves.filter(pl.col("time") > now - _PATIENCE)
        self.alone += halves.height - recent.height
        with writing_to(folder):
            write_table(folder / _HALVES, recent.to_arrow())


def read_progress(folder: Path) -> JoinProgress:
    return read_json(folder / _FILE, JoinProgress) or JoinProgress()


def write_progress(folder: Path, progress: JoinProgress) -> None:
    """Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / _FILE, msgspec.json.encode(progress))
