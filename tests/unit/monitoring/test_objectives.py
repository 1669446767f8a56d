"""Service level objectives: counts of requests, burn rates, and when they raise an alert."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cumulant.core.traffic import Exchange
from cumulant.core.units import duration, to_micros
from cumulant.monitoring.objectives import BURN_RATES, Objective, objective_state
from cumulant.monitoring.request_counts import RequestMinutes

NOW = datetime(2026, 5, 31, tzinfo=UTC)
AVAILABLE = Objective(sli="availability", target=0.999, window=timedelta(days=30), fewest=100)
FAST = Objective(sli="latency", target=0.99, window=timedelta(days=30), fewest=100, within=timedelta(milliseconds=250))


def exchange(ago, status=200, *, took=5.0, **other):
    fields = {"model": "late", "assigned": "champion", "served": "champion", "request": "r"} | other
    return Exchange(time=to_micros(NOW - ago), status=status, duration_us=int(took * 1000), **fields)


def minutes(*exchanges, within=timedelta(milliseconds=250)):
    counted = RequestMinutes("late", within=within)
    counted.add(exchanges)
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


def test_a_clock_that_was_far_ahead_for_a_moment_does_not_page_until_then():
    counted = minutes(*[exchange(timedelta(days=-9), 503)] * 200, *steady(1000, 0, over=timedelta(hours=1)))
    found = state(AVAILABLE, counted)
    assert (found.firing, found.requests, found.bad) == (None, 1000, 0)
    later = objective_state(AVAILABLE, counted, NOW + timedelta(days=9), since=None)
    assert (later.firing, later.bad) == ("page", 200)
    counted.forget(NOW - timedelta(days=30))
    assert counted.quantile(0.5, timedelta(minutes=15), NOW) == pytest.approx(5, rel=0.05)
    ahead = minutes(*[exchange(timedelta(minutes=-30), 503)] * 200)
    assert state(AVAILABLE, ahead).firing == "page"


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
    again.add([exchange(timedelta(minutes=2))])
    week = timedelta(days=7)
    assert (again.within(week, NOW).requests, again.within(week, NOW).errors) == (4, 3)
    assert counted.within(week, NOW).requests == 3
    again.forget(NOW - timedelta(hours=5))
    assert again.within(week, NOW).requests == 3
    assert min(again.minutes) > min(counted.minutes)
