"""The pulse of each second: what each arm failed in the last five seconds, within one step."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cumulant.core.traffic import CANDIDATE, CHAMPION
from cumulant.core.units import share
from cumulant.release.look import Requests
from cumulant.release.pulse import RECENT, ArmPulse, Pulse, requests_and_failures
from cumulant.release.spec import CeilingSpec
from cumulant.runtime.release.simulation.requests import Arrived


class Pulses:
    """The last seconds of one step, carried from look to look."""

    def __init__(self, ceilings: CeilingSpec) -> None:
        #: failures of the candidate that no ceiling can mind: a pulse with no more of them changes nothing
        self._harmless = share(ceilings.errors) * ceilings.requests
        self._requests, self._seconds = Requests(), np.zeros(0)

    def of(self, arrived: Arrived, seconds: float) -> Iterator[tuple[float, Pulse]]:
        """Each full second of a look with its pulse, in order, where the candidate failed enough to matter."""
        requests = Requests.joined([self._requests, arrived.requests])
        times = np.concatenate([self._seconds - seconds, arrived.seconds])
        ends = np.arange(1.0, int(seconds) + 1)
        # A request of the exact moment of the pulse is in it, one that is five seconds old is not.
        failing = np.sort(times[requests.candidate & requests.failed])
        recent = np.searchsorted(failing, ends, side="right") - np.searchsorted(failing, ends - RECENT, side="right")
        order = np.argsort(times, kind="stable")
        for end in ends[recent > self._harmless]:
            low, high = np.searchsorted(times, [end - RECENT, end], side="right", sorter=order)
            yield float(end), pulse_of(requests.take(order[low:high]))
        kept = times > seconds - RECENT
        self._requests, self._seconds = requests.take(kept), times[kept]


def pulse_of(requests: Requests) -> Pulse:
    """The pulse of requests in order of time."""
    champion, candidate = (
        ArmPulse(requests=count, failures=failures)
        for count, failures in (requests_and_failures(requests, arm) for arm in (CHAMPION, CANDIDATE))
    )
    return Pulse(champion=champion, candidate=candidate)
