"""Service level objectives: what share of requests must be good, and how fast the budget of others is used.

A burn rate is the share of bad requests over the share that the objective allows: at 1 the budget lasts exactly the
objective's window. An alert needs a fast burn in a long window and in a short one, which ends it soon after its cause.
"""

from __future__ import annotations

import math
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
#: chances below which the newest requests are not of the episode, and below which good requests between two runs of bad
#: ones end the first: each minute going back is tried, so that chance alone would split some episodes by the former
_ENDED, _SPLIT = 1e-3, 1e-6
#: of the limit of a burn rate, what keeps an alert that fires: at the limit chance alone would end and raise it often
_KEEPS = 0.8

BURN_RATES = (
    BurnRate(long=timedelta(hours=1), short=timedelta(minutes=5), share=0.02, severity="page"),
    BurnRate(long=timedelta(hours=6), short=timedelta(minutes=30), share=0.05, severity="page"),
    BurnRate(long=timedelta(days=1), short=timedelta(hours=2), share=0.1, severity="ticket"),
    BurnRate(long=timedelta(days=3), short=timedelta(hours=6), share=0.1, severity="ticket"),
)


class Episode(msgspec.Struct, frozen=True, kw_only=True):
    """Bad requests that come faster than what fires allows: since the minute of `begun`, in which `requests` came;
    the newest bad one in the minute of `last`.

    `unanswered`: requests that no server answered, so that the gateway did. `recent`: of `RECENT`. `faded`: of those
    too few are bad to be of the episode, and not clearly more than the lowest limit that fires: none is raised anew.
    `subsided`: and no more than that; this ends the alert, although its windows last longer.
    """

    begun: datetime
    last: datetime
    requests: int
    bad: int
    unanswered: int
    recent: int
    recent_bad: int
    faded: bool
    subsided: bool


class BurnState(msgspec.Struct, frozen=True, kw_only=True):
    """A burn rate in force: in both windows (None: no requests), the rate at which it alerts, and whether it does.

    `ends_below`: of an alert that fires already, the lower rate at which it ends; None: it does not fire yet.
    """

    severity: Severity
    long: str
    short: str
    long_rate: float | None
    short_rate: float | None
    limit: float
    ends_below: float | None = None
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
    objective: Objective,
    minutes: RequestMinutes,
    now: datetime,
    *,
    since: datetime | None,
    alert: Severity | None = None,
) -> ObjectiveState:
    """The state by the counts of the past window. `alert`: of one that fires already, which lasts a little longer."""
    requests, bad = count_events(objective.sli, minutes.within(objective.window, now))
    share = bad / requests if requests else None
    lasting = {"page": ("page", "ticket"), "ticket": ("ticket",), None: ()}[alert]
    burn = tuple(
        _burn_state(objective, rate, minutes, now, least=_KEEPS if rate.severity in lasting else 1.0)
        for rate in BURN_RATES
    )
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
        episode=_episode(
            objective,
            _fastest(burn),
            minutes,
            now,
            least=1.0 if alert is None else _KEEPS,
            lowest=min((state.limit for state in burn if state.firing), default=0.0),
        ),
    )


def _fastest(burn: Sequence[BurnState]) -> BurnState | None:
    return max((state for state in burn if state.firing), key=lambda state: state.long_rate or 0.0, default=None)


def _episode(
    objective: Objective,
    firing: BurnState | None,
    minutes: RequestMinutes,
    now: datetime,
    *,
    least: float,
    lowest: float,
) -> Episode | None:
    """By the cumulative sum of bad requests above the share that alerts: the change began where the sum of all minutes
    from there to now is greatest (Page 1954). What lies before a stretch of good requests is another episode.
    """
    if firing is None:
        return None
    allowed = least * firing.limit * objective.budget
    excess, greatest, counted, before = 0.0, 0.0, RequestCounts(), RequestCounts()
    begun: int | None = None
    last: int | None = None
    for minute, counts in minutes.latest(BURN_RATES[-1].long, now):
        requests, bad = count_events(objective.sli, counts)
        before.add(counts)
        excess += bad - allowed * requests
        last = minute if last is None and bad else last
        if excess > greatest:
            greatest, begun = excess, minute
            counted.add(before)
            before = RequestCounts()
        elif begun is not None and _is_quiet(objective.sli, before, counted, allowed):
            break
    if begun is None or last is None:
        return None
    requests, bad = count_events(objective.sli, counted)
    # Ended is what no burn rate that fires would count.
    allowed = least * lowest * objective.budget
    recent, recent_bad = count_events(objective.sli, minutes.within(RECENT, now))
    expected = recent * bad / requests
    faded = (
        recent_bad < expected
        and _chance(recent_bad, expected) < _ENDED
        and (recent_bad <= allowed * recent or _chance(recent_bad, allowed * recent) >= _ENDED)
    )
    return Episode(
        begun=from_micros(begun * 60_000_000),
        last=from_micros(last * 60_000_000),
        requests=requests,
        bad=bad,
        unanswered=counted.requests - counted.answered - counted.given_up,
        recent=recent,
        recent_bad=recent_bad,
        faded=faded,
        subsided=faded and recent_bad <= allowed * recent,
    )


def _is_quiet(sli: SliName, counts: RequestCounts, episode: RequestCounts, allowed: float) -> bool:
    """Whether `counts` have no more bad requests than allowed, and too few to be of the `episode`, itself no chance."""
    requests, bad = count_events(sli, counts)
    of_episode, bad_of_episode = count_events(sli, episode)
    expected = requests * bad_of_episode / of_episode
    return (
        bad <= allowed * requests
        and bad < expected
        and _chance(bad, expected) < _SPLIT
        and _chance(bad_of_episode, allowed * of_episode) < _SPLIT
    )


def _chance(count: int, mean: float) -> float:
    """Of a Poisson variable of that mean, at most the chance of `count` or fewer where that is below the mean, and of
    `count` or more where it is above (Chernoff's bound: of any size without a sum).
    """
    return math.exp(count - mean - (count * math.log(count / mean) if count else 0.0))


def _is_spent(objective: Objective, requests: int, bad: int) -> bool:
    allowed = round(requests * objective.budget, _DIGITS)
    # A first bad request spends no budget that is less than a request.
    return requests >= objective.fewest and bad >= allowed and (allowed >= 1 or bad > 1)


def _burn_state(
    objective: Objective, rate: BurnRate, minutes: RequestMinutes, now: datetime, *, least: float
) -> BurnState:
    requests, bad = count_events(objective.sli, minutes.within(rate.long, now))
    latest, latest_bad = count_events(objective.sli, minutes.within(rate.short, now))
    long_rate = bad / requests / objective.budget if requests else None
    short_rate = latest_bad / latest / objective.budget if latest else None
    limit = rate.factor(objective.window)
    burning = long_rate is not None and short_rate is not None and min(long_rate, short_rate) > least * limit
    return BurnState(
        severity=rate.severity,
        long=show_duration(rate.long),
        short=show_duration(rate.short),
        long_rate=long_rate,
        short_rate=short_rate,
        limit=limit,
        ends_below=least * limit if least < 1 else None,
        requests=requests,
        firing=burning and requests >= objective.fewest,
    )


def count_events(sli: SliName, counts: RequestCounts) -> tuple[int, int]:
    """The requests that an objective is about, and the bad ones.

    A caller that left waited for an answer: too long, which is slow, or not long enough to tell.
    """
    if sli == "latency":
        return counts.answered + counts.given_up_late, counts.slow + counts.given_up_late
    return counts.requests - counts.given_up, counts.errors
