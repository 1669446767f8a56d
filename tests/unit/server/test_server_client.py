"""The Python client: results of the declared types, errors of the same classes, events over lost connections."""

import threading

import pytest
from api_server import serving
from test_server_reads import emit

import cumulant
from cumulant.core.errors import EngineUnavailableError, ForbiddenError, NotFoundError, UsageError
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
    assert [event.seq for event in remote.events()] == list(range(120, 0, -1))
    assert len(list(remote.events(kind="test.counted"))) == 0
    assert remote.status() is None
    assert list(remote.models()) == []
    assert list(remote.monitoring.alerts()) == []
    assert remote.reviews.next() is None


def test_errors_are_of_the_same_class(project, remote, monkeypatch):
    with pytest.raises(NotFoundError, match="snapshot") as caught:
        remote.preview("payments")
    assert caught.value.hint
    with pytest.raises(NotFoundError):
        remote.releases.current()
    access = GrantedAccess(set())
    monkeypatch.setattr(type(project), "access", lambda self: access)
    with pytest.raises(ForbiddenError, match=r"user:ada may not do model\.show"):
        remote.models()


def test_a_project_is_named_where_there_are_several(project):
    with serving({"churn": project, "other": project}) as url:
        with pytest.raises(UsageError, match="which project"):
            cumulant.connect(url)
        with cumulant.connect(url, project="churn") as remote:
            assert remote.status() is None
        with cumulant.connect(url, project="none") as remote, pytest.raises(NotFoundError):
            remote.status()


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


def test_each_operation_is_called_by_its_name(remote):
    """What the methods of a remote project call exists, with these parameters."""
    import ast
    import inspect

    from cumulant.api.remote import project as module

    names = {operation.name for operation in OPERATIONS}
    called = {
        node.args[0].value
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if node.func.attr in ("call", "pages", "submit") and isinstance(node.args[0], ast.Constant)
    }
    assert len(called) > 15
    assert called <= names


@pytest.mark.slow
def test_a_long_method_is_followed(remote):
    steps = []
    with cumulant.connect(remote.http.url, progress=lambda text, share=None: steps.append(text)) as followed:
        (source,) = followed.validate().sources
        assert source.rows_in == 3
        assert followed.preview("payments")["amount"].to_list() == [10, 20, 30]
        with pytest.raises(UsageError, match="target"):
            followed.train(quick=True)
    assert any(steps)
