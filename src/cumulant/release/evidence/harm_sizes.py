"""How large a harm is, beside what is accepted of it: a difference of rates over the steps of a release."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from cumulant.release.evidence.metrics import ReleaseMetric

#: a worsening within the margin matters all the same where the rate is this many times the champion's
TIMES = 2.0
#: standard errors by which a proven worsening must exceed what is accepted: so many where `_FEW` bad events are
#: accepted, more with the logarithm of their number, as a size of many looks exceeds any number,
#: and more where they are fewer, since such counts are skewed; and so many more where only the newest steps count
BEYOND_ERRORS, _MORE_ERRORS, _FEWER_ERRORS, _FEW = 1.4, 0.4, 1.0, 12.0
_LATE_ERRORS = 1.2


class HarmSize(msgspec.Struct, frozen=True, kw_only=True):
    """A difference of rates, what is accepted of it, its standard error there, and bad events expected there."""

    difference: float
    accepted: float
    error: float
    events: float

    def surely_beyond(self, *, late: bool = False) -> bool:
        """Whether the difference exceeds what is accepted by more than chance, at any of many looks.

        `late`: of the newest steps alone; each step then is one more chance.
        """
        many = math.log(max(self.events, 1.0) / _FEW)
        errors = BEYOND_ERRORS + max(_MORE_ERRORS * many, -_FEWER_ERRORS * many) + late * _LATE_ERRORS
        return self.difference - self.accepted > errors * self.error


def size_of(
    counts: Sequence[tuple[float, float, float, float]], metric: ReleaseMetric, *, usual: float, weighed: float
) -> HarmSize:
    """The difference of rates over steps. A step in which the champion has not failed yet has its `usual` rate.

    Steps are strata, since weights and levels differ between them (Mantel and Haenszel's risk difference, Greenland
    and Robins 1985, doi:10.2307/2530643).
    """
    units, bad = sum(count[0] for count in counts), sum(count[1] for count in counts)
    common = max(bad / units if units else 0.0, usual)
    # the margin of latency is in its bound already
    accepted = 0.0 if metric.kind == "latency" else min(metric.margin or 0.0, max((TIMES - 1) * common, 1e-12))
    difference = weight = variance = 0.0
    for n, x, m, y in counts:
        if n and m:
            w = n * m / (n + m)
            difference += w * (y / m - x / n)
            weight += w
            variance += w**2 * ((common + accepted) / m + max(common, 1 / max(units, 1.0)) / n)
    events = (common + accepted) * sum(count[2] for count in counts) * weighed
    if not weight or not weighed:
        return HarmSize(difference=0.0, accepted=accepted, error=math.inf, events=events)
    error = math.sqrt(variance / weighed) / weight
    return HarmSize(difference=difference / weight, accepted=accepted, error=error, events=events)
