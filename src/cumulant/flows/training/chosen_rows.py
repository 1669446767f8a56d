"""The rows of a source that a training reads: those since its first date, and of these at most `training.rows`, the
ones with the smallest hash of their key.

A table of any size is read in blocks for it, once to hash the keys and once to take the rows; which rows they are is
stored. They are the same on every machine, most of them stay the same when rows are added, and those of a smaller bound
are among those of a larger one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from cumulant.core.ids import digest
from cumulant.data.row_columns import ROW

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

    from cumulant.data.snapshot import Snapshot
    from cumulant.project.project import Project
    from cumulant.training.policy import TrainingPolicy

#: of the stored tables: their keys, and the column of the hashes
CHOSEN, _HASH = "chosen", "__hash"
#: rows that are read at a time
_BLOCK = 65_536


class ChosenRows(NamedTuple):
    """Positions of the chosen rows in the snapshot [n], ascending, `of` how many they were chosen, and the largest of
    their hashes; no other row has a smaller one.
    """

    positions: NDArray[np.int64]
    of: int
    largest: int

    @property
    def share(self) -> float:
        return len(self.positions) / self.of


def eligible_rows(
    project: Project, snapshot: Snapshot, spec: TrainingPolicy, *, as_of: datetime | None
) -> pl.LazyFrame:
    """The rows that `training.since` lets be trained on, in order, with `__row`, their position in the snapshot."""
    from cumulant.data.snapshot import scan

    rows = scan(snapshot, project.tables(), as_of=as_of)
    return rows if (late_enough := since_expr(spec, snapshot)) is None else rows.filter(late_enough)


def since_expr(spec: TrainingPolicy, snapshot: Snapshot) -> pl.Expr | None:
    """Which rows of the snapshot are trained on by `training.since`; None: all."""
    import polars as pl

    if spec.since is None or snapshot.event_time is None:
        return None
    return pl.col(snapshot.event_time) >= spec.since


def eligible_count(project: Project, snapshot: Snapshot, spec: TrainingPolicy, *, as_of: datetime | None) -> int:
    """How many rows there are to train and test on, whatever `training.rows` says."""
    import polars as pl

    return int(eligible_rows(project, snapshot, spec, as_of=as_of).select(pl.len()).collect().item())


def row_bound(project: Project, snapshot: Snapshot, spec: TrainingPolicy, *, as_of: datetime | None) -> int | None:
    """`training.rows`, or None where there are no more rows: that training is the same as one without a bound."""
    if spec.rows is None or spec.rows >= eligible_count(project, snapshot, spec, as_of=as_of):
        return None
    return spec.rows


def chosen_rows(
    project: Project, snapshot: Snapshot, spec: TrainingPolicy, *, as_of: datetime | None
) -> ChosenRows | None:
    """The rows that `training.rows` leaves; None: all. They are chosen once for the same snapshot, moment and bound."""
    import polars as pl

    if spec.rows is None:
        return None
    most, of = spec.rows, eligible_count(project, snapshot, spec, as_of=as_of)
    if of <= most:
        return None
    since = spec.since if snapshot.event_time is not None else None
    inputs = [snapshot.id, snapshot.key, as_of and as_of.isoformat(), since and since.isoformat(), most]
    tables, key = project.tables(), f"{CHOSEN}/{digest(inputs)}"
    if tables.find(key) is None:
        rows = eligible_rows(project, snapshot, spec, as_of=as_of)
        positions, hashes = _smallest(rows, list(snapshot.key), most)
        tables.write(key, pl.DataFrame({ROW: positions, _HASH: hashes}))
    stored = tables.scan(key).collect()
    return ChosenRows(stored[ROW].to_numpy(), of, int(stored[_HASH].max()))  # type: ignore[arg-type]  # it has rows


def _smallest(rows: pl.LazyFrame, key: list[str], most: int) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Without a key rows go by their position: equal rows would be chosen together by their values."""
    import numpy as np

    from cumulant.training.row_hash import mixed, row_hashes
    from cumulant.training.smallest_hashes import SmallestHashes

    smallest = SmallestHashes(most)
    for block in blocks(rows.select(*key, ROW)):
        positions = block[ROW].to_numpy()
        hashes = row_hashes(block, key) if key else mixed(positions.astype(np.uint64))
        smallest.add(hashes, positions)
    return smallest.rows()


def read_rows(
    project: Project,
    snapshot: Snapshot,
    spec: TrainingPolicy,
    columns: Sequence[str],
    *,
    as_of: datetime | None,
) -> pl.DataFrame:
    """Columns of the rows that a training reads, in order: the positions `TrainingSet.rows` are positions in it."""
    rows = eligible_rows(project, snapshot, spec, as_of=as_of).select(list(dict.fromkeys([*columns, ROW])))
    return take_chosen(rows, chosen_rows(project, snapshot, spec, as_of=as_of))


def take_chosen(rows: pl.LazyFrame, chosen: ChosenRows | None) -> pl.DataFrame:
    """The chosen ones of `rows`, which have their position in `__row`; None: all."""
    return rows.collect() if chosen is None else at_positions(blocks(rows), chosen.positions)


def at_positions(frames: Iterable[pl.DataFrame], positions: NDArray[np.int64]) -> pl.DataFrame:
    """The rows of `frames`, at least one, whose `__row` is one of `positions`, which ascend."""
    import numpy as np
    import polars as pl

    matches = []
    for frame in frames:
        rows = frame[ROW].to_numpy()
        places = np.minimum(np.searchsorted(positions, rows), len(positions) - 1)
        matches.append(frame.filter(positions[places] == rows))
    return pl.concat(matches)


def blocks(rows: pl.LazyFrame) -> Iterator[pl.DataFrame]:
    """The rows in order, some at a time; one block without rows where there are none."""
    yield rows.collect_schema().to_frame()
    yield from rows.collect_batches(chunk_size=_BLOCK, maintain_order=True)
