"""Label facts, row by row, with their state."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from functools import partial
from typing import Any

import msgspec
import polars as pl

from cumulant.outcomes import scanning
from cumulant.outcomes.labels.label_fact import LabelFact
from cumulant.outcomes.logs import OutcomeLogs

#: of references and models, those that a prediction has: `LabelledLog.named`
RefFilter = Callable[[pl.DataFrame], pl.DataFrame]
#: the newest first, in the order of their file
_ORDER = ["received", "line"]
_SORTED, _FALLING = [*_ORDER, scanning.FILE], [True, False, False]
#: what the state of a row is worked out from
_STATED = [*_ORDER, "ref", "model", "id", "key", "known_time", "problem"]
#: the column of the number of rows without the limit
_TOTAL = "total"


def newest_labels(
    logs: OutcomeLogs,
    now: datetime,
    *,
    state: str | None = None,
    request: str | None = None,
    limit: int | None = 20,
    until: datetime | None = None,
    named: RefFilter | None = None,
) -> tuple[list[LabelFact], int]:
    """Label facts, the newest first, of one state or request where given; and how many there are without the limit.

    With `until`, of those received by then. With `named`, what could be used and is of no prediction in the log is
    `unmatched`.

    Raises:
        StorageError: a file cannot be read.
    """
    query = partial(_newest, now=now, state=state, request=request, limit=limit, until=until, named=named)
    with scanning.open_facts(logs.labels) as labels:
        rows = None if labels is None else labels.collect_named(query)
    if rows is None or not rows.height:
        return [], 0
    return [_to_fact(row) for row in rows.drop(_TOTAL).to_dicts()], rows[_TOTAL][0]


def _newest(
    facts: pl.LazyFrame,
    scan_parts: Callable[[Iterable[str]], pl.LazyFrame],
    *,
    now: datetime,
    state: str | None,
    request: str | None,
    limit: int | None,
    until: datetime | None,
    named: RefFilter | None,
) -> pl.LazyFrame:
    """The rows to show, and in `_TOTAL` how many there are.

    Of all requests, the columns of the order are read first, the rest from the files that hold the newest.
    """
    if request is not None:  # what has a reference in common has the id in common
        facts = facts.filter(pl.col("id") == request).collect().lazy()
    rows, total = facts if until is None else facts.filter(pl.col("received") <= until), None
    wanted = pl.lit(value=True) if state is None else pl.col("state") == state
    if limit is not None and request is None:
        order = (
            rows.select(*_ORDER, scanning.FILE)
            if state is None
            else _with_states(rows.select(*_STATED, scanning.FILE), facts, now, named)
        )
        order = order.filter(wanted)
        total = order.select(pl.len()).collect().item()
        newest = order.sort(_SORTED, descending=_FALLING).head(limit).collect()
        if not newest.height:
            return rows.head(0)
        received, line = newest.select(_ORDER).row(-1)
        rows = scan_parts(newest[scanning.FILE].unique(maintain_order=True))
        newer = pl.col("received") > received
        rows = rows.filter(newer | ((pl.col("received") == received) & (pl.col("line") <= line)))
    ordered = _with_states(rows, facts, now, named).filter(wanted).sort(_SORTED, descending=_FALLING)
    ordered = ordered.with_columns((pl.len() if total is None else pl.lit(total)).alias(_TOTAL))
    return ordered if limit is None else ordered.head(limit)


def _with_states(rows: pl.LazyFrame, facts: pl.LazyFrame, now: datetime, named: RefFilter | None) -> pl.LazyFrame:
    """`rows` of the `facts`, each with its state."""
    read = rows.collect()
    with_state = read.with_columns(_state(now, _find_contradictions(facts, read["ref"].unique(), now)))
    return (with_state if named is None else _mark_unmatched(with_state, named)).lazy()


def _mark_unmatched(rows: pl.DataFrame, named: RefFilter) -> pl.DataFrame:
    usable = pl.col("state") == "usable"
    known = named(rows.filter(usable)).with_columns(pl.lit(value=True).alias("known"))
    joined = rows.join(known, on=["ref", "model"], how="left", maintain_order="left")
    unmatched = usable & pl.col("known").is_null()
    state = pl.when(unmatched).then(pl.lit("unmatched")).otherwise(pl.col("state"))
    return joined.with_columns(state.alias("state")).drop("known")


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


def _find_contradictions(facts: pl.LazyFrame, refs: pl.Series, now: datetime) -> pl.DataFrame:
    """The moments at which two labels of one of these references became known, by `now`."""
    due = pl.col("ref").is_in(refs.implode()) & (pl.col("problem") == "") & (pl.col("known_time") <= now)
    named = ["ref", "model", "known_time"]
    # Read first and grouped then: a lazy group takes half as long again.
    answers = facts.filter(due).select(*named, "label").collect().group_by(named).agg(pl.col("label").n_unique())
    return answers.filter(pl.col("label") > 1).drop("label")


def _to_fact(row: dict[str, Any]) -> LabelFact:
    del row["ref"], row["value"], row[scanning.FILE]
    key = None if row["key"] is None else msgspec.json.decode(row["key"])
    return LabelFact(**{**row, "key": key, "label": msgspec.json.decode(row["label"])})
