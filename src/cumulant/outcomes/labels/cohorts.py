"""Counts of labelled predictions by day, and of label facts that cannot be used."""

from __future__ import annotations

from datetime import datetime

import polars as pl

from cumulant.outcomes.labelled_log import LabelledLog
from cumulant.outcomes.labels.label_counts import Cohort, LabelCounts
from cumulant.outcomes.labels.label_snapshot import UsableLabels
from cumulant.outcomes.matching import VALID, filter_usable
from cumulant.outcomes.scanning import FACT

_COHORT = ["from", "model", "version", "arm"]


def count(outcomes: LabelledLog, now: datetime) -> tuple[LabelCounts, bool]:
    """What is known by `now`, and whether a label names its prediction by its key.

    Raises:
        StorageError: a file cannot be read.
    """
    counted: list[pl.DataFrame] = []
    used = [pl.Series(FACT, [], dtype=pl.UInt32)]
    with outcomes.labels() as labels:
        due = UsableLabels(labels, now)
        for joined, facts in outcomes.with_states(due):
            used.append(facts)
            counted.append(_count_days(joined))
        of_use = pl.concat(used).unique()
        parts = pl.concat(_count_labels(part, of_use, now) for part in labels.partitions())
        refused = labels.collect(lambda rows: rows.filter(~VALID).group_by("problem").len()).sort("problem")
    counts = LabelCounts(
        rows=labels.height,
        **{name: int(parts[name].sum()) for name in ("duplicates", "waiting", "unmatched")},
        problems=dict(refused.iter_rows()),
        days=_cohorts(counted),
        known_since=parts["known_since"].max(),  # type: ignore[arg-type]  # a column of moments
        known_until=parts["known_until"].min(),  # type: ignore[arg-type]
    )
    return counts, due.by_key


def _count_labels(good: pl.DataFrame, of_use: pl.Series, now: datetime) -> pl.DataFrame:
    """One row that counts labels of which `of_use` were joined; no other label has a reference of these."""
    due = filter_usable(good, now)
    matched = due.filter(pl.col(FACT).is_in(of_use.implode()))["ref"].n_unique()
    return pl.DataFrame(
        {
            "duplicates": _duplicates(good),
            "waiting": good.height - due.height,
            "unmatched": due["ref"].n_unique() - matched,
            "known_since": due["known_time"].max(),
            "known_until": good.filter(pl.col("known_time") > now)["known_time"].min(),
        },
        schema_overrides=dict.fromkeys(("known_since", "known_until"), pl.Datetime("us", "UTC")),
    )


def _duplicates(good: pl.DataFrame) -> int:
    again = good.select("ref", "model", "known_time", "label").filter(pl.col("ref").is_duplicated())
    return again.height - again.unique().height


def _count_days(joined: pl.DataFrame) -> pl.DataFrame:
    start = pl.col("time").dt.date().alias("from")
    return (
        joined.filter(~pl.col("shadow"))
        .group_by(start, *_COHORT[1:])
        .agg(
            pl.len().alias("predictions"),
            pl.col("label").is_not_null().sum().alias("labelled"),
            (pl.col("label").is_not_null() & (pl.col("label_known_time") < pl.col("time"))).sum().alias("early"),
            *((pl.col("provenance") == state).sum().alias(state) for state in ("corrected", "contradicted")),
        )
    )


def _cohorts(counted: list[pl.DataFrame]) -> tuple[Cohort, ...]:
    if not counted:
        return ()
    whole = pl.concat(counted).group_by(_COHORT).sum().sort(_COHORT)
    return tuple(
        Cohort(**{"start" if name == "from" else name: v for name, v in row.items()}) for row in whole.to_dicts()
    )
