"""A store that is slow and fails: a model is served, its predictions and labels are read, and monitoring goes on."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

import httpx
import polars as pl
import pytest
from test_live_objectstore import KEY, SECRET, endpoint  # noqa: F401 - a fixture

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))
import e2e_shop

from cumulant.core.errors import EngineUnavailableError
from cumulant.flows.monitoring.run import run_monitoring
from cumulant.flows.outcomes.labels import ingest_labels
from cumulant.flows.serving.predictions import list_predictions, lost_predictions, prediction_log, show_prediction
from cumulant.flows.serving.serve import prepare_service, run_server
from cumulant.flows.training.train import train
from cumulant.ports.access import Principal
from cumulant.project.file.loading import load
from cumulant.testing.servers.fault_proxy import FaultProxy

pytestmark = [pytest.mark.live, pytest.mark.parametrize("endpoint", ["moto"], indirect=True)]

ME = Principal("tester")
#: seconds a call, and shares of calls
DELAY, REFUSED, LOST = 0.5, 0.1, 0.02
#: of labels and monitoring, which make some 90 calls one after the other
SHORT_DELAY = 0.1
ROWS = 30
PROJECT = """\
version: 1
model: {name: returns}
data: {orders: {path: data/orders/*.parquet, key: order, event_time: ordered, known_time: {3d: returned}}}
features: features.py
training: {target: returned, trials: 1, time: null, folds: 2, ensemble: 1, trainers: [linear]}
environments:
  local: {store: s3://bucket/shop/store, log: s3://bucket/shop/log}
"""
FEATURES = 'from cumulant.features import source\nrow = source("orders").columns("kind", "amount", "express")\n'


@pytest.fixture
def proxy(endpoint):  # noqa: F811
    with FaultProxy(endpoint) as proxy:
        yield proxy


@pytest.fixture
def shop(proxy, tmp_path, monkeypatch):
    """A trained project; what is read from here on is read through a slow store, by a machine without copies."""
    values = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_ENDPOINT_URL": proxy.url}
    for name, value in {**values, "AWS_REGION": "us-east-1", "HOME": str(tmp_path / "home")}.items():
        monkeypatch.setenv(name, value)
    folder = e2e_shop.make(tmp_path / "shop", rows=1000, project=PROJECT, features=FEATURES)
    with load(folder) as project:
        train(project, principal=ME)
    shutil.rmtree(tmp_path / "home")
    proxy.delay, proxy.refused, proxy.lost = DELAY, REFUSED, LOST
    return folder


def predict(url):
    """Answers to requests of the ids `r0`, `r1`, ..."""
    rows = e2e_shop.orders(ROWS, seed=5).drop("returned").with_columns(pl.col("ordered").dt.to_string("iso:strict"))
    with httpx.Client(timeout=30) as client:
        for number, row in enumerate(rows.iter_rows(named=True)):
            answer = client.post(
                f"{url}/v1/models/returns/predict", json={"rows": [row]}, headers={"x-request-id": f"r{number}"}
            )
            assert answer.status_code == 200, answer.text


def wait_for_rows(log):
    deadline = time.monotonic() + 90
    while len(rows := list_predictions(log, limit=2 * ROWS)) < ROWS:
        assert time.monotonic() < deadline, f"{len(rows)} of {ROWS} rows are in the log"
        time.sleep(0.5)
    assert len(rows) == ROWS


def test_serving_labels_and_monitoring_go_on_with_a_slow_store_that_fails(shop, proxy, tmp_path):
    with load(shop) as project:
        with run_server(prepare_service(project, "returns", principal=ME)) as server:
            begun = time.monotonic()
            predict(server.url)
            assert time.monotonic() - begun < ROWS * DELAY, "requests do not wait for the store"
            log = prediction_log(project, principal=ME)
            wait_for_rows(log)
        assert lost_predictions(log) == []
        (view,) = show_prediction(log, "r7")
        assert (view.id, view.version) == ("r7", "1")

        proxy.delay = SHORT_DELAY
        labels = tmp_path / "labels.csv"
        rows = "".join(f"r{number},{number % 2 == 1},{view.time.isoformat()}\n" for number in range(ROWS))
        labels.write_text(f"id,label,known_time\n{rows}")
        assert ingest_labels(project, [str(labels)], principal=ME).labelled == ROWS
        assert ingest_labels(project, [str(labels)], principal=ME).sources[0].again
        before = proxy.faults
        result = run_monitoring(project, principal=ME)
        assert (result.version, result.evaluation.fault) == ("1", None)
        assert proxy.faults > before > 0

        proxy.refused = 1.0
        with pytest.raises(EngineUnavailableError, match=r"object store at .* does not answer as it should"):
            run_monitoring(project, principal=ME)
