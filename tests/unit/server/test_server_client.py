"""The Python client: results of the declared types, errors of the same classes, events over lost connections."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from api_server import serving
from test_server_reads import emit

import cumulant
from cumulant.core.errors import CredentialsError, EngineUnavailableError, ForbiddenError, NotFoundError, UsageError
from cumulant.flows.alerting.store import read as read_alerts
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


def test_errors_are_of_the_same_class(project, remote, monkeypatch):
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


#: methods of a local project that one on a server has not, or with other parameters or results, and why
DIFFERENT = {
    "Project.root": "a folder of the server's machine",
    "Project.tracking_uri": "a store that the server's machine reaches",
    "Project.rows": "reads tables in place, all rows, personal values too",
    "Project.serve": "starts a process of this machine",
    "Project.train": "the result is what the operation returns: TrainedVersion",
    "ProjectStack.gateway_key_file": "a file of the server's machine",
    "ProjectStack.check": "what is installed on this machine",
    "ProjectStack.spans_machines": "a part of up",
    "ProjectStack.up": "starts processes of this machine",
    "ProjectStack.champion": "has the command line of a process of the server's machine",
    "ProjectStack.champion_url": "an address within the project's network",
    "ProjectStack.down": "ends processes of the machine",
    "ProjectStack.reset": "ends processes of the machine",
    "ProjectReleases.start": "more parameters, and ReleaseView in place of Release, the row of the journal",
    "ProjectReleases.current": "ReleaseView in place of Release, the row of the journal",
    "ProjectOutcomes.past_requests": "all rows of a period",
    "ProjectOutcomes.replay": "sends requests from this machine",
    "ProjectOutcomes.ingest_replayed_labels": "a part of replay",
    "ProjectOutcomes.import_predictions": "reads a file of this machine",
    "ProjectOutcomes.ingest_labels": "without files of this machine: those of the project file",
    "ProjectReviews.used_for_training": "reads rows of the journal that no operation shows",
    "ProjectMonitoring.run": "MonitorSummary: without the tables of the evaluation",
}


def public(kind):
    return {name: value for name, value in vars(kind).items() if not name.startswith("_")}


def test_a_project_on_a_server_has_the_methods_of_a_local_one():
    import inspect

    from cumulant.api import monitoring, outcomes, stack, subjects
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
    assert different == set(DIFFERENT)


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
