"""Cases, clocks and journals for the tests of the review room."""

from datetime import UTC, datetime, timedelta

import msgspec
from hypothesis import HealthCheck, settings

from cumulant.drivers.local.journal import SqliteJournal
from cumulant.project.monitoring_section import review_policy
from cumulant.review.cases import Draw, QueueState, ReviewCase, case_id
from cumulant.review.queue import ReviewQueue
from cumulant.review.spec import ReviewSpec

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
#: how fast this machine is decides no test
CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
POLICY = review_policy(ReviewSpec(budget="50/day", second=0.0))


class Clock:
    def __init__(self, now=NOW):
        self.time = now

    def now(self):
        return self.time

    def later(self, **span):
        self.time += timedelta(**span)


def case(number=1, **more):
    told = {
        "id": case_id("w", number, 0),
        "model": "m",
        "version": "1",
        "request": f"r{number}",
        "row": 0,
        "worker": "w",
        "sequence": number,
        "time": NOW - timedelta(hours=1),
        "reasons": ("unsure",),
        "useful": 0.5,
        "chance": 1.0,
        "draw": 1,
        "order": number / 100,
        "queued": NOW,
        "deadline": NOW + timedelta(days=3),
    }
    return ReviewCase(**{**told, **more})


def draw(number=1, **more):
    told = {
        "number": number,
        "model": "m",
        "at": NOW,
        "since": NOW - timedelta(days=1),
        "until": NOW,
        "rows": 100,
        "labelled": 0,
        "ranked": 8,
        "sample": 2,
        "reasons": {},
    }
    return Draw(**{**told, **more})


def desk(tmp_path, *cases, clock=None, policy=POLICY, **more):
    journal = SqliteJournal(f"sqlite://{tmp_path}/journal.db")
    found = ReviewQueue(journal, "m", msgspec.structs.replace(policy, **more), clock=clock or Clock())
    if cases:
        from cumulant.core.events import Actor

        queue, version = found.queue()
        found.add(
            cases, draw(queue.draws + 1), QueueState(model="m", draws=queue.draws + 1), expect=version, actor=Actor("t")
        )
    return found, journal
