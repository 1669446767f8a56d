"""The simulated health of each second: failures of each arm in the last five seconds of one step."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from cumulant.core.traffic import CANDIDATE, CHAMPION
from cumulant.flows.release.simulation.random_series import Floats
from cumulant.flows.release.simulation.requests import ArrivedRequests
from cumulant.release.evidence.health import RECENT, ArmHealth, RecentHealth, count_failures
from cumulant.release.evidence.look import Requests
from cumulant.release.policy import CeilingPolicy

Seconds = npt.NDArray[np.int64]


class HealthWindow:
    """The last seconds of one step, carried from look to look."""

    def __init__(self, ceilings: CeilingPolicy) -> None:
        #: failures of the candidate below every ceiling: a second with no more of them changes nothing
        self._harmless = ceilings.errors * ceilings.requests
        self._requests, self._seconds = Requests(), np.zeros(0)

    def of(self, arrived: ArrivedRequests, seconds: float) -> Iterator[tuple[float, RecentHealth]]:
        """Each full second of a look in which the candidate failed enough to matter, with the health of that moment."""
        requests = Requests.joined([self._requests, arrived.requests])
        times = np.concatenate([self._seconds - seconds, arrived.seconds])
        ends = np.arange(1, int(seconds) + 1)
        # A request of the exact moment is counted, one that is five seconds old is not.
        failing = np.sort(times[requests.candidate & requests.failed])
        recent = np.searchsorted(failing, ends, side="right") - np.searchsorted(failing, ends - RECENT, side="right")
        critical = ends[recent > self._harmless]
        if len(critical):
            of = _of_keys if requests.key.any() else _without_keys
            yield from zip(map(float, critical), of(requests, times, critical), strict=True)
        recent_rows = times > seconds - RECENT
        self._requests, self._seconds = requests.take(recent_rows), times[recent_rows]


def _of_keys(requests: Requests, times: Floats, ends: Seconds) -> Iterator[RecentHealth]:
    """The health at each of `ends`: a key counts by its last request, so that the order of requests matters."""
    order = np.argsort(times, kind="stable")
    for end in ends:
        low, high = np.searchsorted(times, [end - RECENT, end], side="right", sorter=order)
        recent = requests.take(order[low:high])
        yield _recent_health(*(count_failures(recent, arm) for arm in (CHAMPION, CANDIDATE)))


def _without_keys(requests: Requests, times: Floats, ends: Seconds) -> Iterator[RecentHealth]:
    """The health at each of `ends` where each request counts: the requests of a second are added up once."""
    seconds = np.ceil(times).astype(np.int64) + RECENT
    rows = int(max(seconds.max(), ends[-1] + RECENT)) + 1
    kinds = 4 * seconds + 2 * requests.candidate + requests.failed
    upto = np.cumsum(np.bincount(kinds, minlength=4 * rows).reshape(rows, 4), axis=0)
    for answered, failed, theirs, their_failed in upto[ends + RECENT] - upto[ends]:
        yield _recent_health((answered + failed, failed), (theirs + their_failed, their_failed))


def _recent_health(champion: tuple[int, int], candidate: tuple[int, int]) -> RecentHealth:
    arms = [ArmHealth(requests=int(count), failures=int(failures)) for count, failures in (champion, candidate)]
    return RecentHealth(champion=arms[0], candidate=arms[1])
