"""Reviewers of one queue over the API: a process with their tokens, races for cases, a kill, two servers at once."""

from __future__ import annotations

import json
import shutil
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from e2e_support import kill, opened, run, start

import cumulant
from cumulant.cli import app
from cumulant.core.errors import ConflictError, EngineUnavailableError, LeaseHeldError
from cumulant.flows.identities.tokens import create_token
from cumulant.flows.ledger.run_events import verify
from cumulant.ports.access import Principal

pytestmark = pytest.mark.slow

CASES = 24
PROJECT = """\
version: 1
model: {name: shop, owner: shop@example.com, purpose: test}
data: {visits: {path: visits.csv, key: visit, event_time: {column: began, zone: UTC}, personal: [email]}}
training: {target: bought}
monitoring: {review: {budget: 24/day, sample: 100%, second: 0%, lease: LEASE, escalate_to: [senior]}}
"""
#: who has a token, with groups
REVIEWERS = dict.fromkeys(("ada", "cleo", *(f"reviewer{number}" for number in range(CASES))), ()) | {"bob": ("senior",)}


class Filled:
    """A project with a filled queue, and the tokens of its reviewers. Tests work on copies of it."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        self.declare(folder)
        (folder / "visits.csv").write_text("visit,began,email,bought\nv1,2026-01-01T00:00:00Z,a@example.com,yes\n")
        at = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
        lines = [f"r{n},{at},yes,0.{n:02d},{n},person{n}@example.com" for n in range(CASES)]
        (folder / "old.csv").write_text("\n".join(["id,at,said,p,pages,email", *lines]) + "\n")
        mapped = "id=id,time=at,prediction=said,score=p"
        run(folder, "labels", "import-predictions", str(folder / "old.csv"), "--map", mapped)
        assert run(folder, "review", "fill")["added"] == CASES
        with opened(folder) as project:
            self.tokens = {
                name: create_token(project, name, principal=Principal(f"user:{name}", groups)).secret
                for name, groups in REVIEWERS.items()
            }

    @staticmethod
    def declare(folder, lease="30m"):
        (folder / "cumulant.yaml").write_text(PROJECT.replace("LEASE", lease))

    def copy(self, folder):
        shutil.copytree(self.folder, folder)
        return folder


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    return Filled(tmp_path_factory.mktemp("filled") / "shop")


class Server:
    """`cumulant api` in a process of its own."""

    def __init__(self, folder, tokens):
        self.folder, self._tokens = folder, tokens
        self.process = start(folder, "api", "--http", "127.0.0.1:0")
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if line.rstrip() == "}":
                break
        assert lines, self.process.communicate()
        self.url = json.loads("".join(lines))["url"]

    def __call__(self, who, method, path, body=None, **headers):
        """The response to one request below the queue, on a connection of its own."""
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        credentials = {"authorization": f"Bearer {self._tokens.get(who, who)}"} if who else {}
        return httpx.request(
            method,
            f"{self.url}/v1/projects/shop/review{path}",
            content=content,
            headers=credentials | headers,
            timeout=60,
        )

    def post(self, who, path, body=None):
        """The document of a response that is not an error."""
        response = self(who, "POST", path, body)
        assert response.status_code == 200, response.text
        return response.json()

    def waiting(self, who="ada"):
        return [case["id"] for case in self(who, "GET", f"/cases?limit={CASES}").json()["items"]]

    def connect(self, who):
        return cumulant.connect(self.url, token=self._tokens[who])


@contextmanager
def serving(folder, tokens):
    server = Server(folder, tokens)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            kill(server.process)


@pytest.fixture(scope="module")
def server(filled, tmp_path_factory):
    """One server for the tests that leave cases enough for each other."""
    with serving(filled.copy(tmp_path_factory.mktemp("server") / "shop"), filled.tokens) as server:
        yield server


@pytest.fixture
def command(server, monkeypatch, capfd):
    """What a command prints, run as a user."""

    def call(who, *words):
        monkeypatch.setenv("CUMULANT_USER", who)
        capfd.readouterr()
        assert app.run([*words, "--project", str(server.folder), "--json"]) == 0
        return json.loads(capfd.readouterr().out)

    return call


def test_every_verb_answers_as_the_command_line_does(server, command):
    case = server.post("ada", "/next")
    assert (case["holder"], case["hidden"], case["answer"], case["reasons"]) == ("user:ada", True, None, [])
    assert case["request"]["email"].startswith("#")
    path = f"/cases/{case['id']}"
    assert server("ada", "GET", path).json() == command("ada", "review", "show", case["id"])
    assert server("bob", "GET", path).json()["hidden"]
    held = server("bob", "POST", f"{path}/decide", {"label": "yes"})
    assert (held.status_code, held.json()["code"], held.json()["retryable"]) == (409, "lease-held", True)
    assert "with user:ada" in held.json()["detail"]
    noted = server.post("bob", f"{path}/notes", {"text": "worn"})
    assert [note["text"] for note in noted["notes"]] == ["worn"]
    changed = server("ada", "POST", f"{path}/decide", {"label": "yes", "seen": case["revision"]})
    assert (changed.status_code, changed.json()["code"]) == (409, "conflict")
    assert "since you saw it" in changed.json()["detail"]
    decision = {"label": "yes", "note": "by hand", "seen": noted["revision"]}
    decided = server.post("ada", f"{path}/decide", decision)
    assert (decided["case"]["status"], decided["labelled"]) == ("done", 1)
    assert decided["case"]["answer"]["prediction"] == "yes"
    again = server("ada", "POST", f"{path}/decide", {"label": "no"})
    assert (again.status_code, again.json()["code"], "hint" in again.json()) == (409, "conflict", True)
    report = server("ada", "GET", "/report").json()
    assert (report["done"], report["labelled"]) == (1, 1)
    assert report == command("ada", "review", "report")
    assert [line["id"] for line in server("ada", "GET", "/cases?status=done").json()["items"]] == [case["id"]]


def test_cases_are_skipped_escalated_and_assigned(server):
    first = server.post("ada", "/next")
    assert server.post("ada", "/next", {"passed": [first["id"]]})["id"] != first["id"]
    path = f"/cases/{first['id']}"
    assert server.post("ada", f"{path}/assign", {"to": "bob"})["assigned"] == "user:bob"
    assert server("ada", "POST", f"{path}/decide", {"label": "yes"}).status_code == 409
    assert server.post("bob", f"{path}/escalate", {"note": "which card?"})["case"]["escalated"]
    assert server.post("ada", f"{path}/assign", {"to": None})["assigned"] is None
    assert server("ada", "POST", f"{path}/decide", {"label": "yes"}).status_code == 409, "not of the group"
    second = server.post("bob", "/next", {"passed": [first["id"]]})
    assert server.post("bob", f"/cases/{second['id']}/skip")["case"]["status"] == "waiting"
    assert server("bob", "POST", f"/cases/{second['id']}/skip", {}).status_code == 409


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/next", {"who": "root"}, 400),
        ("/cases/ID/decide", {"label": None}, 400),
        ("/cases/ID/decide", {"label": ["yes"]}, 400),
        ("/cases/ID/decide", b'{"label": 1e999}', 400),
        ("/cases/ID/decide", {"label": ""}, 400),
        ("/cases/ID/decide", {"label": "yes", "reviewer": "eve"}, 400),
        ("/cases/PREFIX/decide", {"label": "yes"}, 404),
        ("/cases/ID/decide/again", {"label": "yes"}, 404),
        ("/cases/ID/notes", {"text": " "}, 400),
        ("/cases/ID/notes", {"text": "x" * 5000}, 400),
        ("/cases/ID/assign", {"to": " "}, 400),
        ("/cases/ID/assign", {"to": "a\nb"}, 400),
    ],
)
def test_what_is_wrong_is_refused_and_changes_nothing(server, path, body, status):
    case = server.waiting()[-1]
    before = server("cleo", "GET", f"/cases/{case}").json()["revision"]
    response = server("cleo", "POST", path.replace("ID", case).replace("PREFIX", case[:6]), body)
    assert response.status_code == status, response.text
    assert response.json()["detail"]
    assert len(response.content) < 1000
    assert server("cleo", "GET", f"/cases/{case}").json()["revision"] == before


def test_tokens_stand_for_their_reviewers(server):
    for wrong in ("", "cml_nobody"):
        response = server(wrong, "POST", "/next", b"x" * 1000)
        assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
    named = {"x-cumulant-user": "bob", "x-user": "bob"}
    passed: list[str] = []
    for who in ("ada", "bob", "cleo"):
        case = server(who, "POST", "/next", {"passed": passed}, **named).json()
        assert case["holder"] == f"user:{who}", "a name in a header is nobody's"
        passed.append(case["id"])


def test_callers_who_race_get_each_case_once_and_a_kill_loses_nothing(filled, tmp_path, monkeypatch):
    monkeypatch.setattr("cumulant.server.client.http_api._DELAY", 0.01)
    folder, names = filled.copy(tmp_path / "shop"), ("ada", "bob", "cleo")
    filled.declare(folder, lease="1h")
    with serving(folder, filled.tokens) as server, ThreadPoolExecutor(3) as pool:
        acknowledged: list[str] = []
        several = threading.Event()

        def work(who, cases):
            with server.connect(who) as remote, suppress(EngineUnavailableError):
                for _ in range(cases):
                    acknowledged.append(remote.reviews.decide(remote.reviews.next().id, "yes").case.id)
                    if len(acknowledged) >= 16:
                        several.set()

        def decide(who):
            with server.connect(who) as remote:
                try:
                    return remote.reviews.decide(contested, who).case.id
                except (ConflictError, LeaseHeldError) as error:
                    return error.code

        list(pool.map(work, names, [4] * 3))
        assert len(set(acknowledged)) == len(acknowledged) == 12
        contested = server.waiting()[0]  # wanted by all at once: one decision stands
        assert list(pool.map(decide, names)).count(contested) == 1
        acknowledged.append(contested)
        held = server.post("reviewer0", "/next")
        under_way = [pool.submit(work, who, 2) for who in names]
        assert several.wait(60)
        kill(server.process)
        assert [worker.result(60) for worker in under_way] == [None] * 3
    done = {case["id"] for case in run(folder, "review", "list", "--status", "done", "--limit", "100")}
    assert len(set(acknowledged)) == len(acknowledged) >= 16
    assert set(acknowledged) <= done
    filled.declare(folder, lease="1s")
    with serving(folder, filled.tokens) as server:
        assert server.post("reviewer1", "/next")["id"] != held["id"], "the lease outlived its server"
        assert server.post("reviewer0", "/next")["id"] == held["id"]
        check_expired_lease(server)
        server.process.send_signal(signal.SIGTERM)
        _, errors = server.process.communicate(timeout=60)
        assert (server.process.returncode, errors) == (0, "")
    run(folder, "review", "fill")  # which makes labels of decisions whose server was killed before it did
    labels = [label["id"] for label in run(folder, "labels", "list", "--limit", "100")]
    assert len(set(labels)) == len(labels) == len(done)
    with opened(folder) as project:
        assert verify(project.journal()).breaks == []


def check_expired_lease(server):
    """A lease of a second ends, and another reviewer gets the case."""
    held = server.post("reviewer2", "/next")
    ends = datetime.fromisoformat(held["held_until"])
    passed = [case for case in server.waiting() if case != held["id"]]
    case = None
    while case is None:
        case = server.post("reviewer3", "/next", {"passed": passed})
    assert (case["id"], case["holder"], datetime.now(UTC) >= ends) == (held["id"], "user:reviewer3", True)


def test_decisions_at_the_same_time_become_one_label_each(filled, tmp_path):
    folder = filled.copy(tmp_path / "shop")
    with serving(folder, filled.tokens) as one, serving(folder, filled.tokens) as other:
        cases = one.waiting()

        def decide(place):
            server = (one, other)[place % 2]
            return server.post(f"reviewer{place}", f"/cases/{cases[place]}/decide", {"label": "yes"})["labelled"]

        with ThreadPoolExecutor(CASES) as pool:
            assert sum(pool.map(decide, range(CASES))) == CASES
    assert [label["source"] for label in run(folder, "labels", "list", "--limit", "100")] == ["review"] * CASES
    assert run(folder, "labels", "report")["duplicates"] == 0
