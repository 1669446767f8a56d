"""Findings of the kind `volume`: windows with far fewer or more rows than is usual, and windows without any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise

import msgspec
import numpy as np

from cumulant.core.units import micros, share, show_duration
from cumulant.monitoring.drift.counts import LEAST_ERRORS, LEAST_SEASONS, Counts, Deviation
from cumulant.monitoring.drift.findings import Finding, What
from cumulant.monitoring.drift.profiles import Block
from cumulant.monitoring.spec import DriftSpec

_WEEK = timedelta(days=7)
#: windows, or days where these are longer, between the reference and the rows beyond which it says nothing of them
_NEAR = 7
#: windows, or days where these are longer, without a row beyond which a clock was wrong, or a log began anew
_JUMP = 30
_DAY = micros(timedelta(days=1))
#: as many windows that all differ alike from the first on: the reference is a table of another size
_ALL = 7


@dataclass(frozen=True)
class _Windows:
    """Where the first window begins, how long each is, which was judged last, and the place of each that has rows."""

    origin: int
    step: int
    newest: int
    index: Mapping[int, int]


class Volume(msgspec.Struct, frozen=True, kw_only=True):
    """`judged`: whether numbers of rows could be compared; `note`: why not, or why not with the reference."""

    findings: tuple[Finding, ...] = ()
    judged: bool = False
    note: str | None = None


def row_counts(
    reference: Sequence[Block], blocks: Sequence[Block], length: timedelta, spec: DriftSpec, *, looks: int
) -> Volume:
    """Compare the number of rows of each window with the same weekday's windows before.

    Over `looks` looks, those of a month, chance alarms at most at the rate `false_alarms`, beside that of the columns.

    Args:
        reference: its windows, or none where their number of rows is no measure. They are used where the rows follow
            them; else the first weeks of the rows say what is usual.
        blocks: the windows that have rows, oldest first.
        length: of a window.
        spec: of the comparison; `volume` is the least change that matters.
        looks: among which the rate of false alarms is shared out.
    """
    if not blocks or not blocks[0].timed:
        return Volume()
    index = {block.start: place for place, block in enumerate(blocks)}
    blocks, level, least = _unbroken(blocks, micros(length)), share(spec.false_alarms) / looks, share(spec.volume)
    before, note = _before(reference, blocks, micros(length)), None
    shared = len(before) > 0 and reference[-1].start >= blocks[0].start
    found, judged = _deviations(before, blocks, length, level, least, shared=shared)
    if before and len(judged) >= _ALL and _all_alike(found, judged):
        note = "all windows have another number of rows than those of the reference: they are compared with each other"
        before = ()
        found, judged = _deviations(before, blocks, length, level, least, shared=False)
    if not judged:
        return Volume(note=note or _too_few(len(before) + len(blocks), length))
    told = _findings(found, _Windows((*before, *blocks)[0].start, micros(length), judged[-1], index), (least, level))
    return Volume(findings=told, judged=True, note=note)


def _unbroken(blocks: Sequence[Block], step: int) -> Sequence[Block]:
    """The part with the most rows between windows that lie far apart."""
    starts = np.array([block.start for block in blocks])
    ends = [0, *(np.flatnonzero(np.diff(starts) > _JUMP * max(step, _DAY)) + 1).tolist(), len(blocks)]
    parts = [blocks[first:last] for first, last in pairwise(ends)]
    return max(parts, key=lambda part: sum(block.rows for block in part))


def _before(reference: Sequence[Block], blocks: Sequence[Block], step: int) -> tuple[Block, ...]:
    """The windows of the reference that the rows follow; none where it lies elsewhere. They may share a window."""
    held = tuple(one for one in reference if one.timed and one.start < blocks[0].start)
    near = (
        held and len(held) >= len(reference) - 1 and blocks[0].start - held[-1].start <= (_NEAR + 1) * max(step, _DAY)
    )
    return tuple(_unbroken(held, step)) if near and held[-1] in _unbroken(held, step) else ()


def _deviations(
    before: Sequence[Block], blocks: Sequence[Block], length: timedelta, level: float, least: float, *, shared: bool
) -> tuple[list[Deviation], list[int]]:
    """The first and last windows of either table may be cut off, but for a first one that follows the reference's last.

    shared: the reference ends within the first window of the rows.
    """
    step = micros(length)
    every = (*before, *blocks)
    places = [(block.start - every[0].start) // step for block in every]
    rows = np.zeros(places[-1] + 1, dtype=np.int64)
    rows[places] = [block.rows for block in every]
    partial = {0, len(rows) - 1}
    if before:  # what lies between the tables was not looked at
        partial |= {*range(places[len(before) - 1], places[len(before)] + shared)}
    counts = Counts(rows, _season(length), frozenset(partial))
    return counts.deviations(places[len(before)], least=least, level=level)


def _season(length: timedelta) -> int:
    """How many windows a week has; 1 where they do not make one up."""
    return 1 if _WEEK % length else _WEEK // length


def _all_alike(found: Sequence[Deviation], judged: Sequence[int]) -> bool:
    fewer = sum(one.rows < one.expected for one in found)
    return len(found) >= len(judged) - 1 and fewer in (0, len(found))


def _too_few(windows: int, length: timedelta) -> str:
    return (
        f"numbers of rows are not judged: {windows:,} windows of {show_duration(length)} are too few to say what is "
        f"usual, and about {LEAST_SEASONS * _season(length) + LEAST_ERRORS + 2:,} are needed"
    )


def _findings(found: Sequence[Deviation], windows: _Windows, needed: tuple[float, float]) -> tuple[Finding, ...]:
    """One finding each of too few rows, too many, and none."""
    named: dict[What, list[Deviation]] = {}
    for one in found:
        what: What = "gap" if not one.rows else "few" if one.rows < one.expected else "many"
        named.setdefault(what, []).append(one)
    return tuple(_finding(what, own, windows, needed) for what, own in named.items())


def _finding(what: What, own: Sequence[Deviation], windows: _Windows, needed: tuple[float, float]) -> Finding:
    """The figures are those of the last of these windows."""
    last = own[-1]
    starts = [windows.origin + one.place * windows.step for one in own]
    return Finding(
        feature="rows", role="feature", kind="volume", what=what, effect=last.effect, low=None, high=None,
        least=needed[0], p=last.p, needed=needed[1] / 2, before=last.expected, now=float(last.rows),
        since=Block(starts[0], own[0].rows, timed=True), until=Block(starts[-1], last.rows, timed=True),
        windows=len(own), active=last.place >= windows.newest - 1, span=1, weight=1.0, design=1.0,
        alarmed=tuple(windows.index[start] for start in starts if start in windows.index),
    )  # fmt: skip
