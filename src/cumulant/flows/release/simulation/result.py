"""Results of simulated releases of one world: shares with exact intervals, times, reasons."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec
import numpy as np
from scipy import stats

End = Literal["promoted", "rolled_back", "inconclusive", "broken_split"]
ENDS: tuple[End, ...] = ("promoted", "rolled_back", "inconclusive", "broken_split")
#: of every interval
LEVEL = 0.95
_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")


class SimulatedRelease(msgspec.Struct, frozen=True, kw_only=True):
    """One simulated release: how it ended, after how many seconds, in which step, and the release's own reason."""

    end: End
    seconds: float
    stage: str
    reason: str
    requests: int


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """A count of releases, its share, and the exact (Clopper-Pearson) interval of the share."""

    count: int
    share: float
    low: float
    high: float


class Seconds(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds until releases ended; None where none did."""

    median: float | None
    p90: float | None


class SimulationResult(msgspec.Struct, frozen=True, kw_only=True):
    """All releases of one world.

    `seconds_by_end`, `by_reason` and `by_stage` are by how a release ended; reasons are its own sentences, without
    numbers. `wrong`: ends that the world's `expect` calls wrong; None where it calls none so.
    """

    world: str
    expect: str
    seed: int
    releases: int
    promoted: Share
    rolled_back: Share
    inconclusive: Share
    broken_split: Share
    wrong: Share | None
    level: float
    seconds: Seconds
    seconds_by_end: dict[str, Seconds]
    by_reason: dict[str, dict[str, int]]
    by_stage: dict[str, dict[str, int]]
    requests: int


def summarize_releases(ended: Sequence[SimulatedRelease], *, world: str, expect: str, seed: int) -> SimulationResult:
    shares = {end: share_of(sum(release.end == end for release in ended), len(ended)) for end in ENDS}
    wrong = {"sound": shares["rolled_back"], "broken": shares["promoted"]}.get(expect)
    return SimulationResult(
        world=world,
        expect=expect,
        seed=seed,
        releases=len(ended),
        promoted=shares["promoted"],
        rolled_back=shares["rolled_back"],
        inconclusive=shares["inconclusive"],
        broken_split=shares["broken_split"],
        wrong=wrong,
        level=LEVEL,
        seconds=_seconds(release.seconds for release in ended),
        seconds_by_end={end: _seconds(release.seconds for release in ended if release.end == end) for end in ENDS},
        by_reason={
            end: _counts(without_numbers(release.reason) for release in ended if release.end == end) for end in ENDS
        },
        by_stage={end: _counts(release.stage for release in ended if release.end == end) for end in ENDS},
        requests=sum(release.requests for release in ended),
    )


def share_of(count: int, whole: int, *, level: float = LEVEL) -> Share:
    """The share of `count` in `whole` with its two-sided Clopper-Pearson interval."""
    tail = (1 - level) / 2
    low = float(stats.beta.ppf(tail, count, whole - count + 1)) if count else 0.0
    high = float(stats.beta.ppf(1 - tail, count + 1, whole - count)) if count < whole else 1.0
    return Share(count=count, share=count / whole if whole else 0.0, low=low, high=high)


def without_numbers(reason: str) -> str:
    """The kind of reason: its sentence up to its first figures' explanation, with `N` for numbers."""
    head = reason.split(":", 1)[0].split(" (", 1)[0]
    return _NUMBER.sub("N", head)


def _counts(words: Iterable[str]) -> dict[str, int]:
    return dict(Counter(words).most_common())


def _seconds(values: Iterable[float]) -> Seconds:
    ordered = sorted(values)
    if not ordered:
        return Seconds(median=None, p90=None)
    return Seconds(median=float(np.median(ordered)), p90=float(np.quantile(ordered, 0.9, method="higher")))
