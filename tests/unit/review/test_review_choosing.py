"""The draw: the most useful rows, a random sample of the others with known chances, within the budget."""

from datetime import timedelta

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from review_support import CALM, NOW, POLICY

from cumulant.core import units
from cumulant.core.errors import UsageError
from cumulant.project.monitoring_section import review_budget
from cumulant.review.budget import charge_queue, compute_allowance
from cumulant.review.cases import QueueState
from cumulant.review.sampling import CandidateRow, RowSelector, combine_scores, draw_number
from cumulant.statistics import hajek

BATCHES = st.lists(st.lists(st.integers(0, 4), max_size=12), max_size=5)


def candidate(sequence, useful, key=b"key"):
    reasons = ("unsure",) if useful else ()
    return CandidateRow(
        request=f"r{sequence}",
        row=0,
        worker="w",
        sequence=sequence,
        time=0,
        model="m",
        version="1",
        ref=None,
        reasons=reasons,
        useful=useful,
        draw_number=draw_number(key, "w", sequence, 0),
    )


def draw(batches, ranked, sample, key=b"key"):
    choice, sequence, every = RowSelector(ranked=ranked, sample=sample), 0, []
    for batch in batches:
        useful = np.array(batch, dtype=float) / 4
        rows = [candidate(sequence + place, one, key) for place, one in enumerate(useful)]
        wanted = choice.eligible(useful, [one.draw_number for one in rows])
        choice.skip(int((~wanted).sum()))
        for one, kept in zip(rows, wanted, strict=True):
            if kept:
                choice.add(one)
        sequence += len(batch)
        every += rows
    return choice.select(), every


@CALM
@given(BATCHES, st.integers(0, 5), st.integers(0, 5))
def test_a_draw_over_batches_is_the_draw_over_all_rows(batches, ranked, sample):
    found, every = draw(batches, ranked, sample)
    best = sorted((one for one in every if one.useful), key=lambda one: (one.useful, one.tie), reverse=True)[:ranked]
    rest = sorted((one for one in every if one not in best), key=lambda one: one.drawn, reverse=True)
    assert list(found.ranked) == best
    assert list(found.sample) == rest[:sample]
    assert found.rows == len(every)
    assert found.chance == (min(1.0, sample / len(rest)) if rest else 1.0)
    assert sorted(one.sequence for one, _ in found.ordered()) == sorted(one.sequence for one in [*best, *rest[:sample]])


def test_the_sample_is_spread_among_the_ranked_so_that_nothing_is_cut_off_alone():
    found, _ = draw([[1] * 40], 8, 2)
    assert [drawn for _, drawn in found.ordered()] == [
        False,
        False,
        True,
        False,
        False,
        False,
        False,
        True,
        False,
        False,
    ]


def test_what_is_drawn_tells_of_all_rows():
    useful = np.random.default_rng(4).integers(0, 5, 120)
    wrong = np.random.default_rng(5).random(120) < useful / 6
    means, inside = [], []
    for seed in range(200):
        found, _ = draw([useful.tolist()], 20, 15, key=str(seed).encode())
        places = [one.sequence for one in [*found.ranked, *found.sample]]
        chances = np.array([1.0] * 20 + [found.chance] * 15)
        told = hajek(wrong[places].astype(float), chances)
        means.append(told.value)
        inside.append(told.low <= wrong.mean() <= told.high)
    assert abs(np.mean(means) - wrong.mean()) < 4 * np.std(means) / 200**0.5
    assert np.mean(inside) > 0.93


def test_several_reasons_come_before_the_strongest_of_them_alone():
    both = combine_scores([np.array([0.5, 0.5]), np.array([0.0, 0.25])])
    assert both.tolist() == [0.5, 0.625]


def test_rates_are_a_number_and_a_period():
    for text, number, length in [
        ("50/day", 50, timedelta(days=1)),
        ("3 / hour", 3, timedelta(hours=1)),
        ("2/month", 2, timedelta(days=30)),
    ]:
        found = review_budget(text)
        assert (int(found.number), found.length) == (number, length)
    with pytest.raises(UsageError, match="less than one case"):
        review_budget("0.5/day")


def test_a_budget_is_spread_over_the_time_looked_at_and_never_passed():
    spec = msgspec.structs.replace(POLICY, budget=units.rate("48/day"), sample=0.25)
    empty = QueueState(model="m")
    assert not compute_allowance(
        spec, empty, since=NOW - timedelta(hours=1), until=NOW
    ).enough  # 2 of the 4 that a draw needs
    later = compute_allowance(spec, empty, since=NOW - timedelta(hours=3), until=NOW)
    assert (later.cases, later.sample, later.enough) == (6, 2, True)
    queue = charge_queue(empty, later, until=NOW, taken=6)
    assert (queue.queued, queue.carry, queue.draws) == (6, 0.0, 1)
    week = compute_allowance(spec, queue, since=NOW - timedelta(days=7), until=NOW)
    assert week.cases == 42
    spent = charge_queue(queue, week, until=NOW, taken=42)
    assert compute_allowance(spec, spent, since=NOW, until=NOW, at_once=True).remaining == 0
    tomorrow = NOW + timedelta(days=1)
    assert compute_allowance(spec, spent, since=tomorrow, until=tomorrow, at_once=True).cases == 48


@CALM
@given(
    st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=30), st.sampled_from(["10/day", "7/hour", "1/day"])
)
def test_no_period_gets_more_than_its_budget_and_each_draw_has_a_random_case(steps, budget):
    spec, queue, now = msgspec.structs.replace(POLICY, budget=units.rate(budget)), QueueState(model="m"), NOW
    taken = dict[str, int]()
    for hours, at_once in steps:
        since, now = now, now + timedelta(hours=hours)
        found = compute_allowance(spec, queue, since=queue.until or since, until=now, at_once=at_once)
        if found.enough:
            assert found.sample >= 1
            taken[found.period] = taken.get(found.period, 0) + found.cases
            queue = charge_queue(queue, found, until=now, taken=found.cases)
    assert all(count <= units.rate(budget).number for count in taken.values())
