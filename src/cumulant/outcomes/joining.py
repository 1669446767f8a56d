"""The join of predictions and labels, and of mirrored requests with each other: what release and monitoring read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import polars as pl
import pyarrow as pa

from cumulant.core.clock import Clock
from cumulant.core.plan import Field
from cumulant.outcomes import place, scanning, store
from cumulant.outcomes.labelled_log import LabelledLog
from cumulant.outcomes.losses import Loss
from cumulant.outcomes.matching import usable
from cumulant.outcomes.numbered import Numbered
from cumulant.outcomes.pairing import Pairing
from cumulant.outcomes.pairs import GRADED, PAIRS, Graded, Pair, graded, to_graded, to_pairs
from cumulant.outcomes.progress import Progress, read_progress, write_progress
from cumulant.outcomes.scored import COLUMNS, IDENTITY, TOLD, asked, named, unpacked
from cumulant.serving import log

if TYPE_CHECKING:
    from cumulant.serving.log.place import File

_TIME = pa.timestamp("us", "UTC")
_LABEL = [*IDENTITY, "label", "value", "label_known_time", "weight"]
#: the join's columns
_JOINED = pa.schema(
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


class Outcomes(LabelledLog):
    """As `LabelledLog`, and what was found of it: predictions with their labels, mirrored requests in pairs."""

    def __init__(
        self, folder: Path, predictions: Path, *, key: Sequence[Field] | Callable[[], Sequence[Field]] = (),
        loss: Loss | None = None, clock: Clock | None = None,
    ) -> None:  # fmt: skip
        super().__init__(folder, predictions, key=key, clock=clock)
        self._loss = loss
        self._joined = Numbered(folder / "joined", _JOINED, IDENTITY)
        self._pairs = Numbered(folder / "pairs", PAIRS, ["worker", "sequence", "row"])
        self._graded = Numbered(folder / "graded", GRADED, ["worker", "sequence", "row"])

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

    @property
    def last_pair(self) -> int:
        """The cursor after the newest pair."""
        return self._pairs.last

    @property
    def last_graded(self) -> int:
        """The cursor after the newest pair whose label has come."""
        return self._graded.last

    # --- what is found

    def advance(self) -> Advanced:
        """Look at labels and predictions that have come since the last time.

        Killed at any moment and called again it finds the same, and nothing twice.

        Raises:
            StorageError: something cannot be read or written.
            LeaseHeldError: another process is at it.
        """
        now = self._clock.now()
        with store.locked(self.folder):
            progress = read_progress(self.folder)
            names = place.batches(self.folder)
            news = [one for one in names if not self._known(one, progress)]
            due = progress.next_due is not None and now >= progress.next_due
            if not news and not due and self._looked_at(progress):
                return Advanced(labelled=0, pairs=0, graded=0)
            said = self.said(names)
            facts = usable(said, now)
            fresh = facts if due or news == names else usable(self.said(news), now)
            pairing = Pairing(progress.halves(self.folder))
            labelled = self._look(progress, facts, fresh, pairing)
            pairs = self._pair(progress, pairing, now)
            found = self._grade(progress)
            ahead = said.filter((pl.col("problem") == "") & (pl.col("known_time") > now))["known_time"].min()
            progress.batches, progress.next_due = set(names), ahead if isinstance(ahead, datetime) else None
            with store.writing_to(self.folder):
                write_progress(self.folder, progress)
        return Advanced(labelled=labelled, pairs=pairs, graded=found)

    def _looked_at(self, progress: Progress) -> bool:
        """Whether the log has nothing new, as at most looks."""
        return all(self._seen(progress, file) for file, _ in log.stored(self.log))

    @staticmethod
    def _seen(progress: Progress, file: File) -> bool:
        return progress.seen(file.day, file.life, file.first, file.last)

    def _look(self, progress: Progress, facts: pl.DataFrame, fresh: pl.DataFrame, pairing: Pairing) -> int:
        """Go through new files of the log, and through old ones for predictions that new labels name.

        A file that is merged before it is read is looked for again: else its rows would miss these labels for ever.
        """
        labelled = 0
        meant = asked(*named(fresh)) if fresh.height else None
        for _ in range(place.LISTINGS):
            listed = [(*one, self._seen(progress, one[0])) for one in log.stored(self.log)]
            old = [file.path for file, _, seen in listed if seen]
            try:
                named_in = set() if meant is None else scanning.files_with(self.log, old, meant)
            except FileNotFoundError:
                continue
            gone = False
            for file, read, seen in listed:
                if seen and file.path not in named_in:
                    continue
                rows, found = self._look_into(read, facts, meant if seen else None, None if seen else pairing)
                labelled += found
                gone |= not rows and not file.path.exists()
                if rows:
                    progress.see(file.day, file.life, file.first, file.last)
            if not gone:
                return labelled
        raise place.vanishing(self.log)

    def _look_into(
        self, read: log.Rows, facts: pl.DataFrame, meant: pl.Expr | None, pairing: Pairing | None
    ) -> tuple[int, int]:
        """How many rows a file has, and how many of them got a label. `meant`: only those."""
        rows = labelled = 0
        for batch in read(COLUMNS):
            rows += batch.num_rows
            answered = unpacked(batch)
            wanted = answered if meant is None else answered.filter(meant)
            if wanted.height and facts.height:
                found, _ = self._join(wanted, facts)
                labelled += self._joined.append(found.filter(pl.col("label").is_not_null()))
            if pairing is not None:
                pairing.add(answered)
        return rows, labelled

    def _known(self, batch: str, progress: Progress) -> bool:
        """Whether what a batch says was looked at, be it before it was merged."""
        if batch in progress.batches:
            return True
        told = place.ingested(self.folder, batch)
        return told is not None and bool(told.made_of) and progress.batches.issuperset(told.made_of)

    # --- mirrored requests

    def _pair(self, progress: Progress, pairing: Pairing, now: datetime) -> int:
        added = sum(self._pairs.append(found) for found in pairing.pairs(self.log))
        if pairing.waiting.width:
            progress.keep_halves(self.folder, pairing.waiting, now)
        return added

    def _grade(self, progress: Progress) -> int:
        """Losses of the pairs and labels since the last time; how far it came is remembered when they are stored."""
        labelled, last_label = self._joined.since(progress.graded_labels)
        pairs, last_pair = self._pairs.since(progress.graded_pairs)
        added = 0
        for known in self._pairs.frames() if labelled.height else ():
            added += self._graded.append(graded(known, labelled.select(_LABEL), self._loss))
        for known in self._joined.frames(_LABEL) if pairs.height else ():
            added += self._graded.append(graded(pairs, known, self._loss))
        progress.graded_labels, progress.graded_pairs = last_label, last_pair
        return added
