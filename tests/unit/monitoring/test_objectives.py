"""Service level objectives: counts of requests, burn rates, and when they raise an alert."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cumulant.core.traffic import Exchange
from cumulant.core.units import duration, to_micros
from cumulant.monitoring.objectives import BURN_RATES, Objective, objective_state
from cumulant.monitoring.request_counts import RequestCounts, RequestHistory, RequestMinutes

NOW = datetime(2026, 5, 31, tzinfo=UTC)
AVAILABLE = Objective(sli="availability", target=0.999, window=timedelta(days=30), fewest=100)
FAST = Objective(sli="latency", target=0.99, window=timedelta(days=30), fewest=100, within=timedelta(milliseconds=250))


def exchange(ago, status=200, *, took=5.0, **other):
    fields = {"model": "late", "assigned": "champion", "served": "champion", "request": "r"} | other
    return Exchange(time=to_micros(NOW - ago), status=status, duration_us=int(took * 1000), **fields)


def minutes(*exchanges, within=timedelta(milliseconds=250)):
    counted = RequestMinutes("late", within=within)
    counted.add(exchanges, NOW)
    return counted


def state(objective, counted):
    return objective_state(objective, counted, NOW, since=None)


def steady(count, bad, *, over, status=503, **other):
    """Requests spread evenly, of which every `count / bad`th is bad."""
    each = over / count
    return [
        exchange(each * number, status if bad and number % (count // bad) == 0 else 200, **other)
        for number in range(count)
    ]


def test_the_factors_are_those_of_30_days():
    assert [round(rate.factor(timedelta(days=30)), 6) for rate in BURN_RATES] == [14.4, 6, 3, 1]
    assert BURN_RATES[0].factor(timedelta(days=7)) == pytest.approx(3.36)


def test_nothing_is_said_without_requests():
    found = state(AVAILABLE, minutes())
    assert (found.ratio, found.budget_left, found.firing) == (None, None, None)
    assert all(burn.long_rate is None for burn in found.burn)


@pytest.mark.parametrize("ahead", [timedelta(minutes=30), timedelta(hours=6), timedelta(days=9)])
def test_what_a_clock_that_is_ahead_logged_pages_now_and_not_until_that_moment(ahead):
    counted = minutes(*[exchange(-ahead, 503)] * 200, *steady(1000, 0, over=timedelta(hours=1)))
    found = state(AVAILABLE, counted)
    assert (found.firing, found.requests, found.bad, found.episode.begun) == ("page", 1200, 200, NOW)
    for later in (timedelta(minutes=15), ahead):
        counted.add([exchange(-later)] * 1000, NOW + later)
        found = objective_state(AVAILABLE, counted, NOW + later, since=None)
        assert (found.bad, not found.episode or found.episode.subsided) == (200, True)
    assert counted.quantile(0.5, timedelta(minutes=15), NOW + ahead) == pytest.approx(5, rel=0.05)


@pytest.mark.parametrize("by", [timedelta(minutes=20), timedelta(hours=6)])
def test_what_was_read_before_a_clock_was_set_back_pages_on_and_ends_like_any_other(by):
    counted = minutes(*[exchange(timedelta(minutes=1), 503)] * 200, *steady(600, 0, over=timedelta(hours=10)))
    counted.add([], NOW - by)
    found = objective_state(AVAILABLE, counted, NOW - by, since=None)
    assert (found.firing, found.bad, found.requests, found.episode.begun) == ("page", 200, 800, NOW - by)
    for later in (timedelta(minutes=15), by):
        counted.add([exchange(by - later)] * 1000, NOW - by + later)
        found = objective_state(AVAILABLE, counted, NOW - by + later, since=None)
        assert (found.bad, not found.episode or found.episode.subsided) == (200, True)


#: requests a minute, of which so many are bad, and minutes
GOOD = (1000, 0, 4320)


def world(*parts, now=NOW, alert=None):
    """The state after those minutes, and the minutes by which the episode began before `now`."""
    counts = [counts for *counts, length in parts for _ in range(length)]
    first = to_micros(now) // 60_000_000 - len(counts)
    history = RequestHistory(
        minutes={
            first + number: RequestCounts(requests=requests, errors=bad, answered=requests)
            for number, (requests, bad) in enumerate(counts)
        }
    )
    found = objective_state(
        AVAILABLE, RequestMinutes("late", within=None, history=history), now, since=None, alert=alert
    )
    return found, found.episode and (now - found.episode.begun) / timedelta(minutes=1)


@pytest.mark.parametrize(("bad", "recent"), [(2, 1), (7, 5), (7, 6), (20, 14)])
def test_a_few_errors_less_for_five_minutes_end_no_steady_burn(bad, recent):
    """Of 1,000 requests a minute, at twice the limit of a ticket, just above that of a page, and well above it."""
    found, _ = world((1000, bad, 4320), (1000, recent, 5))
    assert found.firing is not None
    assert (found.episode.faded, found.episode.subsided) == (False, False)


@pytest.mark.parametrize(
    ("bad", "alert", "firing"),
    [
        (9, None, None),
        (9, "ticket", "ticket"),
        (7, "ticket", None),
        (50, None, "ticket"),
        (50, "ticket", "ticket"),
        (50, "page", "page"),
        (40, "page", "ticket"),
    ],
)
def test_an_alert_that_fires_lasts_until_its_rates_are_clearly_below_the_limit(bad, alert, firing):
    """Of 10,000 requests a minute 10 are the limit of a ticket, 60 that of a page."""
    found, _ = world((10_000, bad, 4320), alert=alert)
    assert (found.firing, found.episode is None) == (firing, firing is None)


def test_errors_like_those_before_an_incident_do_not_raise_its_alert_in_turns():
    """After it 1 of 1,000 is allowed: fewer end the alert, and only clearly more raise one."""
    parts = (GOOD, (1000, 1000, 10), (1000, 1, 60))
    for recent, faded, subsided in ((0, True, True), (1, True, True), (2, True, False), (6, False, False)):
        found, _ = world(*parts, (1000, recent, 5))
        assert (found.firing is not None, found.episode.faded, found.episode.subsided) == (True, faded, subsided)


@pytest.mark.parametrize(
    ("rpm", "outage", "gap", "length", "share"),
    [(100, 30, 600, 20, 0.05), (100, 10, 300, 20, 0.05), (1000, 10, 660, 30, 0.05), (10, 30, 1440, 20, 0.5)],
)
def test_an_outage_hours_before_is_another_episode(rpm, outage, gap, length, share):
    parts = [(rpm, 0, 60), (rpm, rpm, outage), (rpm, 0, gap), (rpm, round(rpm * share), length)]
    found, begun = world(*parts)
    assert (found.firing, begun) == ("page", length)
    assert found.episode.bad == round(rpm * share) * length


def test_good_minutes_that_chance_explains_do_not_divide_an_episode():
    assert world((10, 0, 600), (10, 3, 20), (10, 0, 2), (10, 3, 20))[1] == 42


def test_an_incident_that_comes_back_is_said_with_its_own_beginning():
    ended, _ = world((100, 0, 600), (100, 50, 10), (100, 0, 30))
    assert ended.firing is None or ended.episode.subsided
    found, begun = world((100, 0, 600), (100, 50, 10), (100, 0, 30), (100, 50, 3))
    assert (found.firing, found.episode.subsided, begun) == ("page", False, 3)


def test_a_fast_burn_pages_and_ends_soon_after_its_cause():
    burning = steady(1000, 50, over=timedelta(hours=1))
    found = state(AVAILABLE, minutes(*burning))
    assert found.firing == "page"
    assert found.burn[0].long_rate == pytest.approx(50, rel=0.1)
    assert found.budget_left == pytest.approx(1 - 50, rel=0.1)
    later = [exchange(timedelta(minutes=10) + timedelta(seconds=number), 503) for number in range(50)]
    over = steady(1000, 0, over=timedelta(hours=1))
    healed = state(AVAILABLE, minutes(*later, *over))
    assert healed.burn[0].long_rate > 14.4
    assert healed.burn[0].short_rate == 0
    assert not healed.burn[0].firing


def test_few_requests_raise_no_alert():
    found = state(AVAILABLE, minutes(*[exchange(timedelta(minutes=number), 503) for number in range(1, 4)]))
    assert found.burn[0].long_rate == pytest.approx(1000)
    assert found.firing is None


def test_a_slow_burn_is_a_ticket():
    found = state(AVAILABLE, minutes(*steady(20_000, 40, over=timedelta(days=3))))
    assert found.firing == "ticket"
    assert [burn.firing for burn in found.burn] == [False, False, False, True]


def test_a_latency_objective_is_about_answered_requests():
    answered = [exchange(timedelta(minutes=5), took=300.0 if number % 10 == 0 else 20.0) for number in range(200)]
    unanswered = [exchange(timedelta(minutes=5), 503, served="", took=900.0)] * 50
    found = state(FAST, minutes(*answered, *unanswered))
    assert (found.requests, found.bad) == (200, 20)
    assert found.ratio == pytest.approx(0.9)


def test_a_caller_that_gave_up_waited_too_long_or_says_nothing():
    answered = [exchange(timedelta(minutes=5), took=20.0)] * 200
    gave_up = [exchange(timedelta(minutes=5), 499, served="", took=1_000.0)] * 20
    left_soon = [exchange(timedelta(minutes=5), 499, served="", took=10.0)] * 30
    counted = minutes(*answered, *gave_up, *left_soon)
    fast, available = state(FAST, counted), state(AVAILABLE, counted)
    assert (fast.requests, fast.bad) == (220, 20)
    assert (available.requests, available.bad) == (200, 0)


def test_what_counts_is_what_evidence_of_a_release_counts():
    found = state(
        AVAILABLE,
        minutes(
            exchange(timedelta(minutes=1)),
            exchange(timedelta(minutes=1), 503, forced=True),
            exchange(timedelta(minutes=1), 503, predicts=False),
            exchange(timedelta(minutes=1), 503, model="other"),
            exchange(timedelta(minutes=1), 429),
            exchange(timedelta(days=31), 503),
        ),
    )
    assert (found.requests, found.bad) == (2, 0)


@given(
    st.lists(st.tuples(st.integers(0, 40 * 24 * 60), st.sampled_from([200, 404, 429, 500, 503])), max_size=60),
    st.floats(0.5, 0.9999),
)
def test_budget_and_burn_rates_follow_from_counting(events, target):
    objective = Objective(sli="availability", target=target, window=timedelta(days=30), fewest=1)
    found = state(objective, minutes(*[exchange(timedelta(minutes=ago), status) for ago, status in events]))
    inside = [status for ago, status in events if ago <= 30 * 24 * 60]
    assert found.requests == len(inside)
    assert found.bad == sum(status >= 500 for status in inside)
    for burn in found.burn:
        seen = [status for ago, status in events if timedelta(minutes=ago) <= duration(burn.long)]
        assert burn.requests == len(seen)
        if seen:
            expected = sum(status >= 500 for status in seen) / len(seen) / (1 - target)
            assert burn.long_rate == pytest.approx(expected)
        if burn.firing:
            assert min(burn.long_rate, burn.short_rate) > burn.limit


@given(st.lists(st.integers(0, 5_000), max_size=60), st.integers(1, 5_000), st.integers(0, 400))
def test_hours_and_minutes_count_what_lies_in_a_span(ages, span, later):
    counted = minutes(*(exchange(timedelta(minutes=age)) for age in ages))
    now = NOW + timedelta(seconds=later)
    inside = sum(timedelta(0) <= now - (NOW - timedelta(minutes=age)) <= timedelta(minutes=span) for age in ages)
    assert counted.within(timedelta(minutes=span), now).requests == inside


def test_quantiles_are_known_to_within_a_twentieth():
    counted = minutes(*(exchange(timedelta(minutes=1), took=took) for took in range(1, 1001)))
    hour = timedelta(hours=1)
    assert counted.quantile(0.5, hour, NOW) == pytest.approx(500, rel=0.05)
    assert counted.quantile(0.99, hour, NOW) == pytest.approx(990, rel=0.05)
    assert counted.quantile(0.5, timedelta(seconds=30), NOW) is None


def test_counts_are_stored_and_go_on():
    counted = minutes(*(exchange(timedelta(minutes=age), 503) for age in (1, 100, 5_000)))
    again = RequestMinutes("late", within=None, history=counted.history)
    again.add([exchange(timedelta(minutes=2))], NOW)
    week = timedelta(days=7)
    assert (again.within(week, NOW).requests, again.within(week, NOW).errors) == (4, 3)
    assert counted.within(week, NOW).requests == 3
    again.forget(NOW - timedelta(hours=5))
    assert again.within(week, NOW).requests == 3
    assert min(again.minutes) > min(counted.minutes)
