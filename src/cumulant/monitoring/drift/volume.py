"""Findings of the kind `volume`: windows with far fewer or more rows than is usual, and windows without any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise

import msgspec
import numpy as np

from cumulant.core.units import micros, show_duration
from cumulant.monitoring.drift.counts import LEAST_ERRORS, LEAST_SEASONS, Deviation, WindowCounts
from cumulant.monitoring.drift.findings import DriftFinding, What
from cumulant.monitoring.drift.profiles import ProfileBlock
from cumulant.monitoring.drift.words import day
from cumulant.monitoring.policy import DriftPolicy

_WEEK = timedelta(days=7)
#: windows, or days where these are longer, between reference and rows beyond which it is not used
_NEAR = 7
#: windows, or days where these are longer, without a row beyond which a clock was wrong, or a log began anew
_JUMP = 30
#: rows beyond a break that a wrong clock may have left
_FEW_ROWS = 10
_DAY = micros(timedelta(days=1))
#: as many windows that all differ alike from the first on: the reference is a table of another size
_ALL = 7


@dataclass(frozen=True)
class _Windows:
    """Start of the first window, length, start of active findings (None: later rows exist), and places with rows."""

    origin: int
    step: int
    newest: int | None
    index: Mapping[int, int]


class Volume(msgspec.Struct, frozen=True, kw_only=True):
    """`judged`: whether row counts could be compared; `note`: why not, or why not with the reference."""

    findings: tuple[DriftFinding, ...] = ()
    judged: bool = False
    note: str | None = None


def row_counts(
    reference: Sequence[ProfileBlock],
    blocks: Sequence[ProfileBlock],
    length: timedelta,
    policy: DriftPolicy,
    *,
    looks: int,
    until: int | None = None,
    shown: Sequence[ProfileBlock] | None = None,
) -> Volume:
    """Compare the number of rows of each window with the same weekday's windows before.

    Over `looks` looks, those of a month, the rate of false alarms is `false_alarms`, beside that of the columns.

    Args:
        reference: its windows, used where the rows follow them, else the first weeks of the rows; or none.
        blocks: the windows that have rows, oldest first.
        length: of a window.
        policy: of the comparison; `volume` is the least change that matters.
        looks: among which the rate of false alarms is divided.
        until: the moment in microseconds up to which rows are known: an earlier window is whole, and a gap without
            rows. None: the last row.
        shown: the windows whose places findings give (`alarmed`); None: `blocks`.
    """
    if not blocks or not blocks[0].timed:
        return Volume()
    index = {block.start: place for place, block in enumerate(blocks if shown is None else shown)}
    whole, level, least = blocks, policy.false_alarms / looks, policy.volume
    blocks = _unbroken(whole, micros(length))
    before, note = _before(reference, blocks, micros(length)), _break(whole, blocks)
    shared = len(before) > 0 and reference[-1].start >= blocks[0].start
    deviations, judged = _deviations(before, blocks, length, level, least, shared=shared, until=until)
    if before and len(judged) >= _ALL and _all_alike(deviations, judged):
        note = "all windows have another number of rows than those of the reference: they are compared with each other"
        before = ()
        deviations, judged = _deviations(before, blocks, length, level, least, shared=False, until=until)
    if not judged:
        few = _too_few(len(before) + len(blocks), length)
        return Volume(note=few if note is None else f"{note}; {few}")
    newest = judged[-1] - 1 if _rows(whole, blocks[-1].start) < _FEW_ROWS else None
    findings = _findings(
        deviations, _Windows((*before, *blocks)[0].start, micros(length), newest, index), (least, level)
    )
    return Volume(findings=findings, judged=True, note=note)


def _unbroken(blocks: Sequence[ProfileBlock], step: int) -> Sequence[ProfileBlock]:
    """The newest part between windows that lie far apart, without a few rows of a wrong clock; else the largest."""
    starts = np.array([block.start for block in blocks])
    ends = [0, *(np.flatnonzero(np.diff(starts) > _JUMP * max(step, _DAY)) + 1).tolist(), len(blocks)]
    parts = [blocks[first:last] for first, last in pairwise(ends)]
    large = [part for part in parts if len(part) > 1 and _rows(part) >= _FEW_ROWS]
    return large[-1] if large else max(parts, key=_rows)


def _rows(blocks: Sequence[ProfileBlock], after: int | None = None) -> int:
    return sum(block.rows for block in blocks if after is None or block.start > after)


def _break(whole: Sequence[ProfileBlock], part: Sequence[ProfileBlock]) -> str | None:
    """Where the part that is evaluated begins or ends at a break."""
    earlier = [block for block in whole if block.start < part[0].start]
    later = [block for block in whole if block.start > part[-1].start]
    for last, first, side in ((earlier, part, "after"), (part, later, "before")):
        if min(_rows(last), _rows(first)) >= _FEW_ROWS:
            return f"no row is between {day(last[-1])} and {day(first[0])}: numbers of rows are evaluated {side} that"
    return None


def _before(reference: Sequence[ProfileBlock], blocks: Sequence[ProfileBlock], step: int) -> tuple[ProfileBlock, ...]:
    """The windows of the reference that the rows follow; none where it lies elsewhere. They may share a window."""
    earlier = tuple(block for block in reference if block.timed and block.start < blocks[0].start)
    near = (
        earlier
        and len(earlier) >= len(reference) - 1
        and blocks[0].start - earlier[-1].start <= (_NEAR + 1) * max(step, _DAY)
    )
    return tuple(_unbroken(earlier, step)) if near and earlier[-1] in _unbroken(earlier, step) else ()


def _deviations(
    before: Sequence[ProfileBlock],
    blocks: Sequence[ProfileBlock],
    length: timedelta,
    level: float,
    least: float,
    *,
    shared: bool,
    until: int | None,
) -> tuple[list[Deviation], list[int]]:
    """Deviations and compared places; the first and last windows may be cut off. `shared`: a window of both tables."""
    step = micros(length)
    every = (*before, *blocks)
    places = [(block.start - every[0].start) // step for block in every]
    ended = 0 if until is None else (until - every[0].start) // step
    most = places[-1] + 1 + _JUMP * max(step, _DAY) // step
    rows = np.zeros(max(places[-1] + 1, min(ended, most)), dtype=np.int64)
    rows[places] = [block.rows for block in every]
    partial = {0} if ended >= len(rows) else {0, len(rows) - 1}
    if before:  # windows between the tables were not evaluated
        partial |= {*range(places[len(before) - 1], places[len(before)] + shared)}
    counts = WindowCounts(rows, _season(length), frozenset(partial))
    return counts.deviations(places[len(before)], least=least, level=level)


def _season(length: timedelta) -> int:
    """How many windows a week has; 1 where they do not make one up."""
    return 1 if _WEEK % length else _WEEK // length


def _all_alike(deviations: Sequence[Deviation], judged: Sequence[int]) -> bool:
    fewer = sum(deviation.rows < deviation.expected for deviation in deviations)
    return len(deviations) >= len(judged) - 1 and fewer in (0, len(deviations))


def _too_few(windows: int, length: timedelta) -> str:
    needed = LEAST_SEASONS * _season(length) + LEAST_ERRORS + 2
    if windows < needed:
        why = (
            f"{windows:,} windows of {show_duration(length)} are too few to say what is usual, and about {needed:,} are"
        )
    else:  # windows without rows, truncated ones and those before a lasting change do not define what is usual
        why = (
            f"of {windows:,} windows of {show_duration(length)} too few can say what is usual: about {needed:,} in a "
            "row, with rows in each and without a lasting change, are"
        )
    return f"numbers of rows are not evaluated: {why} needed"


def _findings(
    deviations: Sequence[Deviation], windows: _Windows, needed: tuple[float, float]
) -> tuple[DriftFinding, ...]:
    """One finding each of too few rows, too many, and none."""
    named: dict[What, list[Deviation]] = {}
    for deviation in deviations:
        what: What = "gap" if not deviation.rows else "few" if deviation.rows < deviation.expected else "many"
        named.setdefault(what, []).append(deviation)
    return tuple(_finding(what, own, windows, needed) for what, own in named.items())


def _finding(what: What, own: Sequence[Deviation], windows: _Windows, needed: tuple[float, float]) -> DriftFinding:
    """The figures are those of the last of these windows."""
    last = own[-1]
    starts = [windows.origin + deviation.place * windows.step for deviation in own]
    return DriftFinding(
        feature="rows",
        role="feature",
        kind="volume",
        what=what,
        effect=last.effect,
        low=None,
        high=None,
        least=needed[0],
        p=last.p,
        needed=needed[1] / 2,
        before=last.expected,
        now=float(last.rows),
        since=ProfileBlock(starts[0], own[0].rows, timed=True),
        until=ProfileBlock(starts[-1], last.rows, timed=True),
        windows=len(own),
        span=1,
        weight=1.0,
        design=1.0,
        active=windows.newest is not None and last.place >= windows.newest,
        alarmed=tuple(windows.index[start] for start in starts if start in windows.index),
    )
