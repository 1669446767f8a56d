"""A project whose online state is on a Valkey: two servers share it, posted rows and emptied stores included."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta

import httpx
import msgspec
import numpy as np
import polars as pl
import pytest
from valkey_server import valkey

from cumulant.features.offline.offline import compute
from cumulant.features.online.online import OnlineFeatures
from cumulant.features.online.state import STATE_FORMAT, STATE_KEY, decode_state, encode
from cumulant.flows.data.validate import newest_snapshot
from cumulant.flows.deployment.versions import adopt
from cumulant.flows.features.feature_table import scans, used_sources
from cumulant.flows.maintenance.refill import refill_in_background
from cumulant.flows.maintenance.schedule import JOBS
from cumulant.flows.serving.serve import prepare_service, run_server
from cumulant.flows.serving.stored_keys import forget_key, show_key
from cumulant.flows.training.train import train
from cumulant.ports.access import Principal
from cumulant.project.file.loading import load
from cumulant.servable.folder import load_description

pytestmark = pytest.mark.live

ME = Principal("tester")
PASSWORD = "a pass word"
PROJECT = """\
version: 1
model: {{name: visits}}
data:
  visits: {{path: visits.parquet, key: id, event_time: at}}
training: {{target: bought, trials: 1, time: null, folds: 2, ensemble: 1, trainers: [lightgbm]}}
environments:
  servers: {{online: "valkey://visits@127.0.0.1:{port}/1?password=ONLINE"}}
"""
FEATURES = """\
from cumulant.features import source

visits = source("visits")
row = visits.columns("pages")
by = visits.by("person")
pages_mean = by.mean("pages", window="7d")
pages_sum = by.sum("pages", window="30d")
count = by.count(window="1h")
"""
END = datetime(2026, 3, 1, tzinfo=UTC)


def visits(count, seed=0):
    rng = np.random.default_rng(seed)
    pages = rng.integers(1, 30, count)
    at = pl.datetime_range(END - timedelta(hours=count), END, "1h", time_zone="UTC", eager=True)
    frame = pl.DataFrame({"id": range(count), "at": at[:count], "person": rng.integers(0, 20, count), "pages": pages})
    return frame.with_columns(bought=pl.Series(rng.random(count) < 1 / (1 + np.exp(8 - pages / 2))))


@pytest.fixture
def server():
    rules = ("--user", "default", "off", "--user", "visits", "on", f">{PASSWORD}", "~{default/visits/*", "+@all")
    with valkey(*rules) as started:
        yield started


@pytest.fixture
def project(server, tmp_path):
    (tmp_path / "cumulant.yaml").write_text(PROJECT.format(port=server.port))
    (tmp_path / "features.py").write_text(FEATURES)
    visits(1500).write_parquet(tmp_path / "visits.parquet")
    secret = tmp_path / ".cumulant" / "secrets"
    secret.parent.mkdir()
    secret.touch(0o600)
    secret.write_text(f"ONLINE={PASSWORD}\n")
    with load(tmp_path, environment="servers") as loaded:
        yield loaded


def events(count):
    return [
        {"id": 10_000 + n, "at": (END + timedelta(minutes=n)).isoformat(), "person": n % 5, "pages": n, "bought": True}
        for n in range(count)
    ]


def requests():
    return [{"id": 20_000 + n, "at": (END + timedelta(hours=2)).isoformat(), "person": n, "pages": 7} for n in range(8)]


def predictions(url, rows):
    answer = httpx.post(f"{url}/v1/models/visits/predict", json={"rows": rows}, timeout=30)
    return answer.status_code, answer.json()


def readiness(url):
    answer = httpx.get(f"{url}/v2/health/ready", timeout=30)
    return answer.status_code, answer.json()


def probabilities(url):
    status, answer = predictions(url, requests())
    assert status == 200, answer
    return [prediction["probability"] for prediction in answer["predictions"]]


def wait_until(holds, seconds=60):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def offline(project, plan, posted, rows):
    snapshot = newest_snapshot(project, "visits")
    assert snapshot is not None
    history = scans(project, {"visits": snapshot}, used_sources(plan, {"visits": snapshot}), as_of=None)[
        "visits"
    ].collect()
    more = pl.DataFrame(posted).with_columns(pl.col("at").str.to_datetime(time_zone="UTC"))
    shared = [name for name in more.columns if name in history.columns]
    whole = pl.concat([history, more.select(shared).cast({n: history.schema[n] for n in shared})], how="diagonal")
    asked = pl.DataFrame(rows).with_columns(pl.col("at").str.to_datetime(time_zone="UTC"))
    return compute(plan, {"visits": whole}, rows=asked)


def test_two_servers_share_the_state_and_answer_from_the_features_of_training(server, project):
    train(project, principal=ME)
    service = prepare_service(project, "visits", principal=ME)
    assert PASSWORD not in json.dumps([service.online, service.secrets])
    plan = load_description(service.folder).plan
    with run_server(service) as one, run_server(service) as two:
        before = probabilities(one.url)
        rows = events(40)
        answer = httpx.post(f"{one.url}/v1/events", json={"source": "visits", "rows": rows[:25]}, timeout=30)
        assert answer.json()["accepted"] == 25
        answer = httpx.post(f"{two.url}/v1/events", json={"source": "visits", "rows": rows[20:]}, timeout=30)
        assert (answer.json()["accepted"], answer.json()["duplicates"]) == (15, 5)
        # The rows of one request do not see each other, and each counts once, on whichever server it is repeated.
        assert probabilities(two.url) == probabilities(one.url) != before
        features = OnlineFeatures(plan, project.online(), service.table)
        found = features.vectors(requests()).columns
        expected = offline(project, plan, [*rows, *requests()], requests())
        for name in plan.names:
            np.testing.assert_allclose(
                np.array(found[name], dtype=float), expected[name].cast(pl.Float64).to_numpy(), rtol=1e-9, err_msg=name
            )

        forgotten = forget_key(project, "visits", {"person": 3}, principal=ME)
        assert forgotten.rows == 8 + 1  # posted and scored
        (stored, *_) = show_key(project, "visits", {"person": 3}, principal=ME)
        assert stored.events == sum(visits(1500)["person"] == 3)
        assert probabilities(two.url) == probabilities(one.url)

        server.kill()
        server.start()
        status, answer = predictions(one.url, requests())
        assert status == 503
        assert "no online state" in answer["error"]
        adopt(project, "visits", principal=ME)  # as `cumulant serve` does: filled from the history again
        for url in (one.url, two.url):
            assert probabilities(url) == before

        # What `cumulant up` does beside its controller: rows that were posted are lost, those of the data are not.
        visits(1600).write_parquet(project.root / "visits.parquet")
        reported = []
        with refill_in_background(project, reported.append):
            server.kill()
            server.start()
            assert predictions(one.url, requests())[0] == 503
            wait_until(lambda: len(reported) > 1)
            assert predictions(one.url, requests())[0] == 200
        assert "they were filled again from the newest data" in reported[-1], reported
        assert "posted rows that the data do not contain are lost" in reported[-1]
        (job,) = [job for job in JOBS if job.name == "stored features"]
        assert job.run(project) == "the online store has all that is served"
        newest = offline(project, plan, requests(), requests())
        found = OnlineFeatures(plan, project.online(), service.table).vectors(requests()).columns
        for name in plan.names:
            np.testing.assert_allclose(
                np.array(found[name], dtype=float), newest[name].cast(pl.Float64).to_numpy(), rtol=1e-9, err_msg=name
            )
        again = probabilities(two.url)
        assert again != before

        # A table in the format of another version of Cumulant is filled again, with the posted rows.
        state = project.online().get(service.table, [STATE_KEY])[0]
        older = msgspec.structs.replace(decode_state(state), format=STATE_FORMAT - 1)
        project.online().put(service.table, [(STATE_KEY, encode(older))])
        status, answer = predictions(one.url, requests())
        assert status != 200
        assert f"has format {STATE_FORMAT - 1}" in answer["error"]
        assert "format of another version of Cumulant" in job.run(project)
        assert probabilities(two.url) == again

        # What `cumulant tick` does; the data are refused now, so that the last accepted snapshot is taken.
        (project.root / "visits.parquet").write_bytes(b"damaged")
        server.kill()
        server.start()
        assert predictions(two.url, requests())[0] == 503
        assert "filled again" in job.run(project)
        assert probabilities(two.url) == again
        assert {event.kind for event in project.journal().events()} >= {"features.state_lost"}

        server.kill()
        status, answer = predictions(two.url, requests())
        assert status == 503
        assert "online store" in answer["error"]
        # It stays ready, since no other server would answer, and says what it lacks, also where nobody sends requests.
        wait_until(lambda: readiness(one.url) == (200, {"ready": True, "unreachable": ["online"]}))
        server.start()
        wait_until(lambda: readiness(one.url) == (200, {"ready": True}))
