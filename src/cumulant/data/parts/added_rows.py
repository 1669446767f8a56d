"""Which rows of a snapshot an earlier one holds: by the stored parts that both have, else by the values themselves."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import polars as pl

from cumulant.core.plan import Field
from cumulant.data.row_columns import ROW
from cumulant.data.snapshot import RowRange, Snapshot, hide_after
from cumulant.data.text.casts import POLARS, conform
from cumulant.ports.tables import TableStore

#: rows that are compared at a time
_CHUNK = 262_144


class SharedRows(NamedTuple):
    """`rows` rows of an earlier snapshot, from position `before` on, that a later one holds from position `now` on."""

    before: int
    now: int
    rows: int


class _Piece(NamedTuple):
    """Rows [begin, end) of a stored table."""

    key: str
    begin: int
    end: int

    @property
    def rows(self) -> int:
        return self.end - self.begin


def find_shared_rows(before: Snapshot, now: Snapshot, tables: TableStore) -> tuple[SharedRows, ...] | None:
    """Where the rows of `before` are in `now`, in order; None where rows or columns changed, or rows have versions."""
    if before.versions is not None or now.versions is not None or before.fields != now.fields:
        return None
    cuts = _cuts((*before.parts, *now.parts))
    old, new = _pieces(before.parts, cuts), _pieces(now.parts, cuts)
    places = [(-1, -1), *_common(old, new), (len(old), len(new))]
    result: list[SharedRows] = []
    at_old = at_new = 0
    for (i, j), (old_end, new_end) in pairwise(places):
        if i >= 0:
            result.append(SharedRows(at_old, at_new, old[i].rows))
            at_old, at_new = at_old + old[i].rows, at_new + old[i].rows
        gone, come = old[i + 1 : old_end], new[j + 1 : new_end]
        between = _match_replaced(gone, come, now.fields, tables)
        if between is None:
            return None
        result += [SharedRows(at_old + shared.before, at_new + shared.now, shared.rows) for shared in between]
        at_old, at_new = at_old + _count(gone), at_new + _count(come)
    return tuple(_join_neighbours(result))


def count_added(now: Snapshot, shared: Sequence[SharedRows]) -> int:
    return sum(part.rows for part in now.parts) - sum(rows.rows for rows in shared)


def scan_added(
    now: Snapshot, shared: Sequence[SharedRows], tables: TableStore, *, as_of: datetime | None = None
) -> pl.LazyFrame:
    """The rows of `now` that are not `kept`, as `scan` gives them; no others are read."""
    frames, begin = [], 0
    gaps = _gaps(shared, sum(part.rows for part in now.parts))
    for part in now.parts:
        end = begin + part.rows
        for low, high in gaps:
            first, last = max(low, begin), min(high, end)
            if first < last:
                rows = conform(part.scan(tables).slice(first - begin, last - first), now.fields)
                frames.append(rows.with_row_index(ROW, offset=first))
        begin = end
    names = [field.name for field in now.fields]
    schema = {field.name: POLARS[field.dtype] for field in now.fields}
    whole = pl.concat(frames) if frames else pl.LazyFrame(schema=schema).with_row_index(ROW)
    frame = whole.select(*names, pl.col(ROW).cast(pl.Int64))
    return frame if as_of is None else hide_after(frame, now, as_of)


def _gaps(shared: Sequence[SharedRows], rows: int) -> list[tuple[int, int]]:
    ends = [(0, 0), *((run.now, run.now + run.rows) for run in shared), (rows, rows)]
    return [(before[1], after[0]) for before, after in pairwise(ends) if after[0] > before[1]]


def _cuts(ranges: Sequence[RowRange]) -> Mapping[str, list[int]]:
    """Where ranges of each table begin or end: two packs' neighbours may be split by a file between them."""
    places_by_table: dict[str, set[int]] = defaultdict(set)
    for row_range in ranges:
        begin = row_range.first or 0
        places_by_table[row_range.key] |= {begin, begin + row_range.rows}
    return {key: sorted(places) for key, places in places_by_table.items()}


def _pieces(ranges: Sequence[RowRange], cuts: Mapping[str, list[int]]) -> list[_Piece]:
    result = []
    for row_range in ranges:
        begin, places = row_range.first or 0, cuts[row_range.key]
        inside = places[bisect_left(places, begin) : bisect_left(places, begin + row_range.rows) + 1]
        result += [_Piece(row_range.key, low, high) for low, high in pairwise(inside)]
    return result


def _common(old: Sequence[_Piece], new: Sequence[_Piece]) -> Iterator[tuple[int, int]]:
    """Places of pieces that are in both, in the order of both."""
    places: dict[_Piece, list[int]] = defaultdict(list)
    for place, piece in enumerate(new):
        places[piece].append(place)
    cursor = 0
    for place, piece in enumerate(old):
        at = places.get(piece, [])
        index = bisect_left(at, cursor)
        if index < len(at):
            yield place, at[index]
            cursor = at[index] + 1


def _match_replaced(
    gone: Sequence[_Piece], come: Sequence[_Piece], fields: Sequence[Field], tables: TableStore
) -> list[SharedRows] | None:
    """Where the rows of stored tables that were replaced (packed anew, appended to) are in those that replaced them."""
    old, new = _count(gone), _count(come)
    if not old:
        return []
    if old > new or any(tables.find(piece.key) is None for piece in (*gone, *come)):
        return None
    before, now = _scan(gone, fields, tables), _scan(come, fields, tables)
    head = _equal_rows(before, now, 0, 0, old)
    rest = old - head
    if rest and _equal_rows(before, now, head, new - rest, rest) < rest:
        return None
    parts = (SharedRows(0, 0, head), SharedRows(head, new - rest, rest))
    return [part for part in parts if part.rows]


def _scan(pieces: Sequence[_Piece], fields: Sequence[Field], tables: TableStore) -> pl.LazyFrame:
    scans = (tables.scan(piece.key).slice(piece.begin, piece.rows) for piece in pieces)
    return pl.concat([conform(rows, fields) for rows in scans])


def _equal_rows(before: pl.LazyFrame, now: pl.LazyFrame, old: int, new: int, rows: int) -> int:
    """How many of `rows` rows, from these places on, are equal before one is not."""
    for begin in range(0, rows, _CHUNK):
        size = min(_CHUNK, rows - begin)
        pair = before.slice(old + begin, size).collect(), now.slice(new + begin, size).collect()
        equal = _equal(*pair)
        if not equal.all():
            return begin + int(np.argmin(equal))
    return rows


def _equal(before: pl.DataFrame, now: pl.DataFrame) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    equal = np.ones(before.height, dtype=np.bool_)
    for old, new in zip(before, now, strict=True):
        equal &= old.eq_missing(new).to_numpy()
        if old.dtype.is_float():  # 0.0 and -0.0 are two values
            equal &= np.signbit(old.fill_null(0.0).to_numpy()) == np.signbit(new.fill_null(0.0).to_numpy())
    return equal


def _count(pieces: Sequence[_Piece]) -> int:
    return sum(piece.rows for piece in pieces)


def _join_neighbours(runs: Sequence[SharedRows]) -> Iterator[SharedRows]:
    """Neighbours as one."""
    last: SharedRows | None = None
    for run in runs:
        if last is not None and run.before == last.before + last.rows and run.now == last.now + last.rows:
            last = last._replace(rows=last.rows + run.rows)
            continue
        if last is not None:
            yield last
        last = run
    if last is not None:
        yield last
