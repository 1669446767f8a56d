"""Several workers as one server: control, counts, swaps under load, kills, drains."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from serving_graphs import scale

from cumulant.core.errors import NotFoundError
from cumulant.servable.folder import with_version
from cumulant.serving.models.repository import Repository

pytestmark = pytest.mark.slow

BODY = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]}
INFER = "/v2/models/graph/infer"


@contextmanager
def serving(*arguments, env=None):
    command = [sys.executable, "-W", "error", "-m", "cumulant.serving", *map(str, arguments), "--http", "127.0.0.1:0"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **(env or {})}
    )
    try:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        yield process, json.loads(line)
    finally:
        process.terminate()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        process.stderr.close()


def children(process):
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def metric(url, name):
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


@pytest.fixture
def repository(tmp_path):
    scale(tmp_path / "models" / "graph", 2.0)
    return tmp_path / "models"


def test_workers_speak_as_one(repository):
    with serving(repository, "--workers", 2, "--name", "shop", "--model-control", "explicit") as (process, ready):
        assert (ready["workers"], ready["models"]) == (2, [["graph", "1"]])
        for _ in range(40):  # each on a connection of its own, so that both workers answer some
            assert httpx.post(ready["url"] + INFER, json=BODY).json()["outputs"][1]["data"] == [12.0]
        assert metric(ready["url"], "cumulant_requests_total") == 40
        assert metric(ready["url"], "cumulant_workers") == 2
        (stats,) = httpx.get(ready["url"] + "/v2/models/graph/stats").json()["model_stats"]
        assert stats["inference_stats"]["success"]["count"] == 40
        assert httpx.get(ready["url"] + "/v2").json()["name"] == "shop"
        assert httpx.post(ready["url"] + "/v2/repository/models/graph/unload").status_code == 200
        assert {httpx.post(ready["url"] + INFER, json=BODY).status_code for _ in range(20)} == {404}
        (entry,) = httpx.post(ready["url"] + "/v2/repository/index").json()
        assert (entry["name"], entry["state"]) == ("graph", "UNAVAILABLE")
        assert httpx.post(ready["url"] + "/v2/repository/models/graph/load").status_code == 200
        assert {httpx.post(ready["url"] + INFER, json=BODY).status_code for _ in range(20)} == {200}
        assert len(children(process)) == 2


def test_a_broken_version_leaves_the_old_one_serving_everywhere(repository):
    with serving(repository, "--workers", 2, "--model-control", "explicit") as (_, ready):
        load = ready["url"] + "/v2/repository/models/graph/load"
        with (repository / "graph" / "model.onnx").open("ab") as stream:
            stream.write(b"x")
        answer = httpx.post(load)
        assert answer.status_code == 400
        assert "altered" in answer.json()["error"]
        assert {httpx.post(ready["url"] + INFER, json=BODY).json()["outputs"][1]["data"][0] for _ in range(20)} == {
            12.0
        }
        scale(repository / "graph", 3.0)
        assert httpx.post(load).status_code == 200
        assert {httpx.post(ready["url"] + INFER, json=BODY).json()["outputs"][1]["data"][0] for _ in range(20)} == {
            18.0
        }
        for name in ("../graph", "%2e%2e%2fgraph", "nosuch", "graph%00", "/etc"):
            assert httpx.post(f"{ready['url']}/v2/repository/models/{name}/load").status_code in {400, 404}


def test_versions_are_swapped_under_load_without_a_failed_or_wrong_answer(repository):
    with serving(repository, "--workers", 2, "--model-control", "explicit") as (_, ready):
        stop, wrong, count = threading.Event(), [], [0] * 4

        def ask(place):
            with httpx.Client() as client:
                while not stop.is_set():
                    answer = client.post(ready["url"] + INFER, json=BODY)
                    if answer.status_code != 200 or answer.json()["outputs"][1]["data"][0] not in {12.0, 18.0}:
                        wrong.append(answer.text)
                    count[place] += 1
                    time.sleep(0.002)

        askers = [threading.Thread(target=ask, args=(place,)) for place in range(4)]
        for asker in askers:
            asker.start()
        for turn in range(4):
            scale(repository / "graph", 3.0 if turn % 2 == 0 else 2.0)
            assert httpx.post(ready["url"] + "/v2/repository/models/graph/load", timeout=30).status_code == 200
        stop.set()
        for asker in askers:
            asker.join()
        assert wrong == []
        assert min(count) > 0


def test_a_killed_worker_is_replaced_and_the_rest_go_on(repository):
    with serving(repository, "--workers", 2, "--model-control", "explicit") as (process, ready):
        victim, other = children(process)
        os.kill(victim, signal.SIGKILL)
        deadline = time.monotonic() + 60
        failed = 0
        while time.monotonic() < deadline:
            try:
                assert httpx.post(ready["url"] + INFER, json=BODY).status_code == 200
            except httpx.TransportError:
                failed += 1  # what the killed worker had accepted is lost with it
            if len(children(process)) == 2 and victim not in children(process):
                break
        assert other in children(process)
        assert failed < 20
        for _ in range(100):
            if metric(ready["url"], "cumulant_workers") == 2:
                break
            time.sleep(0.1)
        assert metric(ready["url"], "cumulant_worker_starts_total") == 3
        scale(repository / "graph", 3.0)
        assert httpx.post(ready["url"] + "/v2/repository/models/graph/load", timeout=30).status_code == 200
        assert {httpx.post(ready["url"] + INFER, json=BODY).json()["outputs"][1]["data"][0] for _ in range(30)} == {
            18.0
        }


def test_workers_end_with_their_supervisor(repository):
    with serving(repository, "--workers", 2) as (process, _):
        workers = children(process)
        process.kill()
        process.wait()
        deadline = time.monotonic() + 60
        while any(Path(f"/proc/{pid}").exists() and "Z" not in _state(pid) for pid in workers):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def _state(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_draining_workers_finish_what_they_accepted(repository):
    body = json.dumps(BODY).encode()
    head = f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with serving(repository, "--workers", 2) as (process, ready):
        host, port = ready["url"].removeprefix("http://").split(":")
        connections = [socket.create_connection((host, int(port)), timeout=20) for _ in range(8)]
        for connection in connections:
            connection.sendall(head + body[:10])
        deadline = time.monotonic() + 60
        while metric(ready["url"], "cumulant_connections") < 9:  # these, and the one that asks
            assert time.monotonic() < deadline
        process.terminate()
        time.sleep(0.3)
        for connection in connections:
            connection.sendall(body[10:])
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
            connection.close()
        assert process.wait(timeout=60) == 0


def test_control_is_off_unless_asked_for(repository):
    with serving(repository) as (_, ready):
        answer = httpx.post(ready["url"] + "/v2/repository/models/graph/unload")
        assert (answer.status_code, "--model-control" in answer.json()["error"]) == (403, True)
        assert httpx.post(ready["url"] + "/v2/repository/index").status_code == 200
        assert httpx.post(ready["url"] + INFER, json=BODY).status_code == 200


def test_a_token_is_asked_for_everywhere_but_at_health(repository, tmp_path):
    (tmp_path / "token").write_text("a-secret-of-the-test\n")
    (tmp_path / "token").chmod(0o600)
    with serving(repository, "--token-file", tmp_path / "token") as (_, ready):
        assert httpx.get(ready["url"] + "/v2/health/ready").status_code == 200
        for path in ("/metrics", "/v2", "/v1/models"):
            assert httpx.get(ready["url"] + path).status_code == 401
            assert httpx.get(ready["url"] + path, headers={"authorization": "Bearer wrong"}).status_code == 401
            assert (
                httpx.get(ready["url"] + path, headers={"authorization": "Bearer a-secret-of-the-test"}).status_code
                == 200
            )
    with serving(repository, env={"CUMULANT_TOKEN": "another-secret-of-the-test"}) as (_, ready):
        assert httpx.get(ready["url"] + "/v2").status_code == 401


def test_the_token_is_in_no_argument_that_other_users_can_read(repository, tmp_path):
    (tmp_path / "token").write_text("a-very-secret-token")
    (tmp_path / "token").chmod(0o600)
    with serving(repository, "--workers", 2, "--token-file", tmp_path / "token") as (process, ready):
        assert (
            httpx.get(ready["url"] + "/v2", headers={"authorization": "Bearer a-very-secret-token"}).status_code == 200
        )
        for pid in (process.pid, *children(process)):
            assert b"a-very-secret-token" not in Path(f"/proc/{pid}/cmdline").read_bytes()


def test_the_repository_finds_servables_by_the_name_they_give_themselves(tmp_path):
    for version in ("2", "10", "9"):
        with_version(scale(tmp_path / "a" / version, name="deep"), version)
    scale(tmp_path / "b", name="flat")
    found = Repository([tmp_path])
    assert [folder.name for folder in found.versions("deep")] == ["2", "9", "10"]
    assert [folder.name for folder in found.folders()][-1] == "10"
    for name in ("a", "../b", "", "flat/../deep"):
        with pytest.raises(NotFoundError):
            found.versions(name)
    with pytest.raises(NotFoundError, match="holds no servable"):
        Repository([tmp_path / "a" / "none"]).folders()
