"""Which exchanges count as failures of their arm."""

from __future__ import annotations

import pytest

from cumulant.core.traffic import Exchange
from cumulant.release.evidence.look import Requests, counting


def exchange(status: int, assigned: str = "candidate") -> Exchange:
    return Exchange(
        request="a", time=1, model="m", assigned=assigned, served=assigned, status=status, duration_us=1, revision=1
    )


@pytest.mark.parametrize(
    ("status", "fails"),
    [(200, False), (400, False), (404, False), (422, True), (429, True), (499, True), (500, True), (503, True)],
)
def test_a_status_counts_for_the_arm_that_gave_it(status: int, fails: bool) -> None:
    assert Requests.of([exchange(status)]).failed.tolist() == [fails]


def test_a_candidate_that_refuses_more_rows_fails_more_and_shared_refusals_count_for_both() -> None:
    answers = [exchange(status, arm) for arm in ("champion", "candidate") for status in (200, 422)]
    found = Requests.of(counting([*answers, exchange(422)], model="m"))
    assert [int(found.failed[found.arm(arm)].sum()) for arm in ("champion", "candidate")] == [1, 2]
