"""A real Label Studio: it takes the tasks that are exported, people answer there, and its exports become decisions."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta

import pytest

from cumulant.cli.app import run

pytestmark = pytest.mark.live

#: tried with this version; it takes a gigabyte, so it is in no list of requirements
VERSION = "1.23.2"
TOKEN = "0123456789abcdef0123456789abcdef01234567"
REVIEW = "monitoring: {{review: {{budget: 8/day, sample: 100%, second: 0%, blind: {blind}}}}}\n"
#: fields as projects have them: names with blanks and signs, empty values, a field that not every request has
FIELDS = "pages,how paid,note,b.c"


class Server:
    def __init__(self, folder):
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            self.port = one.getsockname()[1]
        program = shutil.which("label-studio")
        assert program is not None
        self.log = (folder / "log.txt").open("wb")
        self.process = subprocess.Popen(
            [
                program,
                "start",
                "--no-browser",
                "--internal-host",
                "127.0.0.1",
                "--port",
                str(self.port),
                "--username",
                "ada@example.com",
                "--password",
                "labels-1234",
                "--user-token",
                TOKEN,
            ],
            env={
                **os.environ,
                "LABEL_STUDIO_BASE_DATA_DIR": str(folder),
                "LATEST_VERSION_CHECK": "0",
                "COLLECT_ANALYTICS": "0",
                "SENTRY_DSN": "",
                "FRONTEND_SENTRY_DSN": "",
                "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
            },
            cwd=folder,
            stdout=self.log,
            stderr=self.log,
        )

    def ready(self):
        deadline = time.monotonic() + 600
        while True:
            try:
                assert self("GET", "/api/version")["release"]
                return
            except (urllib.error.URLError, ConnectionError):
                assert self.process.poll() is None, self.log.name
                assert time.monotonic() < deadline, self.log.name
                time.sleep(0.5)

    def __call__(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        headers = {"authorization": f"Token {TOKEN}", "content-type": "application/json"}
        asked = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, headers, method=method)
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return json.loads(answer.read() or b"null")

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.log.close()


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    if shutil.which("label-studio") is None:
        pytest.skip(
            f"label-studio is not installed: python -m venv .label-studio && .label-studio/bin/pip install "
            f'label-studio=={VERSION} && export PATH="$PWD/.label-studio/bin:$PATH"'
        )
    server = Server(tmp_path_factory.mktemp("studio"))
    try:
        server.ready()
        yield server
    finally:
        server.stop()


@pytest.mark.parametrize(("kind", "blind", "said"), [("choices", "true", ["no", "yes"]), ("number", "false", [2.5, 3])])
def test_cases_go_there_and_come_back_as_decisions(studio, tmp_path, capfd, kind, blind, said):
    folder = tmp_path / "shop"

    def cumulant(*words, project=folder):
        capfd.readouterr()
        code = run([*words, "--project", str(project), "--json"])
        found = capfd.readouterr()
        assert code in ((0, 1) if words[0] == "train" else (0,)), found.out + found.err
        return json.loads(found.out)

    rows = [f"v{n},2026-01-{1 + n // 10:02d}T00:00:00Z,{n % 7},{target_of(kind, n)}" for n in range(280)]
    (tmp_path / "visits.csv").write_text("\n".join(["visit,began,pages,target", *rows]) + "\n")
    named = ["--target", "target", "--time", "began", "--key", "visit"]
    cumulant("new", "shop", "--from", str(tmp_path / "visits.csv"), *named, project=tmp_path)
    with (folder / "cumulant.yaml").open("a") as stream:
        stream.write(REVIEW.format(blind=blind))
    if kind == "choices":  # what may be chosen is what the model knows
        cumulant("train", "--quick")
    at = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    rows = [f'r{place},{at},{place % 2},{place},,x & "y" $z,{place}' for place in range(6)]
    (tmp_path / "old.csv").write_text("\n".join([f"id,at,said,{FIELDS}", *rows]) + "\n")
    cumulant(
        "labels",
        "import-predictions",
        str(tmp_path / "old.csv"),
        "--map",
        "id=id,time=at,prediction=said",
        "--version",
        "1",
    )
    assert cumulant("review", "fill")["added"] == 6
    cumulant("review", "export", str(tmp_path / "tasks.json"))

    config = (tmp_path / "tasks.xml").read_text()
    assert f"<{kind.capitalize()} name=" in config
    made = studio("POST", "/api/projects", {"title": f"review of {kind}", "label_config": config})
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    taken = studio("POST", f"/api/projects/{made['id']}/import", tasks)
    assert (taken["task_count"], taken["prediction_count"]) == (6, 0 if blind == "true" else 6)
    held = studio("GET", f"/api/tasks?project={made['id']}&fields=all")["tasks"]
    # As people do it there: four decisions, one of them with a note, one skip, one left.
    for place, one in enumerate(held[:5]):
        result = [{"from_name": "decision", "to_name": "case", **answer(kind, said[place % 2])}]
        if place == 0:
            result.append({"from_name": "note", "to_name": "case", "type": "textarea", "value": {"text": ["worn"]}})
        body = {"result": [], "was_cancelled": True} if place == 4 else {"result": result}
        studio("POST", f"/api/tasks/{one['id']}/annotations/", body)

    counts = []
    for kind in ("JSON_MIN", "JSON"):
        exported = studio("GET", f"/api/projects/{made['id']}/export?exportType={kind}&download_all_tasks=true")
        (tmp_path / f"{kind}.json").write_text(json.dumps(exported))
        found = cumulant("review", "import", str(tmp_path / f"{kind}.json"))
        assert found["problems"] == {}
        counts.append([found[name] for name in ("decided", "skipped", "again", "labelled")])
    # The reduced form has no skips.
    assert counts == [[4, 0, 0, 4], [0, 1, 4, 0]]
    done = {one["id"]: one for one in cumulant("review", "list", "--status", "done")}
    assert [done[one["data"]["case"]]["label"] for one in held[:4]] == said * 2
    first = cumulant("review", "show", held[0]["data"]["case"])
    assert [one["text"] for one in first["notes"]] == ["worn"]
    assert len(cumulant("labels", "list")) == 4


def target_of(kind, place):
    return ("yes" if place % 7 > 3 or place % 11 == 0 else "no") if kind == "choices" else place % 7 + place % 3


def answer(kind, value):
    return {"type": kind, "value": {kind: [value] if kind == "choices" else value}}
