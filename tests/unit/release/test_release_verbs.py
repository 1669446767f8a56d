"""Releases as people start, steer, approve and end them; rollback with nothing but the state folder."""

from __future__ import annotations

import urllib.error
import urllib.request
from datetime import timedelta

import msgspec
import pytest
from release_servers import project, served, serving
from releases import MOMENT, QUICK, World, all_shown, played, policy_with, release, remembered

from cumulant.core.errors import (
    CumulantError,
    EngineUnavailableError,
    LeaseHeldError,
    NotFoundError,
    RefusedError,
    StorageError,
    UsageError,
)
from cumulant.core.events import Actor
from cumulant.core.traffic import Arm
from cumulant.flows.alerting import outbox
from cumulant.flows.deployment.deployment import LocalDeployment
from cumulant.flows.observe.project_metrics import CachedExposition
from cumulant.flows.release import actions, release_queries, store
from cumulant.flows.release.controller.effects import ReleaseEffects, apply_ended_release, with_champion
from cumulant.flows.release.controller.external_servers import ExternalServers
from cumulant.flows.release.controller.metrics_server import serve_metrics
from cumulant.flows.release.rollback import roll_back
from cumulant.flows.release.start import start as starting
from cumulant.flows.release.start.start import _with_approval, check_policy, start_release
from cumulant.flows.release.views import sentence, view
from cumulant.flows.stack.desired_state import DesiredState, change_desired_state, read_desired_state
from cumulant.ports.access import Decision, Principal
from cumulant.ports.registry import ModelVersion
from cumulant.project.notifiers import Receiver
from cumulant.release.decide import end_release, start
from cumulant.release.evidence.accumulate import count_look
from cumulant.release.spec import ApprovalSpec
from cumulant.release.state import Board

ADA, BOB = Principal("user:ada", ("risk",)), Principal("user:bob", ("ops",))


def put(found, one, before=None):
    row = store.read(found.journal(), one.model)
    with found.journal().transaction(actor=Actor("user:ada")) as transaction:
        store.write(transaction, before, one, expect=row[1] if row else 0)
    return one


def approval(**other):
    return policy_with(stages=QUICK, approval=ApprovalSpec(by=["risk"], before="promote", **other))


def test_a_release_of_servers_that_are_not_ours(late, clock):
    with serving() as one, serving() as other:
        outside = ExternalServers(champion=one.url + "/", candidate=other.url)
        begun = start_release(late, principal=ADA, outside=outside, model="fraud", clock=clock)
    assert begun.release.model == "fraud"
    assert begun.release.candidate.endpoints == (other.url,)
    assert [step.stage for step in begun.release.steps] == ["ab", "canary", "canary", "canary"]
    assert "shadow is left out" in begun.notes[0]
    assert store.read_required(late.journal(), "fraud")[0] == begun.release
    assert read_desired_state(late.state, "fraud") == DesiredState(model="fraud"), "the book is of our own servers"


def test_a_newer_one_supersedes_and_its_routes_are_above(late, clock):
    with serving() as one, serving() as other, serving() as third:

        def begin(candidate):
            outside = ExternalServers(champion=one.url, candidate=candidate)
            return start_release(late, principal=ADA, outside=outside, model="fraud", clock=clock).release

        first = begin(other.url)
        clock.sleep(5)
        second = begin(third.url)
    past = release_queries.release_history(late, principal=ADA, model="fraud")
    assert [one.status for one in past] == ["pending", "superseded"]
    assert past[1].id == first.id
    assert second.revision >= past[1].revision
    assert store.read_required(late.journal(), "fraud")[0] == second


def test_a_version_that_is_on_its_way_does_not_begin_again(late, clock):
    with serving() as one, serving() as other:
        outside = ExternalServers(champion=one.url, candidate=other.url)
        first = start_release(late, principal=ADA, outside=outside, clock=clock).release
        with pytest.raises(LeaseHeldError, match=f"on its way already, in the release {first.id}"):
            start_release(late, principal=ADA, outside=outside, clock=clock)
        assert store.read_required(late.journal(), "late")[0] == first, "nothing that it has shown is lost"
        actions.abort(late, principal=ADA, reason="again", model="")
        again = start_release(late, principal=ADA, outside=outside, clock=clock).release
    assert again.id != first.id


@pytest.mark.parametrize(
    ("champion", "candidate", "says"),
    [
        ("http://127.0.0.1:9", "http://127.0.0.1:9/", "the same URL"),
        ("127.0.0.1:9", "http://127.0.0.1:8", "no URL of the champion"),
        ("http://127.0.0.1:9", "file:///etc/passwd", "no URL of the candidate"),
    ],
)
def test_urls_that_cannot_be_compared(late, champion, candidate, says):
    with pytest.raises(UsageError, match=says):
        start_release(late, principal=ADA, outside=ExternalServers(champion=champion, candidate=candidate))


def test_a_server_that_does_not_answer_begins_no_release(late):
    with serving() as one:
        outside = ExternalServers(champion=one.url, candidate="http://127.0.0.1:9")
        with pytest.raises(EngineUnavailableError, match="candidate's server"):
            start_release(late, principal=ADA, outside=outside, ready_within=0.1)
    assert store.read(late.journal(), "late") is None


def test_nothing_is_served_and_nothing_is_registered(late):
    with pytest.raises(NotFoundError, match="alias candidate"):
        start_release(late, principal=ADA)
    with pytest.raises(NotFoundError):
        release_queries.current_release(late, principal=ADA)


def test_a_high_risk_needs_an_approval(tmp_path, clock):
    text = "model: {name: late, risk: high}\n"
    with pytest.raises(CumulantError, match="risk is high"), project(tmp_path, text, clock=clock) as found:
        check_policy(found, found.policies.release)


def test_a_metric_s_function_must_be_there_before_the_release_begins(tmp_path, clock):
    text = "release: {metrics: {cost: {call: 'costs.py:mean', bounds: [0, 1]}}}\n"
    with project(tmp_path, text, clock=clock) as found, pytest.raises(UsageError, match=r"no file costs\.py"):
        check_policy(found, found.policies.release)


def test_pause_resume_and_what_cannot_be_done(late):
    put(late, start(release()))
    assert actions.pause(late, principal=BOB, reason="a sale").reason == "paused by bob: a sale"
    with pytest.raises(UsageError, match="is paused, so it cannot be paused"):
        actions.pause(late, principal=BOB, reason="")
    assert actions.resume(late, principal=BOB).status == "running"
    with pytest.raises(UsageError, match="is running, so it cannot be approved"):
        actions.approve(late, principal=ADA)
    aborted = actions.abort(late, principal=BOB, reason="wrong data")
    assert (aborted.status, aborted.reason) == ("rolled_back", "aborted by bob: wrong data")
    with pytest.raises(UsageError, match="is rolled back, so it cannot be aborted"):
        actions.abort(late, principal=BOB, reason="again")
    with pytest.raises(UsageError, match="is rolled back, so it cannot be promoted"):
        actions.promote(late, principal=BOB, reason="x")


def test_what_ends_a_release_without_a_reason_is_told_without_one(late):
    put(late, start(release()))
    assert actions.abort(late, principal=BOB, reason="").reason == "aborted by bob"


def test_who_may_approve(late):
    waits = msgspec.structs.replace(
        all_shown(start(release(approval()))), status="awaiting_approval", author="user:ada"
    )
    put(late, waits)
    with pytest.raises(RefusedError, match="takes a member of risk"):
        actions.approve(late, principal=BOB)
    with pytest.raises(RefusedError, match="an author may not approve"):
        actions.approve(late, principal=ADA)
    with pytest.raises(RefusedError, match="an author may not approve"):
        actions.promote(late, principal=ADA, reason="now")
    eve = Principal("user:eve", ("risk",))
    assert actions.approve(late, principal=eve, reason="seen").status == "promoted"
    event = list(late.journal().events(kinds=("release.ended",)))[-1]
    assert (event.actor, event.reason) == ("user:eve", "seen")


def test_policies_see_the_author_of_what_is_approved(late, monkeypatch):
    seen: list[tuple[str, str, dict[str, str]]] = []

    class FourEyes:
        def check(self, principal, action, resource):
            seen.append((principal.id, action, resource.labels))
            return Decision(allowed=resource.labels.get("author") != principal.id, policies=("four-eyes",))

    monkeypatch.setattr(late, "access", FourEyes)
    declared = approval(excluded="nobody")
    put(late, msgspec.structs.replace(all_shown(start(release(declared))), status="awaiting_approval", author=ADA.id))
    for ended in (actions.approve, actions.promote):
        with pytest.raises(RefusedError, match=r"user:ada may not do release\.approve to"):
            ended(late, principal=ADA, reason="mine")
    eve = Principal("user:eve", ("risk",))
    assert actions.approve(late, principal=eve, reason="seen").status == "promoted"
    assert [labels.get("author") for who, action, labels in seen if (who, action) == (eve.id, "release.approve")] == [
        None,
        "user:ada",
    ]


def test_who_asks_for_anybody_takes_anybody_and_an_approval_that_is_declared_stays(late, tmp_path, clock):
    asked = _with_approval(policy_with(stages=QUICK))
    waits = all_shown(start(release(asked, author="user:ada")))
    put(late, msgspec.structs.replace(waits, status="awaiting_approval"))
    assert actions.approve(late, principal=Principal("user:ada")).status == "promoted"
    declared = policy_with(approval=ApprovalSpec(by=["risk"], before="canary"))
    assert _with_approval(declared) == declared


def test_a_promotion_by_hand_needs_the_declared_approval(late):
    put(late, start(release(approval())))
    with pytest.raises(RefusedError, match="takes a member of risk"):
        actions.promote(late, principal=BOB, reason="now")
    assert actions.promote(late, principal=ADA, reason="now").status == "promoted"


def test_a_word_finds_its_place_between_two_writes_of_the_controller(late, monkeypatch):
    put(late, start(release()))
    write, left = store.write, [3]

    def busy(transaction, before, after, *, expect):
        if left[0]:
            left[0] -= 1
            raise LeaseHeldError("somebody else wrote it", subject="late")
        return write(transaction, before, after, expect=expect)

    monkeypatch.setattr(store, "write", busy)
    assert actions.pause(late, principal=BOB, reason="").status == "paused"
    left[0] = 99
    with pytest.raises(LeaseHeldError):
        actions.resume(late, principal=BOB)


def test_why_begins_with_a_sentence_also_for_one_of_the_past(late):
    over = end_release(start(release()), "rolled_back", "errors became worse", at=MOMENT)
    put(late, over)
    put(late, start(release(id="r2", begun=MOMENT + timedelta(hours=1))), before=over)
    assert sentence(release_queries.find_release(late, "r1", principal=ADA)) == (
        "version 2 of late was rolled back in shadow: errors became worse"
    )
    assert release_queries.find_release(late, "", principal=ADA).id == "r2"
    with pytest.raises(NotFoundError, match="r3"):
        release_queries.find_release(late, "r3", principal=ADA)
    assert [one.id for one in release_queries.release_history(late, principal=ADA)] == ["r2", "r1"]
    assert [one.state for one in view(over).stages] == ["ended here", "skipped", "skipped", "skipped", "skipped"]


@pytest.mark.parametrize("status", ["promoted", "rolled_back"])
def test_an_ended_release_is_kept_with_its_intervals_and_shown_as_at_its_end(late, status):
    canary = played(World(seed=5), remembered(release()), until="canary 5%")
    canary, _ = count_look(canary, World(seed=6).look(canary))
    over = end_release(canary, status, "as somebody wished", at=MOMENT)
    shown = view(over)
    assert any(one.low is not None for one in shown.metrics)
    put(late, over)
    row = release_queries.current_release(late, principal=ADA)
    assert (view(row), row.memory, {len(board.state) for board in row.boards.values()}) == (shown, {}, {0})
    put(late, start(release(id="r2", begun=MOMENT + timedelta(hours=1))), before=row)
    assert view(release_queries.find_release(late, "r1", principal=ADA)) == shown
    (fact,) = late.journal().events(kinds=("release.ended",))
    assert {one["metric"]: one["low"] for one in fact.data["figures"]} == {one.metric: one.low for one in shown.metrics}


@pytest.mark.parametrize(
    "test",
    [
        {"step": 1},
        {"design": {"bursty": True}, "table": "", "step": 0},
        {"design": [], "table": None, "step": 0},
        {"design": {}, "table": [], "shapes": None, "batch": None, "step": 0},
    ],
)
def test_a_release_whose_evidence_cannot_be_read_can_be_ended(late, test):
    board = Board(metric="errors", unit="%", margin=0.005, harm_bar=4.5, fine_bar=3.0, state={"test": test, "step": 0})
    put(late, msgspec.structs.replace(start(release()), boards={"errors": board}))
    actions.abort(late, principal=ADA, reason="it was of an earlier version")
    found = release_queries.current_release(late, principal=ADA)
    assert found.status == "rolled_back"
    assert found.boards["errors"] == msgspec.structs.replace(board, state={})


def test_the_metrics_of_the_controller_over_http(late, tmp_path):
    file = tmp_path / "stack" / "controller.json"
    with serve_metrics(tmp_path / "stack", CachedExposition([late])) as url:
        assert msgspec.json.decode(file.read_bytes())["url"] == url
        with urllib.request.urlopen(f"{url}/metrics", timeout=30) as response:
            labels = f'project="{late.name}",environment="local",level="critical"'
            assert f"cumulant_alerts_firing{{{labels}}} 0" in response.read().decode()
        for path in ("/", "/v1/releases", "/metrics/x", "/%2e%2e"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(url + path, timeout=30)
    assert not file.exists()
    with serve_metrics(tmp_path / "stack", str):
        file.write_text('{"url":"http://127.0.0.1:1","pid":1}')
    assert file.exists(), "another controller's"


def effects(found, clock, said, receivers=()):
    return ReleaseEffects(
        LocalDeployment(found),
        registry=found.registry,
        journal=found.journal(),
        traffic=found.gateway(),
        receivers=receivers,
        clock=clock,
        actor=Actor("service:c"),
        report=said.append,
    )


def test_a_promotion_in_the_book_is_made_once(late, clock):
    book = served(late, "1", v1="http://127.0.0.1:1", v2="http://127.0.0.1:2")
    book = msgspec.structs.replace(book, candidate="2")
    over = end_release(start(release()), "promoted", "", at=MOMENT)
    after = apply_ended_release(book, over, MOMENT)
    assert (after.champion, after.candidate, after.former) == ("2", None, ("1",))
    assert after.versions["1"].warm_until == MOMENT + timedelta(hours=24)
    assert apply_ended_release(after, over, MOMENT + timedelta(hours=9)) == after
    back = apply_ended_release(book, end_release(start(release()), "rolled_back", "", at=MOMENT), MOMENT)
    assert (back.champion, back.candidate, back.former) == ("1", None, ())
    assert back.versions["2"].warm_until is not None, "kept to be looked into"


def test_people_are_told_through_the_outbox_once(late, clock):
    over = end_release(start(release()), "rolled_back", "errors became worse", at=MOMENT)
    hook, keeper = (
        Receiver(name=name, url="https://127.0.0.1/secret", shown="", keeps_state=keeps)
        for name, keeps in (("hook", False), ("keeper", True))
    )
    for _ in range(2):
        assert effects(late, clock, [], [hook, keeper]).settle(over, "notified")
    entries = outbox.waiting(late.journal())
    assert [entry.key.partition("/")[0] for entry in entries] == ["hook", "keeper"], "of both kinds, each once"
    told = entries[0].message
    assert (told.kind, told.status, told.level, told.subject) == ("release", "rolled_back", "warning", over.id)
    assert "errors became worse" in told.text
    assert told.detail["candidate"] == over.candidate.version
    fact = next(late.journal().events(kinds=("release.told",))).data
    assert fact["receivers"] == 2
    assert "127.0.0.1" not in str(fact), "a URL may hold a secret"


def test_where_nobody_is_named_nobody_is_told(late, clock):
    over = end_release(start(release()), "promoted", "", at=MOMENT)
    assert effects(late, clock, []).settle(over, "notified")
    assert list(late.journal().events(kinds=("release.told",))) == []


def test_what_is_pending_and_what_others_servers_need_not(late, clock):
    acting = effects(late, clock, [])
    over = end_release(start(release()), "promoted", "", at=MOMENT)
    assert acting.pending(start(release())) == ()
    assert acting.pending(over) == ("desired_state", "notified", "alias", "tags", "drained")
    assert acting.pending(msgspec.structs.replace(over, settled=frozenset({"desired_state", "notified"}))) == (
        "alias",
        "tags",
        "drained",
    )
    away = msgspec.structs.replace(over, candidate=Arm(name="candidate", version="http://h", endpoints=("http://h",)))
    assert acting.pending(away) == ("notified", "drained")
    late.gateway().busy["late", "candidate"] = 1
    assert not acting.settle(over, "drained")


def test_rollback_needs_neither_journal_nor_registry(late, clock):
    def unreachable():
        raise StorageError("the disk is gone", subject="journal")

    late.journal = late.registry = unreachable
    with serving() as one, serving() as other:
        book = served(late, "2", v1=one.url, v2=other.url)
        assert book.champion == "2"
        found = roll_back(late, "late", principal=ADA, reason="complaints", to="1", clock=clock)
    assert (found.version, found.given_up, found.revision) == ("1", ("2",), 2)
    assert len(found.missed) == 2
    assert late.gateway().in_force("late").champion.version == "1"
    after = read_desired_state(late.state, "late")
    assert (after.champion, after.former) == ("1", ())
    with pytest.raises(
        NotFoundError, match="no earlier version"
    ):  # asked twice, it does not bring back what was given up
        roll_back(late, "late", principal=ADA, reason="and again", clock=clock)
    assert roll_back(late, "late", principal=ADA, reason="and back", to="2", clock=clock).version == "2"


def test_rollback_of_a_release_goes_to_the_champion(late, clock):
    book = served(late, "1", v1="http://127.0.0.1:1", v2="http://127.0.0.1:2")
    now = msgspec.structs.replace(
        late.gateway().in_force("late"), candidate=book.arm("2", "candidate"), weight=10.0, revision=5
    )
    late.gateway().apply(now)
    found = roll_back(late, "late", principal=ADA, reason="x", clock=clock)
    assert (found.version, found.given_up, found.revision) == ("1", ("2",), 6)
    assert late.gateway().in_force("late").candidate is None
    assert next(late.journal().events(kinds=("release.rolled_back",))).data["version"] == "1"


def test_rollback_to_what_was_never_served(late, clock):
    with pytest.raises(NotFoundError, match="no earlier version") as refused:
        roll_back(late, "late", principal=ADA, reason="x", clock=clock)
    assert refused.value.hint == "only a version that was the champion here can come back"
    served(late, "1", v1="http://127.0.0.1:1")
    with pytest.raises(NotFoundError, match="version 7 of late has not been served here"):
        roll_back(late, "late", principal=ADA, reason="x", to="7", clock=clock)
    with pytest.raises(UsageError, match="version 1 has all requests"):
        roll_back(late, "late", principal=ADA, reason="x", to="1", clock=clock)


def test_a_release_of_a_version_that_the_gate_refused_says_so(clock, tmp_path):
    """Only one that is named can be; here it waits for the release of version 2."""
    with project(tmp_path / "late", "release: {newer: waits}\n", clock=clock) as late:
        served(late, "1", v1="http://127.0.0.1:1", v2="http://127.0.0.1:2")
        put(late, start(release()))
        registry, folder = late.registry(), tmp_path / "servable"
        folder.mkdir()
        for number in ("1", "2", "3"):
            tags = {"cumulant.verdict": "refused" if number == "3" else "passed"}
            with registry.run("late", number, key=number) as run:
                registry.register(run, "late", folder, [1], tags=tags, key=number)
        found = start_release(late, "late/3", principal=ADA, clock=clock)
        assert found.waits_for is not None
        assert found.notes == ("the gate refused version 3 of late when it was trained",)


@pytest.mark.parametrize("over", [False, True])
def test_rollback_to_a_candidate_that_never_answered_a_caller_is_refused(late, clock, over):
    """The shadow of version 3 has just begun, or its release was aborted; 2 is the champion, in place of 1."""
    served(late, "1", v1="http://127.0.0.1:1", v2="http://127.0.0.1:2")
    third = msgspec.structs.replace(read_desired_state(late.state, "late").versions["1"], version="3", port=3)

    def released(book):
        book = msgspec.structs.replace(book, versions={**book.versions, "3": third})
        return msgspec.structs.replace(with_champion(book, "2", None), candidate=None if over else "3")

    book, traffic = change_desired_state(late.state, "late", released), late.gateway()
    shadow = {} if over else {"candidate": book.arm("3", "candidate"), "mirror": 100.0}
    traffic.apply(
        msgspec.structs.replace(traffic.in_force("late"), champion=book.arm("2", "champion"), revision=5, **shadow)
    )
    with pytest.raises(NotFoundError, match="version 3 of late has not been served here") as refused:
        roll_back(late, "late", principal=ADA, reason="x", to="3", clock=clock)
    assert refused.value.hint == "versions that have, and can come back: 1, 2"
    assert traffic.in_force("late").revision == 5
    assert roll_back(late, "late", principal=ADA, reason="x", clock=clock).version == ("1" if over else "2")


def test_rollback_waits_for_a_server_and_moves_nothing_without_it(late, clock, monkeypatch):
    served(late, "2", v1="http://127.0.0.1:9", v2="http://127.0.0.1:2")
    monkeypatch.setattr(late.gateway(), "address", lambda: "it runs")
    with pytest.raises(EngineUnavailableError, match="requests stay where they are"):
        roll_back(late, "late", principal=ADA, reason="x", to="1", ready_within=0.0, clock=clock)
    assert late.gateway().in_force("late").champion.version == "2"
    warm = read_desired_state(late.state, "late").versions["1"].warm_until
    assert warm is not None, "the supervisor starts it meanwhile"


def test_another_model_does_not_get_this_one_s_servers(late, clock):
    served(late, "1", v1="http://127.0.0.1:1", v2="http://127.0.0.1:2")
    with pytest.raises(NotFoundError, match='no model "other" is served here'):
        roll_back(late, "other", principal=ADA, reason="x", to="2", clock=clock)
    assert late.gateway().in_force("other") is None
    with pytest.raises(NotFoundError) as refused:
        roll_back(late, "lat", principal=ADA, reason="x", clock=clock)
    assert refused.value.hint == 'did you mean "late"?'


def test_a_candidate_that_is_superseded_serves_until_its_requests_are_taken(late, clock, monkeypatch):
    with serving() as one, serving() as two, serving() as three:
        served(late, "1", v1=one.url, v2=two.url, v3=three.url)
        change_desired_state(late.state, "late", lambda book: msgspec.structs.replace(book, candidate="2"))
        put(late, start(release()))
        monkeypatch.setattr(
            starting,
            "find_candidate",
            lambda *_: ModelVersion(name="late", version="3", uri="models:/late/3", run_id=None, created=MOMENT),
        )
        monkeypatch.setattr(starting, "adopt", lambda *_, **__: None)
        monkeypatch.setattr(starting, "find_author", lambda *_: "")
        up = []
        real = starting.wait_until_ready  # type: ignore[attr-defined]
        monkeypatch.setattr(
            starting,
            "wait_until_ready",
            lambda *words, **other: (
                up.append(read_desired_state(late.state, "late").running(MOMENT)) or real(*words, **other)
            ),
        )
        start_release(late, "late/3", principal=ADA, clock=clock)
    assert [{one.version for one in found} for found in up] == [{"1", "2", "3"}] * 2


def test_a_candidate_waits_where_the_champion_would_know_less(late, clock, monkeypatch):
    """While a release is under way, the champion's server is not replaced by one that reads the newest data."""
    served(late, "1", v1="http://127.0.0.1:1", v2="http://127.0.0.1:2", v3="http://127.0.0.1:3")
    change_desired_state(late.state, "late", lambda book: msgspec.structs.replace(book, candidate="2"))
    put(late, start(release()))
    version = ModelVersion(name="late", version="3", uri="models:/late/3", run_id=None, created=MOMENT)
    monkeypatch.setattr(starting, "find_candidate", lambda *_: version)
    asked = []
    monkeypatch.setattr(starting, "reads_older_data", lambda _, champion, **__: asked.append(champion) or True)
    begun = start_release(late, "late/3", principal=ADA, clock=clock)
    assert (asked, begun.release, begun.waits_for) == (["1"], None, "r1")
    assert "stored features of older data" in begun.notes[0]
    assert release_queries.current_release(late, principal=ADA).status == "running"
    assert late.journal().get(store.WAITING, "late").value["uri"] == "late/3"
