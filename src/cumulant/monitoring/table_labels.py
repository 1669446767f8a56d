"""Labels from a file beside the rows they are about, by the rules of `outcomes`: as the log's labels are joined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl

from cumulant.core.errors import DataError, UsageError
from cumulant.core.units import to_micros
from cumulant.monitoring.drift.blocks import RowBlocks, no_times, read_moments
from cumulant.monitoring.performance.labelled import LEAST_SHARE
from cumulant.monitoring.performance.selection import LACKING, is_selected
from cumulant.monitoring.tables import PredictionTable, open_table, readable
from cumulant.outcomes.matching import resolve_labels

if TYPE_CHECKING:
    from cumulant.statistics.rows import Codes, Flags, Floats

#: part of a window's rows that may have contradictory labels
_DISPUTED = 0.02
#: part of the newest windows that lack labels where those of one class are late
_LATE = 0.5
#: distinct answer texts that are parsed one by one
_ANSWERS = 5
#: rows whose labels are joined at once
_AT_ONCE = 2_000_000
_PLACE = "\0place"
_KNOWN, _WEIGHT = "known_time", "weight"
#: columns of a file of labels that are neither its key nor the label
_BESIDE = (_KNOWN, "time", "timestamp", _WEIGHT)


class Labels(NamedTuple):
    """The column of labels in `table`, how many rows have one, and the columns by which they were joined.

    weight: [rows] rows that a label represents; None where the file has no weights. unmatched: labels of no row.
    contradicted: [rows] with different labels at once, which have none. waiting: labels that become known later.
    refused: windows with too few labels to compare, or where `selected`, with labels that depend on predictions.
    """

    table: PredictionTable
    name: str
    known: int
    key: tuple[str, ...]
    weight: pl.Series | None = None
    unmatched: int = 0
    contradicted: pl.Series | None = None
    waiting: int = 0
    refused: int = 0
    selected: bool = False

    def compared(self, cut: RowBlocks) -> Labels:
        """Without labels of windows that are too few, mostly contradicted, or `selected` by the prediction.

        Rows drawn with equal weights above 1 are a sample. With selected labels, windows that lack more than LACKING
        are left out, and all from where on half of the windows do.
        """
        label = self.table.series(self.name)
        labelled = label.is_not_null().to_numpy()
        codes = np.zeros(len(label), dtype=np.int64) if cut.codes is None else cut.codes
        blocks = len(cut.blocks) + 1
        drawn = False
        rows, known = np.bincount(codes, minlength=blocks), np.bincount(codes[labelled], minlength=blocks)
        enough = known >= LEAST_SHARE * rows
        if self.weight is not None:
            weights = self.weight.filter(label.is_not_null()).drop_nulls().unique()
            drawn = len(weights) == 1 and bool(weights[0] > 1)
            enough |= drawn
        if self.contradicted is not None:
            disputed = np.bincount(codes[self.contradicted.to_numpy()], minlength=blocks)
            enough &= disputed <= _DISPUTED * rows
        lacks = (known < (1 - LACKING) * rows) & (np.arange(blocks) < len(cut.blocks))
        selected = not drawn and bool((enough & lacks).any()) and self._selected(labelled, codes, enough & lacks)
        if selected:
            enough &= ~lacks & (np.arange(blocks) < _from(lacks[: len(cut.blocks)]))
        compared_labels = label.set(pl.Series(~enough[codes]), None) if not enough.all() else label
        with_rest = self.table.rows.with_columns(compared_labels.alias(self.name))
        refused = int((~enough & (known > 0))[: len(cut.blocks)].sum())
        return self._replace(table=replace(self.table, rows=with_rest), refused=refused, selected=selected)

    def _selected(self, labelled: Flags, codes: Codes, partly: Flags) -> bool:
        """Whether rows of the windows `partly` with a label surely have other answers than those without."""
        within = partly[codes]
        answers = [numbers[within] for name in self.table.answers for numbers in _numbered(self.table.series(name))]
        return is_selected(answers, labelled[within], codes[within])

    def called(self, name: str) -> Labels:
        """The same with another name of the label, where no other column has it."""
        if name in self.table.columns:
            return self
        names = tuple(name if column == self.name else column for column in self.table.columns)
        rows = self.table.rows.rename({self.name: name})
        return self._replace(table=replace(self.table, rows=rows, columns=names), name=name)


def _from(lacks: Flags) -> int:
    """The first of these windows that lacks labels and from which on at least half of them do; else their number."""
    share = np.cumsum(lacks[::-1])[::-1] / np.arange(len(lacks), 0, -1)
    late = np.flatnonzero(lacks & (share >= _LATE))
    return int(late[0]) if len(late) else len(lacks)


def _numbered(values: pl.Series) -> list[Floats]:
    """An answer as numbers [n]: of texts, whether it is each of the most frequent ones."""
    if values.dtype.is_numeric() or values.dtype == pl.Boolean:
        return [values.cast(pl.Float64).fill_null(np.nan).to_numpy()]
    if values.dtype != pl.String:
        return []
    frequent = values.drop_nulls().value_counts(sort=True)[values.name].head(_ANSWERS).to_list()
    return [(values == value).fill_null(value=False).cast(pl.Float64).to_numpy() for value in frequent]


def labelled(
    table: PredictionTable, path: Path, label: str | None, key: Sequence[str] = (), *, now: datetime | None = None
) -> Labels:
    """`table` with the labels of a file as a column.

    They are joined by `key`; without it by the id of a log, the one shared column that identifies rows, or all shared
    columns. The latest label by `now`, after the column `known_time`, counts; two at once contradict
    (`outcomes.matching`).

    Raises:
        UsageError: no column is shared, or it is not clear which one is the label.
        DataError: the file cannot be read, a column of the key is not there, or no label matches a row.
    """
    label_table = open_table(path)
    table.require(key)
    label_table.require(key)
    name = label or _label(label_table, table)
    label_table.require([name])
    key = list(key) or _key(
        table, [column for column in label_table.columns if column in table.columns and column not in (name, *_BESIDE)]
    )
    if not key:
        raise UsageError(
            f"{path} has no column in common with the predictions, by which labels could find their row",
            subject=str(path),
            hint=f"it has {', '.join(label_table.columns[:8])}; give both the same key",
        )
    beside = [column for column in (_KNOWN, _WEIGHT) if column in label_table.columns and column not in (name, *key)]
    facts = label_table.rows.select(*key, pl.col(name).alias("label"), *beside).drop_nulls("label")
    joined_labels = _joined(
        table, PredictionTable(str(path), facts, (), None, ()), list(key), to_micros(now or datetime.now(UTC))
    )
    if joined_labels.labels and joined_labels.unmatched == joined_labels.labels:
        raise DataError(
            f"none of the {joined_labels.labels:,} labels in {path} is of a row",
            subject=str(path),
            hint=f"they are joined by {', '.join(key)}: name other columns with --key, and check their values",
        )
    other_columns = tuple(column for column in table.columns if column != name)
    labels = joined_labels.rows["label"].alias(name)
    joined = pl.concat([table.rows.select(other_columns), labels.to_frame().lazy()], how="horizontal")
    whole = replace(
        table, rows=joined, columns=(*other_columns, name), answers=tuple(a for a in table.answers if a != name)
    )
    return Labels(
        whole,
        name,
        len(labels) - labels.null_count(),
        tuple(key),
        joined_labels.rows["weight"] if _WEIGHT in beside else None,
        joined_labels.unmatched,
        joined_labels.rows["contradicted"],
        joined_labels.waiting,
    )


class _Joined(NamedTuple):
    """rows: [rows] the columns `label`, `contradicted`, and `weight` where present. labels: keys with one by now."""

    rows: pl.DataFrame
    labels: int
    unmatched: int
    waiting: int


def _joined(table: PredictionTable, label_table: PredictionTable, key: list[str], now: int) -> _Joined:
    """The labels of a table's rows; of many rows by partitions of the hash of their keys."""
    with readable(table.name):
        kinds = table.rows.select(key).collect_schema()
    apart = all(kind == pl.String or kind.is_integer() for kind in kinds.values())
    count = -(-table.count() // _AT_ONCE) if apart else 1
    parts = [_joined_part(table, label_table, kinds, now, (part, count)) for part in range(max(count, 1))]
    if not any(timed for _, timed in parts):
        raise no_times(_KNOWN)
    return _Joined(
        _in_order([part_result.rows for part_result, _ in parts]),
        labels=sum(part_result.labels for part_result, _ in parts),
        unmatched=sum(part_result.unmatched for part_result, _ in parts),
        waiting=sum(part_result.waiting for part_result, _ in parts),
    )


def _in_order(parts: list[pl.DataFrame]) -> pl.DataFrame:
    """Rows of several parts by their places, one column at a time to save memory."""
    if len(parts) == 1:
        return parts[0].drop(_PLACE)
    order = pl.concat([frame.drop_in_place(_PLACE) for frame in parts]).arg_sort()
    names = parts[0].columns
    return pl.DataFrame([pl.concat([frame.drop_in_place(name) for frame in parts]).gather(order) for name in names])


def _joined_part(
    table: PredictionTable, label_table: PredictionTable, kinds: pl.Schema, now: int, part: tuple[int, int]
) -> tuple[_Joined, bool]:
    """What is known of the keys of one part of so many, and whether any of these labels has a known time."""
    key = list(kinds)
    own = pl.lit(value=True) if part[1] == 1 else pl.struct(key).hash() % part[1] == part[0]
    with readable(label_table.name):
        # Keys are one only once they are of one type: "01" and "1" are the same number.
        facts = label_table.rows.with_columns(pl.col(column).cast(kind, strict=False) for column, kind in kinds.items())
        own_facts = facts.filter(own).collect()
    with readable(table.name):
        rows = table.rows.select(key).with_row_index(_PLACE).filter(own).collect()
    due, waiting, timed = _facts(own_facts, now)
    known = resolve_labels(due, key)
    weight = [_WEIGHT] if _WEIGHT in own_facts.columns else []
    labels = rows.join(known, on=key, how="left", maintain_order="left").select(
        _PLACE, "label", *weight, contradicted=(pl.col("state") == "contradicted").fill_null(value=False)
    )
    return _Joined(labels, known.height, known.join(rows, on=key, how="anti").height, waiting), timed


def _facts(labels: pl.DataFrame, now: int) -> tuple[pl.DataFrame, int, bool]:
    """The labels known by `now`, with the part names of `outcomes`; the number of later ones; if times are known."""
    timed = True
    known = pl.repeat(now, labels.height, eager=True)
    if _KNOWN in labels.columns:
        known_times = read_moments(labels[_KNOWN])
        known, timed = known_times.fill_null(now), known_times.null_count() < len(known_times)
    weight = labels[_WEIGHT].cast(pl.Float64, strict=False) if _WEIGHT in labels.columns else pl.lit(1.0)
    facts = labels.drop(_KNOWN, _WEIGHT, strict=False)
    facts = facts.with_columns(known.alias(_KNOWN), value=pl.lit(None, pl.Float64), weight=weight)
    due = facts.filter(pl.col(_KNOWN) <= now)
    return due, facts.height - due.height, timed


def _key(table: PredictionTable, shared: list[str]) -> list[str]:
    """Of the columns that both have: a feature may be written otherwise in the file, and its row would not be found."""
    if table.is_log and "id" in shared:
        return [column for column in ("id", "row") if column in shared]
    column = next((name for name in shared if table.tells_apart(name)), None)
    return shared if column is None else [column]


def _label(label_table: PredictionTable, table: PredictionTable) -> str:
    """The only column of the file that is neither shared nor a time."""
    own = [
        column
        for column in label_table.columns
        if column not in table.columns and column not in _BESIDE and column != label_table.time
    ]
    if len(own) == 1:
        return own[0]
    raise UsageError(
        f"{label_table.name} does not show which column is the label",
        subject=label_table.name,
        hint=f"name it with --label; columns of its own: {', '.join(own) or 'none'}",
    )
