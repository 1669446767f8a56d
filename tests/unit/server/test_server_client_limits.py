"""What the client of the API refuses to send or to believe: tokens in plain text, wrong arguments, other servers."""

import socket
import subprocess
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime

import httpx
import msgspec
import pytest
from api_server import serving

import cumulant
from cumulant.core.errors import EngineUnavailableError, RequestError, UsageError
from cumulant.core.system.child_processes import start
from cumulant.server.client.caller import follow_job
from cumulant.server.client.event_follower import EventFollower
from cumulant.server.client.http_api import HttpApi
from cumulant.server.client.local_api import LocalApi
from cumulant.server.jobs import Job


@pytest.fixture
def remote(project):
    with serving({project.name: project}) as url, cumulant.connect(url, token="cml_secret") as remote:
        yield remote.http


@contextmanager
def answering(response):
    """The URL of a server that gives each connection these bytes, and then waits; the requests that it got."""
    requests = []

    def serve():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            requests.append(connection.recv(65_536))
            connections.append(connection)
            connection.sendall(response)

    connections = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", requests
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(20)
            for connection in connections:
                connection.close()


@pytest.mark.parametrize("url", ["http://models.example.com", "http://10.0.0.1:8700", "models.example.com:8700"])
@pytest.mark.parametrize("given", ["argument", "variable"])
def test_no_token_is_sent_in_plain_text(url, given, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a request was sent")

    monkeypatch.setattr(httpx.Client, "request", refuse)
    if given == "variable":
        monkeypatch.setenv("CUMULANT_API_TOKEN", "cml_secret")
    with pytest.raises(UsageError, match=r"https?://"):
        cumulant.connect(url, token="cml_secret" if given == "argument" else None, project="churn")


def test_no_proxy_gets_a_token_in_plain_text(project, monkeypatch):
    with answering(b"HTTP/1.1 500 no\r\ncontent-length: 0\r\n\r\n") as (proxy, requests):
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        with serving({project.name: project}) as url, cumulant.connect(url, token="cml_secret") as remote:
            assert remote.stack.status() is None
    assert requests == []


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("releases.start", {"within": 5_000.0}),
        ("releases.show", {"release": "latest", "model": "a/b"}),
        ("labels.list", {"limit": "many"}),
        ("alerts.silence", {"reason": "x"}),
        # of long operations, before a job of them begins
        ("features.verify", {"rows": 0}),
        ("features.stored", {"key": {"card": "c1"}, "rows": 1_001}),
    ],
)
def test_arguments_that_do_not_fit_are_the_same_error_here_and_there(project, remote, name, arguments):
    errors = []
    for api in (LocalApi(project, print), remote):
        with pytest.raises(RequestError) as caught:
            api.call(name, **arguments)
        errors.append(caught.value.as_dict())
    assert errors[0] == errors[1]


def test_moments_of_a_query_arrive(remote):
    assert list(remote.pages("predictions.list", since=datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC))) == []


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>",
        b"HTTP/1.1 302 Found\r\nlocation: https://sso.example.com/\r\ncontent-length: 0\r\n\r\n",
        b'HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\n{"other":true}',
    ],
)
def test_a_server_of_something_else_is_named_as_one(response):
    with (
        answering(response) as (url, _),
        pytest.raises(EngineUnavailableError, match="not as the API of this version does"),
    ):
        HttpApi(url).close()


def test_a_request_that_the_server_works_on_is_not_sent_again():
    with answering(b"") as (url, requests):
        api = HttpApi(url, project="churn", timeout=0.2)
        with pytest.raises(EngineUnavailableError, match="not answered within"):
            api.call("project.plan")
        api.close()
        assert len(requests) == 1


def test_a_file_whose_connection_ends_is_not_sent_again(tmp_path):
    (tmp_path / "a.csv").write_text("id\n1\n")
    with answering(b"none of HTTP\r\n\r\n") as (url, requests):
        api = HttpApi(url, project="churn")
        with pytest.raises(EngineUnavailableError, match="while the file was sent"):
            api.call("predictions.import", upload=tmp_path / "a.csv", name="a.csv")
        api.close()
        assert len(requests) == 1


def test_an_interrupt_before_the_job_has_a_name_cancels_it(project, monkeypatch):
    """The request has arrived, and its answer has not."""
    send, notes, sent = httpx.Client.request, [], []

    def interrupt(self, method, *arguments, **options):
        response = send(self, method, *arguments, **options)
        sent.append(method)
        if sent.count("POST") in (1, 4):  # the first of each: it, again, and the end of its job
            raise KeyboardInterrupt
        return response

    def sleeping(request):
        return start(["sleep", "600"], stdout=subprocess.PIPE)

    monkeypatch.setattr("cumulant.server.jobs.start_process", sleeping)
    with serving({project.name: project}) as url:
        api = HttpApi(url, project="churn", note=notes.append)
        monkeypatch.setattr(httpx.Client, "request", interrupt)
        for begin in (api.call, api.submit):
            with pytest.raises(KeyboardInterrupt):
                begin("data.validate")
        api.close()
        events = [event for event in project.journal().events() if event.kind.startswith("api.job_")]
    submitted = [event.data["job"] for event in events if event.kind == "api.job_submitted"]
    assert [event.data["job"] for event in events if event.kind == "api.job_cancelled"] == submitted
    assert notes == [f"job {job} is cancelled" for job in submitted]
    assert len(submitted) == 2


def test_a_job_that_ended_before_its_cancellation_is_reported_with_its_status(project, monkeypatch):
    def interrupt(self, job, progress):
        deadline = time.monotonic() + 60
        while self.call("jobs.show", job=job).status == "running" and time.monotonic() < deadline:
            time.sleep(0.05)
        jobs.append(job)
        raise KeyboardInterrupt

    notes, jobs = [], []
    monkeypatch.setattr("cumulant.server.jobs.start_process", lambda _: start(["true"], stdout=subprocess.PIPE))
    monkeypatch.setattr(HttpApi, "follow", interrupt)
    with serving({project.name: project}) as url:
        api = HttpApi(url, project="churn", note=notes.append)
        with pytest.raises(KeyboardInterrupt):
            api.call("data.validate")
        assert notes == [
            f"job {jobs[0]} ended before it could be cancelled: {api.call('jobs.show', job=jobs[0]).status}"
        ]
        api.close()


def test_a_stream_that_ends_or_is_away_is_opened_again_after_a_pause(monkeypatch):
    """A proxy answers so while its server restarts; and a stream that ended was opened 2,000 times a second."""
    answers, pauses, notes = iter([503, 502, 504, 429, 200, 200, 403]), [], []
    monkeypatch.setattr("cumulant.server.client.event_follower.time.sleep", pauses.append)
    http = httpx.Client(
        base_url="http://127.0.0.1", transport=httpx.MockTransport(lambda _: httpx.Response(next(answers)))
    )
    follower = EventFollower(
        http, "/x", error_of=lambda response: UsageError(str(response.status_code)), note=notes.append
    )
    with pytest.raises(UsageError, match="403"):
        list(follower.follow(0, (), None))
    assert (pauses, len(notes)) == ([1.0] * 6, 1)


def test_the_share_of_a_step_is_shown_as_it_grows(monkeypatch):
    monkeypatch.setattr("cumulant.server.client.caller._JOB_SECONDS", 0)
    fields = {"id": "j", "operation": "x", "action": "x", "principal": "user:ada", "started": datetime.now(UTC)}
    states = [("evaluate", None), ("evaluate", 0.1), ("evaluate", 0.5)]
    jobs = [Job(**fields, status="running", step=step, share=share, steps=(step,)) for step, share in states]
    given, shown = iter([*jobs, Job(**fields, status="succeeded", steps=("evaluate",))]), []

    class Caller:
        def call(self, name, **_):
            return next(given)

    follow_job(Caller(), "j", lambda text, share=None: shown.append((text, share)))
    assert shown == states


def test_an_interrupt_stays_one_where_the_job_cannot_be_cancelled(monkeypatch):
    monkeypatch.setattr("cumulant.server.client.http_api._DELAY", 0.001)
    job = {"id": "j", "operation": "data.validate", "action": "data.validate", "principal": "user:ada"}
    body = msgspec.json.encode(job | {"status": "running", "started": "2026-01-02T00:00:00Z"})

    def interrupt(_step, _share=None):
        def lose(*_, **__):
            raise httpx.ConnectError("the server is away")

        monkeypatch.setattr(httpx.Client, "request", lose)
        raise KeyboardInterrupt

    head = f"HTTP/1.1 202 Accepted\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
    with answering(head.encode() + body) as (url, _):
        notes = []
        api = HttpApi(url, project="churn", note=notes.append)
        with pytest.raises(KeyboardInterrupt):
            api.call("data.validate", progress=interrupt)
        assert notes == [f"job j may still run: `cumulant jobs show j --project churn --server {url}` shows it"]
        api.close()
