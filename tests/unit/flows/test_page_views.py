"""Pages of runs and of cases: filters, cursors that reach every row once, and what a blind reviewer does not see."""

from __future__ import annotations

import contextlib
import random
from datetime import UTC, datetime, timedelta
from typing import ClassVar

import msgspec
import pytest

from cumulant.core.errors import ConflictError, LeaseHeldError, NotFoundError, UsageError
from cumulant.core.events import Actor
from cumulant.flows.ledger.ledger_records import RUN, STEP, RunRecord, StepRecord, StepUse
from cumulant.flows.ledger.processes import this_process
from cumulant.flows.ledger.run_views import run_detail, run_page
from cumulant.flows.review.case_index import CaseIndex
from cumulant.flows.review.case_pages import case_page
from cumulant.flows.review.service import open_queue
from cumulant.flows.subjects.subjects import SubjectErased
from cumulant.project.file.loading import load
from cumulant.review import transitions
from cumulant.review.cases import Draw, QueueState, ReviewCase, case_id
from cumulant.review.queue import ReviewQueue
from cumulant.review.transitions import Reviewer

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
PROJECT = """\
version: 1
model: {name: shop, owner: shop@example.com, purpose: test}
data: {visits: {path: visits.csv, key: visit}}
monitoring: {review: {budget: 24/day, second: 0%}}
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / "cumulant.yaml").write_text(PROJECT)
    with load(tmp_path) as loaded:
        yield loaded


def put(project, kind, key, value):
    with project.journal().transaction(actor=Actor("t")) as transaction:
        transaction.put(kind, key, msgspec.to_builtins(value))


def run(number, **more):
    values = {
        "id": f"run{number:03d}",
        "flow": "train" if number % 2 else "validate",
        "status": "failed" if number % 3 == 0 else "done",
        "principal": "user:ada",
        "settings": {},
        "process": this_process(),
        "started": NOW + timedelta(minutes=number),
        "finished": NOW + timedelta(minutes=number + 1),
    }
    return RunRecord(**{**values, **more})


def all_pages(page, rows):
    found, after = [], ""
    while True:
        part = page(after)
        found += [row.id for row in rows(part)]
        after = part.after
        if not after:
            return found


def test_pages_of_runs_reach_every_run_once_newest_first(project):
    for number in range(23):
        put(project, RUN, f"run{number:03d}", run(number))
    who = project.principal()
    ids = all_pages(lambda after: run_page(project, principal=who, after=after, limit=5), lambda page: page.runs)
    assert ids == [f"run{number:03d}" for number in reversed(range(23))]
    chosen = run_page(project, principal=who, flow="train", status="failed")
    assert [record.id for record in chosen.runs] == ["run021", "run015", "run009", "run003"]
    assert (chosen.total, chosen.after, chosen.flows) == (4, "", ("train", "validate"))


def test_a_run_has_its_steps_with_their_rows_where_these_are_known(project):
    steps = (StepUse("data", "a", reused=True), StepUse("search", "b", reused=False, seconds=2.5))
    put(project, RUN, "run001", run(1, steps=steps))
    put(project, RUN, "run002", run(2))
    done = StepRecord(
        name="data",
        status="done",
        inputs={},
        code="c",
        attempt=2,
        run="run000",
        holder=this_process(),
        lease=60,
        started=NOW,
        result={"snapshot": "s"},
    )
    put(project, STEP, "a", done)
    who = project.principal()
    first, second = run_detail(project, "run001", principal=who).steps
    assert (first.status, first.attempt, first.run, first.result) == ("done", 2, "run000", {"snapshot": "s"})
    assert (second.status, second.seconds) == (None, 2.5)
    assert run_detail(project, "latest", principal=who).run.id == "run002"
    with pytest.raises(UsageError, match="several"):
        run_detail(project, "run", principal=who)
    with pytest.raises(NotFoundError):
        run_detail(project, "x", principal=who)
    with pytest.raises(NotFoundError):
        run_detail(project, "", principal=who)


def cases(count):
    return [
        ReviewCase(
            id=case_id("w", number, 0),
            model="shop",
            version="1",
            request=f"r{number}",
            row=0,
            worker="w",
            sequence=number,
            time=NOW,
            reasons=("unsure",),
            useful=0.5,
            chance=1.0,
            draw=1,
            order=number / 100,
            queued=NOW,
            deadline=datetime(2100, 1, 1, tzinfo=UTC),
        )
        for number in range(count)
    ]


def test_pages_of_cases_keep_the_order_and_tell_a_blind_reviewer_no_reason(project):
    queue, who = open_queue(project), project.principal()
    made = cases(12)
    draw = Draw(
        number=1, model="shop", at=NOW, since=NOW, until=NOW, rows=9, labelled=0, ranked=9, sample=0, reasons={}
    )
    queue.add(made, draw, QueueState(model="shop", draws=1), expect=0, actor=Actor("t"))
    ids = all_pages(lambda after: case_page(project, principal=who, after=after, limit=5), lambda page: page.cases)
    assert ids == [case.id for case in made]
    assert all(line.reasons == () for line in case_page(project, principal=who).cases)

    reviewer = Reviewer(who.id)
    queue.move(
        made[3].id, reviewer, "decided", lambda case, now: transitions.decide(case, reviewer, "true", queue.policy, now)
    )
    page = case_page(project, principal=who, status="done")
    assert (page.waiting, page.done, page.unlabelled, page.escalated) == (11, 1, 1, 0)
    (line,) = page.cases
    assert (line.id, line.label, line.reasons, line.mine) == (made[3].id, True, ("unsure",), True)
    gone = case_page(project, principal=who, after="no such case", limit=2)
    assert [line.id for line in gone.cases] == [made[0].id, made[1].id]


@pytest.mark.parametrize("seed", range(3))
def test_what_is_remembered_of_a_queue_is_what_is_stored_whoever_changes_it(project, seed):
    draw = Draw(
        number=1, model="shop", at=NOW, since=NOW, until=NOW, rows=9, labelled=0, ranked=9, sample=0, reasons={}
    )
    queue, dice, index = open_queue(project), random.Random(seed), CaseIndex()
    queue.add(cases(6), draw, QueueState(model="shop", draws=1), expect=0, actor=Actor("t"))
    ada, bob = Reviewer("user:ada"), Reviewer("user:bob")
    names = [case.id for case in cases(6)]
    policy = queue.policy

    def step(name, who):
        return [
            lambda: queue.take(who),
            lambda: queue.move(
                name, who, "decided", lambda case, now: transitions.decide(case, who, "true", policy, now)
            ),
            lambda: queue.move(name, who, "skipped", lambda case, now: transitions.skip(case, who, policy, now)),
            lambda: queue.move(name, who, "escalated", lambda case, now: transitions.escalate(case, who, policy, now)),
            lambda: queue.undo(name, who),
            lambda: queue.note(name, who, "look"),
            lambda: queue.mark_labelled(queue.closed(), "x", actor=Actor("t")),
        ]

    moved = 0
    for _ in range(40):
        with contextlib.suppress(ConflictError, LeaseHeldError):
            dice.choice(step(dice.choice(names), dice.choice([ada, bob])))()
            moved += 1
        remembered = {case.id: case for case in index.cases(project.journal(), queue)}
        assert remembered == {case.id: case for case in (*queue.open(), *queue.closed())}
    assert moved > 10


def test_a_server_reads_a_queue_once_and_then_what_changed(project):
    draw = Draw(
        number=1, model="shop", at=NOW, since=NOW, until=NOW, rows=9, labelled=0, ranked=9, sample=0, reasons={}
    )
    queue, index = open_queue(project), CaseIndex()
    queue.add(cases(5), draw, QueueState(model="shop", draws=1), expect=0, actor=Actor("t"))
    index.cases(project.journal(), queue)

    class CountedQueue(ReviewQueue):
        reads: ClassVar[list[str]] = []

        def open(self):
            self.reads.append("all")
            return super().open()

        def find(self, case):
            self.reads.append(case)
            return super().find(case)

    counted = CountedQueue(project.journal(), "shop", queue.policy)
    index.cases(project.journal(), counted)
    assert counted.reads == []
    first = cases(1)[0].id
    queue.note(first, Reviewer("user:ada"), "look")
    assert {case.id: len(case.notes) for case in index.cases(project.journal(), counted)}[first] == 1
    assert counted.reads == [first]


def test_a_case_that_was_erased_is_forgotten(project):
    draw = Draw(
        number=1, model="shop", at=NOW, since=NOW, until=NOW, rows=9, labelled=0, ranked=9, sample=0, reasons={}
    )
    queue, index = open_queue(project), CaseIndex()
    queue.add(cases(3), draw, QueueState(model="shop", draws=1), expect=0, actor=Actor("t"))
    assert len(index.cases(project.journal(), queue)) == 3
    with project.journal().transaction(actor=Actor("t")) as transaction:
        transaction.delete("review_case", f"shop/{cases(1)[0].id}")
        transaction.emit(SubjectErased(subject="#", sources=(), stores={}, remaining=0))
    assert len(index.cases(project.journal(), queue)) == 2
