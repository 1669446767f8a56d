"""What was said, row by row, for people who look at it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import msgspec
import polars as pl

from cumulant.outcomes import store

State = Literal["usable", "unmatched", "waiting", "refused", "contradicted"]
#: of references and models, those that a prediction has: `Outcomes.named`
Named = Callable[[pl.DataFrame], pl.DataFrame]


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """One row that was said. Of a prediction named by its key, `key` holds personal values as keyed hashes."""

    state: State
    id: str | None
    row: int | None
    key: Any
    event_time: datetime | None
    model: str
    label: Any
    known_time: datetime
    weight: float
    problem: str
    source: str
    line: int
    received: datetime


def shown(
    folder: Path,
    now: datetime,
    *,
    state: str | None = None,
    request: str | None = None,
    limit: int | None = 20,
    named: Named | None = None,
) -> list[Shown]:
    """What was said, the newest first; of one state, or of one request, where asked.

    With `named`, what could be used and is of no prediction in the log is `unmatched`.

    Raises:
        StorageError: a file cannot be read.
    """
    contradicted = _contradicted(folder, now)
    found: list[pl.DataFrame] = []
    for frame in _frames(folder, None):
        rows = frame.with_columns(_state(now, contradicted))
        if named is not None and state in ("usable", "unmatched"):
            rows = _matched(rows, named)
        if state is not None:
            rows = rows.filter(pl.col("state") == state)
        if request is not None:
            rows = rows.filter(pl.col("id") == request)
        found = [pl.concat([*found, rows]).sort("received", "line", descending=[True, False])]
        found = [found[0].head(limit)] if limit is not None else found
    if named is not None and state is None:
        found = [_matched(one, named) for one in found]
    return [_shown(row) for frame in found for row in frame.to_dicts()]


def _matched(rows: pl.DataFrame, named: Named) -> pl.DataFrame:
    usable = pl.col("state") == "usable"
    known = named(rows.filter(usable)).with_columns(pl.lit(value=True).alias("known"))
    told = rows.join(known, on=["ref", "model"], how="left", maintain_order="left")
    unmatched = usable & pl.col("known").is_null()
    state = pl.when(unmatched).then(pl.lit("unmatched")).otherwise(pl.col("state"))
    return told.with_columns(state.alias("state")).drop("known")


def _state(now: datetime, contradicted: pl.DataFrame) -> pl.Expr:
    at_odds = pl.struct("ref", "model", "known_time").is_in(contradicted.to_struct().implode())
    return (
        pl.when(pl.col("problem") != "")
        .then(pl.lit("refused"))
        .when(pl.col("known_time") > now)
        .then(pl.lit("waiting"))
        .when(at_odds)
        .then(pl.lit("contradicted"))
        .otherwise(pl.lit("usable"))
        .alias("state")
    )


def _contradicted(folder: Path, now: datetime) -> pl.DataFrame:
    """Of what is known by `now`, the references with the moments at which two things were said of them."""
    parts = list(_frames(folder, ["ref", "model", "known_time", "label", "problem"]))
    if not parts:
        return pl.from_arrow(store.FACTS.empty_table().select(["ref", "model", "known_time"]))  # type: ignore[return-value]
    due = pl.concat(parts).filter((pl.col("problem") == "") & (pl.col("known_time") <= now))
    told = due.group_by("ref", "model", "known_time").agg(pl.col("label").n_unique())
    return told.filter(pl.col("label") > 1).drop("label")


def _frames(folder: Path, columns: list[str] | None) -> Iterator[pl.DataFrame]:
    for name in store.batches(folder):
        for path in store.parts(folder, name):
            frame = pl.from_arrow(store.read_table(path, columns))
            assert isinstance(frame, pl.DataFrame)
            yield frame


def _shown(row: dict[str, Any]) -> Shown:
    del row["ref"], row["value"]
    key = None if row["key"] is None else msgspec.json.decode(row["key"])
    return Shown(**{**row, "key": key, "label": msgspec.json.decode(row["label"])})
