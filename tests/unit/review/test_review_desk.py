"""The queue in the journal: several reviewers at once, killed processes, and one event a move."""

import signal
import subprocess
import sys

import pytest
from review_support import POLICY, Clock, case, desk, draw

from cumulant.core.errors import ConflictError, LeaseHeldError, NotFoundError, UsageError
from cumulant.core.events import Actor, verify_chain
from cumulant.review import transitions
from cumulant.review.cases import QueueState
from cumulant.review.transitions import Reviewer

ADA, BOB = Reviewer("user:ada"), Reviewer("user:bob")
WORKER = """
import os, signal, sys
from review_support import desk
from pathlib import Path
from cumulant.review.transitions import Reviewer
from cumulant.review import transitions
found, _ = desk(Path(sys.argv[1]))
who, cases, killed = Reviewer(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "killed"
sys.stdin.read(1)
for _ in range(cases):
    case = found.take(who)
    found.move(case.id, who, "decided", lambda one, now: transitions.decide(one, who, "true", found.policy, now))
    print(case.id, flush=True)
if killed:
    found.take(who)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def decide(found, case_, who, label="true"):
    return found.move(case_, who, "decided", lambda one, now: transitions.decide(one, who, label, found.policy, now))


def test_cases_are_given_out_in_order_once_each_and_never_queued_twice(tmp_path):
    clock = Clock()
    found, journal = desk(tmp_path, case(2), case(1), clock=clock)
    first = found.take(ADA)
    assert first.request == "r1"
    assert found.take(ADA).id == first.id
    assert found.take(BOB).request == "r2"
    decide(found, first.id, ADA)
    assert found.take(ADA) is None
    queue, version = found.queue()
    again = QueueState(model="m", draws=queue.draws + 1)
    assert found.add([case(1), case(2), case(3)], draw(2), again, expect=version, actor=Actor("t")) == 1
    with pytest.raises(LeaseHeldError):
        found.add([case(4)], draw(3), again, expect=version, actor=Actor("t"))
    assert [one.request for one in found.open()] == ["r2", "r3"]
    kinds = [event.kind for event in journal.events()]
    assert kinds == ["review.queued", *["review.moved"] * 3, "review.moved", "review.closed", "review.queued"]
    assert list(verify_chain(journal.events())) == []


def test_people_find_a_case_by_the_beginning_of_its_id_programs_by_all_of_it(tmp_path):
    found, _ = desk(tmp_path, case(1), case(2))
    one = case(1).id
    assert found.find_by_prefix(one[:6]).id == found.find_by_prefix(one).id == found.find(one).id == one
    for beginning in ("", "zz"):
        with pytest.raises(NotFoundError, match="no case has the id"):
            found.find_by_prefix(beginning)
    for wrong in (one[:6], one[:11], "", "zz", one + "0", one.upper() + "x", "../" + one, f"m/{one}", "x" * 10_000):
        with pytest.raises(NotFoundError, match="no case has the id") as told:
            found.find(wrong)
        assert len(told.value.message) < 100
    with pytest.raises(NotFoundError):
        found.move(one[:6], ADA, "skipped", lambda case, now: case)
    many, _ = desk(tmp_path / "many", *map(case, range(40)))
    with pytest.raises(NotFoundError, match="several"):
        many.find_by_prefix(many.open()[0].id[:1])


def test_a_case_that_has_changed_since_it_was_seen_is_left_as_it_is(tmp_path):
    found, _ = desk(tmp_path, case(1))
    seen = found.find(case(1).id).revision
    noted = found.note(case(1).id, BOB, "look at the card")
    assert noted.revision != seen
    with pytest.raises(ConflictError, match="has changed since you saw it"):
        found.move(noted.id, ADA, "skipped", lambda one, now: transitions.skip(one, ADA, POLICY, now), seen=seen)
    after = found.move(
        noted.id, ADA, "skipped", lambda one, now: transitions.skip(one, ADA, POLICY, now), seen=noted.revision
    )
    assert after.by("user:ada").kind == "skipped"


def test_a_lost_lease_is_not_answered_over_the_new_holder(tmp_path):
    clock = Clock()
    found, _ = desk(tmp_path, case(1), clock=clock)
    taken = found.take(ADA)
    clock.later(minutes=31)
    assert found.take(BOB).id == taken.id
    with pytest.raises(LeaseHeldError, match="with user:bob"):
        decide(found, taken.id, ADA)
    assert decide(found, taken.id, BOB).status == "done"
    with pytest.raises(UsageError, match="closed"):
        decide(found, taken.id, ADA)


def test_deadlines_are_kept_whenever_somebody_looks(tmp_path):
    clock = Clock()
    found, _ = desk(tmp_path, case(1), case(2), clock=clock)
    clock.later(days=3)
    assert found.take(ADA) is None
    assert [one.status for one in found.closed()] == ["expired", "expired"]
    assert found.expire(Actor("t")) == 0


def test_notes_stand_beside_closed_cases_and_labels_are_told_once(tmp_path):
    found, _ = desk(tmp_path, case(1))
    decide(found, case(1).id, ADA)
    assert found.note(case(1).id, BOB, "sure?").notes[0].text == "sure?"
    (decided,) = found.list_unlabelled()
    found.mark_labelled([decided], "abc", actor=Actor("t"))
    assert found.list_unlabelled() == []
    assert found.find(case(1).id).status == "done"


def test_two_processes_and_one_that_is_killed_answer_each_case_once(tmp_path):
    found, journal = desk(tmp_path, *(case(number) for number in range(24)), clock=None)
    here = __file__.rsplit("/", 1)[0]
    line = [sys.executable, "-c", f"import sys; sys.path.insert(0, {here!r})\n" + WORKER, str(tmp_path)]
    people = [("user:ada", "18", "ends"), ("user:bob", "5", "killed")]  # one case is left, whoever is faster
    processes = [
        subprocess.Popen([*line, *person], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for person in people
    ]
    for process in processes:
        process.stdin.write("g")
        process.stdin.flush()
    said = [process.communicate(timeout=120)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, -signal.SIGKILL]
    acknowledged = [one for words in said for one in words]
    closed = {one.id: one for one in found.closed()}
    assert len(set(acknowledged)) == len(acknowledged)
    assert set(acknowledged) == set(closed)  # nothing that was acknowledged is lost
    assert len(closed) == 23
    assert all(len(one.decisions) == 1 for one in closed.values())
    # the killed one keeps its last case until the lease ends
    assert [one.lease.reviewer for one in found.open()] == ["user:bob"]
    assert list(verify_chain(journal.events())) == []


def test_an_answer_is_withdrawn_until_it_is_a_label_by_its_reviewer_alone(tmp_path):
    clock = Clock()
    found, journal = desk(tmp_path, case(1), case(2), clock=clock)
    first = found.take(ADA)
    decided = decide(found, first.id, ADA)
    with pytest.raises(ConflictError, match="not yours"):
        found.undo(first.id, BOB)
    with pytest.raises(ConflictError, match="changed since"):
        found.undo(first.id, ADA, seen=first.revision)
    again = found.undo(first.id, ADA, seen=decided.revision)
    assert (again.status, again.answers, again.label, again.closed) == ("waiting", (), None, None)
    assert found.closed() == []
    assert found.take(ADA).id == first.id
    decide(found, first.id, ADA, "false")
    assert found.find(first.id).label == "false"
    found.mark_labelled(found.closed(), "x", actor=Actor("t"))
    with pytest.raises(ConflictError, match="has become a label"):
        found.undo(first.id, ADA)
    assert list(verify_chain(journal.events())) == []


def test_what_others_escalated_stays_escalated_and_a_passed_deadline_is_final(tmp_path):
    clock = Clock()
    found, _ = desk(tmp_path, case(1), clock=clock)
    for who in (ADA, BOB):
        found.move(case(1).id, who, "escalated", lambda one, now, who=who: transitions.escalate(one, who, POLICY, now))
    assert found.undo(case(1).id, BOB).escalated
    assert [answer.reviewer for answer in found.find(case(1).id).answers] == [ADA.name]
    assert not found.undo(case(1).id, ADA).escalated
    decide(found, case(1).id, ADA)
    clock.later(days=4)
    with pytest.raises(ConflictError, match="deadline"):
        found.undo(case(1).id, ADA)
