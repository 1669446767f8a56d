"""The looks of a release as they were counted: what each metric's evidence was, for charts and audits.

They are recorded in the transaction that stores the decision of the same look (`evidence.look_recording`), and never
computed again.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from cumulant.release.policy import Kind


class MetricLook(msgspec.Struct, frozen=True, kw_only=True):
    """One metric at one look. `harm` and `fine` are logarithms of e-values, as in `Board`.

    `seconds`: active seconds since the release began; `low` and `high`: the interval of the difference, and
    `difference` the measured one, of what the metric's test compares (`MetricHistory.boundary`); `harmful` and
    `acceptable`: the verdicts that the decision of the look read.
    """

    at: datetime
    seconds: float
    step: int
    #: requests or pairs of each arm that counted
    champion_samples: int
    candidate_samples: int
    champion: float | None
    candidate: float | None
    difference: float | None = None
    low: float | None
    high: float | None
    harm: float
    fine: float
    harmful: bool
    acceptable: bool


class MetricHistory(msgspec.Struct, frozen=True, kw_only=True):
    """The looks of one metric that decides, the oldest first, with its bars and its margin (`Board`).

    `two_sided`: a change in either direction beyond the margin is one for the worse. `kind`: of its test; None: it was
    not recorded.
    """

    metric: str
    unit: str
    margin: float
    required: bool
    harm_bar: float | None
    fine_bar: float
    two_sided: bool = False
    kind: Kind | None = None
    looks: tuple[MetricLook, ...] = ()

    @property
    def pooled(self) -> bool:
        """Whether evidence goes on over the steps; else each step begins afresh."""
        return self.kind in ("pairs", "own")

    @property
    def slow_share(self) -> bool:
        """Whether differences are those of shares of slow requests: latency is tested by them, not by times."""
        return self.unit == "ms"

    @property
    def boundary(self) -> float:
        """The difference from which up none is accepted; proven harm of an own metric begins above 0, and only one
        beyond the margin rolls back. The margin of latency is in what counts as slow.
        """
        return 0.0 if self.slow_share else self.margin

    def difference(self, look: MetricLook) -> float | None:
        """The measured difference of a look; of one that was recorded before differences were, that of its values."""
        if look.difference is not None or self.slow_share or look.champion is None or look.candidate is None:
            return look.difference
        return look.candidate - look.champion


class LookHistory(msgspec.Struct, frozen=True, kw_only=True):
    """The looks of a release; `steps`: the names of its steps, which looks have by number."""

    release: str
    steps: tuple[str, ...]
    alpha: float
    metrics: dict[str, MetricHistory] = {}
