"""Columns whose values may come once: the key of a source, and columns with the rule `unique`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import polars as pl

from cumulant.data.rules.severity import KEY_REPEAT
from cumulant.data.spec import SourceSpec


class UniqueSet(NamedTuple):
    """Columns whose values may come once together."""

    rule: str
    text: str
    columns: tuple[str, ...]

    @property
    def column(self) -> str | None:
        return self.columns[0] if len(self.columns) == 1 else None


def unique_sets(spec: SourceSpec, names: Sequence[str]) -> list[UniqueSet]:
    """Column sets whose values must be unique: the key, then each unique column.

    With `on_repeat: latest` keys may repeat, and unique values in rows of one key.
    """
    once = "comes once" if len(spec.keys) == 1 else "come once together"
    of_key = spec.keys and spec.on_repeat != "latest"
    sets = [UniqueSet(KEY_REPEAT, f"{', '.join(spec.keys)} {once}", spec.keys)] if of_key else []
    for column, rule in spec.rules.items():
        if rule.unique and column in names and spec.keys != (column,):
            sets.append(UniqueSet(f"{column}:unique", f"{column} comes once", (column,)))
    return sets


def ordering_times(spec: SourceSpec) -> tuple[str, ...]:
    """The known times that order rows which arrive together; without them their order in the files counts."""
    return spec.known_times if spec.on_repeat == "first" else ()


def mark_repeats(columns: Sequence[str], spec: SourceSpec) -> pl.Expr:
    """Marks rows whose values came before; of equal rows the first is kept. Nulls repeat nothing."""
    value = pl.col(columns[0]) if len(columns) == 1 else pl.struct(columns)
    complete = pl.all_horizontal(pl.col(column).is_not_null() for column in columns)
    if spec.on_repeat == "latest":
        key = pl.struct(spec.keys)
        return complete & (key != key.first().over(columns))
    return complete & ~value.is_first_distinct()
