"""One erasure on a project whose machines share a bucket, a database and a Valkey: nothing there has the subject after."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import numpy as np
import polars as pl
import pytest
import valkey

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))
from test_e2e_personal_keys import forms

from cumulant.core.masking import mask
from cumulant.core.traffic import Exchange
from cumulant.drivers.envoy.client import EnvoyTraffic
from cumulant.drivers.envoy.exchanges import ExchangeWriter
from cumulant.drivers.objectstore.bucket import open_bucket
from cumulant.flows.outcomes.labels import ingest_labels, outcomes_of
from cumulant.flows.review.fill_queue import fill
from cumulant.flows.serving.serve import prepare_service, run_server
from cumulant.flows.subjects.subjects import find_subject
from cumulant.flows.traffic.exchange_upload import ExchangeUpload
from cumulant.flows.training.train import train
from cumulant.project.file.loading import load
from cumulant.testing.postgres import INSTALL, postgres_server, server_programs
from cumulant.testing.secrets import MemorySecrets
from cumulant.testing.servers.seaweedfs import KEY, SECRET, seaweed_server
from cumulant.testing.servers.valkey import valkey_server

pytestmark = [pytest.mark.live, pytest.mark.slow]

ANN, BOB, SALT = "ann.planted@person.example", "bob@other.example", "a salt of this test, of many letters"
NOW = datetime.now(UTC).replace(microsecond=0)
PROJECT = """\
version: 1
model: {{name: visits}}
data:
  visits:
    path: s3://bucket/source/*.csv
    key: [person, visit]
    event_time: {{column: at, zone: UTC}}
    personal: [person]
    subject: person
    rules: {{pages: {{min: 0}}}}
    quarantine: 10%
training: {{target: bought, predict_at: at, trials: 1, time: null, folds: 2, ensemble: 1, trainers: [lightgbm]}}
monitoring: {{review: {{budget: 50/day}}}}
environments:
  shared:
    journal: {journal}
    store: s3://bucket/store
    log: s3://bucket/log
    online: {online}
    tracking_uri: mlflow+sqlite://{registry}
    deploy: hosts://
    salt: ${{secret:SUBJECTS_SALT}}
"""
FEATURES = """\
from cumulant.features import source

visits = source("visits")
row = visits.columns("pages")
mean = visits.by("person").mean("pages", window="30d")
in_shop = visits.by("person", "shop").count(window="30d")
shop = visits.by("shop").sum("pages", window="30d")
"""


class Shared:
    """What machines share, and what stands there in any form."""

    def __init__(self, postgres, weed, online, registry):
        self.postgres, self.online, self.registry = postgres, online, registry
        self.secrets = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_ENDPOINT_URL": weed.url}
        self.secrets |= {"AWS_REGION": "us-east-1", "SUBJECTS_SALT": SALT}
        self.bucket = open_bucket("s3://bucket", MemorySecrets(self.secrets))

    def machine(self, tmp_path, name):
        folder = tmp_path / name
        folder.mkdir()
        journal, registry = self.postgres.url("cumulant"), self.registry / "mlflow.db"
        text = PROJECT.format(journal=journal, online=self.online.url, registry=registry)
        (folder / "cumulant.yaml").write_text(text)
        (folder / "features.py").write_text(FEATURES)
        return folder

    def holding(self, *texts):
        """The objects of the bucket, rows of the database, entries of Valkey and files of the registry that have one
        of these texts; the source files are the user's.
        """
        wanted = [form for text in texts for form in forms(text)]
        contents = {
            "bucket": self.objects(),
            "journal": self.rows(),
            "online": self.entries(),
            "registry": self.files(),
        }
        return {
            place: sorted(name for name, content in named if any(form in name.encode() + content for form in wanted))
            for place, named in contents.items()
        }

    def objects(self):
        for entry in self.bucket.entries():
            if not entry.path.startswith("source/"):
                yield entry.path, readable(self.bucket.read(entry.path) or b"")

    def rows(self):
        names = "SELECT schemaname || '.' || tablename FROM pg_tables WHERE schemaname NOT LIKE 'pg_%'"
        for table in self.postgres.execute(names, "cumulant").split():
            if not table.startswith("information_schema"):
                for row in self.postgres.execute(f"SELECT row_to_json(t) FROM {table} t", "cumulant").splitlines():
                    # The hash of an erased subject is what its rows are left out by, and what its event names.
                    if '"kind":"erased_subject"' not in row and '"kind":"subjects.erased"' not in row:
                        yield row, b""

    def entries(self):
        client = valkey.Valkey(port=self.online.port)
        read = {b"string": client.get, b"hash": client.hgetall, b"set": client.smembers}
        read[b"list"], read[b"zset"] = lambda key: client.lrange(key, 0, -1), lambda key: client.zrange(key, 0, -1)
        for key in client.scan_iter():
            content = read[client.type(key)](key)
            yield key.decode(errors="replace"), flat(content)

    def files(self):
        for path in self.registry.rglob("*"):
            if path.is_file():
                yield str(path.relative_to(self.registry)), readable(path.read_bytes())


def readable(content):
    """The bytes, and of Parquet the values of all columns."""
    if content[:4] != b"PAR1":
        return content
    return content + json.dumps(pl.read_parquet(io.BytesIO(content)).to_dicts(), default=str).encode()


def flat(content):
    if isinstance(content, dict):
        return b"\0".join(piece for pair in content.items() for piece in pair)
    return content if isinstance(content, bytes) else b"\0".join(content)


@pytest.fixture
def shared(tmp_path, monkeypatch):
    if server_programs() is None:
        pytest.skip(f"no PostgreSQL server is installed: {INSTALL}")
    registry, objects = tmp_path / "registry", tmp_path / "weed"
    registry.mkdir()
    objects.mkdir()
    with postgres_server("fsync = off") as postgres, seaweed_server(objects) as weed, valkey_server() as online:
        postgres.execute("CREATE DATABASE cumulant")
        shared = Shared(postgres, weed, online, registry)
        for name, value in shared.secrets.items():
            monkeypatch.setenv(name, value)
        yield shared


def visits(count=1200):
    rng = np.random.default_rng(3)
    people = np.array([ANN, BOB, *(f"p{number}@other.example" for number in range(8))])
    at = [NOW - timedelta(hours=3 + number) for number in range(count)]
    pages = rng.integers(0, 30, count)
    pages[5] = -1  # goes to quarantine
    people = people[rng.integers(0, len(people), count)]
    people[5] = ANN
    return pl.DataFrame(
        {
            "visit": [f"v{number}" for number in range(count)],
            "at": [moment.isoformat() for moment in at],
            "person": people,
            "shop": [f"s{number % 3}" for number in range(count)],
            "pages": pages,
            "bought": rng.random(count) < 1 / (1 + np.exp(8 - pages / 2)),
        }
    )


def row(person, number):
    at = (NOW - timedelta(hours=1, minutes=number)).isoformat()
    return {"visit": f"n{number}", "at": at, "person": person, "shop": "s1", "pages": 7}


def label(person, number):
    asked = row(person, number)
    return {name: asked[name] for name in ("visit", "at", "person")} | {"label": True}


def post(url, path, body, **headers):
    answer = httpx.post(f"{url}{path}", json=body, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer


def live_on(folder):
    """All that a project does on the machine of that folder, for ANN and for BOB."""
    with load(folder, environment="shared") as project:
        me = project.principal()
        train(project, principal=me)
        service, requests = prepare_service(project, "visits", principal=me), []
        with run_server(service) as server:
            for number, person in enumerate([ANN, BOB, ANN, BOB]):
                path, name = "/v1/models/visits/predict", f"order {number} of {person}"
                answer = post(server.url, path, {"rows": [row(person, number)]}, **{"x-request-id": name})
                requests.append((person, answer.json()["request_id"]))
                posted = row(person, 10 + number) | {"bought": True}
                post(server.url, "/v1/events", {"source": "visits", "rows": [posted]})
            post(server.url, "/v1/labels", {"labels": [label(ANN, 0), label(BOB, 1)]})
        assert ingest_labels(project, [], principal=me).labelled == 2
        assert fill(project, principal=me, at_once=True).added == 2  # those without a label
        with run_server(service) as server:
            post(server.url, "/v1/labels", {"labels": [label(ANN, 2), label(BOB, 3)]})
        answered_by_a_gateway(project, requests)


def answered_by_a_gateway(project, requests):
    """The exchanges of a gateway of this machine, uploaded as its agent does it."""
    gateway = project.state / "gateway"
    (gateway / "exchanges").mkdir(parents=True)
    with contextlib.closing(ExchangeWriter(gateway / "exchanges")) as writer:
        writer.write([exchange(person, name) for person, name in requests])
    upload = ExchangeUpload(EnvoyTraffic(f"envoy://{gateway}"), project.log("exchanges"), gateway, host="a")
    assert upload.upload() == len(requests)


def exchange(person, name):
    return Exchange(
        request=name,
        time=round(NOW.timestamp() * 1e6),
        model="visits",
        assigned="champion",
        served="champion",
        status=200,
        duration_us=900,
        key=mask(person, SALT.encode()),
        caller_id=f"order of {person}",
    )


def command(folder, *words, given="", codes=(0,)):
    line = [sys.executable, "-m", "cumulant.cli", *words, "--project", str(folder), "--env", "shared", "--json"]
    variables = os.environ | {"HOME": str(folder), "CUMULANT_HOST_NAME": folder.name}
    done = subprocess.run(line, env=variables, input=given, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode in codes, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_an_erasure_leaves_nothing_in_the_stores_that_machines_share(shared, tmp_path, monkeypatch):
    a, b = (shared.machine(tmp_path, name) for name in ("a", "b"))
    shared.bucket.replace("source/visits.csv", visits().write_csv().encode())
    monkeypatch.setenv("HOME", str(a))
    live_on(a)
    hashed = mask(ANN, SALT.encode())

    monkeypatch.setenv("HOME", str(b))
    with load(b, environment="shared") as project:
        found, others = (find_subject(project, person, principal=project.principal()).places for person in (ANN, BOB))
    assert {place.store for place in found} == {
        *("label inbox", "models", "snapshots", "online state", "labels", "gateway log", "prediction log"),
        "review cases",
    }
    before = shared.holding(ANN, hashed)
    logs = {path.split("/")[4] for path in before["bucket"] if path.startswith("log/")}
    assert logs == {"exchanges", "inbox", "joined", "labels", "predictions"}
    assert any(path.startswith("store/tables/") for path in before["bucket"])
    assert ['"kind":"review_case"' in row for row in before["journal"]] == [True]
    assert {key.split("/")[4] for key in before["online"]} >= {"keys", "rows"}

    done = command(b, "subjects", "erase", "-", "--yes", given=f"{ANN}\n")
    status = {receipt["store"]: receipt["status"] for receipt in done["receipts"]}
    assert status.pop("models") == "kept"
    assert set(status.values()) <= {"erased", "nothing"}, done["receipts"]
    assert {place["store"] for place in done["remaining"]} == {"models"}
    assert shared.holding(ANN, hashed) == {"bucket": [], "journal": [], "online": [], "registry": []}

    with load(b, environment="shared") as project:
        me = project.principal()
        after = find_subject(project, BOB, principal=me).places
        assert sorted((place.store, place.rows) for place in after) == sorted(
            (place.store, place.rows) for place in others
        )
        ingest_labels(project, [], principal=me)
        assert outcomes_of(project).labelled()[0].height == 2  # both of BOB
