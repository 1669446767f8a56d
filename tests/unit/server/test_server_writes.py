"""Writes of the API: permission of each operation, requests that are sent again, bodies."""

import gzip
import os
import threading
from datetime import UTC, datetime, timedelta

import httpx
import msgspec
import pytest

from cumulant.core.errors import UsageError
from cumulant.core.events import Actor
from cumulant.flows.alerting.store import read as read_alerts
from cumulant.flows.ledger.ledger_records import API_REQUEST as KIND
from cumulant.flows.ledger.ledger_records import RUN
from cumulant.flows.training.train import train
from cumulant.server.idempotency import RecordedRequest
from cumulant.server.operation_list import OPERATIONS
from cumulant.server.streaming.uploads import sweep_uploads
from cumulant.testing.access import GrantedAccess

#: values of required fields of bodies
FIELDS = {
    "reason": "why",
    "label": "yes",
    "tags": {},
    "text": "note",
    "to": None,
    "span": "1h",
    "value": "c17",
    "uri": ["a/1", "a/2"],
    "key": {"card": "c17"},
    "keys": [{"card": "c17"}],
    "message": "m",
    "name": "nightly",
    "rows": [{"pages": 1}],
    "subject": "user:ada",
    "action": "runs.show",
}
SILENCE = {"span": "1h", "reason": "maintenance"}


def request_of(operation):
    path = operation.path.format(**dict.fromkeys(operation.parameters, "x"))
    query, body = (required_fields(operation.types.get(name)) for name in ("query", "body"))
    return operation.method, path, query, body if "body" in operation.types else None


def required_fields(kind):
    return {field.name: FIELDS[field.name] for field in msgspec.structs.fields(kind) if field.required} if kind else {}


#: operations of those who may see that there is the project
SEEN = [operation for operation in OPERATIONS if operation.action != "project.overview"]


@pytest.mark.slow
@pytest.mark.parametrize("operation", SEEN, ids=lambda operation: operation.name)
def test_each_operation_checks_its_declared_action_first(project, api, monkeypatch, operation):
    access = GrantedAccess({("user:ada", "project.overview")})
    monkeypatch.setattr(type(project), "access", lambda self: access)
    method, path, query, body = request_of(operation)
    response = api.request(method, path, params=query, json=body)
    assert (response.status_code, response.json()["code"]) == (403, "forbidden"), response.text
    assert [request[1] for request in access.requests] == [operation.action, "project.overview"]


def test_a_project_of_others_is_as_one_that_there_is_not(project, api, monkeypatch):
    """Its name is not found out, by no request; that somebody tried is an event."""
    access = GrantedAccess(set())
    monkeypatch.setattr(type(project), "access", lambda self: access)
    base, requests = (
        str(api.base_url).removesuffix("churn/"),
        [
            ("GET", "runs", {}),
            ("GET", "runs?limit=x", {}),
            ("GET", "events/stream", {}),
            ("POST", "silences", {"json": SILENCE}),
            ("POST", "silences", {"json": SILENCE, "headers": {"idempotency-key": "k"}}),
            ("POST", "silences", {"content": b"{"}),
            ("POST", "silences", {"content": b"x", "headers": {"content-type": "text/plain"}}),
            ("POST", "validate", {"json": {}}),
        ],
    )
    for method, path, options in requests:
        ours, none = (api.request(method, f"{base}{name}/{path}", **options) for name in ("churn", "other"))
        assert (ours.status_code, ours.text) == (404, none.text.replace("other", "churn")), path
        unlike = ("date", "content-length")
        assert {k: v for k, v in ours.headers.items() if k not in unlike} == {
            k: v for k, v in none.headers.items() if k not in unlike
        }
    assert {event.kind for event in project.journal().events()} == {"access.refused"}


@pytest.mark.parametrize("trials", [0, -5])
def test_a_training_without_trials_begins_nowhere(project, api, trials):
    """Its record could not be read again, nor any page that reads records."""
    refused = api.post("/models/train", json={"trials": trials})
    assert (refused.status_code, refused.json()["code"]) == (400, "request")
    with pytest.raises(UsageError, match="needs a trial"):
        train(project, principal=project.principal(), trials=trials)
    assert list(project.journal().rows(RUN)) == []


def test_the_principal_is_who_the_request_is_of(project, api):
    api.post("/silences", json=SILENCE, headers={"x-user": "bob"})
    assert [silence.by for silence in read_alerts(project.journal())[0].silences] == ["user:bob"]


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"{", {}, 400),
        (b"[]", {}, 400),
        (b'{"span": 1}', {}, 400),
        (b'{"span": "1h", "more": 1}', {}, 400),
        (b"{}", {}, 400),
        (b"[" * 100_000, {}, 400),
        (b"\xff", {}, 400),
        (b"span=1h", {"content-type": "application/x-www-form-urlencoded"}, 415),
        (b'{"span": "' + b"1" * (1 << 20) + b'"}', {}, 413),
        (b'{"span": "yesterday"}', {}, 400),
    ],
)
def test_other_bodies_are_refused_and_change_nothing(project, api, content, headers, status):
    response = api.post("/silences", content=content, headers={"content-type": "application/json"} | headers)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert not read_alerts(project.journal())[0].silences


def test_a_request_that_is_sent_again_happens_once(project, api):
    first = api.post("/silences", json=SILENCE, headers={"idempotency-key": "one"})
    again = api.post("/silences", json=SILENCE, headers={"idempotency-key": "one"})
    assert (first.status_code, again.status_code) == (200, 200)
    assert again.json() == first.json()
    assert again.headers["idempotency-replayed"] == "true"
    assert len(read_alerts(project.journal())[0].silences) == 1


def test_keys_are_of_one_caller_and_one_request(project, api):
    headers = {"idempotency-key": "one"}
    assert api.post("/silences", json=SILENCE, headers=headers).status_code == 200
    assert api.post("/silences", json={"span": "2h", "reason": "maintenance"}, headers=headers).status_code == 422
    assert api.post("/silences", json=SILENCE, headers=headers | {"x-user": "bob"}).status_code == 200
    assert len(read_alerts(project.journal())[0].silences) == 2


def test_many_at_once_under_one_key_happen_once(project, api):
    def send(answers):
        with httpx.Client(base_url=api.base_url, timeout=60) as http:
            answers.append(http.post("/silences", json=SILENCE, headers={"idempotency-key": "one"}).status_code)

    answers: list[int] = []
    threads = [threading.Thread(target=send, args=(answers,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert set(answers) <= {200, 409}
    assert 200 in answers
    assert len(read_alerts(project.journal())[0].silences) == 1


def test_a_refused_request_is_the_same_when_sent_again(project, api):
    headers = {"idempotency-key": "one"}
    first = api.post("/releases/current/pause", json={"reason": "x"}, headers=headers)
    again = api.post("/releases/current/pause", json={"reason": "x"}, headers=headers)
    assert first.status_code == again.status_code == 404
    assert again.json() == first.json()


def test_a_recorded_response_is_for_who_may_still_do_it(project, api, monkeypatch):
    headers = {"idempotency-key": "one"}
    assert api.post("/silences", json=SILENCE, headers=headers).status_code == 200
    access = GrantedAccess({("user:ada", "project.overview")})
    monkeypatch.setattr(type(project), "access", lambda self: access)
    refused = api.post("/silences", json=SILENCE, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    # Who may not do it writes no row, and may do it under the same key once it is allowed.
    other = {"idempotency-key": "two"}
    assert api.post("/silences", json=SILENCE, headers=other).status_code == 403
    assert len(project.journal().rows(KIND)) == 1
    access = GrantedAccess({("user:ada", "alerts.steer")})
    assert api.post("/silences", json=SILENCE, headers=other).status_code == 200


def test_all_expired_responses_are_removed(project, api, monkeypatch):
    monkeypatch.setattr("cumulant.server.idempotency._REMOVED", 3)
    now = datetime.now(UTC)
    with project.journal().transaction(actor=Actor("test")) as transaction:
        for age in range(2, 8):
            record = RecordedRequest(request="x", begun=now - timedelta(days=age), status=200)
            transaction.put(KIND, f"{record.begun:%Y%m%d}/{age}", msgspec.to_builtins(record))
    for number in range(2):
        api.post("/silences", json=SILENCE, headers={"idempotency-key": str(number)})
    assert len(project.journal().rows(KIND)) == 2


def rewrite(project, **changes):
    """Change the recorded request, as if it had another history."""
    journal = project.journal()
    (row,) = journal.rows(KIND)
    record = msgspec.structs.replace(msgspec.convert(row.value, RecordedRequest), **changes)
    with journal.transaction(actor=Actor("test")) as transaction:
        transaction.put(KIND, row.key, msgspec.to_builtins(record))


def test_an_unknown_outcome_is_said_and_expires(project, api):
    headers, now = {"idempotency-key": "one"}, datetime.now(UTC)
    api.post("/silences", json=SILENCE, headers=headers)
    rewrite(project, status=0, body="", begun=now - timedelta(seconds=5))
    under_way = api.post("/silences", json=SILENCE, headers=headers)
    assert (under_way.status_code, under_way.json()["retryable"]) == (409, True)
    rewrite(project, begun=now - timedelta(hours=1))
    unknown = api.post("/silences", json=SILENCE, headers=headers)
    assert (unknown.status_code, unknown.json()["retryable"]) == (409, False)
    rewrite(project, begun=now - timedelta(days=2))
    assert api.post("/silences", json=SILENCE, headers=headers).status_code == 200
    assert len(project.journal().rows(KIND)) == 1


@pytest.mark.parametrize("key", ["", "x" * 256, "\x7f"])
def test_other_keys_are_refused(api, key):
    assert api.post("/silences", json=SILENCE, headers={"idempotency-key": key}).status_code == 400


def test_a_sent_file_takes_no_more_memory_than_it_may(project, api, monkeypatch):
    """16 kB of a packed array are 400 MiB of rows; its error names no folder of the server, and nothing is left."""
    monkeypatch.setattr("cumulant.server.streaming.uploads.MOST_MEMORY", 1)  # it gets 256 MiB
    content = gzip.compress(b"[" + b"{}," * 5_600_000 + b"{}]")
    answered = api.post(
        "/predictions/import", params={"name": "s.json.gz", "part": ["id=i", "time=t", "score=p"]}, content=content
    )
    assert (answered.status_code, answered.json()["code"]) == (400, "data")
    assert answered.json()["detail"] == "s.json.gz takes more memory to read than is free"
    folder = project.state / ".uploads"
    assert list(folder.iterdir()) == []
    for name, changed in (("killed", 0), ("under-way", None)):
        (folder / name).mkdir()
        (folder / name / "s.csv").touch()
        os.utime(folder / name, changed if changed is None else (changed, changed))
    sweep_uploads(project)
    assert [path.name for path in folder.iterdir()] == ["under-way"]
