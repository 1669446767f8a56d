"""Distribution change between two profiles, as effect sizes. The full drift engine belongs to monitoring."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Sequence

from cumulant.data.profile import ColumnProfile, Profile
from cumulant.data.snapshot import Shift

#: the least Jensen-Shannon distance of a column that is reported as shifted; chance shifts one by less
MOVED = 0.1
_BINS = 10
_FLOOR = 1e-4


def measure_shifts(previous: Profile, profile: Profile) -> tuple[Shift, ...]:
    """How far each column moved, largest first. Times move by nature and personal columns are not compared."""
    measured = []
    for now in profile.columns:
        if now.name not in previous or now.personal or now.dtype in ("time", "date", "bytes"):
            continue
        before = previous[now.name]
        bins = _shares(before, now)
        if bins is None or before.dtype != now.dtype:
            continue
        measured.append(
            Shift(
                column=now.name,
                distance=_jensen_shannon(*bins),
                psi=_stability(*bins),
                nulls_before=before.null_share,
                nulls=now.null_share,
            )
        )
    return tuple(sorted(measured, key=lambda shift: (-shift.distance, shift.column)))


def notable_shifts(measured: Sequence[Shift]) -> tuple[Shift, ...]:
    """The shifts that are reported: distance, or share of nulls, changed by at least `MOVED`."""
    return tuple(shift for shift in measured if max(shift.distance, abs(shift.nulls - shift.nulls_before)) >= MOVED)


def distance(before: ColumnProfile, now: ColumnProfile) -> float | None:
    """Jensen-Shannon distance (base 2) of two columns' values, from 0 to 1; None where nothing can be compared."""
    bins = _shares(before, now)
    return None if bins is None else _jensen_shannon(*bins)


def _shares(before: ColumnProfile, now: ColumnProfile) -> tuple[list[float], list[float]] | None:
    """Shares of rows in the same bins: values, the rest, and nulls."""
    if not before.rows or not now.rows:
        return None
    if before.top and now.top:
        earlier, current = _categories(before, now)
    elif before.quantiles and now.quantiles:
        earlier, current = _intervals(before.quantiles, now.quantiles)
    elif before.nulls == before.rows or now.nulls == now.rows:
        earlier, current = [float(before.nulls < before.rows)], [float(now.nulls < now.rows)]
    else:
        return None
    return (
        [share * (1 - before.null_share) for share in earlier] + [before.null_share],
        [share * (1 - now.null_share) for share in current] + [now.null_share],
    )


def _categories(before: ColumnProfile, now: ColumnProfile) -> tuple[list[float], list[float]]:
    shares = []
    for column in (before, now):
        filled = max(column.rows - column.nulls, 1)
        shares.append({item.value: item.count / filled for item in column.top})
    values = sorted(shares[0].keys() | shares[1].keys())
    listed = [[share.get(value, 0.0) for value in values] for share in shares]
    earlier, current = ([*share, max(1 - sum(share), 0.0)] for share in listed)
    return earlier, current


def _intervals(before: Sequence[float], now: Sequence[float]) -> tuple[list[float], list[float]]:
    """Shares between the deciles of `before`; equal deciles of a lumpy column fall together."""
    cells = len(before) - 1
    edges = sorted({before[round(cells * step / _BINS)] for step in range(1, _BINS)})
    earlier, current = ([_below(points, edge) for edge in edges] for points in (before, now))
    return _steps(earlier), _steps(current)


def _below(points: Sequence[float], edge: float) -> float:
    """The share of values up to `edge`, by linear interpolation between quantiles."""
    place = bisect.bisect_right(points, edge)
    cells = len(points) - 1
    if place == 0:
        return 0.0
    if place > cells:
        return 1.0
    low, high = points[place - 1] / 2, points[place] / 2  # halves, whose difference is finite
    part = (edge / 2 - low) / (high - low) if high > low else 0.0  # halves of the least numbers are equal
    return (place - 1 + part) / cells


def _steps(cumulative: Sequence[float]) -> list[float]:
    ends = [0.0, *cumulative, 1.0]
    return [max(high - low, 0.0) for low, high in itertools.pairwise(ends)]


def _jensen_shannon(before: Sequence[float], after: Sequence[float]) -> float:
    """Lin (1991): the square root of the mean divergence from the middle, base 2."""
    total = 0.0
    for p, q in zip(before, after, strict=True):
        middle = (p + q) / 2
        total += (p * math.log2(p / middle) if p else 0.0) + (q * math.log2(q / middle) if q else 0.0)
    return math.sqrt(max(total / 2, 0.0))


def _stability(before: Sequence[float], after: Sequence[float]) -> float:
    """The population stability index, with empty bins at a small floor."""
    pairs = [(max(p, _FLOOR), max(q, _FLOOR)) for p, q in zip(before, after, strict=True)]
    return sum((q - p) * math.log(q / p) for p, q in pairs)
