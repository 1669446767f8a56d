"""What is wrong with a model, worst first: the level, the order and the next step of each finding."""

from datetime import UTC, datetime, timedelta
from itertools import permutations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cumulant.alerting.alert_state import Alert, AlertsState, Finding, Silence
from cumulant.core.traffic import Arm
from cumulant.flows.ledger.processes import this_process
from cumulant.flows.monitoring.state import RetrainRequest
from cumulant.flows.overview.changes import Change, last_before
from cumulant.flows.overview.problems import (
    LEVELS,
    ModelProblem,
    NextStep,
    alert_problems,
    release_problems,
    retraining_problems,
    stack_problems,
    with_rollback,
    worst_first,
    worst_level,
)
from cumulant.flows.stack.identity import Home
from cumulant.flows.stack.status import ChildStatus, Status
from cumulant.project.release_section import release_policy
from cumulant.release.spec import ReleaseSpec
from cumulant.release.state import Release
from cumulant.release.steps import ReleaseStep

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
STEP = NextStep(label="look", target="alerts", command="cumulant alerts list")


def problem(level="warning", *, known=False, noticed=NOW, what="loss", cause=""):
    return ModelProblem(
        level=level, what=what, subject="x", sentence="s", noticed=noticed, known=known, cause=cause, next=STEP
    )


def alert(level="critical", kind="concept", *, status="firing", acknowledged=None, moved="the loss rose.", key="loss"):
    finding = Finding(model="late", rule=key, subject="loss", moved=moved, since=NOW, kind=kind, next="look at it.")
    return Alert(
        id="a1", status=status, level=level, finding=finding, began=NOW, seen=NOW, fired=NOW, acknowledged=acknowledged
    )


def state_of(*alerts, silences=()):
    return AlertsState(alerts={str(place): each for place, each in enumerate(alerts)}, silences=silences)


PROBLEMS = st.builds(
    problem,
    st.sampled_from(LEVELS),
    known=st.booleans(),
    noticed=st.none() | st.datetimes(timezones=st.just(UTC)),
    what=st.sampled_from(["loss", "stack", "release"]),
)


@given(st.lists(PROBLEMS, max_size=6))
def test_a_worse_level_comes_first_and_the_order_of_findings_does_not_matter(problems):
    ranked = worst_first(problems)
    levels = [LEVELS.index(each.level) for each in ranked]
    assert levels == sorted(levels)
    assert worst_first(reversed(problems)) == ranked


def test_what_nobody_knows_of_comes_before_what_somebody_does_and_then_the_longest_first():
    known, old, new = problem(known=True), problem(noticed=NOW - timedelta(1)), problem(noticed=NOW)
    for listed in permutations([known, old, new]):
        assert worst_first(listed) == [old, new, known]


@pytest.mark.parametrize(
    ("problems", "evaluated", "level"),
    [
        ([], True, "ok"),
        ([], False, "unknown"),
        ([problem("notice")], False, "notice"),
        ([problem("warning"), problem("critical")], True, "critical"),
        ([problem("critical", known=True)], True, "warning"),
        ([problem("critical", known=True), problem("critical")], True, "critical"),
        ([problem("notice", known=True)], True, "notice"),
    ],
)
def test_the_level_is_that_of_the_worst_finding_that_nobody_knows_of(problems, evaluated, level):
    assert worst_level(problems, evaluated=evaluated) == level


def test_alerts_that_fire_are_findings_and_others_are_not():
    assert alert_problems(state_of(alert(status="pending"), alert(status="resolved")), NOW) == []
    (only,) = alert_problems(state_of(alert()), NOW)
    assert (only.level, only.cause, only.sentence) == ("critical", "concept", "the loss rose")
    assert only.next.command == "cumulant alerts show a1"
    assert only.advice == "look at it"


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        ("data_fault", "data"),
        ("feed", "data"),
        ("quality", "data"),
        ("concept", "monitoring"),
        ("volume", "monitoring"),
        ("", "alerts"),
    ],
)
def test_the_next_step_leads_to_where_the_cause_is_seen(kind, target):
    (only,) = alert_problems(state_of(alert(kind=kind)), NOW)
    assert only.next.target == target


def test_acknowledged_and_silenced_alerts_are_known():
    silence = Silence(id="s", until=NOW + timedelta(hours=1), by="user:ada")
    assert alert_problems(state_of(alert(acknowledged="user:ada")), NOW)[0].known
    assert alert_problems(state_of(alert(), silences=(silence,)), NOW)[0].known
    assert not alert_problems(state_of(alert(), silences=(silence,)), NOW + timedelta(hours=2))[0].known


def release(status="running", *, ended=None, reason=""):
    step = ReleaseStep(stage="canary", weight=10.0, at_least=1.0, at_most=9.0, samples=1)
    policy = msgspec.structs.replace(release_policy(ReleaseSpec()), steps=(step,))
    return Release(
        id="r1", model="late", champion=Arm(name="champion", version="1", endpoints=()), candidate=Arm(name="candidate", version="2", endpoints=()),
        policy=policy, status=status, begun=NOW - timedelta(hours=2), ended=ended, reason=reason,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("given_release", "level", "part"),
    [
        (release("awaiting_approval"), "notice", "version 2 waits for an approval"),
        (release("paused", reason="paused by ada: lunch"), "notice", "is paused by ada: lunch"),
        (release("running"), "notice", "canary 10%, 10% of the requests"),
        (
            release("rolled_back", ended=NOW - timedelta(hours=1), reason="errors rose"),
            "warning",
            "rolled back: errors rose",
        ),
        (release("inconclusive", ended=NOW - timedelta(hours=1), reason="no data"), "warning", "not promoted: no data"),
    ],
)
def test_a_release_that_needs_a_word_is_a_finding(given_release, level, part):
    (only,) = release_problems(given_release, NOW)
    assert only.level == level
    assert part in only.sentence
    assert (only.next.target, only.next.subject) == ("release", "r1")


def test_a_release_that_is_long_over_or_went_well_is_none():
    assert release_problems(None, NOW) == []
    assert release_problems(release("promoted", ended=NOW), NOW) == []
    assert release_problems(release("rolled_back", ended=NOW - timedelta(days=2)), NOW) == []


@pytest.mark.parametrize(
    ("stage", "level"), [("refused", "warning"), ("failed", "warning"), ("offered", "notice"), ("requested", "notice")]
)
def test_a_retraining_that_needs_somebody_is_a_finding(stage, level):
    request = RetrainRequest(
        requested=NOW, champion="1", trigger="harm", sentence="harm.", stage=stage, candidate="late/2"
    )
    assert [each.level for each in retraining_problems(request)] == [level]


@pytest.mark.parametrize("stage", ["trained", "released"])
def test_a_retraining_that_goes_on_by_itself_is_none(stage):
    request = RetrainRequest(requested=NOW, champion="1", trigger="harm", sentence="harm.", stage=stage)
    assert retraining_problems(request) == []
    assert retraining_problems(None) == []


def child(name="server-1", kind="server", *, state="ready", ready=True, message="", trouble=""):
    return ChildStatus(
        name=name, kind=kind, state=state, ready=ready, restarts=0, not_ready_since=None if ready else NOW, since=NOW,
        message=message, trouble=trouble,
    )  # fmt: skip


def status(*children, trouble=""):
    home = Home(folder="/x", inode=1, host="h", device=1)
    return Status(
        model="late", environment="local", supervisor=this_process(), since=NOW, at=datetime.now(UTC),
        url="http://127.0.0.1:1", children=children, trouble=trouble, home=home,
    )  # fmt: skip


def test_processes_that_answer_are_no_finding():
    assert stack_problems(None) == []
    assert stack_problems(status(child())) == []
    assert stack_problems(status(child(state="starting", ready=False))) == []


@pytest.mark.parametrize(
    ("process", "level", "sentence"),
    [
        (
            child(state="waiting", ready=False, message="out of memory"),
            "critical",
            "server-1 has ended and is started again: out of memory",
        ),
        (child("gateway", "gateway", state="not ready", ready=False), "critical", "gateway is not ready"),
        (child("controller", "controller", state="ended", ready=False), "warning", "controller has ended"),
        (child(trouble="its queue is full"), "critical", "server-1 answers, but its queue is full"),
    ],
)
def test_a_process_that_should_answer_and_does_not_is_a_finding(process, level, sentence):
    (only,) = stack_problems(status(process))
    assert (only.level, only.sentence) == (level, sentence)


def test_the_supervisor_s_own_trouble_is_critical():
    assert [each.sentence for each in stack_problems(status(trouble="no lock"))] == ["no lock"]


def change(minutes, *, promotion=False):
    return Change(at=NOW - timedelta(minutes=minutes), kind="k", text="t", by="u", seq=1, promotion=promotion)


def test_the_last_change_is_looked_for_by_the_clock_of_the_data_and_then_by_that_of_the_machine():
    changes = [change(5), change(30)]
    assert last_before(changes, NOW - timedelta(minutes=10), NOW) == changes[1]
    assert last_before(changes, NOW - timedelta(days=900), NOW) == changes[0]
    assert last_before(changes, NOW - timedelta(days=900), None) is None
    assert last_before(changes, None, None) == changes[0]
    assert last_before([]) is None


def test_harm_after_a_promotion_is_rolled_back():
    harmed = with_rollback(problem("critical", cause="concept"), promoted=True, model="late")
    assert harmed.next.target == "rollback"
    assert harmed.next.command == 'cumulant rollback late --reason "loss"'


@pytest.mark.parametrize(
    ("given_problem", "promoted"),
    [
        (problem("critical"), False),
        (problem("warning"), True),
        (problem("critical", cause="data_fault"), True),
        (problem("critical", what="stack"), True),
    ],
)
def test_nothing_else_is(given_problem, promoted):
    assert with_rollback(given_problem, promoted=promoted, model="late") == given_problem
