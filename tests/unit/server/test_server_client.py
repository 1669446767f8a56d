"""The Python client: results of the declared types, errors of the same classes, events over lost connections."""

import threading
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import msgspec
import pytest
from api_server import serving
from test_server_reads import emit

import cumulant
from cumulant.api.remote.local_only import LOCAL_ONLY
from cumulant.core.errors import (
    CredentialsError,
    EngineUnavailableError,
    ForbiddenError,
    NotFoundError,
    OverloadedError,
    StorageError,
    UsageError,
)
from cumulant.core.events import Actor
from cumulant.flows.alerting.store import read as read_alerts
from cumulant.server.jobs import JobCancelled
from cumulant.server.operation_list import OPERATIONS
from cumulant.testing.access import GrantedAccess


@pytest.fixture
def url(project):
    with serving({project.name: project}) as url:
        yield url


@pytest.fixture
def remote(url):
    with cumulant.connect(url) as remote:
        yield remote


def test_results_have_their_types(project, remote):
    emit(project, 120)
    assert remote.name == "churn"
    assert [event.seq for event in remote.events()] == list(range(1, 121))
    assert len(remote.events(kinds=["test.counted"])) == 0
    assert remote.stack.status() is None
    assert list(remote.models()) == []
    assert list(remote.monitoring.alerts()) == []
    assert remote.reviews.next() is None
    assert remote.outcomes.predictions(since=datetime(2026, 1, 1, tzinfo=UTC)) == []


def test_errors_are_of_the_same_class(project, remote, monkeypatch):
    with pytest.raises(UsageError, match="without features"):
        remote.predict([{"amount": 1.0}], features=True)
    with pytest.raises(NotFoundError, match="snapshot") as caught:
        remote.preview("payments")
    assert caught.value.hint
    with pytest.raises(NotFoundError):
        remote.releases.current()
    access = GrantedAccess({("user:ada", "project.overview")})
    monkeypatch.setattr(type(project), "access", lambda self: access)
    with pytest.raises(ForbiddenError, match=r"user:ada may not do model\.show"):
        remote.models()


@pytest.mark.parametrize("address", ["127.0.0.1:8700", "shop", "http://cumulant.example.com", "https://u:p@c.example"])
def test_no_token_is_sent_to_an_address_where_others_can_read_it(address):
    with pytest.raises(UsageError) as caught:
        cumulant.connect(address, token="cml_x")
    assert caught.value.subject == address
    assert "https://" in caught.value.hint


@contextmanager
def answering(status, body):
    """A server of something else, which answers every request so."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(("status", "body"), [(404, b'{"error": "no model"}'), (502, b"<html>"), (200, b"<html>")])
def test_an_answer_of_another_server_names_its_address(status, body):
    with answering(status, body) as url, pytest.raises(EngineUnavailableError, match=f"HTTP {status}") as caught:
        cumulant.connect(url)
    assert caught.value.subject == url
    assert "cumulant api" in caught.value.hint


def test_a_token_that_is_not_known_leads_to_a_login():
    body = b'{"code": "credentials", "detail": "no valid token", "hint": "send the header Authorization"}'
    with answering(401, body) as url, pytest.raises(CredentialsError, match="no valid token") as caught:
        cumulant.connect(url, token="cml_x")
    assert f"cumulant login --server {url}" in caught.value.hint
    body = b'{"code": "credentials", "detail": "this token is not of this project"}'
    with (
        answering(401, body) as url,
        cumulant.connect(url, token="cml_x", project="b") as remote,
        pytest.raises(CredentialsError) as caught,
    ):
        remote.stack.status()
    assert f"cumulant login --server {url} --of NAME" in caught.value.hint


@pytest.mark.parametrize("name", ["nope", "models.nope", "nope.list"])
def test_an_operation_that_does_not_exist_is_refused(remote, name):
    with pytest.raises(UsageError, match=f'no operation "{name}"'):
        remote.http.call(name)


def test_a_project_is_named_where_there_are_several(project):
    with serving({"churn": project, "other": project}) as url:
        with pytest.raises(UsageError, match="which project"):
            cumulant.connect(url)
        with cumulant.connect(url, project="churn") as remote:
            assert remote.stack.status() is None
        with cumulant.connect(url, project="none") as remote, pytest.raises(NotFoundError):
            remote.stack.status()


def test_a_server_that_is_away_is_said(url, remote, monkeypatch):
    monkeypatch.setattr("cumulant.server.client.http_api._DELAY", 0.001)
    with pytest.raises(EngineUnavailableError, match="does not answer"):
        cumulant.connect("http://127.0.0.1:1")


def test_a_request_is_sent_again_and_happens_once(project, remote, monkeypatch):
    """The connection breaks after the server has answered: the caller sees nothing of it."""
    import httpx

    monkeypatch.setattr("cumulant.server.client.http_api._DELAY", 0.001)
    request, sent = httpx.Client.request, []

    def break_first(self, *arguments, **options):
        response = request(self, *arguments, **options)
        sent.append(response)
        if len(sent) == 1:
            raise httpx.ReadError("connection lost")
        return response

    monkeypatch.setattr(httpx.Client, "request", break_first)
    silence = remote.http.call("alerts.silence", span="1h", reason="x")
    assert len(sent) == 2
    assert [each.id for each in read_alerts(project.journal())[0].silences] == [silence.silence.id]


def test_events_are_followed_over_a_restart_of_the_server(project):
    with serving({"churn": project}) as url:
        port = int(url.rpartition(":")[2])
        remote = cumulant.connect(url)
        events = remote.follow_events(after=0)
        emit(project, 30)
        read = [next(events).seq for _ in range(20)]
    emit(project, 30)
    thread = threading.Thread(target=lambda: read.extend(next(events).seq for _ in range(40)))
    thread.start()
    with serving({"churn": project}, port=port):
        thread.join(60)
        remote.close()
    assert read == list(range(1, 61))


def test_texts_with_other_ends_of_lines_are_read_whole(project, remote):
    """JSON has them as they are: only a newline ends a line of a stream."""
    text = "a\u2028b\x85c\rd"
    with project.journal().transaction(actor=Actor("user:ada", text)) as transaction:
        transaction.emit(JobCancelled(job=text, operation="x"))
    assert [event.reason for event in remote.http.events(after=0, seconds=0)] == [text]
    assert next(remote.follow_events(after=0)).data["job"] == text
    lines = [msgspec.json.decode(line)["reason"] for line in remote.http.lines("events.export")]
    assert lines[0] == text


@pytest.mark.parametrize(
    ("sent", "error"), [(10, pytest.raises(StorageError)), (100_000, pytest.raises(EngineUnavailableError))]
)
def test_exports_are_bounded_and_one_that_breaks_off_is_no_export(project, monkeypatch, sent, error):
    """What fails before the first chunk is an answer of its own, what fails later ends the connection."""

    def failing(journal, query):
        yield b"x" * sent
        raise StorageError("the disk is gone")

    with monkeypatch.context() as patch, serving({"churn": project}) as url, cumulant.connect(url) as remote:
        patch.setattr("cumulant.server.operations.events._lines", failing)
        with error:
            list(remote.http.lines("events.export"))
    monkeypatch.setattr("cumulant.server.application.MOST_LINE_STREAMS", 0)
    with serving({"churn": project}) as url, cumulant.connect(url) as remote, pytest.raises(OverloadedError):
        list(remote.http.lines("events.export"))


def test_exports_count_from_the_request_to_the_end_of_their_thread(project, monkeypatch):
    """12 at once got 200, of which 4 were sent; and one reader of nothing kept a place for ever."""
    begun, go, closed = threading.Semaphore(0), threading.Event(), threading.Event()

    def first_break(journal, after):
        begun.release()
        assert go.wait(60)

    def endless(journal, query):
        try:
            while True:
                yield b"x" * 100_000
        finally:
            closed.set()

    monkeypatch.setattr("cumulant.server.operations.events.first_break", first_break)
    with serving({"churn": project}) as url, ExitStack() as stack:
        place, answers = f"{url}/v1/projects/churn/events/export", []

        def export(user):
            answers.append(httpx.get(place, headers={"x-user": user}, timeout=90).status_code)

        for number, user in enumerate(("ada", "ada", "bob", "eve")):
            thread = threading.Thread(target=export, args=(user,))
            stack.callback(thread.join, 90)
            thread.start()
            assert begun.acquire(timeout=60)
            if number == 1:
                assert httpx.get(place, headers={"x-user": "ada"}).status_code == 429
        assert httpx.head(place, headers={"x-user": "tim"}).status_code == 429
        go.set()
        stack.close()
        assert answers == [200] * 4
        monkeypatch.setattr("cumulant.server.streaming.line_streams.SEND_SECONDS", 0.2)
        monkeypatch.setattr("cumulant.server.operations.events._lines", endless)
        with httpx.stream("GET", place, timeout=90):  # and reads nothing
            assert closed.wait(60)


#: methods of a project on a server with other parameters or results, and why
DIFFERENT = {
    "Project.train": "the result is what the operation returns: TrainedVersion",
    "ProjectReleases.start": "more parameters, and ReleaseView in place of Release, the row of the journal",
    "ProjectReleases.current": "ReleaseView in place of Release, the row of the journal",
    "ProjectOutcomes.ingest_labels": "without files of this machine: those of the project file",
    "ProjectMonitoring.run": "MonitorSummary: without the tables of the evaluation",
}


def public(kind):
    return {name: value for name, value in vars(kind).items() if not name.startswith("_")}


def test_a_project_on_a_server_has_the_methods_of_a_local_one():
    import inspect

    from cumulant.api import feature_store, monitoring, outcomes, stack, subjects
    from cumulant.api.project import Project
    from cumulant.api.remote import groups
    from cumulant.api.remote.project import RemoteProject

    pairs = [
        (Project, RemoteProject),
        (stack.ProjectStack, groups.RemoteStack),
        (stack.ProjectReleases, groups.RemoteReleases),
        (outcomes.ProjectOutcomes, groups.RemoteOutcomes),
        (monitoring.ProjectMonitoring, groups.RemoteMonitoring),
        (monitoring.ProjectReviews, groups.RemoteReviews),
        (subjects.ProjectSubjects, groups.RemoteSubjects),
        (feature_store.ProjectFeatureStore, groups.RemoteFeatureStore),
    ]
    different = set()
    for local, remote in pairs:
        for name, method in public(local).items():
            other = public(remote).get(name)
            if (
                other is None
                or isinstance(method, property) != isinstance(other, property)
                or (not isinstance(method, property) and inspect.signature(method) != inspect.signature(other))
            ):
                different.add(f"{local.__name__}.{name}")
    local_only = {
        f"Project{group.title()}.{name}"
        for group, names in LOCAL_ONLY.items()
        for name in names
        if name != "assumptions" and group != "streams"  # a group of which a server has nothing
    }
    assert different == set(DIFFERENT) | local_only


def test_what_only_a_local_project_has_is_explained(remote):
    with pytest.raises(AttributeError, match=r"`project\.serve` is of local projects only: it starts a process"):
        remote.serve()
    with pytest.raises(AttributeError, match=rf"`project\.stack\.up` .* This project is at {remote.http.url}"):
        remote.stack.up()
    with pytest.raises(AttributeError, match='a project has no "nonsense"'):
        _ = remote.nonsense
    assert not hasattr(remote, "rows")


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/"])
def test_the_address_of_the_api_is_that_of_its_server(url, path):
    with cumulant.connect(url + path) as remote:
        assert (remote.name, remote.http.url) == ("churn", url)


def test_another_path_of_the_server_leads_to_its_address(url):
    with pytest.raises(NotFoundError) as caught:
        cumulant.connect(f"{url}/projects/churn")
    assert "without a path" in caught.value.hint


def test_each_operation_is_called_by_its_name():
    """What the methods of a remote project call exists."""
    import ast
    import inspect

    from cumulant.api.remote import groups
    from cumulant.api.remote import project as module
    from cumulant.server.client import caller

    names = {operation.name for operation in OPERATIONS}
    texts = {
        node.value
        for each in (module, groups, caller)
        for node in ast.walk(ast.parse(inspect.getsource(each)))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.count(".") == 1
        if node.value.replace(".", "").replace("_", "").isalpha()
    }
    assert len(texts & names) > 35
    assert {text for text in texts if text.partition(".")[0] in {name.partition(".")[0] for name in names}} <= names


@pytest.mark.slow
def test_a_long_method_is_followed(remote):
    steps = []
    with cumulant.connect(remote.http.url, progress=lambda text, share=None: steps.append(text)) as followed:
        assert followed.validate().snapshots["payments"].rows_in == 3
        assert followed.preview("payments")["amount"].to_list() == [10, 20, 30]
        with pytest.raises(UsageError, match="target"):
            followed.train(quick=True)
    assert any(steps)
