"""How rows fall into blocks: by time, by their order, or all into one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cumulant.core.errors import DataError
from cumulant.core.units import micros, show_duration
from cumulant.monitoring.drift.profiles import ProfileBlock
from cumulant.statistics.rows import Codes

#: more windows than this are a mistake: a clock that jumped, or a window that is far too short
MOST = 5_000
#: rows whose blocks are found at a time
_PART = 1_000_000
#: how times are written, and whether with an offset
_FORMS = (
    ("%Y-%m-%d %H:%M:%S%.f", False),
    ("%Y-%m-%d %H:%M:%S%.f%:z", True),
    ("%Y-%m-%d", False),
    ("%Y-%m-%d %H:%M", False),
    ("%Y-%m-%d %H:%M%:z", True),
)


@dataclass(frozen=True)
class RowBlocks:
    """Blocks of rows. `places` [rows]: the block of each, and their number where it has none; None: one block."""

    blocks: tuple[ProfileBlock, ...]
    places: NDArray[np.int16] | Codes | None = None
    left_out: int = 0

    @property
    def codes(self) -> Codes | None:
        """`places`, in eight bytes each."""
        return None if self.places is None else self.places.astype(np.int64)

    @property
    def rows(self) -> int:
        return sum(block.rows for block in self.blocks) if self.places is None else len(self.places)


def whole(rows: int) -> RowBlocks:
    """All rows in one block: they are taken as independent."""
    return RowBlocks((ProfileBlock(0, rows),))


def by_time(times: pl.Series | Iterable[pl.Series], every: timedelta) -> RowBlocks:
    """Blocks of a length of time that have rows, from midnight UTC. `times`: at once or in parts.

    Raises:
        DataError: no value is a time, or there are over MOST blocks.
    """
    name, timed, starts = "", 0, np.empty(0, dtype=np.int64)
    parts: list[tuple[Codes, NDArray[np.int16]]] = []  # the windows of a part, and of each row its place among them
    for part in _parts(times):
        when = read_moments(part)
        windows = when.drop_nulls().to_numpy() // micros(every)
        own = np.unique(windows)
        name, timed, starts = part.name, timed + len(windows), np.union1d(starts, own)
        if len(starts) <= MOST:
            places = np.full(len(when), len(own), dtype=np.int16)
            places[when.is_not_null().to_numpy()] = np.searchsorted(own, windows)
            parts.append((own, places))
    if not timed:
        raise no_times(name)
    if len(starts) > MOST:
        raise DataError(
            f"the rows fall into {len(starts):,} windows of {show_duration(every)}",
            subject=name,
            hint="choose a longer window, and look whether the times are right",
        )
    codes = np.concatenate(
        [np.append(np.searchsorted(starts, own), len(starts)).astype(np.int16)[places] for own, places in parts]
    )
    counts = np.bincount(codes, minlength=len(starts))[: len(starts)]
    step = micros(every)
    blocks = tuple(ProfileBlock(int(at) * step, int(rows), timed=True) for at, rows in zip(starts, counts, strict=True))
    return RowBlocks(blocks, codes, len(codes) - timed)


def _parts(times: pl.Series | Iterable[pl.Series]) -> Iterator[pl.Series]:
    if not isinstance(times, pl.Series):
        yield from times
        return
    for begin in range(0, max(len(times), 1), _PART):
        yield times.slice(begin, _PART)


def by_rows(rows: int, size: int, times: pl.Series | None = None) -> RowBlocks:
    """Blocks of `size` rows each, the last with the rest, in the order of `times`, else in their own.

    Raises:
        DataError: no value of `times` is a time.
    """
    if times is None:
        places = np.arange(rows)
        codes = places // max(size, 1)
        starts = [(int(first), False) for first in range(0, rows, max(size, 1))]
        counts = np.bincount(codes, minlength=len(starts))
        return RowBlocks(tuple(ProfileBlock(at, int(n), t) for (at, t), n in zip(starts, counts, strict=True)), codes)
    when = moments(times)
    order = when.arg_sort(nulls_last=True).to_numpy()
    timed = rows - when.null_count()
    count = -(-timed // max(size, 1))
    codes = np.full(rows, count, dtype=np.int64)
    codes[order[:timed]] = np.arange(timed) // max(size, 1)
    firsts = when.gather(order[: timed : max(size, 1)]).to_list()
    sizes = np.bincount(codes[order[:timed]], minlength=count)
    blocks = tuple(ProfileBlock(int(at), int(n), timed=True) for at, n in zip(firsts, sizes, strict=True))
    return RowBlocks(blocks, codes, rows - timed)


def moments(times: pl.Series) -> pl.Series:
    """Times or their texts as microseconds since 1970 UTC; null where they are none.

    Raises:
        DataError: no value is a time.
    """
    parsed = read_moments(times)
    if parsed.null_count() == len(parsed):
        raise no_times(times.name)
    return parsed


def read_moments(times: pl.Series) -> pl.Series:
    """As `moments`, and null where no value is a time."""
    read = _read(times) if times.dtype == pl.String else times
    if not read.dtype.is_temporal() or read.dtype == pl.Time:
        return pl.Series(times.name, [None] * len(times), dtype=pl.Int64)
    if isinstance(read.dtype, pl.Datetime) and read.dtype.time_zone is not None:
        read = read.dt.convert_time_zone("UTC")
    return read.cast(pl.Datetime("us")).cast(pl.Int64)


def no_times(name: str) -> DataError:
    """That no value of a column is a time."""
    return DataError(
        f"column {name} holds no times",
        subject=name,
        hint="times are read as 2026-01-21 or 2026-01-21T10:00:00 (ISO 8601): name such a column with --time, or "
        "leave it out to go by the order of rows",
    )


def hold_times(texts: pl.Series) -> bool:
    """Whether all texts that there are, and there are some, are times in ISO 8601."""
    present = texts.drop_nulls()
    return len(present) > 0 and _read(present).null_count() == 0


def _read(texts: pl.Series) -> pl.Series:
    """ISO 8601 texts as times; without an offset they are taken as UTC."""
    plain = texts.str.strip_chars().str.replace("T", " ", literal=True).str.replace(r"Z$", "+00:00")
    times = pl.Series(texts.name, [None] * len(texts), dtype=pl.Datetime("us", "UTC"))
    for form, offset in _FORMS:
        if times.null_count() == 0:
            break
        parsed = plain.str.to_datetime(form, time_unit="us", strict=False)
        parsed = parsed if offset else parsed.dt.replace_time_zone("UTC")
        times = times.fill_null(parsed) if parsed.null_count() < len(parsed) else times
    return times
