"""The traffic split of the present step of a release, for people: new keys of each arm beside the declared share."""

from __future__ import annotations

import math

import msgspec

from cumulant.release.state import Release

#: of a normal distribution, for 95%
_REACH = 1.959964


class TrafficSplitView(msgspec.Struct, frozen=True, kw_only=True):
    """Keys that are new in the step (requests without a key count each), and the candidate's share of them with 95%.

    The interval is of one look; the release itself tests the split at each look, and ends where it is broken.
    """

    declared: float
    champion: int
    candidate: int
    share: float
    low: float
    high: float

    @property
    def fits(self) -> bool:
        return self.low <= self.declared <= self.high


def traffic_split(release: Release) -> TrafficSplitView | None:
    """None where the present step splits nothing, nothing was counted yet, or the release is over."""
    declared = release.step.weight / 100
    if release.over or release.status == "pending" or not 0 < declared < 1:
        return None
    from cumulant.release.evidence.accumulate import is_readable, read_memory

    if not is_readable(release):
        return None
    counts = read_memory(release).split.all_new
    total = counts.champion + counts.candidate
    if not total:
        return None
    low, high = _wilson(counts.candidate, total)
    return TrafficSplitView(
        declared=declared,
        champion=round(counts.champion),
        candidate=round(counts.candidate),
        share=counts.candidate / total,
        low=low,
        high=high,
    )


def _wilson(count: float, total: float) -> tuple[float, float]:
    """Wilson's interval of a share."""
    share, square = count / total, _REACH**2
    middle = (share + square / (2 * total)) / (1 + square / total)
    reach = _REACH * math.sqrt(share * (1 - share) / total + square / (4 * total**2)) / (1 + square / total)
    return max(0.0, middle - reach), min(1.0, middle + reach)
