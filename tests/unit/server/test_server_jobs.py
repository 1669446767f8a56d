"""Long operations: processes of their own, their results, errors and ends."""

import time
from datetime import UTC, datetime, timedelta

import httpx
import msgspec
import pytest
from api_server import serving

import cumulant
from cumulant.cli.app import run
from cumulant.core.errors import EngineUnavailableError, OverloadedError
from cumulant.core.events import Actor
from cumulant.flows.ledger.processes import this_process
from cumulant.server.jobs import KIND, Job, JobEnded, Jobs, write_job
from cumulant.testing.access import GrantedAccess


def wait_until(api, job, *, status):
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        current = api.get(f"/jobs/{job}").json()
        if current["status"] != "running":
            break
        time.sleep(0.1)
    assert current["status"] == status, current
    return current


@pytest.mark.slow
def test_jobs_succeed_fail_and_are_cancelled(project, api):
    begun = api.post("/validate", json={})
    assert begun.status_code == 202
    assert begun.headers["location"] == f"/v1/projects/churn/jobs/{begun.json()['id']}"
    failing = api.post("/models/train", json={}).json()
    cancelled = api.post("/validate", json={"force": True}).json()
    assert api.post(f"/jobs/{cancelled['id']}/cancel", json={}).status_code == 200

    snapshots = wait_until(api, begun.json()["id"], status="succeeded")["result"]["snapshots"]
    assert {name: snapshot["rows_in"] for name, snapshot in snapshots.items()} == {"payments": 3}
    error = wait_until(api, failing["id"], status="failed")["error"]
    assert error["code"] == "usage"
    assert "target" in error["error"]
    wait_until(api, cancelled["id"], status="cancelled")
    listed = api.get("/jobs").json()["items"]
    assert [job["id"] for job in listed] == sorted((job["id"] for job in listed), reverse=True)
    assert len(listed) == 3
    again = api.post(f"/jobs/{cancelled['id']}/cancel", json={})
    assert (again.status_code, again.json()["code"]) == (409, "conflict")
    events = [event for event in project.journal().events() if event.kind.startswith("api.job_")]
    assert sorted(event.kind for event in events) == [
        "api.job_cancelled",
        *["api.job_ended"] * 3,
        *["api.job_submitted"] * 3,
    ]


@pytest.mark.slow
def test_jobs_end_with_their_server(project):
    jobs = Jobs(most=1)
    with serving({"churn": project}, jobs=jobs) as url, httpx.Client(base_url=f"{url}/v1/projects/churn") as http:
        job = http.post("/validate", json={}).json()
        refused = http.post("/validate", json={})
        assert (refused.status_code, refused.json()["code"]) == (429, "overloaded")
        assert int(refused.headers["retry-after"]) > 0
    deadline = time.monotonic() + 30
    while (ended := msgspec.convert(project.journal().get(KIND, job["id"]).value, Job)).status == "running":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert ended.status == "lost", "nobody has cancelled it"


@pytest.fixture
def record(project):
    """Writes the row of a job of ada's."""

    def write(**fields):
        job = Job(
            **{
                "id": "20260101T000000-000000",
                "operation": "data.validate",
                "action": "data.validate",
                "principal": "user:ada",
                "started": datetime.now(UTC),
            }
            | fields
        )
        with project.journal().transaction(actor=Actor("test")) as transaction:
            transaction.put(KIND, job.id, msgspec.to_builtins(job))
        return f"/jobs/{job.id}"

    return write


@pytest.fixture
def grant(project, monkeypatch):
    def allow(*grants):
        access = GrantedAccess(set(grants))
        monkeypatch.setattr(type(project), "access", lambda self: access)

    return allow


def test_a_job_whose_process_is_gone_is_lost(api, record):
    path = record(status="running", process=msgspec.structs.replace(this_process(), pid=2**22 - 1, born="1"))
    assert api.get(path).json()["status"] == "lost"
    with (
        cumulant.connect(str(api.base_url).partition("/v1/")[0]) as remote,
        pytest.raises(EngineUnavailableError, match=r"the server ended while job .* ran") as caught,
    ):
        remote.http.follow(path.rpartition("/")[2])
    assert "run it again" in caught.value.hint
    assert api.post(f"{path}/cancel", json={}).status_code == 409


NO_LABELS = {"posted": 0, "labelled": 0, "pairs": 0, "graded": 0}
NOT_ERASED: dict[str, object] = {"subject": "4f", "sources": [], "remaining": []}


@pytest.mark.parametrize(
    ("operation", "result", "code"),
    [
        ("training.train", {"verdict": {"text": "passed", "passed": True}}, 0),
        ("training.train", {"verdict": {"text": "refused: log loss", "passed": False}}, 1),
        ("training.evaluate", {"judgement": {"verdict": {"text": "refused", "passed": False}}}, 1),
        ("training.reproduce", {"identical": False}, 1),
        ("monitoring.run", {"alarming": True, "findings": []}, 1),
        ("monitoring.run", {"alarming": False, "findings": []}, 0),
        ("maintenance.tick", {"jobs": [], "error": {"error": "no store", "code": "engine-unavailable"}}, 3),
        ("data.validate", None, 0),
        ("labels.ingest", NO_LABELS | {"sources": [{"name": "a.csv", "rows": 2, "problems": {"no key": 2}}]}, 1),
        ("labels.ingest", NO_LABELS | {"sources": [{"name": "a.csv", "rows": 2, "problems": {"no key": 1}}]}, 0),
        ("subjects.erase", NOT_ERASED | {"receipts": [{"store": "log", "status": "pending"}]}, 1),
        ("subjects.erase", NOT_ERASED | {"receipts": [{"store": "log", "status": "erased"}]}, 0),
    ],
)
def test_following_a_job_ends_as_the_command_without_a_server(project, record, operation, result, code):
    job = record(status="succeeded", operation=operation, result=result).rpartition("/")[2]
    assert run(["jobs", "follow", job, "--project", str(project.root)]) == code


def test_a_training_is_shown_with_its_version_and_gate(project, record, capsys):
    result = {"run": "r1", "model": {"name": "churn", "version": "3"}, "verdict": {"text": "passed"}}
    job = record(status="succeeded", operation="training.train", result=result).rpartition("/")[2]
    assert run(["jobs", "show", job, "--project", str(project.root)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "version churn/3 gate passed" in shown
    assert "cumulant report r1" in shown


def test_a_job_that_ends_while_it_is_read_is_not_lost(api, record, project, monkeypatch):
    gone = msgspec.structs.replace(this_process(), pid=2**22 - 1, born="1")
    name = record(status="running", process=gone).removeprefix("/jobs/")
    journal = project.journal()
    stale = journal.get(KIND, name)
    record(status="succeeded", process=gone)

    class Earlier:
        """A journal whose row was read before the job ended."""

        def __init__(self):
            self._rows = [stale]

        def get(self, kind, key):
            return self._rows.pop() if self._rows else journal.get(kind, key)

    assert Jobs().find(Earlier(), name).status == "succeeded"


def test_a_result_is_shown_to_who_may_do_the_operation(api, record, grant):
    path = record(status="succeeded", result={"rows": 3})
    grant(("user:ada", "data.validate"), ("user:bob", "runs.show"), ("user:eve", "data.validate"))
    assert api.get(path).json()["result"] == {"rows": 3}  # ada's own, by a token that is good for it
    shown = api.get(path, headers={"x-user": "bob"})
    assert (shown.status_code, shown.json()["result"]) == (200, None)
    assert api.get("/jobs", headers={"x-user": "bob"}).json()["items"][0]["result"] is None
    assert api.get(path, headers={"x-user": "eve"}).status_code == 404
    grant(("user:ada", "alerts.show"))
    assert api.get(path).status_code == 404
    assert api.post(f"{path}/cancel", json={}).status_code == 404


def test_personal_rows_of_another_callers_job_are_read_with_an_event(project, api, record, grant):
    path = record(status="succeeded", result=[{"amount": 10}], operation="features.stored", action="features.show_key")
    grant(*((user, action) for user in ("user:ada", "user:bob") for action in ("runs.show", "features.show_key")))

    def reads():
        events = project.journal().events(kinds=["access.personal_data_read"])
        return [(event.actor, event.data["action"]) for event in events]

    for user in ("ada", "bob"):
        assert api.get("/jobs", headers={"x-user": user}).json()["items"][0]["result"] is None
        assert api.get(path, headers={"x-user": "ada"}).json()["result"] == [{"amount": 10}]
    assert reads() == []  # that of ada is one of the operation itself
    assert api.get(path, headers={"x-user": "bob"}).json()["result"] == [{"amount": 10}]
    assert reads() == [("user:bob", "features.show_key")]


def test_rows_of_old_jobs_are_removed(project, api, record, monkeypatch):
    old = api.get(record(status="succeeded")).json()
    monkeypatch.setattr("cumulant.server.jobs.KEPT", timedelta(seconds=-1))
    job = Job(**old | {"id": "20260102T000000-000000", "started": datetime.now(UTC)})
    write_job(project.journal(), job, JobEnded(job=job.id, operation=job.operation, status="failed"))
    assert [row.key for row in project.journal().rows(KIND)] == [job.id]


def test_a_request_that_begins_slowly_holds_up_no_other(project, monkeypatch):
    """Its process is written to, while jobs are listed, found and cancelled."""
    import threading

    from cumulant.core.system.child_processes import start
    from cumulant.server import jobs as module

    entered, release = threading.Event(), threading.Event()

    def slow(*arguments, **options):
        entered.set()
        assert release.wait(60)
        return start(*arguments, **options)

    monkeypatch.setattr(module, "start", slow)
    jobs = module.Jobs(most=1)
    submit = threading.Thread(
        target=jobs.submit,
        args=(project, project.principal(), "data.validate", "data.validate", {"body": {"sources": []}}),
    )
    submit.start()
    assert entered.wait(60)
    ended = threading.Event()

    def others():
        with pytest.raises(OverloadedError):
            jobs.submit(project, project.principal(), "data.validate", "data.validate", {})
        ended.set()

    threading.Thread(target=others).start()
    assert ended.wait(60)
    release.set()
    submit.join(60)
    jobs.close()
