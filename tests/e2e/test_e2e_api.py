"""`cumulant api` as a process: its link, its pages, a program with a token, and its end."""

import json
import re
import signal
import subprocess
import sys

import httpx
import pytest

import cumulant
from cumulant.core.errors import ForbiddenError

PROJECT = """
version: 1
model: {name: churn}
data: {payments: {path: payments.csv, key: id}}
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "cumulant.yaml").write_text(PROJECT)
    (tmp_path / "payments.csv").write_text("id,paid,amount\n1,2026-01-02,10\n2,2026-01-03,20\n")
    return tmp_path


def run(folder, *arguments):
    command = [sys.executable, "-m", "cumulant.cli", *arguments, "--project", str(folder), "--json"]
    return json.loads(subprocess.run(command, capture_output=True, timeout=120, check=True).stdout)


@pytest.fixture
def process(folder):
    command = [sys.executable, "-m", "cumulant.cli", "api", "--http", "127.0.0.1:0", "--project", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


@pytest.mark.slow
def test_a_person_signs_in_and_a_program_has_a_token(folder, process):
    printed = "".join(process.stdout.readline() for _ in range(3))
    link = re.search(r"http://\S+/login\?code=\S+", printed)
    assert link is not None, printed
    url = link[0].partition("/login")[0]

    with httpx.Client(base_url=url, follow_redirects=True, timeout=60) as browser:
        assert browser.get("/v1/projects").status_code == 401
        signed_in = browser.get(link[0])
        assert (signed_in.status_code, signed_in.url.path) == (200, "/")
        assert "churn" in signed_in.text
        assert browser.get("/v1/projects").json()[0]["name"] == "churn"
        assert browser.get("/projects/churn/events").status_code == 200
        denied = browser.post("/v1/projects/churn/silences", json={"span": "1h"})
        assert (denied.status_code, denied.json()["code"]) == (403, "cross-site")
        link_again = browser.get(link[0])
        assert link_again.status_code >= 400
        assert f"cumulant session link --url {url}" in link_again.text
    assert run(folder, "session", "link")["url"].startswith(f"{url}/login?code=")

    token = run(folder, "token", "create", "test", "--scope", "data.*")["secret"]
    with cumulant.connect(url, token=token) as project:
        (snapshot,) = project.validate().snapshots.values()
        assert snapshot.rows_in == 2
        with pytest.raises(ForbiddenError):
            project.models()
    kinds = {event["kind"] for event in run(folder, "events", "list")}
    assert {"access.allowed", "access.refused"} <= kinds

    stream = f"{url}/v1/projects/churn/events/stream"
    token = run(folder, "token", "create", "events", "--scope", "events.*")["secret"]
    with httpx.stream("GET", stream, headers={"authorization": f"Bearer {token}"}, timeout=60) as response:
        lines = response.iter_lines()
        assert next(lines) == "retry: 2000"
        process.send_signal(signal.SIGTERM)
        assert not [line for line in lines if line.startswith("data: ")]  # it ends, and the connection is not lost
    assert process.wait(30) == 0
    assert process.stderr.read() == ""
