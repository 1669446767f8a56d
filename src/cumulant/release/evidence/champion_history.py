"""The champion's own history: how long its failures depend on each other, and its worst moments.

It is read before the candidate answers a caller: choosing blocks from the data that are tested breaks the guarantee.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from cumulant.release.evidence.look import COUNTED, Requests
from cumulant.statistics.sequential.arrays import Floats
from cumulant.statistics.sequential.long_run_variance import LongRunVariance

#: looks of the champion without which nothing is known of how its failures depend on each other
FEWEST_LOOKS = 12
#: requests of a look below which its share of failures is no worst moment
_FEWEST_REQUESTS = 20
#: standard errors of chance by which failures must vary from look to look to be called bursts
_ERRORS = 2.0


@dataclass(frozen=True, eq=False, kw_only=True)
class ChampionHistory:
    """The champion's requests before a release, in consecutive looks of one length.

    Attributes:
        requests: [looks] answered by the champion; looks without any are left out.
        bad: [looks, 3] failures, time-outs and requests slower than `slow_us`, in the order of `look.COUNTED`.
        slow_us: microseconds above which a request counted as slow: the champion's quantile in the history itself.
    """

    requests: Floats
    bad: Floats
    slow_us: float | None

    def __post_init__(self) -> None:
        if self.bad.shape != (len(self.requests), len(COUNTED)):
            raise ValueError(f"a history of {len(self.requests)} looks has counts of shape {self.bad.shape}")

    def __len__(self) -> int:
        return len(self.requests)

    @classmethod
    def of(cls, look: npt.NDArray[np.int64], requests: Requests, slow_us: float | None) -> ChampionHistory:
        """The looks of requests [n] of the champion, in order; `look` [n] is the look of each."""
        slow = requests.micros > (math.inf if slow_us is None else slow_us)
        _, place = np.unique(look, return_inverse=True)
        counts = np.zeros((int(place.max(initial=-1)) + 1, 1 + len(COUNTED)))
        np.add.at(counts, place, np.stack([np.ones(len(place)), requests.failed, requests.timed_out, slow], axis=1))
        return cls(requests=counts[:, 0], bad=counts[:, 1:], slow_us=slow_us)


def no_history() -> ChampionHistory:
    return ChampionHistory(requests=np.zeros(0), bad=np.zeros((0, len(COUNTED))), slow_us=None)


class ChampionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of the champion's looks, from its log, from shadow and from earlier steps: small sums only."""

    #: looks that had requests, all requests in them, and bad ones by metric
    looks: int = 0
    requests: float = 0.0
    bad: dict[str, float] = {}
    #: greatest share of failures in one look
    worst: float = 0.0
    #: by metric, the state of `LongRunVariance` of its rate a look
    dependence: dict[str, dict[str, object]] = {}

    def with_looks(self, requests: Floats, bad: Floats) -> ChampionRecord:
        """With more looks: `requests` [looks], `bad` [looks, 3] in the order of `look.COUNTED`."""
        some = requests > 0
        requests, bad = requests[some], bad[some]
        if not len(requests):
            return self
        rates = bad / requests[:, None]
        many = requests >= _FEWEST_REQUESTS
        sums = bad.sum(0)
        return ChampionRecord(
            looks=self.looks + len(requests),
            requests=self.requests + float(requests.sum()),
            bad={name: self.bad.get(name, 0.0) + float(sums[place]) for place, name in enumerate(COUNTED)},
            worst=max(self.worst, float(rates[many, 0].max(initial=0.0))),
            dependence={
                name: self._dependence(name).add(rates[:, place]).to_json() for place, name in enumerate(COUNTED)
            },
        )

    def rate(self, metric: str) -> float:
        """Bad events a request; 0 before any request."""
        return self.bad.get(metric, 0.0) / self.requests if self.requests else 0.0

    def burst_shape(self, metric: str) -> float:
        """Shape of the gamma bursts (mean 1) that vary its rate from look to look; infinity: no more than chance does.

        By moments: the variance of the rate beyond that of independent failures is the squared rate over the shape.
        """
        rate, variance = self.rate(metric), self._dependence(metric).variance()
        if self.looks < FEWEST_LOOKS or not rate:
            return math.inf
        expected = rate * self.requests / self.looks
        chance = rate**2 / expected
        beyond = variance - chance * (1 + _ERRORS * math.sqrt((2 + 1 / expected) / self.looks))
        return rate**2 / beyond if beyond > 0 else math.inf

    def block(self, metric: str, *, least: int, most: int) -> tuple[int, float]:
        """Looks in a block of the metric, `least` to `most`, and the design effect that remains between such blocks."""
        return self._dependence(metric).block(least=least, most=most)

    def visible_looks(self) -> int:
        """The longest block, in looks, whose dependence this history can show."""
        return self._dependence(COUNTED[0]).visible()

    def _dependence(self, name: str) -> LongRunVariance:
        return LongRunVariance.from_json(self.dependence.get(name, {}))
