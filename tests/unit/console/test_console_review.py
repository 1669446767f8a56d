"""The review pages: one case after another, blind until decided, and two reviewers who act at once."""

from __future__ import annotations

import html
import re
from datetime import UTC, datetime, timedelta

import pytest
from console_support import ADA, HOSTILE, console_client, make_project, send_form

from cumulant.console.pages.review import label_choices
from cumulant.core.events import Actor
from cumulant.flows.ledger.decisions import PersonalDataRead
from cumulant.flows.outcomes.labels import import_predictions
from cumulant.flows.review import service
from cumulant.flows.review.case_index import CaseIndex
from cumulant.flows.review.fill_queue import fill
from cumulant.flows.review.read_ahead import ReadAhead, read_next
from cumulant.flows.review.views import policy_of
from cumulant.flows.subjects.subjects import SubjectErased
from cumulant.ports.access import Principal
from cumulant.review.queue import ReviewQueue

BOB = Principal("user:bob", via="http")
BASE = "/projects/shop/review"
CASES = 6
TEXT = """\
data: {visits: {path: visits.csv, key: visit, event_time: {column: began, zone: UTC}, personal: [email]}}
training: {target: bought}
monitoring: {review: {budget: 6/day, sample: 100%, second: 0%}}
"""


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "shop"
    with make_project(folder, "shop", TEXT) as loaded:
        (folder / "visits.csv").write_text("visit,began,email,bought\nv1,2026-01-01T00:00:00Z,a@example.com,yes\n")
        at = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
        quoted = HOSTILE.replace('"', '""')
        rows = [f'r{n},{at},yes,0.73{n},{n},person{n}@example.com,"{quoted}"' for n in range(CASES)]
        (folder / "old.csv").write_text("\n".join(["id,at,said,p,pages,email,comment", *rows]) + "\n")
        names = {"id": "id", "time": "at", "prediction": "said", "score": "p"}
        import_predictions(loaded, folder / "old.csv", names, principal=ADA)
        assert fill(loaded, principal=ADA, at_once=True).added == CASES
        yield loaded


@pytest.fixture
def client(project):
    return console_client(project)


def queue(project):
    return ReviewQueue(project.journal(), "shop", policy_of(project))


def begin(client):
    """Take the next case; the path of its page."""
    response = send_form(client, f"{BASE}/next", BASE)
    assert response.status_code == 303
    return response.headers["location"]


def seen(client, path):
    return re.search(r'name="seen" value="([^"]+)"', client.get(path).text)[1]


def test_a_case_shows_the_request_with_hashes_and_hides_the_answer_until_decided(client, project):
    path = begin(client)
    text = client.get(path).text
    assert "Hidden until you decide" in text
    assert "<code>bought</code>" in text
    assert "0.73" not in text
    assert "@example.com" not in text
    assert re.search(r"<dt>email</dt><dd>#[0-9a-f]+</dd>", text)
    assert HOSTILE not in text
    assert html.escape(HOSTILE, quote=False)[:20] in text.replace("&#34;", '"')
    answered = send_form(client, f"{path}/decide", path, label="yes", seen=seen(client, path), note=HOSTILE)
    assert answered.status_code == 303
    assert answered.headers["location"].startswith(f"{BASE}/cases/")
    after = client.get(path).text
    assert "0.73" in after
    assert "decided yes" in after
    assert HOSTILE not in after
    assert queue(project).list_unlabelled()[0].decisions[0].reviewer == "user:ada"


def test_all_cases_are_decided_one_after_another_and_then_none_is_left(client, project):
    path, visited = begin(client), []
    while "/cases/" in path:
        page = path.partition("?")[0]
        visited.append(page)
        response = send_form(client, f"{page}/decide", page, label="no", seen=seen(client, page))
        path = response.headers["location"]
    assert len(set(visited)) == CASES
    assert "done=nothing-left" in path
    assert "No more cases wait for you" in client.get(path).text
    assert send_form(client, f"{BASE}/labels", BASE).status_code == 303
    assert queue(project).list_unlabelled() == []
    undone = send_form(client, f"{visited[0]}/undo", visited[0])
    assert undone.status_code == 409
    assert "has become a label" in undone.text


def test_an_answer_is_undone_and_given_again(client, project):
    path = begin(client)
    name = path.rpartition("/")[2]
    response = send_form(client, f"{path}/decide", path, label="yes", seen=seen(client, path))
    assert f"previous={name}" in response.headers["location"]
    assert f"{BASE}/cases/{name}/undo" in client.get(response.headers["location"]).text
    undone = send_form(client, f"{path}/undo", path)
    assert undone.headers["location"] == f"{path}?done=undone"
    assert queue(project).find(name).answers == ()
    again = send_form(client, f"{path}/decide", path, label="no", seen=seen(client, path))
    assert again.status_code == 303
    assert queue(project).find(name).label == '"no"'


def test_who_comes_second_sees_what_happened_and_overwrites_nothing(client, project):
    path, bob = begin(client), console_client(project, principal=BOB)
    old = seen(client, path)
    refused = send_form(bob, f"{path}/decide", path, label="no", seen=old)
    assert refused.status_code == 409
    assert "with user:ada" in refused.text
    assert "not recorded" in refused.text
    service.note(project, path.rpartition("/")[2], "look at the pages", principal=BOB)
    stale = send_form(client, f"{path}/decide", path, label="yes", seen=old, note="<b>mine</b>")
    assert stale.status_code == 409
    assert "has changed since you saw it" in stale.text
    assert "look at the pages" in stale.text
    assert "&lt;b&gt;mine&lt;/b&gt;" in stale.text
    assert queue(project).find(path.rpartition("/")[2]).answers == ()


def test_cases_are_skipped_escalated_and_noted(client, project):
    path = begin(client)
    assert send_form(client, f"{path}/note", path, text="first").headers["location"] == f"{path}?done=noted"
    skipped = send_form(client, f"{path}/skip", path, seen=seen(client, path))
    second = skipped.headers["location"].partition("?")[0]
    assert second != path
    assert "You skipped <a" in client.get(skipped.headers["location"]).text
    assert send_form(client, f"{second}/escalate", second, seen=seen(client, second), note="hard").status_code == 303
    found = queue(project)
    assert [answer.kind for answer in found.find(path.rpartition("/")[2]).answers] == ["skipped"]
    escalated = found.find(second.rpartition("/")[2])
    assert escalated.escalated
    assert escalated.notes[0].text == "hard"


def test_whoever_is_shown_a_row_is_recorded_and_who_assigns_is_shown_none(client, project):
    name = begin(client).rpartition("/")[2]
    steps = (
        lambda: service.note(project, name, "look", principal=ADA).request,
        lambda: service.decide(project, name, "yes", principal=ADA, labels="later").case.request,
        lambda: service.undo(project, name, principal=ADA).case.request,
        lambda: service.escalate(project, name, principal=ADA).case.request,
    )
    for step in steps:
        before = project.journal().head().seq
        assert step()["email"].startswith("#")
        read = [event.data["action"] for event in project.journal().events(after=before, kinds=[PersonalDataRead.kind])]
        assert read == ["review.answer"]
    before = project.journal().head().seq
    assigned = service.assign(project, name, "bob", principal=ADA)
    assert (assigned.assigned, hasattr(assigned, "request")) == ("user:bob", False)
    assert not list(project.journal().events(after=before, kinds=[PersonalDataRead.kind]))


@pytest.mark.parametrize("fields", [{}, {"label": "  "}])
def test_a_label_that_is_none_is_refused_with_words(client, fields):
    path = begin(client)
    response = send_form(client, f"{path}/decide", path, **fields)
    assert response.status_code == 400
    assert "<script>alert" not in response.text


@pytest.mark.parametrize("name", ["nothing", "../../x", "%3Cscript%3E", "0" * 12])
def test_an_unknown_case_is_an_error_page(client, name):
    assert client.get(f"{BASE}/cases/{name}").status_code == 404


def test_lists_are_by_state_and_a_wrong_state_is_refused(client):
    text = client.get(BASE).text
    assert text.count("data-row") == CASES
    assert "hidden until you decide" in text
    assert "No case has this state" in client.get(f"{BASE}?status=done").text
    assert client.get(f"{BASE}?status=%3Cb%3E").status_code == 400


def test_a_project_without_a_queue_says_how_to_declare_one(tmp_path):
    with make_project(tmp_path / "bare", "bare") as bare:
        response = console_client(bare).get("/projects/bare/review")
    assert response.status_code == 200
    assert "declares no review queue" in response.text


def personal_reads(project):
    return list(project.journal().events(kinds=[PersonalDataRead.kind]))


def test_the_server_reads_the_next_five_cases_ahead_and_records_a_read_when_one_is_shown(project, client, monkeypatch):
    path = begin(client)
    index, ahead, before = CaseIndex(), ReadAhead(), len(personal_reads(project))
    names = read_next(project, index, ahead, principal=BOB)
    ahead.wait(60)
    waiting = {case.id: case for case in queue(project).open()}
    assert len(names) == 5
    assert path.rpartition("/")[2] not in names  # ADA has it
    assert len(personal_reads(project)) == before

    reader = ahead.reader(project)
    with monkeypatch.context() as without_log:
        without_log.setattr(project, "log", None)
        assert all(reader.row(waiting[name]) is not None for name in names)

    text = client.get(path).text
    assert len(personal_reads(project)) == before + 1
    assert [name for name in names if name in text] == []


def test_what_was_read_ahead_is_dropped_when_a_subject_is_erased(project):
    ahead = ReadAhead()
    reader = ahead.reader(project)
    assert ahead.reader(project) is reader
    with project.journal().transaction(actor=Actor("user:ada")) as transaction:
        transaction.emit(SubjectErased(subject="#1", sources=("visits",), stores={}, remaining=0))
    assert ahead.reader(project) is not reader


def test_what_was_read_ahead_is_read_again_later(project):
    now = [0.0]
    ahead = ReadAhead(steady=lambda: now[0])
    reader = ahead.reader(project)
    now[0] += 100
    assert ahead.reader(project) is reader
    now[0] += 100
    assert ahead.reader(project) is not reader


def test_the_last_answer_can_be_taken_back_from_the_list(project, client):
    path, case = begin(client), ""
    for _ in range(CASES):
        case = path.partition("?")[0]
        answered = send_form(client, f"{case}/decide", case, label="yes", seen=seen(client, case))
        path = answered.headers["location"]
    assert path.startswith(f"{BASE}?")
    text = client.get(path).text
    assert f'action="{case}/undo"' in text
    assert 'data-key="u"' in text
    assert send_form(client, f"{case}/undo", path).headers["location"].startswith(case)
    assert queue(project).open()
    hostile = client.get(BASE, params={"previous": HOSTILE}).text
    assert "<script>alert" not in hostile


@pytest.mark.parametrize(
    ("labels", "keys"),
    [((0, 1), ["0", "1"]), ((False, True), ["1", "2"]), (("no", "yes"), ["1", "2"]), ((5, 10), ["1", "2"])],
)
def test_a_digit_never_chooses_another_digit(labels, keys):
    assert [choice.key for choice in label_choices(labels)] == keys
