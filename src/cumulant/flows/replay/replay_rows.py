"""Rows of a period as requests in order of time, and their labels with their known times."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from cumulant.core.errors import DataError, NotFoundError, UsageError
from cumulant.core.expr import columns as columns_of
from cumulant.core.servable import Servable
from cumulant.core.units import to_micros
from cumulant.flows.data.validate import newest_snapshot
from cumulant.flows.outcomes.label_schema import schema_of
from cumulant.flows.registry.version_servable import describe_servable

if TYPE_CHECKING:
    import polars as pl

    from cumulant.core.plan import FeaturePlan, Source
    from cumulant.ports.registry import ModelVersion
    from cumulant.project.project import Project

_AT, _KNOWN = "__at", "__known"
_encode = msgspec.json.Encoder(enc_hook=str).encode


class ReplayCall(NamedTuple):
    """One row to be requested at its moment, microseconds since 1970 UTC."""

    number: int
    at: int
    body: bytes


class KnownLabel(NamedTuple):
    """The label of the row `number`, and when it became known. `values` are the columns of the target."""

    number: int
    at: int
    values: dict[str, object]


class Period:
    """The rows whose moment of prediction lies in [since, until).

    Raises:
        UsageError: the model has no moment of prediction, or no features of the project.
        DataError: no row lies in the period.
        NotFoundError: its source has not been read.
    """

    def __init__(self, project: Project, version: ModelVersion, since: datetime, until: datetime) -> None:
        self.model, self.version = version.name, version.version
        plan = _plan(project, version)
        rows = _frame(project, plan, since, until)
        if not rows.height:
            raise DataError(
                f"{plan.entity} has no row from {since:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M}",
                subject=plan.entity,
                hint="`cumulant data show` has the times that its rows cover",
            )
        self.fields = tuple(field.name for field in plan.request if field.name in rows.columns)
        self.count = rows.height
        self._at: list[int] = rows[_AT].to_list()
        self._requests = rows.select(self.fields)
        self._labels = known_labels(rows, _target(project), plan.sources[plan.entity])
        #: numbers of the rows that have a label
        self.labelled = frozenset(self._labels["number"].to_list())

    @property
    def first(self) -> int:
        return self._at[0]

    def sample(self, every: int) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Each `every`th row as a request, with its `number` and `moment`; and their labels, with `known_time`."""
        import polars as pl

        at = pl.Series("moment", self._at, dtype=pl.Int64).cast(pl.Datetime("us", "UTC"))
        rows = self._requests.with_columns(at).with_row_index("number").gather_every(every)
        labels = self._labels.filter(pl.col("number") % every == 0)
        known = pl.col(_KNOWN).cast(pl.Datetime("us", "UTC")).alias("known_time")
        return rows, labels.select("number", known, pl.exclude("number", _KNOWN))

    def calls(self, skip: int = 0) -> Iterator[ReplayCall]:
        """The requests in order, without the first `skip`. A column without a value is left out, as callers do."""
        for number, row in enumerate(self._requests.slice(skip).iter_rows(named=True), skip):
            body = _encode({name: value for name, value in row.items() if value is not None})
            yield ReplayCall(number, self._at[number], body)

    def labels_from(self, skip: int = 0) -> Iterator[KnownLabel]:
        """What becomes known, in the order in which it does, without the first `skip`."""
        for row in self._labels.slice(skip).iter_rows(named=True):
            yield KnownLabel(row.pop("number"), row.pop(_KNOWN), row)


def _plan(project: Project, version: ModelVersion) -> FeaturePlan:
    described = describe_servable(project, version)
    if not isinstance(described, Servable):
        raise UsageError(
            f"{version.uri} was not trained from the project's sources, so no row of them is a request of it",
            subject=version.uri,
            hint="replay a model that `cumulant train` made",
        )
    if described.plan.predict_at is None:
        raise UsageError(
            f"{described.plan.entity} has no event time, so its rows have no order to be replayed in",
            subject=described.plan.entity,
            hint="declare `event_time` under data in cumulant.yaml",
        )
    return described.plan


def _frame(project: Project, plan: FeaturePlan, since: datetime, until: datetime) -> pl.DataFrame:
    """All columns of the rows of the period, with the moment of each in microseconds."""
    import polars as pl

    from cumulant.data.snapshot import scan

    assert plan.predict_at is not None
    at = pl.col(plan.predict_at.column).dt.epoch("us") + plan.predict_at.offset_us
    snapshot = newest_snapshot(project, plan.entity)
    if snapshot is None:
        raise NotFoundError(
            f"nothing of {plan.entity} has been read here",
            subject=plan.entity,
            hint=f"`{project.line('data validate')}` reads it",
        )
    rows = scan(snapshot, project.tables()).with_columns(at.alias(_AT))
    inside = (pl.col(_AT) >= to_micros(since)) & (pl.col(_AT) < to_micros(until))
    return rows.filter(inside).sort(_AT, maintain_order=True).collect()


def _target(project: Project) -> tuple[str, ...]:
    target = schema_of(project).target
    return () if target is None else tuple(sorted(columns_of(target)))


def known_labels(rows: pl.DataFrame, target: tuple[str, ...], source: Source) -> pl.DataFrame:
    """Columns of the target of the rows that have them, with their number and when they were known, in that order."""
    import polars as pl

    if not target or not set(target) <= set(rows.columns):
        return pl.DataFrame(schema={"number": pl.Int64, _KNOWN: pl.Int64})
    known = pl.max_horizontal(pl.col(_AT), *(_known(name, source) for name in target))
    whole = pl.all_horizontal(pl.col(name).is_not_null() for name in target)
    numbered = rows.with_row_index("number").with_columns(pl.col("number").cast(pl.Int64), known.alias(_KNOWN))
    return (
        numbered.filter(whole & _timed(target, source))
        .select("number", _KNOWN, *target)
        .sort(_KNOWN, maintain_order=True)
    )


def _known(column: str, source: Source) -> pl.Expr:
    """When a column of a row becomes known, microseconds; null where unknown."""
    import polars as pl

    declared = source.known.get(column)
    name = source.event_time if declared is None or declared.column is None else declared.column
    delay = 0 if declared is None else declared.delay_us
    return pl.lit(None, pl.Int64) if name is None else pl.col(name).dt.epoch("us") + delay


def _timed(target: tuple[str, ...], source: Source) -> pl.Expr:
    """Rows whose columns of the target became known at all."""
    import polars as pl

    return pl.all_horizontal(_known(name, source).is_not_null() for name in target)


def check_period(since: datetime, until: datetime) -> timedelta:
    """The length of a period.

    Raises:
        UsageError: it is none.
    """
    if until <= since:
        raise UsageError(f"the period ends before it begins: {since:%Y-%m-%d} to {until:%Y-%m-%d}", subject="--to")
    return until - since


def to_plain(values: dict[str, object]) -> dict[str, Any]:
    """Values as a label's body holds them."""
    document: dict[str, Any] = msgspec.json.decode(_encode(values))
    return document
