"""What is done about a job of features: decided from what was observed of it, in every condition."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from cumulant.features.flink.job_watch import (
    JobCondition,
    JobObservation,
    JobWatch,
    evaluate,
    note_failed_start,
    note_start,
    note_unreachable,
)

AT = datetime(2026, 12, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def observed(condition: JobCondition = "running", job: str = "1", restores: int | None = None) -> JobObservation:
    return JobObservation(name="cards", job=job, condition=condition, restores=restores)


def starts(condition: JobCondition, *, minutes: int) -> list[int]:
    """The minutes at which a job is started that is observed so every half a minute."""
    watch: JobWatch | None = None
    due: list[int] = []
    for half in range(2 * minutes):
        watch, now = evaluate(watch, observed(condition), AT + half * MINUTE / 2)
        due += [half // 2] if now else []
    return due


@pytest.mark.parametrize("condition", ["failed", "lost", "not started"])
def test_what_nobody_wanted_is_started_again_with_pauses_that_grow_and_five_times_an_hour(condition):
    due = starts(condition, minutes=180)
    assert due[:6] == [0, 1, 3, 7, 15, 60]  # pauses of 1, 2, 4 and 8 minutes, then the hour of the first is over
    assert all(later - earlier >= 60 for earlier, later in zip(due, due[5:], strict=False))


@pytest.mark.parametrize("condition", ["running", "restarting", "ending", "several", "cancelled", "stopped"])
def test_what_runs_and_what_an_operator_ended_is_not_started(condition):
    assert starts(condition, minutes=70) == []


def test_a_job_that_goes_on_from_checkpoints_again_and_again_is_a_fault_until_it_does_not():
    watch, _ = evaluate(None, observed(restores=0), AT)
    for minute, restores in ((1, 1), (2, 1), (3, 4)):  # a worker that was killed, and another one
        watch, _ = evaluate(watch, observed(restores=restores), AT + minute * MINUTE)
        assert not watch.faulty
    watch, _ = evaluate(watch, observed("restarting"), AT + 4 * MINUTE)
    assert (watch.condition, watch.faulty, watch.since) == ("restarting", True, AT + 4 * MINUTE)
    watch, _ = evaluate(watch, observed(restores=4), AT + 5 * MINUTE)
    assert watch.faulty
    watch, _ = evaluate(watch, observed(restores=4), AT + 12 * MINUTE)
    assert (watch.condition, watch.since) == ("running", AT + 12 * MINUTE)


def test_a_start_that_is_refused_waits_for_an_operator_and_one_that_failed_does_not():
    watch, due = evaluate(None, observed("failed"), AT)
    assert due
    later = note_failed_start(watch, "the brokers do not answer", refused=False)
    assert later.next_try(AT) == AT + MINUTE
    refused = note_failed_start(watch, "nothing says how far it came", refused=True)
    assert refused.next_try(AT) == AT + 60 * MINUTE
    after, due = evaluate(refused, observed("failed"), AT + 30 * MINUTE)
    assert (after, due) == (refused, False)
    # another job: an operator has started it
    after, due = evaluate(refused, observed("failed", job="2"), AT + 30 * MINUTE)
    assert (after.refused, after.failure, due) == (False, "", True)
    assert after.tries == (AT, AT + 30 * MINUTE)
    # another definition: nothing of this one counts
    other = JobObservation(name="cards 2", job="3", condition="running")
    assert evaluate(refused, other, AT + 30 * MINUTE)[0] == JobWatch(
        name="cards 2", job="3", condition="running", since=AT + 30 * MINUTE
    )


def test_an_engine_that_does_not_answer_changes_nothing_else_and_is_reported_after_a_while():
    failed, _ = evaluate(None, observed("failed"), AT)
    watch = note_unreachable(failed, "cards", "1", "no route", AT + MINUTE)
    watch = note_unreachable(watch, "cards", "1", "refused", AT + 3 * MINUTE)
    assert (watch.unreachable_since, watch.unreachable_reason, watch.condition) == (
        AT + MINUTE,
        "no route",
        "failed",
    )
    assert not watch.unreachable(AT + 5 * MINUTE)
    assert watch.unreachable(AT + 6 * MINUTE)
    watch, _ = evaluate(watch, observed(), AT + 7 * MINUTE)
    assert (watch.unreachable_since, watch.unreachable_reason, watch.faulty) == (None, "", False)
    assert evaluate(watch, observed("ending"), AT + 8 * MINUTE)[0].condition == "running"


def test_what_an_operator_ended_stays_so_when_the_engine_forgets_it():
    watch, _ = evaluate(None, observed("cancelled"), AT)
    watch, due = evaluate(watch, observed("lost"), AT + 60 * MINUTE)
    assert (watch.condition, watch.since, due) == ("cancelled", AT, False)
    watch, due = evaluate(watch, observed("lost", job="2"), AT + 61 * MINUTE)
    assert (watch.condition, due) == ("lost", True)


def test_tries_of_the_future_do_not_count_after_a_clock_was_set_back():
    watch, _ = evaluate(None, observed("failed"), AT + 3000 * MINUTE)
    _, due = evaluate(watch, observed("failed"), AT)
    assert due


def test_progress_and_another_start_end_the_count_of_starts_without():
    watch, _ = evaluate(None, observed("failed"), AT)
    for number in range(10):
        watch, _ = evaluate(note_start(watch, str(number), AT), observed("failed", job=str(number)), AT)
    assert (watch.given_up, evaluate(watch, observed("failed", job="9"), AT + 90 * MINUTE)[1]) == (True, False)
    assert evaluate(watch, observed("failed", job="10"), AT + 90 * MINUTE)[1]
    for change in ({"progressed": True}, {"results": 5}):
        brought = msgspec.structs.replace(observed("failed", job="9"), **change)
        assert not evaluate(watch, brought, AT)[0].given_up
    assert evaluate(watch, observed(job="9"), AT + MINUTE)[0].looping
    assert not evaluate(watch, observed(job="9"), AT + 60 * MINUTE)[0].looping
