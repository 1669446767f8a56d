"""Service level objectives: what share of requests must be good, and how fast the budget of others is used.

A burn rate is the share of bad requests over the share that the objective allows: at 1 the budget lasts exactly the
objective's window. An alert needs a fast burn in a long window and in a short one, which ends it soon after its cause.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal

import msgspec

from cumulant.core.units import from_micros, show_duration
from cumulant.monitoring.request_counts import RequestCounts, RequestMinutes

Severity = Literal["page", "ticket"]
SliName = Literal["availability", "latency"]
#: 1 - 0.999 is 0.0010000000000000009
_DIGITS = 6


class Objective(msgspec.Struct, frozen=True, kw_only=True):
    """At least the share `target` of the requests of a window must be good.

    availability: not answered with a server error. latency: answered within `within`, of those that were answered.
    `fewest`: requests in the long window of a burn rate, below which it raises no alert.
    """

    sli: SliName
    target: float
    window: timedelta
    fewest: int
    within: timedelta | None = None

    @property
    def budget(self) -> float:
        """The share of requests that may be bad."""
        return 1 - self.target


class BurnRate(msgspec.Struct, frozen=True, kw_only=True):
    """Using `share` of the budget within `long` raises an alert, while `short` burns as fast."""

    long: timedelta
    short: timedelta
    share: float
    severity: Severity

    def factor(self, window: timedelta) -> float:
        """The burn rate at which that is so, of a budget for `window`; of 30 days: 14.4, 6, 3 and 1."""
        return self.share * (window / self.long)


#: where the project declares none: only its page counts, as nobody agreed on a budget
UNDECLARED = Objective(sli="availability", target=0.99, window=timedelta(days=30), fewest=100)
#: by objective, what many bad requests are likely to mean
CAUSES: Mapping[SliName, str] = {"availability": "errors", "latency": "latency"}

#: what is said of an episode's end
RECENT = timedelta(minutes=5)
#: bad requests that the newest would have if the episode went on: none of so many is no chance, of Poisson 1 in 148
_EXPECTED = 5

BURN_RATES = (
    BurnRate(long=timedelta(hours=1), short=timedelta(minutes=5), share=0.02, severity="page"),
    BurnRate(long=timedelta(hours=6), short=timedelta(minutes=30), share=0.05, severity="page"),
    BurnRate(long=timedelta(days=1), short=timedelta(hours=2), share=0.1, severity="ticket"),
    BurnRate(long=timedelta(days=3), short=timedelta(hours=6), share=0.1, severity="ticket"),
)


class Episode(msgspec.Struct, frozen=True, kw_only=True):
    """Bad requests that come faster than what fires allows: since the minute of `begun`, in which `requests` came;
    the newest bad one in the minute of `last`.

    `unanswered`: requests that no server answered, so that the gateway did. `recent`: of `RECENT`. `subsided`: of those
    too few are bad to be of the episode, whose alert lasts until its windows are over.
    """

    begun: datetime
    last: datetime
    requests: int
    bad: int
    unanswered: int
    recent: int
    recent_bad: int
    subsided: bool


class BurnState(msgspec.Struct, frozen=True, kw_only=True):
    """A burn rate in force: in both windows (None: no requests), the rate at which it alerts, and whether it does."""

    severity: Severity
    long: str
    short: str
    long_rate: float | None
    short_rate: float | None
    limit: float
    requests: int
    firing: bool


class ObjectiveState(msgspec.Struct, frozen=True, kw_only=True):
    """An objective at one moment. `ratio`: the share of good requests; None: there were none.

    `budget_left`: the share of the budget that is left; below 0 the objective is missed. `spent`: nothing of it is
    left, by at least `fewest` requests and more than one bad one. `since`: the first counted request, where the log
    does not reach back for the whole window.
    """

    sli: SliName
    target: float
    window: str
    within: str | None
    requests: int
    bad: int
    ratio: float | None
    budget_left: float | None
    spent: bool
    since: datetime | None
    burn: tuple[BurnState, ...]
    episode: Episode | None = None

    @property
    def firing(self) -> Severity | None:
        """The most urgent alert that fires."""
        severities = {state.severity for state in self.burn if state.firing}
        return "page" if "page" in severities else "ticket" if severities else None

    @property
    def fastest(self) -> BurnState | None:
        """Of the burn rates that alert the fastest; None: none does."""
        return _fastest(self.burn)


def show_burn_rate(rate: float) -> str:
    """`14.4`, and `1,000` where nothing is answered."""
    return f"{float(f'{rate:.3g}'):,g}"


def objective_state(
    objective: Objective, minutes: RequestMinutes, now: datetime, *, since: datetime | None
) -> ObjectiveState:
    """The state by the counts of the past window."""
    requests, bad = count_events(objective.sli, minutes.within(objective.window, now))
    share = bad / requests if requests else None
    burn = tuple(_burn_state(objective, rate, minutes, now) for rate in BURN_RATES)
    return ObjectiveState(
        sli=objective.sli,
        target=objective.target,
        window=show_duration(objective.window),
        within=None if objective.within is None else show_duration(objective.within),
        requests=requests,
        bad=bad,
        ratio=None if share is None else 1 - share,
        budget_left=None if share is None else 1 - share / objective.budget,
        spent=_is_spent(objective, requests, bad),
        since=since,
        burn=burn,
        episode=_episode(objective, _fastest(burn), minutes, now),
    )


def _fastest(burn: Sequence[BurnState]) -> BurnState | None:
    return max((state for state in burn if state.firing), key=lambda state: state.long_rate or 0.0, default=None)


def _episode(objective: Objective, firing: BurnState | None, minutes: RequestMinutes, now: datetime) -> Episode | None:
    """By the cumulative sum of bad requests above the share that alerts: the change began where the sum of all minutes
    from there to now is greatest (Page 1954).
    """
    if firing is None:
        return None
    allowed = firing.limit * objective.budget
    recent, recent_bad = count_events(objective.sli, minutes.within(RECENT, now))
    excess, greatest, counted = 0.0, 0.0, RequestCounts()
    episode: Episode | None = None
    last: datetime | None = None
    for minute, counts in minutes.latest(BURN_RATES[-1].long, now):
        requests, bad = count_events(objective.sli, counts)
        counted.add(counts)
        excess += bad - allowed * requests
        last = last or (from_micros(minute * 60_000_000) if bad else None)
        if excess > greatest:
            greatest = excess
            requests, bad = count_events(objective.sli, counted)
            begun = from_micros(minute * 60_000_000)
            episode = Episode(
                begun=begun,
                last=last or begun,
                requests=requests,
                bad=bad,
                unanswered=counted.requests - counted.answered,
                recent=recent,
                recent_bad=recent_bad,
                subsided=recent_bad <= allowed * recent and recent * bad / requests >= _EXPECTED,
            )
    return episode


def _is_spent(objective: Objective, requests: int, bad: int) -> bool:
    allowed = round(requests * objective.budget, _DIGITS)
    # A first bad request spends no budget that is less than a request.
    return requests >= objective.fewest and bad >= allowed and (allowed >= 1 or bad > 1)


def _burn_state(objective: Objective, rate: BurnRate, minutes: RequestMinutes, now: datetime) -> BurnState:
    requests, bad = count_events(objective.sli, minutes.within(rate.long, now))
    latest, latest_bad = count_events(objective.sli, minutes.within(rate.short, now))
    long_rate = bad / requests / objective.budget if requests else None
    short_rate = latest_bad / latest / objective.budget if latest else None
    limit = rate.factor(objective.window)
    burning = long_rate is not None and short_rate is not None and min(long_rate, short_rate) > limit
    return BurnState(
        severity=rate.severity,
        long=show_duration(rate.long),
        short=show_duration(rate.short),
        long_rate=long_rate,
        short_rate=short_rate,
        limit=limit,
        requests=requests,
        firing=burning and requests >= objective.fewest,
    )


def count_events(sli: SliName, counts: RequestCounts) -> tuple[int, int]:
    """The requests that an objective is about, and the bad ones."""
    if sli == "latency":
        return counts.answered, counts.slow
    return counts.requests, counts.errors
