"""Addresses, servers that do not answer, and a driver that starts light."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import textwrap
import time

import pytest
from mlflow_servables import servable

from cumulant.core.errors import EngineUnavailableError, StorageError, UsageError
from cumulant.drivers.mlflow.client import MlflowRegistry
from cumulant.drivers.mlflow.location import locate
from cumulant.drivers.mlflow.reach import check_reachable

pytestmark = pytest.mark.filterwarnings("ignore")  # of MLflow


def test_addresses():
    assert locate("https://mlflow.example.com").tracking_uri == "https://mlflow.example.com"
    assert locate("databricks://team").artifacts is None
    for url in ("sqlite:///x.db", "mlflow+sqlite://", "mlflow"):
        with pytest.raises(UsageError):
            locate(url)


def test_places_that_cannot_be_used(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        MlflowRegistry(f"mlflow+sqlite://{tmp_path / 'file' / 'mlflow.db'}")


def test_a_missing_server_is_reported_at_once(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"):
        monkeypatch.delenv(name, raising=False)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    began = time.monotonic()
    with pytest.raises(EngineUnavailableError, match=f"MLflow does not answer at 127.0.0.1:{port}") as caught:
        list(MlflowRegistry(f"http://127.0.0.1:{port}").models())
    assert time.monotonic() - began < 30  # MLflow's own attempts take minutes
    assert caught.value.retryable


def test_a_server_without_connections_is_reported_at_once():
    """Its queue is full, so that connecting waits, as it does where packets are dropped."""
    with socket.socket() as deaf, contextlib.ExitStack() as held:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for _ in range(3):
            caller = held.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(deaf.getsockname())
        began = time.monotonic()
        with pytest.raises(EngineUnavailableError, match=r"does not answer at 127\.0\.0\.1:\d+: timed out"):
            check_reachable(f"http://127.0.0.1:{deaf.getsockname()[1]}")
        assert time.monotonic() - began < 30  # MLflow's own attempts take minutes


def test_addresses_that_name_no_server():
    for address in ("http://", "https://host:port", "http://host:99999"):
        with pytest.raises(UsageError, match="names no host"):
            check_reachable(address)
    check_reachable("databricks://team")


def test_behind_a_proxy_the_proxy_gets_the_request(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    check_reachable("http://mlflow.invalid")


@pytest.mark.slow
def test_the_driver_is_light_silent_and_offline(tmp_path):
    """In a process that refuses every connection and holds warnings for errors."""
    folder = servable(tmp_path / "servable")
    code = f"""
        import logging, sys, pathlib, socket

        def refuse(*_):
            raise OSError("no network here")

        socket.socket.connect = refuse
        from cumulant.drivers.mlflow.driver import embedded, server
        assert not {{"mlflow", "pandas", "numpy"}} & set(sys.modules)
        from cumulant.drivers.mlflow.client import MlflowRegistry
        registry = MlflowRegistry("mlflow+sqlite://{tmp_path / "mlflow.db"}")
        assert "mlflow" not in sys.modules
        import pandas
        with registry.run("e", "r", key="k") as run:
            run.metrics({{"a": 1.0}})
            frame = pandas.DataFrame({{"distance": [1.0], "flights": [1], "carrier": ["UA"], "charter": [True]}})
            version = registry.register(run, "late", pathlib.Path({str(folder)!r}), frame, tags={{}}, key="k")
        print(registry.fetch(version, pathlib.Path({str(tmp_path)!r})).name)
    """
    # a file, as PySpark beside MLflow takes a process of `-c` for one of its own tests
    (tmp_path / "program.py").write_text(textwrap.dedent(code))
    done = subprocess.run([sys.executable, "program.py"], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("late-1\n", "")
    left = {path.name for path in tmp_path.iterdir()} - {"mlflow.db.lock", "program.py"}
    assert left == {"late-1", "mlartifacts", "mlflow.db", "servable"}
