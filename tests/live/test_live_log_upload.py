"""Servers and a reader on hosts of their own, with nothing but an object store between them."""

import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from test_live_objectstore import KEY, SECRET, endpoint, secrets, url

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "serving"))
from kill_support import kill_all, loaded, start, stop
from log_support import wait_for
from serving_models import servable

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "outcomes"))
from outcomes_support import logs

from cumulant.drivers.objectstore.log import BucketLog
from cumulant.outcomes.join.joining import Outcomes
from cumulant.outcomes.labels.ingest import ingest_file
from cumulant.outcomes.labels.label_rows import LabelSchema
from cumulant.serving.prediction_log.storage.log_reader import find_gaps, find_predictions
from cumulant.serving.prediction_log.storage.retention import upkeep
from cumulant.serving.prediction_log.storage.scanning import scan

# one store: what another one does differently is that of the conformance tests
pytestmark = [pytest.mark.live, pytest.mark.parametrize("endpoint", ["weed"], indirect=True)]
__all__ = ["endpoint", "secrets", "url"]  # fixtures


@pytest.fixture
def variables(endpoint, monkeypatch):
    for name, value in {
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)


def ids_of(log):
    return sorted(scan(log).dataset.to_table(columns=["id"])["id"].to_pylist())


def serve(host, model, url):
    """A server on the host whose folder this is."""
    more = ("--log-upload", f"{url}/log", "--log-write", "durable")
    return start(model, host / "spool", *more, stderr=subprocess.DEVNULL)


def test_what_servers_acknowledged_is_read_and_joined_elsewhere_once_whatever_is_killed(
    url, secrets, variables, tmp_path
):
    model = servable(tmp_path / "model")
    hosts = [tmp_path / "host-a", tmp_path / "host-b"]
    reader = BucketLog(f"{url}/log", secrets=secrets, cache=tmp_path / "reader" / "cache")
    outcomes = Outcomes(logs(tmp_path / "reader" / "outcomes"), reader)
    acknowledged = []
    for place, host in enumerate(hosts):
        process, ready = serve(host, model, url)
        with loaded(ready["url"], first=place * 1_000_000) as load:
            wait_for(lambda load=load: len(load.acknowledged) >= 100)
            kill_all(process)  # between an answer, its part and the upload
        process, ready = serve(host, model, url)
        with loaded(ready["url"], first=place * 1_000_000 + 500_000) as more:
            wait_for(lambda more=more: len(more.acknowledged) >= 100)
            outcomes.advance()
            upkeep(reader, keep=timedelta(days=90), file_size=1 << 20, file_age=0.0)
        stop(process)
        acknowledged += [*load.acknowledged, *more.acknowledged]
    shutil.rmtree(hosts[0])  # all of it is in the store
    logged = ids_of(reader)
    assert len(logged) == len(set(logged))
    assert set(acknowledged) <= set(logged)
    assert find_gaps(reader) == []
    assert find_predictions(reader, acknowledged[0])[0].id == acknowledged[0]

    known = (datetime.now(UTC) + timedelta(seconds=-1)).isoformat()
    rows = "".join(f"{name},0,{number % 2},{known}\n" for number, name in enumerate(acknowledged))
    (tmp_path / "labels.csv").write_text("id,row,label,known_time\n" + rows)
    ingest_file(logs(tmp_path / "reader" / "outcomes"), tmp_path / "labels.csv", LabelSchema())
    assert outcomes.advance().labelled == len(acknowledged)
    assert outcomes.advance().labelled == 0
    assert sorted(outcomes.labelled()[0]["id"]) == sorted(acknowledged)
    assert list((tmp_path / "reader").rglob("*.journal")) == []


def test_a_store_that_is_away_costs_no_answer_and_no_row(url, secrets, variables, tmp_path, monkeypatch):
    model, reader = servable(tmp_path / "model"), BucketLog(f"{url}/log", secrets=secrets, cache=tmp_path / "cache")
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nobody answers
        process, ready = serve(tmp_path / "host", model, url)
        with loaded(ready["url"]) as load:
            wait_for(lambda: len(load.acknowledged) >= 100)
        kill_all(process)
    assert load.refused == 0
    assert reader.days() == []
    process, _ = serve(tmp_path / "host", model, url)
    wait_for(lambda: set(load.acknowledged) <= set(ids_of(reader)))
    stop(process)
    assert len(ids_of(reader)) == len(set(ids_of(reader)))
