"""What may become of a case: one answer a reviewer, two that agree or a third that decides, deadlines, escalation."""

from datetime import timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from review_support import CALM, NOW, POLICY, case

from cumulant.core.errors import LeaseHeldError, UsageError
from cumulant.review import transitions
from cumulant.review.cases import case_id
from cumulant.review.transitions import Reviewer, wants_second

ADA, BOB, EVE = Reviewer("user:ada"), Reviewer("user:bob"), Reviewer("user:eve", ("seniors",))
SENIORS = msgspec.structs.replace(POLICY, escalate_to=("seniors",))


def test_one_decision_is_enough_where_no_second_is_wanted():
    done = transitions.decide(case(), ADA, "true", POLICY, NOW)
    assert (done.status, done.label, done.closed) == ("done", "true", NOW)
    with pytest.raises(UsageError, match="is closed"):
        transitions.decide(done, BOB, "false", POLICY, NOW)


def test_two_that_agree_close_a_case_and_two_that_differ_ask_a_third():
    first = transitions.decide(case(second=True), ADA, "true", POLICY, NOW)
    assert (first.status, first.label) == ("waiting", None)
    with pytest.raises(UsageError, match=r"you have decided case .* already"):
        transitions.decide(first, ADA, "true", POLICY, NOW)
    assert transitions.decide(first, BOB, "true", POLICY, NOW).status == "done"
    odd = transitions.decide(first, BOB, "false", POLICY, NOW)
    assert (odd.status, odd.escalated, odd.disputed) == ("waiting", True, True)
    last = transitions.decide(odd, EVE, "false", POLICY, NOW)
    assert (last.status, last.label) == ("done", "false")


def test_a_lease_keeps_others_out_until_it_ends():
    taken = transitions.take(case(), ADA, POLICY, NOW)
    with pytest.raises(LeaseHeldError, match="with user:ada"):
        transitions.decide(taken, BOB, "true", POLICY, NOW + timedelta(minutes=29))
    assert transitions.decide(taken, BOB, "true", POLICY, NOW + timedelta(minutes=30)).status == "done"
    assert transitions.decide(taken, ADA, "true", POLICY, NOW + timedelta(minutes=90)).status == "done"


def test_escalated_cases_go_to_those_named_for_it_also_to_who_escalated():
    up = transitions.escalate(case(), ADA, SENIORS, NOW)
    with pytest.raises(UsageError, match=r"you have skipped case .*, which leaves it to others"):
        transitions.decide(transitions.skip(case(), ADA, SENIORS, NOW), ADA, "true", SENIORS, NOW)
    with pytest.raises(UsageError, match="was escalated to seniors"):
        transitions.decide(up, BOB, "true", SENIORS, NOW)
    assert transitions.decide(up, EVE, "true", SENIORS, NOW).status == "done"
    assert transitions.decide(transitions.escalate(case(), ADA, POLICY, NOW), ADA, "true", POLICY, NOW).status == "done"


def test_an_assigned_case_is_for_one_reviewer():
    given_ = transitions.assign(transitions.take(case(), ADA, POLICY, NOW), "user:bob")
    assert given_.lease is None
    assert not transitions.is_open_to(given_, ADA, POLICY, NOW)
    assert transitions.is_open_to(transitions.assign(given_, None), ADA, POLICY, NOW)
    with pytest.raises(UsageError, match="has answered"):
        transitions.assign(transitions.skip(given_, BOB, POLICY, NOW), "user:bob")


def test_an_escalated_case_that_is_given_to_somebody_is_for_that_one():
    up = transitions.assign(transitions.escalate(case(), ADA, SENIORS, NOW), "user:bob")
    assert [transitions.is_open_to(up, who, SENIORS, NOW) for who in (ADA, BOB, EVE)] == [False, True, False]
    with pytest.raises(LeaseHeldError, match="with user:bob"):
        transitions.check(up, Reviewer("user:joe"), SENIORS, NOW)
    assert transitions.decide(up, BOB, "true", SENIORS, NOW).status == "done"


def test_at_the_deadline_a_case_is_dropped_escalated_or_closed_by_the_one_decision_it_has():
    late = NOW + timedelta(days=3)
    assert transitions.at_deadline(case(), POLICY, late - timedelta(seconds=1)) == case()
    assert transitions.at_deadline(case(), POLICY, late).status == "expired"
    half = transitions.decide(case(second=True), ADA, "true", POLICY, NOW)
    assert transitions.at_deadline(half, POLICY, late).label == "true"
    up = msgspec.structs.replace(POLICY, fallback="escalate")
    again = transitions.at_deadline(transitions.take(case(), ADA, POLICY, NOW), up, late)
    assert (again.status, again.escalated, again.lease, again.deadline) == (
        "waiting",
        True,
        None,
        late + timedelta(days=3),
    )
    assert transitions.at_deadline(again, up, again.deadline).status == "expired"


def test_second_opinions_are_a_share_of_the_cases():
    spec = msgspec.structs.replace(POLICY, second=0.2)
    chosen = [wants_second(case_id("w", number, 0), spec) for number in range(2000)]
    assert 0.17 < sum(chosen) / 2000 < 0.23
    assert not wants_second("ffffffffffff", POLICY)
    assert wants_second("ffffffffffff", msgspec.structs.replace(POLICY, second=1.0))


def test_notes_are_kept_and_say_something():
    assert transitions.note(case(), ADA, " worn ", NOW).notes[0].text == "worn"
    with pytest.raises(UsageError, match="empty note"):
        transitions.note(case(), ADA, "  ", NOW)


WHO = st.sampled_from([ADA, BOB, EVE])
STEP = st.tuples(st.sampled_from(["take", "yes", "no", "skip", "escalate", "wait", "late"]), WHO)


@CALM
@given(st.lists(STEP, max_size=15), st.booleans(), st.sampled_from([POLICY, SENIORS]))
def test_whatever_people_do_a_case_ends_once_with_a_label_that_somebody_gave(steps, second, spec):
    now, found = NOW, case(second=second)
    for what, who in steps:
        before = found
        try:
            if what in {"wait", "late"}:
                now += timedelta(minutes=20) if what == "wait" else timedelta(days=2)
                found = transitions.at_deadline(found, spec, now)
            elif what in {"yes", "no"}:
                found = transitions.decide(found, who, "true" if what == "yes" else "false", spec, now)
            else:
                found = getattr(transitions, what)(found, who, spec, now)
        except (LeaseHeldError, UsageError):
            assert what not in {"wait", "late"}
            assert not transitions.is_open_to(before, who, spec, now)
        if before.status != "waiting":
            assert found == before
    people = [one.reviewer for one in found.decisions]
    assert len(people) == len(set(people)) <= 3
    assert (found.status == "done") == (found.label is not None)
    if found.label is not None:
        assert found.label in {one.label for one in found.decisions}
        assert found.lease is None
    if found.status == "waiting" and not found.second:
        assert not found.decisions
