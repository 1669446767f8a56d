"""The join of predictions and labels, and of mirrored requests with each other: what release and monitoring read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, datetime
from pathlib import Path

import msgspec
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from cumulant.core.clock import Clock, SystemClock
from cumulant.core.plan import Field
from cumulant.outcomes import store
from cumulant.outcomes.losses import Loss
from cumulant.outcomes.matching import READ, matched, resolved, usable
from cumulant.outcomes.numbered import Numbered
from cumulant.outcomes.pairs import GRADED, PAIRS, Graded, Pair, graded, paired, to_graded, to_pairs
from cumulant.outcomes.progress import Progress, read_progress, write_progress
from cumulant.outcomes.scored import COLUMNS, IDENTITY, TOLD, asked, frame
from cumulant.serving import log

_TIME = pa.timestamp("us", "UTC")
#: the join's columns
JOINED = pa.schema(
    [
        *(log.SCHEMA.field(name) for name in TOLD),
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


class Advanced(msgspec.Struct, frozen=True, kw_only=True):
    """What one `advance` found: predictions that got their first label, pairs, and pairs with a label."""

    labelled: int
    pairs: int
    graded: int


class Outcomes:
    """Labels in `folder`, the prediction log in `predictions`.

    `key` are the fields of the model's request by which labels may name a prediction, beside its id.
    """

    def __init__(
        self, folder: Path, predictions: Path, *, key: Sequence[Field] = (), loss: Loss | None = None,
        clock: Clock | None = None,
    ) -> None:  # fmt: skip
        self._folder, self._log, self._key, self._loss = folder, predictions, tuple(key), loss
        self._clock = clock or SystemClock()
        self._joined = Numbered(folder / "joined", JOINED, IDENTITY)
        self._pairs = Numbered(folder / "pairs", PAIRS, ["worker", "sequence", "row"])
        self._graded = Numbered(folder / "graded", GRADED, ["worker", "sequence", "row"])

    # --- what is read

    def table(
        self, *, since: date | None = None, until: date | None = None, as_of: datetime | None = None
    ) -> Iterator[pl.DataFrame]:
        """All predictions of the days `since` to `until` with what is known of them by `as_of`, batch by batch.

        `provenance` is `labelled`, `corrected`, `contradicted` or `none`; without a label it is null.

        Raises:
            StorageError: a file cannot be read.
        """
        for joined, _ in self.batches(since=since, until=until, as_of=as_of):
            yield joined

    def batches(
        self, *, since: date | None = None, until: date | None = None, as_of: datetime | None = None
    ) -> Iterator[tuple[pl.DataFrame, pl.Series]]:
        """As `table`, each batch with the references of the labels that were of use in it."""
        facts = self.facts(as_of or self._clock.now())
        for batch in log.scan(self._log, since=since, until=until).to_batches(columns=COLUMNS):
            if batch.num_rows:
                yield self._join(pa.Table.from_batches([batch]), facts)

    def of(self, request: str) -> pl.DataFrame:
        """The rows of one request, as in `table`. Raises StorageError."""
        facts = self.facts(self._clock.now())
        wanted = pc.equal(pc.field("id"), request)
        table = log.scan(self._log).to_table(columns=COLUMNS, filter=wanted)
        return self._join(table, facts)[0].sort("time", "row", "shadow")

    def labelled(self, cursor: int = 0, *, limit: int | None = None) -> tuple[pl.DataFrame, int]:
        """Predictions that got a label since the cursor, each once, with that label; and the next cursor.

        A label that is corrected later is not given again: `table` has what is known now.
        """
        return self._joined.since(cursor, limit=limit)

    def pairs(self, cursor: int = 0, *, limit: int | None = None) -> tuple[list[Pair], int]:
        """Mirrored rows that both arms have scored since the cursor, each once; and the next cursor."""
        found, after = self._pairs.since(cursor, limit=limit)
        return to_pairs(found), after

    def graded(self, cursor: int = 0, *, limit: int | None = None) -> tuple[list[Graded], int]:
        """As `pairs`, those whose label has come, with each arm's loss."""
        found, after = self._graded.since(cursor, limit=limit)
        return to_graded(found), after

    def facts(self, now: datetime) -> pl.DataFrame:
        """What is known by `now`; some tens of bytes a label in memory."""
        return usable(self._facts(store.batches(self._folder)), now)

    # --- what is found

    def advance(self) -> Advanced:
        """Look at labels and predictions that have come since the last time.

        Killed at any moment and called again it finds the same, and nothing twice.

        Raises:
            StorageError: something cannot be read or written.
            LeaseHeldError: another process is at it.
        """
        now = self._clock.now()
        with store.locked(self._folder):
            progress = read_progress(self._folder)
            names = store.batches(self._folder)
            said = self._facts(names)
            facts = usable(said, now)
            due = progress.next_due is not None and now >= progress.next_due
            fresh = facts if due else usable(self._facts([one for one in names if one not in progress.batches]), now)
            labelled, mirrored = self._look(progress, facts, fresh)
            pairs = self._pair(progress, mirrored, now)
            found = self._grade() if labelled or pairs else 0
            ahead = said.filter((pl.col("problem") == "") & (pl.col("known_time") > now))["known_time"].min()
            progress.batches, progress.next_due = set(names), ahead if isinstance(ahead, datetime) else None
            with store.writing_to(self._folder):
                write_progress(self._folder, progress)
        return Advanced(labelled=labelled, pairs=pairs, graded=found)

    def _look(self, progress: Progress, facts: pl.DataFrame, fresh: pl.DataFrame) -> tuple[int, list[pl.DataFrame]]:
        """Go through new files of the log, and through old ones for predictions that new labels name."""
        labelled, mirrored = 0, []
        ids, times = _named(fresh)
        for file, read in log.stored(self._log):
            new = not progress.seen(file.day, file.life, file.first, file.last)
            if not new and not fresh.height:
                continue
            rows = 0
            for batch in read(COLUMNS):
                rows += batch.num_rows
                table = batch if new else asked(batch, ids, times)
                if table.num_rows and facts.height:
                    found, _ = self._join(table, facts)
                    labelled += self._joined.append(found.filter(pl.col("label").is_not_null()))
                if new:
                    mirrored.append(_mirrored(batch))
            if rows:
                progress.see(file.day, file.life, file.first, file.last)
        return labelled, [one for one in mirrored if one.height]

    def _join(self, table: pa.Table, facts: pl.DataFrame) -> tuple[pl.DataFrame, pl.Series]:
        found = frame(table, self._key)
        pairs = matched(found, facts)
        joined = (
            found.join(resolved(pairs, ["place"]), on="place", how="left", maintain_order="left")
            .with_columns(pl.col("state").fill_null("none").alias("provenance"))
            .select(JOINED.names)
        )
        return joined, pairs["ref"].unique()

    def said(self) -> pl.DataFrame:
        """Everything that was said, also what cannot be used."""
        return self._facts(store.batches(self._folder))

    def _facts(self, names: Sequence[str]) -> pl.DataFrame:
        found = [store.read_table(path, READ) for name in names for path in store.parts(self._folder, name)]
        empty = store.FACTS.empty_table().select(READ)
        whole = pl.from_arrow(pa.concat_tables([empty, *found]))
        assert isinstance(whole, pl.DataFrame)
        return whole

    # --- mirrored requests

    def _pair(self, progress: Progress, mirrored: Sequence[pl.DataFrame], now: datetime) -> int:
        halves = progress.halves(self._folder, mirrored)
        if not halves.height:
            return 0
        days = [when.date() for when in halves["time"]]
        ids = pa.array(halves["id"].unique().to_list(), pa.string())
        added = 0
        for batch in log.scan(self._log, since=min(days), until=max(days)).to_batches(columns=COLUMNS):
            table = asked(pa.Table.from_batches([batch]), ids, pa.array([], pa.int64()))
            table = table.filter(pc.invert(table["shadow"]))
            if table.num_rows:
                found = paired(frame(table, ()), halves)
                added += self._pairs.append(found)
                halves = halves.join(found, on=IDENTITY, how="anti")
        progress.keep_halves(self._folder, halves, now)
        return added

    def _grade(self) -> int:
        added = 0
        for pairs in self._pairs.frames():
            for labelled in self._joined.frames([*IDENTITY, "label", "value", "label_known_time", "weight"]):
                found = graded(pairs, labelled, self._loss)
                if found.height:
                    added += self._graded.append(found)
        return added


def _mirrored(table: pa.Table) -> pl.DataFrame:
    return frame(table.filter(table["shadow"]), ()).drop("place", "id_ref", "key_ref", "request")


def _named(facts: pl.DataFrame) -> tuple[pa.Array, pa.Array]:
    """The ids, and the event times in microseconds, that labels name."""
    parts = facts["ref"].unique().str.splitn("\x1f", 3).struct.unnest()
    ids = parts.filter(pl.col("field_0") == "i")["field_2"]
    times = parts.filter(pl.col("field_0") == "k")["field_1"].cast(pl.Int64).unique()
    return pa.array(ids.to_list(), pa.string()), pa.array(times.to_list(), pa.int64())
