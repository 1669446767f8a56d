"""The prediction log with what is known of its rows, for reading: nothing is written, nothing remembered."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime
from functools import cached_property
from pathlib import Path

import polars as pl

from cumulant.core.clock import Clock, SystemClock
from cumulant.core.plan import Field
from cumulant.outcomes import scanning
from cumulant.outcomes.facts import Named
from cumulant.outcomes.matching import READ, by_key, matched, resolved, usable
from cumulant.outcomes.prediction_refs import BY_KEY
from cumulant.outcomes.scored import ANSWERED, COLUMNS, TYPES, asked, frame, named, unpacked
from cumulant.serving import log

#: the join's columns
JOINED = [
    *("id", "row", "time", "event_time", "model", "version", "arm", "served_arm", "shadow", "outputs", "score"),
    *("label", "value", "label_known_time", "provenance", "weight", "worker", "sequence"),
]
#: by which a label names a prediction, apart from its key
_HEAD = ["id", "row", "model"]
#: what a report counts
_COUNTED = [*_HEAD, "time", "version", "arm", "shadow"]
#: requests are the most of a log, and only keys are read from them
_WITHOUT_REQUEST = [name for name in COLUMNS if name != "request"]


class LabelledLog:
    """Labels in `folder`, the prediction log in `predictions`, which is `log`.

    `key` are the fields of the model's request by which labels may name a prediction, beside its id; or what reads
    them, called where a label does.
    """

    def __init__(
        self, folder: Path, predictions: Path, *, key: Sequence[Field] | Callable[[], Sequence[Field]] = (),
        clock: Clock | None = None,
    ) -> None:  # fmt: skip
        self.folder, self.log, self._given = folder, predictions, key
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
        for joined, _ in self._batches(self.facts(as_of or self._clock.now()), since=since, until=until):
            yield joined

    def join_file(
        self, read: log.Rows, facts: pl.DataFrame, as_of: datetime
    ) -> Iterator[tuple[pl.DataFrame, pl.Series]]:
        """As `table`, the rows of one file of the log, and when each label of theirs became or becomes known.

        `facts`: of `said`, also those that become known after `as_of`.
        """
        usable_ever = facts.filter(pl.col("problem") == "")
        key = self._key if by_key(usable_ever) else ()
        for batch in read(COLUMNS if key else _WITHOUT_REQUEST):
            rows = frame(unpacked(batch), key)
            pairs = matched(rows, usable_ever)
            yield _with_labels(rows, usable(pairs, as_of)), pairs["known_time"]

    def of(self, request: str) -> tuple[pl.DataFrame, Named]:
        """The rows of one request, joined, and what labels that name it by its id are for (as `named`).

        Raises:
            StorageError: a file cannot be read.
        """
        parts = scanning.predictions(self.log, lambda rows: rows.select(COLUMNS).filter(pl.col("id") == request))
        rows = pl.concat([pl.DataFrame(schema={name: TYPES[name] for name in COLUMNS}), *parts])
        heads = frame(rows.select(_HEAD), ())
        meant = pl.col("ref").is_in(heads["id_ref"].implode()) | pl.col("ref").str.starts_with(BY_KEY)
        found, _ = self._join(rows, usable(self.said(wanted=meant), self._clock.now()))
        return found.sort("time", "row", "shadow"), lambda facts: matched(heads, facts)[["ref", "model"]].unique()

    def named(self, facts: pl.DataFrame) -> pl.DataFrame:
        """Of the references and models (`ref`, `model`) in `facts`, those that a prediction of the log has.

        Raises:
            StorageError: a file cannot be read.
        """
        wanted = facts.select("ref", "model").unique()
        key = self._key if by_key(wanted) else ()
        meant = asked(*named(wanted))
        columns = COLUMNS if key else [*_HEAD, "event_time"]
        found = scanning.predictions(self.log, lambda rows: rows.select(columns).filter(meant))
        pairs = (matched(frame(rows, key), wanted)[["ref", "model"]] for rows in (found if wanted.height else ()))
        return pl.concat([wanted.clear(), *pairs]).unique()

    def counted(self, facts: pl.DataFrame) -> Iterator[tuple[pl.DataFrame, pl.Series]]:
        """All predictions with what `facts` say of them, without their requests, answers and scores; and the references
        of the facts that were of use.

        Raises:
            StorageError: a file cannot be read.
        """
        if by_key(facts) and self._key:  # requests may be large: they are read in batches
            yield from self._batches(facts)
            return
        for rows in scanning.predictions(self.log, lambda rows: rows.filter(ANSWERED).select(_COUNTED)):
            yield self._join(rows, facts)

    def facts(self, now: datetime) -> pl.DataFrame:
        """What is known by `now`; about 500 bytes a label in memory at most."""
        return usable(self.said(), now)

    def said(self, batches: Sequence[str] | None = None, *, wanted: pl.Expr | None = None) -> pl.DataFrame:
        """Everything that was said, also what cannot be used; or what these batches say, or what is `wanted` of it."""
        chosen = pl.lit(value=True) if wanted is None else wanted
        found = scanning.facts(self.folder, lambda rows: rows.filter(chosen).select(list(READ)), batches)
        return pl.DataFrame(schema=READ) if found is None else found

    def _batches(
        self, facts: pl.DataFrame, *, since: date | None = None, until: date | None = None
    ) -> Iterator[tuple[pl.DataFrame, pl.Series]]:
        keyed = by_key(facts) and self._key
        columns = COLUMNS if keyed else _WITHOUT_REQUEST
        for batch in log.scan(self.log, since=since, until=until).to_batches(columns=columns):
            if batch.num_rows:
                yield self._join(unpacked(batch), facts)

    def _join(self, rows: pl.DataFrame, facts: pl.DataFrame) -> tuple[pl.DataFrame, pl.Series]:
        # To take every request apart for its key costs more than all the rest; labels by id need none of it.
        found = frame(rows, self._key if by_key(facts) else ())
        pairs = matched(found, facts)
        return _with_labels(found, pairs), pairs["ref"].unique()


def _with_labels(rows: pl.DataFrame, pairs: pl.DataFrame) -> pl.DataFrame:
    """Rows of `frame` with what their pairs with labels say, in the columns of JOINED."""
    joined = rows.join(resolved(pairs, ["place"]), on="place", how="left", maintain_order="left").with_columns(
        pl.col("state").fill_null("none").alias("provenance")
    )
    return joined.select([name for name in JOINED if name in joined.columns])
