"""Reading a tracking server by its REST API gives what MLflow's own client gives, and imports no MLflow."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from cumulant.core.errors import EngineUnavailableError, NotFoundError
from cumulant.drivers.mlflow.client import MlflowRegistry
from cumulant.drivers.mlflow.rest import Rest

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

READS = """
import json, sys
from cumulant.drivers.mlflow.client import MlflowRegistry
registry = MlflowRegistry(sys.argv[1])
champion = registry.resolve("late@champion")
metrics = registry.metrics(champion.run_id)
loaded = {"mlflow", "pandas", "numpy", "pyarrow", "sqlalchemy"} & set(sys.modules)
print(json.dumps([list(registry.models()), champion.version, metrics["log_loss"], sorted(loaded)]))
"""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A real `mlflow server`, with versions, aliases and tags as its pages leave them."""
    place, port = tmp_path_factory.mktemp("server"), free_port()
    address = f"http://127.0.0.1:{port}"
    words = ["--backend-store-uri", f"sqlite:///{place}/mlflow.db", "--artifacts-destination", f"{place}/artifacts"]
    program = [sys.executable, "-m", "mlflow", "server", *words, "--host", "127.0.0.1", "--port", str(port)]
    # No processes for jobs of MLflow, each of which imports all of it.
    environ = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    assert MlflowRegistry(f"mlflow+sqlite://{place / 'mlflow.db'}")._client  # it has the tables at hand
    with (
        (place / "server.log").open("wb") as log,
        subprocess.Popen(
            [*program, "--workers", "1"], cwd=place, env=environ, stdout=log, stderr=log, start_new_session=True
        ) as process,
    ):
        try:
            wait_for(f"{address}/health", process, place / "server.log")
            fill(MlflowRegistry(address)._client)
            yield address
        finally:
            os.killpg(process.pid, 15)


def wait_for(address, process, log):
    for _ in range(1200):
        try:
            urllib.request.urlopen(address, timeout=5).close()
        except OSError:
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        else:
            return
    raise AssertionError(log.read_text())


def fill(client):
    run = client.create_run(client.create_experiment("flights"))
    for name, value in {"log_loss": 0.25, "odd": math.nan, "endless": math.inf}.items():
        client.log_metric(run.info.run_id, name, value)
    client.create_registered_model("late")
    for number in range(1, 12):
        client.create_model_version("late", "s3://bucket/elsewhere", run.info.run_id if number % 2 else None)
        client.set_model_version_tag("late", str(number), "number", str(number))
        client.set_model_version_tag("late", str(number), "empty", "")
    client.delete_model_version("late", "11")
    for alias, version in (("champion", "1"), ("before", "10"), ("candidate", "10")):
        client.set_registered_model_alias("late", alias, version)
    client.create_registered_model("bare")
    client.create_registered_model("Zeta")


@pytest.fixture
def registry(server):
    return MlflowRegistry(server)


@pytest.fixture
def client(server):
    """The same by MLflow's client alone."""
    found = MlflowRegistry(server)
    found.__dict__["_reader"] = None
    return found


def test_all_is_as_mlflow_says_it(registry, client):
    names = list(registry.models())
    assert names == list(client.models())
    assert {name: registry.versions(name) for name in names} == {name: client.versions(name) for name in names}
    run_id = client.resolve("late@champion").run_id
    assert repr(sorted(registry.metrics(run_id).items())) == repr(sorted(client.metrics(run_id).items()))


def test_an_unknown_model_is_refused_alike(registry, client):
    for one in (registry, client):
        with pytest.raises(NotFoundError) as caught:
            one.versions("lat")
        assert "late" in (caught.value.hint or "")


def test_no_mlflow_is_imported(server):
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    done = subprocess.run(
        [sys.executable, "-c", READS, server], capture_output=True, text=True, check=True, timeout=120, env=environ
    )
    assert json.loads(done.stdout) == [["Zeta", "bare", "late"], "1", 0.25, []]


def test_pages_are_followed(server, monkeypatch):
    monkeypatch.setattr("cumulant.drivers.mlflow.rest._PAGE", 3)
    assert [one.version for one in Rest(server, {}).versions("late")] == [str(n) for n in range(10, 0, -1)]


@pytest.fixture
def answers():
    """A server that gives every request the answer that the test names, and what it was asked with."""
    given = {"status": 200, "body": b"{}", "headers": {}, "seen": []}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            given["seen"].append(self.headers.get("authorization"))  # type: ignore[attr-defined]
            self.send_response(given["status"])
            for name, value in given["headers"].items():  # type: ignore[attr-defined]
                self.send_header(name, value)
            self.send_header("content-length", str(len(given["body"])))
            self.end_headers()
            self.wfile.write(given["body"])

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as opened:
        Thread(target=opened.serve_forever, args=(0.02,), daemon=True).start()
        given["url"] = f"http://127.0.0.1:{opened.server_address[1]}"
        yield given
        opened.shutdown()


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (200, b"<html>log in</html>", {}),
        (200, b"[]", {}),
        (401, b"", {}),
        (404, b"no such page", {}),
        (500, b"{}", {}),
        (302, b"", {"location": "http://127.0.0.1:9/"}),
    ],
)
def test_another_answer_is_left_to_mlflow(answers, status, body, headers):
    answers.update(status=status, body=body, headers=headers)
    assert Rest(answers["url"], {}).models() is None
    assert Rest(answers["url"], {}).versions("late") is None
    assert Rest(answers["url"], {}).metrics("r") is None


@pytest.mark.parametrize(
    ("environ", "sent"),
    [
        ({}, None),
        ({"MLFLOW_TRACKING_TOKEN": "t"}, "Bearer t"),
        (
            {"MLFLOW_TRACKING_TOKEN": "t", "MLFLOW_TRACKING_USERNAME": "u", "MLFLOW_TRACKING_PASSWORD": "p"},
            "Basic dTpw",
        ),
    ],
)
def test_credentials_are_those_of_the_environment(answers, environ, sent):
    assert Rest(answers["url"], environ).models() == []
    assert answers["seen"] == [sent]


@pytest.mark.parametrize("name", ["MLFLOW_WORKSPACE", "MLFLOW_TRACKING_AWS_SIGV4", "MLFLOW_TRACKING_INSECURE_TLS"])
def test_what_only_mlflow_knows_how_to_reach_is_left_to_it(answers, name):
    assert Rest(answers["url"], {name: "true"}).models() is None
    assert answers["seen"] == []
    assert Rest("databricks", {}).models() is None


def test_a_missing_server_is_reported_immediately():
    with pytest.raises(EngineUnavailableError):
        Rest(f"http://127.0.0.1:{free_port()}", {}).models()
