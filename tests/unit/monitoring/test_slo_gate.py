"""Which objectives stop a release: pages and spent budgets, of enough requests, until requests show the contrary."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cumulant.core.traffic import Exchange
from cumulant.core.units import to_micros
from cumulant.monitoring.objectives import Objective, objective_state
from cumulant.monitoring.request_counts import RequestCounts, RequestMinutes
from cumulant.monitoring.slo_gate import find_hold

NOW = datetime(2026, 5, 31, tzinfo=UTC)
AVAILABLE = Objective(sli="availability", target=0.999, window=timedelta(days=30), fewest=100)
FAST = Objective(sli="latency", target=0.99, window=timedelta(days=30), fewest=100, within=timedelta(milliseconds=250))
RECENT, DAY = timedelta(minutes=2), timedelta(days=1)


def states(*groups, objective=AVAILABLE, now=NOW):
    """By groups of (how long ago, requests, bad ones)."""
    minutes = RequestMinutes("late", within=objective.within)
    for ago, requests, bad in groups:
        for number in range(requests):
            failed = number < bad
            minutes.add(
                [
                    Exchange(
                        request="r",
                        time=to_micros(NOW - ago),
                        model="late",
                        assigned="champion",
                        served="champion",
                        status=503 if failed and objective.sli == "availability" else 200,
                        duration_us=300_000 if failed else 1000,
                    )
                ],
                now,
            )
    return [objective_state(objective, minutes, now, since=None)]


def test_a_burn_that_pages_holds_and_is_compared_by_arm():
    arms = {"champion": RequestCounts(requests=90, errors=20), "candidate": RequestCounts(requests=10)}
    assert find_hold(states((RECENT, 200, 20)), "page", arms=arms) == (
        "the error budget of availability burns 100 times as fast as it may in 1h and still in 5m"
        " (bad since the release began: champion 20 of 90, candidate 0 of 10)"
    )


def test_the_burn_of_a_model_that_answers_nothing_is_written_out():
    assert "burns 1,000 times as fast" in find_hold(states((RECENT, 200, 200)), "page")


def test_a_spent_budget_holds_unless_only_pages_do():
    spent = states((DAY * 5, 10_000, 11), (RECENT, 500, 0))
    assert find_hold(spent, "budget") == (
        "the error budget of availability is spent: 11 of 10,500 requests in 30d were bad, above 0.1%"
    )
    assert find_hold(spent, "page") == ""
    assert find_hold(states((DAY * 5, 10_000, 9), (RECENT, 500, 0)), "budget") == ""


@pytest.mark.parametrize("gate", ["budget", "page", "none"])
def test_latency_holds_alike(gate):
    hold = find_hold(states((RECENT, 200, 100), objective=FAST), gate)
    assert hold.startswith("the error budget of latency burns 50 times") is (gate != "none")
    assert bool(hold) is (gate != "none")


@pytest.mark.parametrize(
    "groups",
    [
        pytest.param([(RECENT, 99, 99)], id="fewer than the least"),
        pytest.param([(RECENT, 900, 1)], id="the budget is less than a request"),
        pytest.param([], id="no requests"),
    ],
)
def test_few_requests_hold_nothing(groups):
    assert find_hold(states(*groups), "budget") == ""


def test_more_than_one_bad_request_spends_a_budget_of_less_than_one():
    assert "2 of 900" in find_hold(states((RECENT, 900, 2)), "budget")


def test_one_bad_request_of_a_thousand_spends_a_budget_of_one():
    assert "1 of 1,000" in find_hold(states((RECENT, 1000, 1)), "budget")


def test_a_hold_stays_while_no_request_shows_that_it_is_over():
    """A gap of the log, or a clock that jumped ahead by days."""
    silent = states((RECENT, 200, 20), now=NOW + DAY * 40)
    assert find_hold(silent, "budget") == ""
    assert find_hold(silent, "budget", earlier="it burns") == "it burns"
    assert find_hold(silent, "none", earlier="it burns") == ""
    assert find_hold(states((-DAY * 40, 1, 0), now=NOW + DAY * 40), "budget", earlier="it burns") == ""


def test_requests_of_a_clock_that_is_ahead_count_as_present():
    """After this clock was set back by two hours."""
    assert "burns" in find_hold(states((RECENT, 200, 20), now=NOW - timedelta(hours=2)), "budget")
