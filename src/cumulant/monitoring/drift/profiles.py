"""Profiles: counts of rows in the cells of each column, block by block; profiles of the same cells add up.

The reference defines the cells, at most some hundred a column.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec
import numpy as np

from cumulant.core.errors import DataError
from cumulant.statistics.rows import Codes

Role = Literal["feature", "prediction", "label"]


class ProfileBlock(msgspec.Struct, frozen=True):
    """Rows that may depend on each other. `start`: microseconds since 1970, UTC, or the number of the first row."""

    start: int
    rows: int
    timed: bool = False


class ColumnCells(msgspec.Struct, frozen=True, kw_only=True):
    """The cells of a column.

    number: `edges` [k] rising, k + 1 cells, the outer two of each side beyond the reference; `spread`: the standard
    deviation of the reference.
    category: a cell for each of `values`, most frequent first, then one for all other `known` ones, then one for the
    unseen. `once`, `twice`: rows of the reference with a value that occurs once or twice in it. `complete`: `values`
    and `known` are all of the reference's.
    """

    kind: Literal["number", "category"]
    edges: tuple[float, ...] = ()
    spread: float = 0.0
    values: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    once: int = 0
    twice: int = 0
    complete: bool = True

    @property
    def identifies(self) -> bool:
        """Whether values are identifiers: none is frequent, and only new ones are counted."""
        return self.kind == "category" and not self.values and bool(self.known)

    @property
    def count(self) -> int:
        return len(self.edges) + 1 if self.kind == "number" else len(self.values) + 2


class ColumnCounts(msgspec.Struct, frozen=True, kw_only=True):
    """One column. `counts` [blocks][cells] of values; `missing` and `unreadable` [blocks] are of rows without one.

    `examples`: values that the reference lacks, most frequent first. `absent`: the table lacks the column.
    """

    name: str
    role: Role = "feature"
    cells: ColumnCells
    counts: tuple[tuple[int, ...], ...]
    missing: tuple[int, ...]
    unreadable: tuple[int, ...]
    examples: tuple[str, ...] = ()
    absent: bool = False


class Skipped(msgspec.Struct, frozen=True):
    """A column that is not monitored, and why."""

    name: str
    reason: str


class DriftProfile(msgspec.Struct, frozen=True, kw_only=True):
    """`extra`: columns of the table that the reference lacks; `left_out`: rows that belong to no block."""

    blocks: tuple[ProfileBlock, ...]
    columns: tuple[ColumnCounts, ...]
    skipped: tuple[Skipped, ...] = ()
    extra: tuple[str, ...] = ()
    left_out: int = 0

    @property
    def rows(self) -> int:
        return sum(block.rows for block in self.blocks)


def only(profile: DriftProfile, roles: Mapping[str, Role]) -> DriftProfile:
    """The columns in `roles`, in that order and as these."""
    columns = {column.name: column for column in profile.columns}
    columns_in_use = (
        msgspec.structs.replace(columns[name], role=role) for name, role in roles.items() if name in columns
    )
    skipped = tuple(skip for skip in profile.skipped if skip.name in roles)
    return msgspec.structs.replace(profile, columns=tuple(columns_in_use), skipped=skipped)


def merge(profiles: Sequence[DriftProfile]) -> DriftProfile:
    """The blocks of all in order of time, those of equal starts added; examples of unknown values of the first ones.

    Raises:
        DataError: they do not count the same cells.
    """
    first = profiles[0]
    if any(_counted(part) != _counted(first) for part in profiles):
        raise DataError(
            "these profiles do not count the same cells",
            hint="profile each part with the same reference: profile(part, like=reference)",
        )
    blocks = [block for part in profiles for block in part.blocks]
    # Blocks without times begin with the number of a row, which means nothing across tables.
    names = [(block.start, 0 if block.timed else place) for place, block in enumerate(blocks)]
    places = {name: place for place, name in enumerate(sorted(set(names)))}
    into = np.array([places[name] for name in names], dtype=np.int64)
    sizes = _summed(np.array([block.rows for block in blocks], dtype=np.int64), into, len(places))
    timed = {places[name]: block.timed for name, block in zip(names, blocks, strict=True)}
    return DriftProfile(
        blocks=tuple(ProfileBlock(start, int(sizes[at]), timed[at]) for (start, _), at in places.items()),
        columns=tuple(
            _joined([part.columns[at] for part in profiles], into, len(places)) for at in range(len(first.columns))
        ),
        skipped=first.skipped,
        extra=tuple(sorted({name for part in profiles for name in part.extra})),
        left_out=sum(part.left_out for part in profiles),
    )


def _counted(profile: DriftProfile) -> list[tuple[str, ColumnCells]]:
    return [(column.name, column.cells) for column in profile.columns]


def _summed(counts: Codes, into: Codes, blocks: int) -> Codes:
    """Rows of `counts` added up by their block."""
    sums = np.zeros((blocks, *counts.shape[1:]), dtype=np.int64)
    np.add.at(sums, into, counts)
    return sums


def _joined(parts: Sequence[ColumnCounts], into: Codes, blocks: int) -> ColumnCounts:
    def added(rows: Iterable[object]) -> Any:
        return _summed(np.array(list(rows), dtype=np.int64), into, blocks).tolist()

    counts = added(row for part in parts for row in part.counts)
    missing = added(count for part in parts for count in part.missing)
    unreadable = added(count for part in parts for count in part.unreadable)
    return msgspec.structs.replace(
        parts[0],
        counts=tuple(map(tuple, counts)),
        missing=tuple(missing),
        unreadable=tuple(unreadable),
        examples=tuple(dict.fromkeys(value for part in parts for value in part.examples))[:3],
        absent=all(part.absent for part in parts),
    )
