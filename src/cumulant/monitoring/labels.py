"""Labels from a file beside the rows they are about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import polars as pl

from cumulant.core.errors import UsageError
from cumulant.monitoring.tables import Table, open_table, readable

#: columns of a file of labels that are neither its key nor the label
_BESIDE = ("known_time", "time", "timestamp")


class Labels(NamedTuple):
    """The column of labels in `table`, how many rows have one, and the columns by which they found their row."""

    table: Table
    name: str
    known: int
    key: tuple[str, ...]

    def called(self, name: str) -> Labels:
        """The same with another name of the label, where no other column has it."""
        if name in self.table.columns:
            return self
        names = tuple(name if one == self.name else one for one in self.table.columns)
        rows = self.table.rows.rename({self.name: name})
        return self._replace(table=replace(self.table, rows=rows, columns=names), name=name)


def labelled(table: Table, path: Path, label: str | None, key: Sequence[str] = ()) -> Labels:
    """`table` with the labels of a file as a column.

    They are joined by `key`; where it is not named by the id of a log, by the one shared column that tells all rows
    apart, or else by all columns that both have. Labels of unknown rows are left out; of several for one row the last
    counts.

    Raises:
        UsageError: no column is shared, or it is not clear which one is the label.
        DataError: the file cannot be read, or a column of the key is not there.
    """
    said = open_table(path)
    table.require(key)
    said.require(key)
    name = label or _label(said, table)
    said.require([name])
    key = list(key) or _key(
        table, [one for one in said.columns if one in table.columns and one not in (name, *_BESIDE)]
    )
    if not key:
        raise UsageError(
            f"{path} has no column in common with the predictions, by which labels could find their row",
            subject=str(path), hint=f"it has {', '.join(said.columns[:8])}; give both the same key",
        )  # fmt: skip
    with readable(str(path)):
        known = said.rows.select(*key, name).collect().drop_nulls(name)
    with readable(table.name):
        rows = table.rows.select(key).collect()
        # Keys are one only once they are of one type: "01" and "1" are the same number.
        known = known.cast({one: rows.schema[one] for one in key}, strict=False)
    known = known.unique(key, keep="last", maintain_order=True)
    column = rows.join(known, on=key, how="left", maintain_order="left").select(name)
    kept = tuple(one for one in table.columns if one != name)
    joined = pl.concat([table.rows.select(kept), column.lazy()], how="horizontal")
    found = replace(table, rows=joined, columns=(*kept, name), answers=tuple(a for a in table.answers if a != name))
    return Labels(found, name, column.height - column[name].null_count(), tuple(key))


def _key(table: Table, shared: list[str]) -> list[str]:
    """Of the columns that both have: a feature may be written otherwise in the file, and its row would not be found."""
    if table.is_log and "id" in shared:
        return [one for one in ("id", "row") if one in shared]
    one = next((name for name in shared if table.tells_apart(name)), None)
    return shared if one is None else [one]


def _label(said: Table, table: Table) -> str:
    """The only column of the file that is neither shared nor a time."""
    own = [one for one in said.columns if one not in table.columns and one not in _BESIDE and one != said.time]
    if len(own) == 1:
        return own[0]
    raise UsageError(
        f"{said.name} does not say which column is the label", subject=said.name,
        hint=f"name it with --label; columns of its own: {', '.join(own) or 'none'}",
    )  # fmt: skip
