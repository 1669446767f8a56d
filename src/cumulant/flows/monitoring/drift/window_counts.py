"""One side of a comparison: its columns, their counts by window, and its rows on request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
import polars as pl

from cumulant.monitoring.drift.profiles import DriftProfile, ProfileBlock, Role
from cumulant.monitoring.tables import ANSWER, MOMENT, TOLD, PredictionTable, parts_of, readable

if TYPE_CHECKING:
    from datetime import date, datetime, timedelta
    from pathlib import Path

    from cumulant.monitoring.drift.blocks import RowBlocks
    from cumulant.statistics.rows import Codes


#: rows that are read at a time
_PART = 1_000_000


@dataclass(frozen=True)
class ModelTraffic:
    """The rows of all versions of a model by window. `lag`: microseconds by which rows usually end before their day."""

    blocks: tuple[ProfileBlock, ...]
    lag: int | None = None


def traffic_of(table: PredictionTable, length: timedelta, before: datetime | None = None) -> tuple[ProfileBlock, ...]:
    """The windows of a log that is read for one version, with the rows of all versions of its model; else none."""
    moments = table.traffic
    if moments is None:
        return ()
    if before is not None:
        moments = moments.filter(pl.col(MOMENT) < before)
    some = moments.select(pl.len()).collect().item()
    from cumulant.monitoring.drift.blocks import by_time

    return by_time(parts_of(moments), length).blocks if some else ()


class Windows(Protocol):
    """The compared rows. Left out of a log, by day: `others` of other versions, `misdated` ones, `coming` ones."""

    @property
    def name(self) -> str: ...
    @property
    def columns(self) -> tuple[str, ...]: ...
    @property
    def answers(self) -> tuple[str, ...]: ...
    @property
    def time(self) -> str | None: ...
    @property
    def is_log(self) -> bool: ...
    @property
    def others(self) -> int: ...
    @property
    def misdated(self) -> Mapping[date, int]: ...
    @property
    def coming(self) -> int: ...

    def traffic(self) -> ModelTraffic | None:
        """The rows of all versions of the model by window, where a log is read for one version."""
        ...

    def against(self, reference: TableWindows, roles: Mapping[str, Role]) -> tuple[DriftProfile, DriftProfile]:
        """The counts of the reference and of these rows in the same cells."""
        ...

    def rows(self, names: Sequence[str], first: int, last: int) -> tuple[pl.DataFrame, Codes | None]:
        """The rows of windows `first` to `last`, with some columns, and the window of each; None: all are of one."""
        ...


@dataclass(frozen=True)
class TableWindows:
    """A table that is read as a whole, in windows of `length`. `tested`: columns only of rows with its first one."""

    table: PredictionTable
    cut: RowBlocks
    tested: tuple[str, ...] = ()
    length: timedelta | None = None

    @property
    def name(self) -> str:
        return self.table.name

    @property
    def columns(self) -> tuple[str, ...]:
        return self.table.columns

    @property
    def answers(self) -> tuple[str, ...]:
        return self.table.answers

    @property
    def time(self) -> str | None:
        return self.table.time

    @property
    def is_log(self) -> bool:
        return self.table.is_log

    @property
    def others(self) -> int:
        return self.table.others

    @property
    def misdated(self) -> Mapping[date, int]:
        return self.table.misdated

    @property
    def coming(self) -> int:
        return self.table.coming

    def traffic(self) -> ModelTraffic | None:
        blocks = () if self.length is None else traffic_of(self.table, self.length)
        return ModelTraffic(blocks) if blocks else None

    def profile(self, roles: Mapping[str, Role], like: DriftProfile | None = None) -> DriftProfile:
        """The counts of the columns in `roles`, in the cells of `like`."""
        from cumulant.monitoring.drift.profiling import profile

        tested_roles = {name: role for name, role in roles.items() if name in self.tested}
        if not tested_roles:
            return profile(self.table.rows, roles, cut=self.cut, like=like)
        other_roles = {name: role for name, role in roles.items() if name not in tested_roles}
        parts = [profile(self.table.rows, tested_roles, cut=self._tested_cut())]
        parts += [profile(self.table.rows, other_roles, cut=self.cut)] if other_roles else []
        columns = {column.name: column for part in parts for column in part.columns}
        return DriftProfile(
            blocks=self.cut.blocks,
            columns=tuple(columns[name] for name in roles if name in columns),
            skipped=tuple(skipped for part in parts for skipped in part.skipped),
            left_out=self.cut.left_out,
        )

    def _tested_cut(self) -> RowBlocks:
        """The same blocks without the rows that were learned from."""
        tested = self.table.series(self.tested[0]).is_not_null().to_numpy()
        places = np.int16(0) if self.cut.places is None else self.cut.places
        return replace(self.cut, places=np.where(tested, places, len(self.cut.blocks)), left_out=int((~tested).sum()))

    def against(self, reference: TableWindows, roles: Mapping[str, Role]) -> tuple[DriftProfile, DriftProfile]:
        before = reference.profile(roles)
        return before, self.profile(roles, like=before)

    def all(self, names: Sequence[str]) -> pl.DataFrame:
        with readable(self.name):
            return self.table.rows.select(names).collect()

    def rows(self, names: Sequence[str], first: int, last: int) -> tuple[pl.DataFrame, Codes | None]:
        places = self.cut.places
        if places is None:
            return self.all(names), None
        within = (places >= first) & (places <= last)
        chosen = self.table.rows.select(names)
        with readable(self.name):
            parts = [
                chosen.slice(begin, _PART).collect().filter(pl.Series(within[begin : begin + _PART]))
                for begin in range(0, max(len(places), 1), _PART)
            ]
        return pl.concat(parts), places[within].astype(np.int64)


def served_table(path: Path, name: str) -> PredictionTable:
    """The reference of a served version (`reference.served_reference`) as a table."""
    with readable(name):
        lazy = pl.scan_parquet(path)
        columns = tuple(lazy.collect_schema())
    answers = tuple(column for column in columns if column.startswith(ANSWER))
    return PredictionTable(name, lazy, columns, MOMENT if MOMENT in columns else None, answers, is_log=True)


def every_role(table: PredictionTable) -> dict[str, Role]:
    """All columns of a reference that can be monitored; an answer that is a feature changes no count."""
    left_out = {table.time, *(TOLD if table.is_log else ())}
    roles: dict[str, Role] = dict.fromkeys((name for name in table.columns if name not in left_out), "feature")
    return roles | dict.fromkeys(table.answers, "prediction")


def flags(table: PredictionTable) -> frozenset[str]:
    return frozenset(name for name, dtype in table.rows.collect_schema().items() if dtype == pl.Boolean)


def as_flags(table: PredictionTable, names: frozenset[str]) -> PredictionTable:
    """`True` and `FALSE`, as files write them where a log has true and false, are these."""
    schema = table.rows.collect_schema()
    texts = [name for name in table.columns if name in names and schema[name] == pl.String]
    if not texts:
        return table
    lowered = (pl.col(name).str.to_lowercase() for name in texts)
    words = (
        pl.when(text.is_in(["true", "false"])).then(text).otherwise(pl.col(name)).alias(name)
        for name, text in zip(texts, lowered, strict=True)
    )
    return replace(table, rows=table.rows.with_columns(words))
