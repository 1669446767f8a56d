"""What is done about a job of features: decided from what was seen of it, in every condition."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cumulant.features.flink.job_watch import JobCondition, JobSight, JobWatch, failed_try, look, look_away

AT = datetime(2026, 12, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def seen(condition: JobCondition = "running", job: str = "1", restores: int | None = None) -> JobSight:
    return JobSight(name="cards", job=job, condition=condition, restores=restores)


def starts(condition: JobCondition, *, minutes: int) -> list[int]:
    """The minutes at which a job is started that is seen so every half a minute."""
    watch: JobWatch | None = None
    due: list[int] = []
    for half in range(2 * minutes):
        watch, now = look(watch, seen(condition), AT + half * MINUTE / 2)
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
    watch, _ = look(None, seen(restores=0), AT)
    for minute, restores in ((1, 1), (2, 1), (3, 4)):  # a worker that was killed, and another one
        watch, _ = look(watch, seen(restores=restores), AT + minute * MINUTE)
        assert not watch.faulty
    watch, _ = look(watch, seen("restarting"), AT + 4 * MINUTE)
    assert (watch.condition, watch.faulty, watch.since) == ("restarting", True, AT + 4 * MINUTE)
    watch, _ = look(watch, seen(restores=4), AT + 5 * MINUTE)
    assert watch.faulty
    watch, _ = look(watch, seen(restores=4), AT + 12 * MINUTE)
    assert (watch.condition, watch.since) == ("running", AT + 12 * MINUTE)


def test_a_start_that_is_refused_waits_for_an_operator_and_one_that_failed_does_not():
    watch, due = look(None, seen("failed"), AT)
    assert due
    later = failed_try(watch, "the brokers do not answer", refused=False)
    assert later.next_try(AT) == AT + MINUTE
    refused = failed_try(watch, "nothing says how far it came", refused=True)
    assert refused.next_try(AT) is None
    after, due = look(refused, seen("failed"), AT + 30 * MINUTE)
    assert (after, due) == (refused, False)
    # another job: an operator has started it
    after, due = look(refused, seen("failed", job="2"), AT + 30 * MINUTE)
    assert (after.refused, after.failure, due) == (False, "", True)
    assert after.tries == (AT, AT + 30 * MINUTE)
    # another definition: nothing of this one counts
    other = JobSight(name="cards 2", job="3", condition="running")
    assert look(refused, other, AT + 30 * MINUTE)[0] == JobWatch(
        name="cards 2", job="3", condition="running", since=AT + 30 * MINUTE
    )


def test_an_engine_that_does_not_answer_changes_nothing_else_and_is_reported_after_a_while():
    failed, _ = look(None, seen("failed"), AT)
    watch = look_away(failed, "cards", "1", "no route", AT + MINUTE)
    watch = look_away(watch, "cards", "1", "refused", AT + 3 * MINUTE)
    assert (watch.silent, watch.silence, watch.condition) == (AT + MINUTE, "refused", "failed")
    assert not watch.unreachable(AT + 5 * MINUTE)
    assert watch.unreachable(AT + 6 * MINUTE)
    watch, _ = look(watch, seen(), AT + 7 * MINUTE)
    assert (watch.silent, watch.silence, watch.faulty) == (None, "", False)
    assert look(watch, seen("ending"), AT + 8 * MINUTE)[0] == watch
