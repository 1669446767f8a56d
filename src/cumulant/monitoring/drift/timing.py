"""What is odd about the times and the number of rows of windows, in words: gaps, clocks, windows of a few rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from cumulant.core.units import micros, show_duration, to_micros
from cumulant.monitoring.drift.column import FEWEST
from cumulant.monitoring.drift.profiles import ProfileBlock
from cumulant.monitoring.drift.words import day
from cumulant.statistics.rows import Codes

#: a window with less than this part of the usual rows, or this many times as many, is reported
_LITTLE, _MUCH = 0.2, 5.0
#: windows that define the usual number
_USUAL = 5
#: windows without a row between two parts of which one has few rows: a clock that was wrong
_JUMP, _FEW = 30, 0.01
_SHOWN = 3
#: gaps at equal distances beyond which they are how it is
_RHYTHM = 2


def oddities(
    blocks: Sequence[ProfileBlock], length: timedelta, now: datetime | None = None, *, judged: bool = False
) -> tuple[str, ...]:
    """Sentences about unusual windows, oldest first, without those that `volume` reports where `judged`."""
    if not blocks or not blocks[0].timed:
        return ()
    starts = np.array([block.start for block in blocks], dtype=np.int64)
    rows = np.array([block.rows for block in blocks], dtype=np.int64)
    return (
        *_clocks(blocks, starts, rows, length, now or datetime.now(UTC)),
        *(() if judged else _gaps(blocks, starts, length)),
        *_small(rows),
        *(() if judged else _volume(blocks, rows)),
    )


def _clocks(
    blocks: Sequence[ProfileBlock], starts: Codes, rows: Codes, length: timedelta, now: datetime
) -> Iterator[str]:
    ahead = starts > to_micros(now)
    if ahead.any():
        first = day(blocks[int(np.argmax(ahead))])
        yield f"{int(rows[ahead].sum()):,} rows have times to come, from {first} on: a clock is wrong"
    for place in np.flatnonzero(np.diff(starts) > _JUMP * micros(length)).tolist():
        before, after = int(rows[: place + 1].sum()), int(rows[place + 1 :].sum())
        if min(before, after) <= _FEW * (before + after):
            few, side = (before, "before") if before < after else (after, "after")
            moment = day(blocks[place + (side == "after")])
            yield f"{few:,} rows lie far {side} all others ({moment}): a clock may have been wrong"


def _gaps(blocks: Sequence[ProfileBlock], starts: Codes, length: timedelta) -> Iterator[str]:
    steps = np.diff(starts) // max(micros(length), 1)
    wide = [place for place in np.flatnonzero(steps > 1).tolist() if steps[place] <= _JUMP]
    rhythm = len(wide) > _RHYTHM and bool(np.ptp(np.diff(starts[wide])) == 0)  # weekends are no gaps
    if wide and not rhythm and len(wide) < len(starts) / 4:
        shown = ", ".join(f"after {day(blocks[place])}" for place in wide[:_SHOWN])
        missing = int(sum(steps[place] - 1 for place in wide))
        yield f"{missing:,} windows of {show_duration(length)} have no row at all ({shown})"


def _small(rows: Codes) -> Iterator[str]:
    small = int((rows < FEWEST).sum())
    if small:
        yield f"{small:,} of {len(rows):,} windows have fewer than {FEWEST} rows, and are not compared alone"


def _volume(blocks: Sequence[ProfileBlock], rows: Codes) -> Iterator[str]:
    if len(rows) < _USUAL:
        return
    usual = float(np.median(rows))
    inner = rows[:-1]  # the last one may be incomplete
    for odd, word in ((inner < _LITTLE * usual, "few"), (inner > _MUCH * usual, "many")):
        places = [place for place in np.flatnonzero(odd).tolist() if rows[place] >= FEWEST or word == "many"]
        if places:
            shown = ", ".join(f"{day(blocks[place])}: {rows[place]:,}" for place in places[:_SHOWN])
            yield f"{len(places):,} windows have unusually {word} rows, where {usual:,.0f} are usual ({shown})"


def mixed_zones(times: pl.Series) -> str | None:
    """A sentence where texts of times are with and without an offset from UTC."""
    if times.dtype != pl.String:
        return None
    texts = times.drop_nulls().str.strip_chars()
    clock = texts.filter(texts.str.contains(r"\d\d:\d\d"))
    zoned = int(clock.str.contains(r"(Z|[+-]\d\d:?\d\d)$").sum())
    if not 0 < zoned < len(clock):
        return None
    plain = f"{len(clock) - zoned:,} of {len(clock):,} times"
    return f"{plain} have no offset from UTC, as the others do: they are read as UTC"
