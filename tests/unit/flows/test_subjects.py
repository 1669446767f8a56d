"""A subject is found wherever it is stored, erased where that is possible, and named nowhere by its value afterwards."""

import ast
import contextlib
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import polars as pl
import pyarrow.parquet as pq
import pytest

import cumulant
from cumulant.cli.app import run as command
from cumulant.core.errors import NotFoundError, UsageError
from cumulant.core.events import Actor
from cumulant.core.masking import mask
from cumulant.core.plan import Field
from cumulant.core.traffic import Exchange
from cumulant.drivers.envoy.exchanges import ExchangeWriter
from cumulant.drivers.envoy.folder import Folder
from cumulant.features.online.hashed_keys import HashedKeys
from cumulant.features.online.online import OnlineFeatures
from cumulant.features.online.state import entity_key
from cumulant.flows.data.validate import load_snapshot, newest_snapshot, snapshots_of, validate
from cumulant.flows.features.feature_table import featurize
from cumulant.flows.features.jobs.job_record import FeatureJobRecord, ResumePlace, record_job
from cumulant.flows.features.task import resolve_task
from cumulant.flows.ledger.ledger_records import API_REQUEST
from cumulant.flows.ledger.run_context import open_run
from cumulant.flows.outcomes.labels import outcomes_of
from cumulant.flows.outcomes.outcome_logs import logs_of
from cumulant.flows.serving.serve import materialize
from cumulant.flows.subjects import online_state, streams
from cumulant.flows.subjects.stores import STORES
from cumulant.flows.subjects.subjects import admit_subject, erase_subject, find_subject
from cumulant.outcomes.labels.ingest import ingest_file
from cumulant.outcomes.labels.label_rows import LabelSchema
from cumulant.ports.log import UNDATED, PartInfo
from cumulant.ports.tables import PROTECT, Protection
from cumulant.project.file.loading import load
from cumulant.review.queue import OPEN
from cumulant.serving.prediction_log.entry import LogEntry
from cumulant.serving.prediction_log.personal_values import PersonalValueMask
from cumulant.serving.prediction_log.storage.part_writer import LogParts

pytestmark = pytest.mark.slow

ANN, BOB = "ann@example.com", "bob@example.com"
START = datetime(2026, 1, 1, tzinfo=UTC)
FILE = """\
version: 1
model: {name: shop}
data:
  visits:
    path: "visits*.csv"
    key: visit
    event_time: {column: at, zone: UTC}
    known_time: {1d: bought}
    personal: [mail]
    subject: mail
    rules: {pages: {min: 0}}
    quarantine: 10%
features: features.py
training: {target: bought}
"""
FEATURES = """\
from cumulant.features import source

visits = source("visits")
row = visits.columns("pages")
before = visits.by("mail").count(window="7d")
mean = visits.by("mail").mean("pages", window="7d")
at_shop = visits.by("mail", "shop").count(window="7d")
shop = visits.by("shop").sum("pages", window="7d")
"""


def write_visits(folder, *, rows=200, start=START, name="visits.csv"):
    people = [ANN, BOB, "cid@example.com", "dee@example.com"]
    frame = pl.DataFrame(
        {
            "visit": [f"v{start:%y%m}{number:04}" for number in range(rows)],
            "at": [(start + timedelta(hours=number)).isoformat() for number in range(rows)],
            "mail": [people[number % 4] for number in range(rows)],
            "shop": [f"s{number % 3}" for number in range(rows)],
            "pages": [number % 9 if number != 8 else -1 for number in range(rows)],
            "bought": [number % 3 == 0 for number in range(rows)],
        }
    )
    frame.write_csv(folder / name)


@pytest.fixture
def project(tmp_path):
    (tmp_path / "cumulant.yaml").write_text(FILE)
    (tmp_path / "features.py").write_text(FEATURES)
    write_visits(tmp_path)
    with load(tmp_path, via="cli") as loaded:
        yield loaded


@pytest.fixture
def filled(project):
    """A project that holds ANN in every store."""
    who, at = project.principal(), START + timedelta(days=30)
    featurize(project, principal=who)
    with open_run(project, "test", principal=who, progress=lambda *_: None) as context:
        snapshots, _ = snapshots_of(context)
        plan = resolve_task(project, snapshots).plan
        table, _ = materialize(context, plan, snapshots, as_of=None)
    post_visits(project, plan, table, [{"visit": "p1", "mail": ANN}, {"visit": "p2", "mail": BOB}])
    log_request(project, {"visit": "p1", "at": at.isoformat(), "mail": ANN, "pages": 3})
    log_request(project, {"visit": "p2", "at": at.isoformat(), "mail": BOB, "pages": 3}, sequence=2)
    labels = [{"mail": ANN, "at": at.isoformat(), "label": True}, {"mail": BOB, "at": at.isoformat(), "label": True}]
    with logs_of(project).inbox.append(PartInfo(UNDATED, "post", 1, 1, "jsonl")) as stream:
        stream.write("".join(json.dumps(label) + "\n" for label in labels).encode())
    path = project.root / "labels.jsonl"
    path.write_text("".join(json.dumps({"id": name, "label": True}) + "\n" for name in ("r1", "r2")))
    assert ingest_file(logs_of(project), path, LabelSchema()).file.rows == 2
    outcomes_of(project, LabelSchema()).advance()
    folder = Folder.at(project.endpoints.traffic)
    folder.make()
    with contextlib.closing(ExchangeWriter(folder.exchanges)) as writer:
        keys = {"r1": "", "r2": mask(BOB, project.salt()), "r3": mask(ANN, project.salt())}
        writer.write([exchange(name, key) for name, key in keys.items()])
    key = json.dumps([mask(ANN, project.salt())])
    with project.journal().transaction(actor=Actor(who.id)) as transaction:
        transaction.put(OPEN, "shop/0123456789ab", {"ref": f"k\x1f1\x1f{key}"})
        transaction.put(OPEN, "shop/0123456789ac", {"ref": f'k\x1f1\x1f["{mask(BOB, project.salt())}"]'})
        for name in (ANN, BOB):
            body = json.dumps({"case": {"request": {"mail": mask(name, project.salt())}}})
            transaction.put(API_REQUEST, mask(name, b"key"), {"request": "", "begun": at.isoformat(), "body": body})
    return project


def post_visits(project, plan, table, visits, *, at=START + timedelta(days=30)):
    hashed = HashedKeys(plan, project.salt())
    more = {"at": at.isoformat(), "shop": "s1", "pages": 3, "bought": None}
    rows = hashed.rows("visits", [visit | more for visit in visits])
    OnlineFeatures(hashed.plan, project.online(), table).advance("visits", rows)


def exchange(name, key):
    named = {"caller_id": f"{name} of {ANN}", "key": key}
    return Exchange(
        request=name, time=9, model="shop", assigned="champion", served="champion", status=200, duration_us=9, **named
    )


def log_request(project, row, sequence=1):
    def failed(error, count):
        raise error

    masks = PersonalValueMask(project.salt(), {"shop": [Field("mail", "str", personal=True)]})
    parts = LogParts(Path(project.log().location), masks, file_size=1 << 26, failed=failed)
    entry = LogEntry(
        id=f"r{sequence}",
        time_us=int((START + timedelta(days=30)).timestamp()) * 1_000_000,
        latency_us=9,
        model="shop",
        version="1",
        sequence=sequence,
        rows=json.dumps([row]).encode(),
        answers=b'[{"prediction": true}]',
    )
    parts.add(entry, f"w{sequence}", "")
    parts.close()


def test_what_is_personal_is_declared_wherever_rows_are_written(filled):
    tables, personal = filled.tables(), Protection("mail", ("mail",))
    keys = [key for key in tables.keys("data/visits/") if key.endswith(("/rows", "/refused"))]
    assert len(keys) == 2
    assert [tables.protection(key) for key in keys] == [personal] * 2
    facts = [key for key in tables.keys("data/visits/") if key.endswith("/facts")]
    assert [tables.protection(key).columns for key in facts] == [("json",)]
    (state,) = [name for name in filled.online().tables() if name.startswith("state_")]
    assert msgspec.json.decode(filled.online().meta(state)["protect"], type=Protection) == personal
    for part in Path(filled.log().location).rglob("*.parquet"):
        metadata = pq.read_metadata(part).metadata or {}
        assert b"request" in metadata[PROTECT.encode()]
    for path in (filled.state / "tables").rglob("rows.parquet/*.parquet"):
        assert msgspec.json.decode(pq.read_metadata(path).metadata[PROTECT.encode()], type=Protection) == personal


def stores(places):
    return {place.store for place in places}


def test_a_subject_is_found_in_every_store(filled):
    found = find_subject(filled, ANN, principal=filled.principal())
    assert stores(found.places) == {
        "snapshots",
        "online state",
        "label inbox",
        "labels",
        "prediction log",
        "gateway log",
        "review cases",
        "responses of the API",
    }
    by_store = {place.store: place.rows for place in found.places}
    assert by_store["prediction log"] == by_store["label inbox"] == by_store["review cases"] == 1
    assert by_store["gateway log"] == 2
    assert [place.where.partition("/")[0] for place in found.places if place.store == "labels"] == ["labels", "joined"]
    rows = [place.rows for place in found.places if place.where.endswith("/rows")]
    refused = [place.rows for place in found.places if place.where.endswith("/refused")]
    assert (rows, refused) == ([49], [1])
    assert found.subject == mask(ANN, filled.salt())
    assert ANN not in json.dumps([place.where for place in found.places])


def test_who_looks_for_a_subject_is_an_event(filled):
    before = filled.journal().head().seq
    find_subject(filled, ANN, principal=filled.principal())
    read = [event for event in filled.journal().events(after=before) if event.kind == "access.personal_data_read"]
    assert [event.data["action"] for event in read] == ["subjects.find"]


def test_an_erased_subject_is_gone_from_data_and_state(filled):
    before = newest_snapshot(filled, "visits")
    done = erase_subject(filled, ANN, principal=filled.principal())
    status = {receipt.store: receipt.status for receipt in done.receipts}
    assert status == {
        "snapshots": "erased",
        "feature tables": "nothing",  # gone with the snapshots, and without the subject's column
        "online state": "erased",
        "label inbox": "erased",
        "prediction log": "erased",
        "labels": "erased",
        "gateway log": "erased",
        "review cases": "erased",
        "responses of the API": "erased",
        "references": "nothing",
        "models": "nothing",
        "events": "nothing",
        streams.STORE: "nothing",
    }
    assert done.remaining == ()
    assert outcomes_of(filled, LabelSchema()).labelled()[0]["id"].to_list() == ["r2"]
    after = newest_snapshot(filled, "visits")
    assert before is not None
    assert after is not None
    assert after.rows_dropped == 50
    assert filled.tables().keys("features/") == []
    with pytest.raises(Exception, match="no snapshot"):
        load_snapshot(filled, before.id)
    assert not [event for event in filled.journal().events() if ANN in json.dumps(event.data)]
    erased = [event for event in filled.journal().events() if event.kind == "subjects.erased"]
    assert [event.data["subject"] for event in erased] == [mask(ANN, filled.salt())]


def test_an_erasure_empties_names_of_exchanges_and_keeps_their_count(filled):
    _, cursor = filled.gateway().exchanges(limit=1)
    erase_subject(filled, ANN, principal=filled.principal())
    exchanges, _ = filled.gateway().exchanges()
    assert exchanges == [
        exchange("r1", "").without_names(),
        exchange("r2", mask(BOB, filled.salt())),
        exchange("r3", "").without_names(),
    ]
    assert filled.gateway().exchanges(cursor)[0] == exchanges[1:]


def online_values(project, requests):
    """What the state gives for requests, by the newest plan; each has a shop and a person."""
    with open_run(project, "test", principal=project.principal(), progress=lambda *_: None) as context:
        snapshots, _ = snapshots_of(context)
        plan = resolve_task(project, snapshots).plan
        table, _ = materialize(context, plan, snapshots, as_of=None)
    hashed = HashedKeys(plan, project.salt())
    at = (START + timedelta(days=9)).isoformat()
    rows = [{"visit": "q", "at": at, "pages": 1, "mail": mail, "shop": shop} for mail, shop in requests]
    return OnlineFeatures(hashed.plan, project.online(), table).vectors(hashed.requests(rows)).columns


def state_tables(project):
    return [name for name in project.online().tables() if name.startswith("state_")]


def test_windows_by_other_keys_and_by_several_are_filled_without_the_subject(filled, tmp_path_factory):
    requests = [(mail, shop) for mail in (ANN, BOB) for shop in ("s0", "s1", "s2")]
    other = tmp_path_factory.mktemp("without")
    (other / "cumulant.yaml").write_text(FILE)
    (other / "features.py").write_text(FEATURES)
    visits = pl.read_csv(filled.root / "visits.csv", schema_overrides={"visit": pl.String})
    visits.filter(pl.col("mail") != ANN).write_csv(other / "visits.csv")
    with load(other) as without:
        expected = online_values(without, requests)
    (table,) = state_tables(filled)
    before = online_values(filled, requests)
    assert before["shop_7d"] != expected["shop_7d"]
    assert before["at_shop_7d"] != expected["at_shop_7d"]
    erase_subject(filled, ANN, principal=filled.principal())
    assert table in state_tables(filled)  # servers go on to read it
    assert online_values(filled, requests) == expected
    assert find_subject(filled, ANN, principal=filled.principal()).places == ()


def test_rows_that_an_erased_subject_posts_are_erased_too(filled):
    erase_subject(filled, ANN, principal=filled.principal())
    with open_run(filled, "test", principal=filled.principal(), progress=lambda *_: None) as context:
        snapshots, _ = snapshots_of(context)
        plan = resolve_task(filled, snapshots).plan
        table, _ = materialize(context, plan, snapshots, as_of=None)
    at = START + timedelta(days=8)
    requests = [(BOB, "s1")]
    before = online_values(filled, requests)
    post_visits(filled, plan, table, [{"visit": "p3", "mail": ANN}], at=at)
    assert online_values(filled, requests)["shop_7d"] == [before["shop_7d"][0] + 3]
    done = erase_subject(filled, ANN, principal=filled.principal())
    assert {receipt.store: receipt.status for receipt in done.receipts}["online state"] == "erased"
    assert done.remaining == ()
    assert online_values(filled, requests) == before


def test_an_erasure_that_is_killed_before_the_state_is_filled_again_is_finished_by_the_next(filled, monkeypatch):
    expected_tables = state_tables(filled)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(online_state, "_fill_again", killed)
        with pytest.raises(KeyboardInterrupt):
            erase_subject(filled, ANN, principal=filled.principal())
    left = find_subject(filled, ANN, principal=filled.principal()).places
    assert {place.where for place in left if place.store == "online state"} == set(expected_tables)
    done = erase_subject(filled, ANN, principal=filled.principal())
    assert done.remaining == ()
    assert {receipt.store: receipt.status for receipt in done.receipts}["online state"] == "erased"


def test_a_table_whose_events_of_the_subject_are_damaged_is_filled_again(filled):
    (table,) = state_tables(filled)
    store, expected = filled.online(), online_values(filled, [(BOB, "s1")])
    keys = [entity_key(number, [mask(ANN, filled.salt())]) for number in range(9)]
    present = [key for key, blob in zip(keys, store.get(table, keys), strict=True) if blob is not None]
    assert present
    store.put(table, [(key, b"rubbish") for key in present])
    found = find_subject(filled, ANN, principal=filled.principal()).places
    assert table in {place.where for place in found}
    done = erase_subject(filled, ANN, principal=filled.principal())
    assert {receipt.store: receipt.status for receipt in done.receipts}["online state"] == "erased"
    assert done.remaining == ()
    assert store.get(table, present) == [None] * len(present)
    assert online_values(filled, [(BOB, "s1")]).keys() == expected.keys()


def test_rows_after_the_erasure_are_read_once_the_subject_is_admitted(filled):
    erase_subject(filled, ANN, principal=filled.principal())
    write_visits(filled.root, rows=40, start=datetime.now(UTC) + timedelta(minutes=1), name="visits_new.csv")
    snapshot = validate(filled, principal=filled.principal()).snapshots["visits"]
    assert snapshot.rows_dropped == 50 + 10
    admitted = admit_subject(filled, ANN, principal=filled.principal())
    assert admitted.subject == mask(ANN, filled.salt())
    assert admitted.since.keys() == {"visits"}
    snapshot = validate(filled, principal=filled.principal()).snapshots["visits"]
    assert snapshot.rows_dropped == 50  # those of the file from before the erasure
    assert [event.data["subject"] for event in filled.journal().events() if event.kind == "subjects.admitted"] == [
        admitted.subject
    ]
    done = erase_subject(filled, ANN, principal=filled.principal())
    assert done.remaining == ()
    newest = newest_snapshot(filled, "visits")
    assert newest is not None
    assert newest.rows_dropped == 60


def test_who_was_not_erased_is_not_admitted(filled):
    with pytest.raises(NotFoundError, match="no erasure of #"):
        admit_subject(filled, ANN, principal=filled.principal())


def test_a_source_without_event_times_admits_nobody(project):
    (project.root / "cumulant.yaml").write_text(
        FILE.replace("    event_time: {column: at, zone: UTC}\n    known_time: {1d: bought}\n", "")
    )
    with load(project.root) as timeless:
        erase_subject(timeless, ANN, principal=timeless.principal())
        with pytest.raises(UsageError, match="visits has no event time"):
            admit_subject(timeless, ANN, principal=timeless.principal())


def test_others_keep_what_they_have(filled):
    before = find_subject(filled, BOB, principal=filled.principal()).places
    erase_subject(filled, ANN, principal=filled.principal())
    after = find_subject(filled, BOB, principal=filled.principal()).places
    assert sorted((place.store, place.rows) for place in after) == sorted((place.store, place.rows) for place in before)


def test_the_next_reading_of_a_changed_file_leaves_the_subject_out(filled):
    erase_subject(filled, ANN, principal=filled.principal())
    write_visits(filled.root, rows=240)
    snapshot = validate(filled, principal=filled.principal()).snapshots["visits"]
    assert snapshot.rows_dropped == 60
    assert not [p for p in find_subject(filled, ANN, principal=filled.principal()).places if p.store == "snapshots"]


def test_a_source_that_cannot_be_read_leaves_the_erasure_pending(filled):
    (filled.root / "visits.csv").rename(filled.root / "away.csv")
    done = erase_subject(filled, ANN, principal=filled.principal())
    (receipt,) = [receipt for receipt in done.receipts if receipt.store == "snapshots"]
    assert receipt.status == "pending"
    assert "snapshots" in stores(done.remaining)
    (filled.root / "away.csv").rename(filled.root / "visits.csv")
    done = erase_subject(filled, ANN, principal=filled.principal())
    assert {receipt.status for receipt in done.receipts if receipt.store == "snapshots"} == {"erased"}
    assert done.remaining == ()


def test_an_erasure_that_is_done_again_finds_nothing(filled):
    erase_subject(filled, ANN, principal=filled.principal())
    done = erase_subject(filled, ANN, principal=filled.principal())
    assert {receipt.status for receipt in done.receipts} == {"nothing"}


def test_what_streams_and_their_jobs_have_is_named_with_its_end(tmp_path):
    text = FILE.replace("features: features.py", "  tx: {stream: payments, key: id, event_time: at, personal: [mail]}")
    engine = "environments: {local: {stream_engine: 'flink://gateway?checkpoints=s3://a/jobs'}}\n"
    (tmp_path / "cumulant.yaml").write_text(text.partition("training:")[0] + engine)
    write_visits(tmp_path)
    job = FeatureJobRecord(
        name="cumulant.default.shop.local.new",
        definition="d",
        fingerprint="f",
        state="started",
        job="1",
        sources="",
        place=ResumePlace(path="s3://a/3", sources="", ends={}),
        resumed="s3://elsewhere/2",
        begun={},
        started=START,
        at=START,
        who="user:ada",
        reads=("tx",),
        span=2 * 86_400.0,
    )
    old = msgspec.structs.replace(
        job,
        name="cumulant.default.shop.local.old",
        state="stopped",
        place=ResumePlace(path="s3://a/1", sources="", ends={}),
        resumed=None,
    )
    # cancelled, and forgotten by Flink before it was stopped: its checkpoints stay
    forgotten = msgspec.structs.replace(old, name="cumulant.default.shop.local.forgotten", place=None)
    other = msgspec.structs.replace(job, name="cumulant.default.shop.local.other", reads=("clicks",))
    with load(tmp_path, via="cli") as project:
        with project.journal().transaction(actor=Actor("user:ada")) as transaction:
            for record in (job, old, forgotten, other):
                record_job(transaction, record)
        erasure = erase_subject(project, ANN, principal=project.principal())
        (receipt,) = [receipt for receipt in erasure.receipts if receipt.store == streams.STORE]
        assert (receipt.status, erasure.pending) == ("kept", False)
        for part in (
            "rows of tx that were ingested stay, and messages of payments until the retention",
            f"the job {job.name} has rows in its windows until its watermark is 3d after they count",
            "s3://a/3 has earlier state of it, until you delete it; s3://elsewhere/2 has earlier state of it",
            f"s3://a/1 has state of {old.name}",
            f"{forgotten.name} was stopped, and no savepoint of its state is known",
            "checkpoints of these jobs, and older savepoints of them, are below s3://a/jobs until you delete them",
            "`cumulant features start-job --from beginning`",
        ):
            assert part in receipt.reason
        assert "other" not in receipt.reason
        places = [place.where for place in erasure.remaining if place.store == streams.STORE]
        assert len(places) == 7
        assert f"{forgotten.name}: checkpoints and older savepoints below s3://a/jobs, of anybody" in places


def test_a_project_without_subjects_says_what_to_declare(tmp_path):
    (tmp_path / "cumulant.yaml").write_text("version: 1\nmodel: {name: shop}\n")
    with load(tmp_path) as project, pytest.raises(UsageError, match="no source declares a subject"):
        find_subject(project, ANN, principal=project.principal())


def test_the_command_changes_nothing_without_yes(filled, capsys, monkeypatch):
    filled.close()
    folder = str(filled.root)
    assert command(["subjects", "erase", ANN, "--project", folder, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert {place["store"] for place in shown["places"]} >= {"snapshots", "online state"}
    assert command(["subjects", "erase", ANN, "--yes", "--project", folder, "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert done["remaining"] == []
    assert command(["subjects", "find", ANN, "--project", folder]) == 0
    assert "prediction log" not in capsys.readouterr().out
    assert command(["subjects", "admit", ANN, "--project", folder, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["since"].keys() == {"visits"}
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{BOB}\n"))
    assert command(["subjects", "find", "-", "--project", folder, "--json"]) == 0
    assert "prediction log" in capsys.readouterr().out


def test_python_finds_and_erases(filled):
    filled.close()
    with cumulant.open(filled.root) as project:
        assert {place.store for place in project.subjects.find(ANN).places} >= {"labels", "prediction log"}
        assert project.subjects.find(ANN, source="visits").sources == ("visits",)
        done = project.subjects.erase(ANN)
        assert (done.remaining, done.pending) == ((), False)
        assert project.subjects.admit(ANN).since.keys() == {"visits"}


# --- every package that writes is named by a store

ROOT = Path(cumulant.__file__).parent
EDGES = ("drivers", "testing", "ports", "core", "cli", "demo", "api")
#: how the clients of the ports that keep something are written to, and what the object is called then
WRITES = {
    "write": ("tables",),
    "put": ("objects", "transaction", "tx", "cells", "store"),
    "swap": ("store",),
    "append": ("log",),
    "put_state": ("log",),
    "register": ("registry",),
    "attach": ("registry",),
    "artifact": ("run",),
}


def writing_packages():
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).parts
        if parts[0] in EDGES or len(parts) == 1:
            continue
        text = path.read_text(encoding="utf-8")
        if not any(f".{name}(" in text for name in WRITES):  # nothing that is looked for below
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in WRITES:
                words = ast.unparse(node.func.value).replace("()", "").replace("_", "").split(".")
                if any(word.endswith(name) for word in words[-1:] for name in WRITES[node.func.attr]):
                    yield "/".join(parts[:2]) if parts[0] == "flows" else parts[0]


def test_every_package_that_writes_is_named_by_a_store():
    named = {package for store in STORES for package in store.packages}
    writing = set(writing_packages())
    assert {"data", "features", "review", "serving", "flows/data", "flows/training"} <= writing
    assert writing <= named


def test_a_store_without_an_erasure_holds_nothing_personal():
    without = [store.name for store in STORES if store.erase is None]
    assert without == ["runs, releases, alerts, jobs, hosts, steps, tokens and sessions"]
    assert all((store.find is None) == (store.erase is None) for store in STORES)
