"""`cumulant token` and `cumulant session`: what they print, and what they never print."""

from __future__ import annotations

import os
import re
import subprocess
from datetime import UTC, datetime

import pytest

from cumulant.flows.identities.api_address import note_address, remove_address
from cumulant.flows.identities.sessions import Sessions
from cumulant.flows.identities.sign_in_links import use_link
from cumulant.project.file.loading import load


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "cumulant.yaml").write_text("version: 1\nmodel: {name: flight-late}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUMULANT_USER", "ada")
    return tmp_path


def test_a_token_is_printed_once(cumulant, folder):
    created = cumulant("token", "create", "nightly", "--scope", "runs.*", "--expires", "30d")
    (secret,) = created.out.splitlines()
    assert secret.startswith("cml_")
    assert "of user:ada, until " in created.err
    assert secret not in created.err
    listed = cumulant("token", "list")
    assert "runs.show" in listed.out
    assert secret not in listed.out
    assert secret[:10] not in cumulant("events", "list", "--json").out
    assert secret.encode() not in b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_a_token_as_a_document_and_its_end(cumulant, folder):
    new = cumulant("token", "create", "deploy", "--service", "ci", "--scope", "release.show", "--json").document
    assert new["token"]["principal"] == "service:ci"
    (view,) = cumulant("token", "list", "--json").document["tokens"]
    assert (view["id"], view["used"], "secret" in view) == (new["token"]["id"], None, False)
    assert "is revoked" in cumulant("token", "revoke", view["id"][:4], "--reason", "done").out
    assert cumulant("token", "list").out == "no tokens\n"
    assert cumulant("token", "revoke", view["id"]).code == 2


def test_an_expiry_within_a_day_has_its_time(cumulant, folder):
    cumulant("token", "create", "short", "--expires", "2h")
    cumulant("token", "create", "long")
    listed = {line.split()[1]: line for line in cumulant("token", "list").out.splitlines() if "user:ada" in line}
    assert re.search(r"all +\d{4}-\d\d-\d\d \d\d:\d\d +never", listed["short"])
    assert re.search(r"all +\d{4}-\d\d-\d\d +never", listed["long"])


def test_a_token_without_a_life(cumulant, folder):
    refused = cumulant("token", "create", "x", "--expires", "0s")
    assert refused.code == 2
    assert "has expired" in refused.err


@pytest.mark.parametrize(
    "words", [["a b"], ["x", "--scope", "nope"], ["x", "--expires", "2w3"], ["x", "--service", "ci"]]
)
def test_tokens_that_cannot_be(cumulant, folder, words):
    assert cumulant("token", "create", *words).code == 2


def test_a_link_sessions_and_their_end(cumulant, folder):
    assert cumulant("session", "list").out == "nobody is signed in\n"
    url = cumulant("session", "link", "--url", "http://127.0.0.1:9").out.strip()
    assert url.startswith("http://127.0.0.1:9/login?code=")
    with load(folder) as project:
        journal, now = project.journal(), datetime.now(UTC)
        opened = use_link(journal, Sessions(journal, project.sign_in.limits), url.partition("=")[2], now)
    assert opened is not None
    assert opened.session.principal == "user:ada"
    listed = cumulant("session", "list")
    assert "user:ada" in listed.out
    assert opened.secret not in listed.out
    (view,) = cumulant("session", "list", "--json").document["sessions"]
    assert cumulant("session", "revoke").code == 2
    assert cumulant("session", "revoke", view["id"]).out == f"{view['id']}: session of user:ada ended\n"
    assert cumulant("session", "revoke", "--of", "user:ada").out == "user:ada has no session\n"
    with load(folder) as project:
        assert Sessions(project.journal(), project.sign_in.limits).find(opened.secret, now) is None


@pytest.mark.parametrize(
    "url",
    ["javascript:alert(1)", "http://evil.example", "https://evil.example", "127.0.0.1:8700", "http://u@127.0.0.1"],
)
def test_a_link_leads_to_this_machine(cumulant, folder, url):
    refused = cumulant("session", "link", "--url", url)
    assert (refused.code, refused.out) == (2, "")
    with load(folder) as project:
        assert project.journal().rows("sign_in_link") == []


def test_a_link_leads_to_the_server_that_runs(cumulant, folder):
    none = cumulant("session", "link")
    assert none.out.startswith("http://127.0.0.1:8700/login?code=")
    assert "no console of the project runs on this machine" in none.err
    with load(folder) as project:
        note_address(project, "http://127.0.0.1:9123")  # of this process, which lives
        note = project.state / "stack" / f"api-{os.getpid()}.json"
        ended = subprocess.Popen(["true"])
        ended.wait()
        other = note.with_name(f"api-{ended.pid}.json")  # of a newer one, which was killed
        other.write_bytes(
            note.read_bytes().replace(b'"pid":%d' % os.getpid(), b'"pid":%d' % ended.pid).replace(b"9123", b"9124")
        )
        running = cumulant("session", "link")
        assert running.out.startswith("http://127.0.0.1:9123/login?code=")
        assert running.err == ""
        note_address(project, "http://127.0.0.1:9123")
        assert (note.exists(), other.exists()) == (True, False)
        remove_address(project)
    assert cumulant("session", "link").out.startswith("http://127.0.0.1:8700/login?code=")


def test_a_link_leads_to_the_declared_address(cumulant, folder):
    section = "environments: {local: {sign_in: {url: 'https://c.example.com'}}}\n"
    (folder / "cumulant.yaml").write_text(f"version: 1\nmodel: {{name: flight-late}}\n{section}")
    for words in ((), ("--url", "https://c.example.com/")):
        assert cumulant("session", "link", *words).out.startswith("https://c.example.com/login?code=")
