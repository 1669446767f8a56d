"""The review queue over HTTP: a live server, callers who race for cases, hostile input, killed processes."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from e2e_support import environment, opened, run

from cumulant.cli import app

CASES = 24
PROJECT = """\
version: 1
model: {name: shop, owner: shop@example.com, purpose: test}
data: {visits: {path: visits.csv, key: visit, event_time: {column: began, zone: UTC}, personal: [email]}}
training: {target: bought}
monitoring: {review: {budget: 24/day, sample: 100%, second: 0%, lease: LEASE}}
serving: {hosts: ["review.example:8443"]}
"""
ADA, BOB = {"x-cumulant-user": "ada"}, {"x-cumulant-user": "bob"}
TOKENS = "# reviewers\nada-0123456789abcdef ada\nbob-0123456789abcdef user:bob senior,cards\nconsole-0123456789abcdef\n"


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A project with a filled queue of predictions that were made elsewhere; tests work on copies of it."""
    folder = tmp_path_factory.mktemp("filled") / "shop"
    folder.mkdir()
    (folder / "cumulant.yaml").write_text(PROJECT.replace("LEASE", "30m"))
    (folder / "visits.csv").write_text("visit,began,email,bought\nv1,2026-01-01T00:00:00Z,a@example.com,yes\n")
    at = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    lines = [f"r{n},{at},yes,0.{n:02d},{n},person{n}@example.com" for n in range(CASES)]
    (folder / "old.csv").write_text("\n".join(["id,at,said,p,pages,email", *lines]) + "\n")
    mapped = "id=id,time=at,prediction=said,score=p"
    run(folder, "labels", "import-predictions", str(folder / "old.csv"), "--map", mapped)
    assert run(folder, "review", "fill")["added"] == CASES
    return folder


@pytest.fixture(scope="module")
def make(filled):
    """Copies the project to a folder, with a lease of its own."""

    def copied(folder, *, lease="30m"):
        shutil.copytree(filled, folder)
        (folder / "cumulant.yaml").write_text(PROJECT.replace("LEASE", lease))
        return folder

    return copied


class Server:
    """`cumulant review serve` in a process of its own."""

    def __init__(self, folder, *words):
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "cumulant.cli",
                "review",
                "serve",
                "--http",
                "127.0.0.1:0",
                *words,
                "--project",
                str(folder),
                "--json",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
            start_new_session=True,
        )
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if line.rstrip() == "}" or line.rstrip().endswith("}"):
                break
        assert lines, self.process.communicate()
        self.opened = json.loads("".join(lines))
        self.port = int(self.opened["url"].rpartition(":")[2])

    def __call__(self, method, path, body=None, headers=None):
        """Status, document and headers of one request on a connection of its own."""
        sent = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, sent, dict(headers or {}))
            answer = connection.getresponse()
            content = answer.read()
            return answer.status, json.loads(content) if content.strip() else None, dict(answer.getheaders())
        finally:
            connection.close()

    def kill(self, number=signal.SIGKILL):
        os.killpg(self.process.pid, number)
        _, err = self.process.communicate(timeout=60)
        return self.process.returncode, err


@pytest.fixture
def refused(capfd):
    """The error of `cumulant review serve`, which does not serve, in this process."""

    def call(folder, *words):
        capfd.readouterr()
        code = app.run(["review", "serve", *words, "--project", str(folder), "--json"])
        assert code in (1, 2)
        return json.loads(capfd.readouterr().out)["error"]

    return call


@contextmanager
def serving(folder, *words):
    server = Server(folder, *words)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.kill()


@pytest.fixture(scope="module")
def door(make, tmp_path_factory):
    """One server for the tests that leave cases enough for each other."""
    folder = make(tmp_path_factory.mktemp("door") / "shop")
    with serving(folder) as server:
        yield server


def test_every_verb_answers_as_the_command_line_does(door):
    status, cases, _ = door("GET", "/v1/review/cases?limit=3")
    assert (status, len(cases), cases[0]["hidden"]) == (200, 3, True)
    status, case, headers = door("POST", "/v1/review/next", headers=ADA)
    assert (status, case["holder"], case["hidden"], case["answer"], case["reasons"]) == (
        200,
        "user:ada",
        True,
        None,
        [],
    )
    assert case["request"]["email"].startswith("#")
    assert headers["etag"] == f'"{case["revision"]}"'
    path = f"/v1/review/cases/{case['id']}"
    assert door("GET", path, headers=BOB)[1]["hidden"]
    status, held, _ = door("POST", f"{path}/decide", {"label": "yes"}, BOB)
    assert (status, held["code"], held["retryable"], "with user:ada" in held["error"]) == (
        409,
        "lease-held",
        True,
        True,
    )
    status, noted, _ = door("POST", f"{path}/note", {"text": "worn"}, BOB)
    assert (status, [one["text"] for one in noted["notes"]]) == (200, ["worn"])
    stale = {**ADA, "if-match": headers["etag"]}
    status, changed, _ = door("POST", f"{path}/decide", {"label": "yes"}, stale)
    assert (status, changed["code"], "since you saw it" in changed["error"]) == (409, "conflict", True)
    fresh = {**ADA, "if-match": f'"{noted["revision"]}"'}
    status, said, _ = door("POST", f"{path}/decide", {"label": "yes", "note": "by hand"}, fresh)
    assert (status, said["case"]["status"], said["labelled"]) == (200, "done", 1)
    assert said["case"]["answer"]["prediction"] == "yes"
    status, again, _ = door("POST", f"{path}/decide", {"label": "no"}, ADA)
    assert (status, again["code"], "hint" in again) == (409, "conflict", True)
    status, report, _ = door("GET", "/v1/review/report")
    assert (status, report["done"], report["labelled"]) == (200, 1, 1)
    assert [one["id"] for one in door("GET", "/v1/review/cases?status=done")[1]] == [case["id"]]


def test_cases_are_skipped_escalated_and_assigned(door):
    first = door("POST", "/v1/review/next", headers=ADA)[1]
    assert door("POST", "/v1/review/next", {"passed": [first["id"]]}, ADA)[1]["id"] != first["id"]
    path = f"/v1/review/cases/{first['id']}"
    assert door("POST", f"{path}/assign", {"to": "bob"}, ADA)[1]["assigned"] == "user:bob"
    assert door("POST", f"{path}/decide", {"label": "yes"}, ADA)[0] == 409
    assert door("POST", f"{path}/escalate", {"note": "which card?"}, BOB)[1]["case"]["escalated"]
    assert door("POST", f"{path}/assign", {"to": None}, ADA)[1]["assigned"] is None
    second = door("POST", "/v1/review/next", {"passed": [first["id"]]}, BOB)[1]
    assert door("POST", f"/v1/review/cases/{second['id']}/skip", headers=BOB)[1]["case"]["status"] == "waiting"
    assert door("POST", f"/v1/review/cases/{second['id']}/skip", {}, BOB)[0] == 409


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/v1/review/cases/../../etc/passwd", None, 404),
        ("GET", "/v1/review/cases/%2e%2e%2f%2e%2e%2fsecret", None, 404),
        ("GET", "/v1/review/cases/shop%2F0", None, 404),
        ("GET", "/v1/review/cases/%25", None, 404),
        ("GET", "/v1/review/cases/%00", None, 404),
        ("GET", "/v1/review/cases/", None, 200),
        ("GET", "/v1/review", None, 404),
        ("GET", "/v1/review/cases/" + "a" * 5000, None, 404),
        ("GET", "/" + "a" * 20_000, None, 414),
        ("GET", "/v1/review/cases?limit=0", None, 400),
        ("GET", "/v1/review/cases?limit=999999999", None, 400),
        ("GET", "/v1/review/cases?limit=%D9%A3", None, 400),
        ("GET", "/v1/review/cases?status=secret", None, 400),
        ("GET", "/v1/review/cases?order=desc", None, 400),
        ("DELETE", "/v1/review/cases", None, 405),
        ("GET", "/v1/review/next", None, 405),
        ("POST", "/v1/review/next", b"{", 400),
        ("POST", "/v1/review/next", b"\xff\xfe", 400),
        ("POST", "/v1/review/next", b"[" * 30_000, 400),
        ("POST", "/v1/review/next", {"passed": "abc"}, 400),
        ("POST", "/v1/review/next", {"who": "root"}, 400),
        ("POST", "/v1/review/next", b"x" * 200_000, 413),
        ("POST", "/v1/review/cases/ID/decide", None, 400),
        ("POST", "/v1/review/cases/ID/decide", {"label": None}, 400),
        ("POST", "/v1/review/cases/ID/decide", {"label": ["yes"]}, 400),
        ("POST", "/v1/review/cases/ID/decide", {"label": {"yes": 1}}, 400),
        ("POST", "/v1/review/cases/ID/decide", b'{"label": 1e999}', 400),
        ("POST", "/v1/review/cases/ID/decide", {"label": ""}, 400),
        ("POST", "/v1/review/cases/ID/decide", {"label": "yes", "reviewer": "eve"}, 400),
        ("POST", "/v1/review/cases/ID/decide", {"label": "yes", "note": 7}, 400),
        ("POST", "/v1/review/cases/PREFIX/decide", {"label": "yes"}, 404),
        ("POST", "/v1/review/cases/ID/decide/again", {"label": "yes"}, 404),
        ("POST", "/v1/review/cases/ID/note", {"text": " "}, 400),
        ("POST", "/v1/review/cases/ID/note", {"text": "x" * 5000}, 400),
        ("POST", "/v1/review/cases/ID/assign", {}, 400),
        ("POST", "/v1/review/cases/ID/assign", {"to": " "}, 400),
        ("POST", "/v1/review/cases/ID/assign", {"to": "a\nb"}, 400),
    ],
)
def test_what_is_wrong_is_refused_in_words_and_changes_nothing(door, method, path, body, status):
    case = door("GET", "/v1/review/cases?limit=1")[1][0]
    path = path.replace("ID", case["id"]).replace("PREFIX", case["id"][:6])
    found, document, _ = door(method, path, body, {"x-cumulant-user": "mallory"})
    assert found == status, document
    if status != 200:
        assert document["error"]
        assert len(json.dumps(document)) < 1000
    assert door("GET", f"/v1/review/cases/{case['id']}")[1]["revision"] == case["revision"]


def test_a_browser_on_this_machine_cannot_be_used_by_another_page(door):
    evil = {"origin": "https://evil.example", "content-type": "text/plain"}
    status, told, _ = door("POST", "/v1/review/next", b"{}", evil)
    assert (status, told["code"]) == (403, "refused")
    assert door("GET", "/v1/review/cases", headers={"host": "evil.example"})[0] == 403
    assert door("GET", "/v1/review/cases", headers={"host": f"localhost:{door.port}"})[0] == 200
    assert door("GET", "/v1/review/cases", headers={"host": "review.example"})[0] == 200
    own = {"origin": f"http://127.0.0.1:{door.port}"}
    assert door("GET", "/v1/review/report", headers=own)[0] == 200
    assert door("GET", "/v1/review/cases", headers={"x-cumulant-user": "a\xffb"})[0] == 400


def test_its_document_names_every_path(door):
    status, found, _ = door("GET", "/openapi.json")
    assert (status, found["openapi"]) == (200, "3.1.0")
    assert {"label", "note"} == set(found["components"]["schemas"]["DecisionBody"]["properties"])
    for path, verbs in found["paths"].items():
        (method,) = verbs
        allowed = door("OPTIONS", path.replace("{case}", "0" * 12))[2].get("allow")
        assert allowed is None or method.upper() in allowed
    assert door("GET", "/ping")[0] == 200


def test_two_callers_who_race_get_each_case_once_and_a_kill_loses_nothing(make, tmp_path):
    folder = make(tmp_path / "shop", lease="1h")
    with serving(folder) as server:

        def work(who, most):
            found = []
            while len(found) < most:
                status, case, _ = server("POST", "/v1/review/next", headers=who)
                assert status == 200, case
                if case is None:
                    break
                status, said, _ = server("POST", f"/v1/review/cases/{case['id']}/decide", {"label": "yes"}, who)
                assert status == 200, said
                found.append(case["id"])
            return found

        names = [{"x-cumulant-user": name} for name in ("ada", "bob", "cleo")]
        with ThreadPoolExecutor(3) as pool:
            first = [one for found in pool.map(lambda who: work(who, 4), names) for one in found]
            assert len(set(first)) == len(first) == 12
            # One case is wanted by all at once: one decision stands.
            case = server("GET", "/v1/review/cases?limit=1")[1][0]["id"]
            path = f"/v1/review/cases/{case}/decide"
            told = list(pool.map(lambda who: server("POST", path, {"label": who["x-cumulant-user"]}, who), names))
        assert sorted(one[0] for one in told) == [200, 409, 409]
        held = server("POST", "/v1/review/next", headers=ADA)[1]
        server.kill()
    done = run(folder, "review", "list", "--status", "done", "--limit", "100")
    assert {one["id"] for one in done} == {*first, case}
    # However many decide at once, each decision becomes one label.
    said = [one["id"] for one in run(folder, "labels", "list", "--limit", "100")]
    assert (len(said), len(set(said))) == (13, 13)
    assert run(folder, "review", "report")["labelled"] == 13
    with serving(folder) as server:
        assert server("POST", "/v1/review/next", headers=ADA)[1]["id"] == held["id"]
        assert server("POST", "/v1/review/next", headers=BOB)[1]["id"] != held["id"]
        code, err = server.kill(signal.SIGTERM)
        assert (code, err) == (0, "")
    with opened(folder) as project:
        from cumulant.flows.ledger.run_events import verify

        assert verify(project.journal()).breaks == []


def test_decisions_at_the_same_time_become_one_label_each(make, tmp_path):
    folder = make(tmp_path / "shop")
    names = [{"x-cumulant-user": f"reviewer{number}"} for number in range(CASES)]
    with serving(folder) as server, serving(folder) as other:
        cases = [one["id"] for one in server("GET", f"/v1/review/cases?limit={CASES}")[1]]

        def decide(place):
            door = (server, other)[place % 2]
            return door("POST", f"/v1/review/cases/{cases[place]}/decide", {"label": "yes"}, names[place])

        with ThreadPoolExecutor(CASES) as pool:
            told = list(pool.map(decide, range(CASES)))
    assert {one[0] for one in told} == {200}
    assert sum(one[1]["labelled"] for one in told) == CASES
    assert [one["source"] for one in run(folder, "labels", "list", "--limit", "100")] == ["review"] * CASES
    assert run(folder, "labels", "report")["duplicates"] == 0


def test_a_lease_that_has_ended_lets_another_one_in(make, tmp_path):
    folder = make(tmp_path / "shop", lease="1s")
    with serving(folder) as server:
        held = server("POST", "/v1/review/next", headers=ADA)[1]
        ends = datetime.fromisoformat(held["held_until"])
        passed = [one["id"] for one in server("GET", "/v1/review/cases?limit=100")[1] if one["id"] != held["id"]]
        found = None
        while found is None:
            found = server("POST", "/v1/review/next", {"passed": passed}, BOB)[1]
        assert (found["id"], found["holder"], datetime.now(UTC) >= ends) == (held["id"], "user:bob", True)


def test_tokens_stand_for_their_reviewers(make, tmp_path, refused):
    folder = make(tmp_path / "shop")
    tokens = folder / "tokens.txt"
    tokens.write_text(TOKENS)
    tokens.chmod(0o644)
    assert refused(folder, "--token-file", str(tokens))["hint"] == f"chmod 600 {tokens}"
    tokens.chmod(0o600)
    with serving(folder, "--token-file", str(tokens)) as server:
        assert server.opened["guarded"]
        for wrong in (
            {},
            {"authorization": "Bearer nobody-0123456789"},
            {"authorization": "Basic ada-0123456789abcdef"},
        ):
            status, told, headers = server("POST", "/v1/review/next", b"x" * 1000, wrong)
            assert (status, headers["www-authenticate"]) == (401, "Bearer")
            assert "token" in told["error"]
        ada, bob, console = ({"authorization": f"Bearer {name}-0123456789abcdef"} for name in ("ada", "bob", "console"))
        assert server("POST", "/v1/review/next", headers=ada)[1]["holder"] == "user:ada"
        bob_elsewhere = {**bob, "origin": "https://console.example", "host": "other.example"}
        assert server("POST", "/v1/review/next", headers=bob_elsewhere)[1]["holder"] == "user:bob", (
            "a token decides alone"
        )
        status, told, _ = server("POST", "/v1/review/next", headers={**ada, "x-cumulant-user": "bob"})
        assert (status, told["code"], "that of user:ada" in told["error"]) == (403, "refused", True)
        assert (
            server("POST", "/v1/review/next", headers={**ada, "x-cumulant-groups": "senior", "x-cumulant-user": "ada"})[
                0
            ]
            == 403
        )
        assert server("POST", "/v1/review/next", headers=console)[0] == 400
        assert (
            server("POST", "/v1/review/next", headers={**console, "x-cumulant-user": "eve"})[1]["holder"] == "user:eve"
        )
        assert server("GET", "/ping")[0] == 200
        with socket.create_connection(("127.0.0.1", server.port)) as raw:  # a head that never ends is cut off
            raw.sendall(b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 500_000)
            assert raw.recv(12) == b"HTTP/1.1 431"
    assert "CUMULANT_TOKEN" in refused(folder, "--http", "0.0.0.0:0")["hint"]
    for text in ("", "short ada\n", TOKENS + "ada-0123456789abcdef eve\n", "a-0123456789abcdef b c d\n"):
        tokens.write_text(text)
        said = json.dumps(refused(folder, "--token-file", str(tokens)))
        assert "tokens.txt" in said
        assert "0123456789" not in said
