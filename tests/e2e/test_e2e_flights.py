"""Flights of 2013, all 336,776 of them, from raw tables to a served model, trained as of 1 April."""

import fcntl
import hashlib
import shutil
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import polars as pl
import pytest
from e2e_support import check_whole, hashes, opened

from cumulant.core.events import Actor
from cumulant.core.ids import file_digest
from cumulant.data.files import inputs
from cumulant.data.snapshot import scan
from cumulant.drivers.mlflow.engine import load_mlflow
from cumulant.features.offline.offline import compute
from cumulant.flows.data.validate import load_snapshot, newest_snapshot, validate
from cumulant.flows.features.feature_table import featurize
from cumulant.flows.ledger.run_events import verify
from cumulant.flows.maintenance.cleanup import clean
from cumulant.flows.registry.lineage import lineage, record_of, reproduce
from cumulant.flows.registry.model_record import MODEL
from cumulant.flows.serving import serve
from cumulant.flows.serving.predict import predict
from cumulant.flows.training.evaluate import evaluate
from cumulant.flows.training.train import train
from cumulant.project.new.templates import create_from_template
from cumulant.servable.folder import load_servable

pytestmark = pytest.mark.slow

AS_OF = datetime(2013, 4, 1, tzinfo=UTC)
CHAMPION = "flight-late@champion"
#: raw fields of a request, as a caller has them two hours before departure
REQUEST = ("carrier", "tailnum", "origin", "dest", "distance", "sched_dep")
#: a smaller search than the template's: one kind of model, two sets of parameters
SEARCH = "  trainers: [naive, lightgbm]\n  trials: 2\n  time: null\n  folds: 2\n"


@pytest.fixture(scope="session")
def trained(tmp_path_factory, worker_id):
    """The project's folder, trained once by whichever worker comes first. Tests that change it take a copy."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    with (shared / "flights.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = shared / "flights"
        if not (shared / "flights.trained").exists():
            shutil.rmtree(folder, ignore_errors=True)
            create_from_template("flights", "flights", directory=shared)
            text = (folder / "cumulant.yaml").read_text()
            (folder / "cumulant.yaml").write_text(text.replace("training:\n", f"training:\n{SEARCH}", 1))
            with opened(folder) as project:
                result = train(project, principal=project.principal(), as_of=AS_OF)
            (shared / "flights.trained").write_bytes(msgspec.json.encode(result.reused))
    return folder


@pytest.fixture
def project(trained):
    with opened(trained) as project:
        yield project


@pytest.fixture
def copy(trained, tmp_path):
    """A copy of the trained project, to be changed."""
    folder = tmp_path / "copy"
    shutil.copytree(trained, folder)
    with opened(folder) as project:
        yield project


@pytest.fixture(scope="session")
def raw(trained):
    """The source file as it came, with the columns that `prepare` adds, worked out here once more."""
    frame = pl.read_parquet(trained / "data" / "flights" / "2013.parquet")
    departure = pl.col("time_hour") + pl.duration(minutes=pl.col("minute"))
    spent = (pl.col("dep_delay") + pl.col("air_time") + 20).cast(pl.Int64)
    return frame.with_columns(sched_dep=departure, landed=departure + pl.duration(minutes=spent))


@pytest.fixture
def later(project):
    """10,000 flights after the moment of training, raw, with a share of cancelled and diverted ones."""
    flights = scan(newest_snapshot(project, "flights"), project.tables())
    return flights.filter(pl.col("sched_dep") > AS_OF).sort("sched_dep").head(10_000).select(REQUEST).collect()


def test_every_row_passed_is_in_quarantine_or_dropped(project, raw):
    rows = {}
    for name in ("flights", "weather"):
        snapshot = newest_snapshot(project, name)
        assert snapshot.rows_in == snapshot.rows_passed + snapshot.rows_quarantined + snapshot.rows_dropped
        assert scan(snapshot, project.tables()).select(pl.len()).collect().item() == snapshot.rows_passed
        rows[name] = snapshot.rows_in
    assert rows == {"flights": 336_776, "weather": 26_115}
    assert raw.height == rows["flights"]
    check_whole(project)


def test_only_what_was_known_on_the_first_of_april_is_learned_from(project, raw):
    record = record_of(project, project.registry().resolve(CHAMPION))
    split = record.fitted.split
    assert split.train_to < split.test_from
    assert split.test_to <= AS_OF - timedelta(hours=2)
    happened = raw.filter(pl.col("sched_dep") <= AS_OF)
    known = happened.filter(pl.col("arr_delay").is_not_null() & (pl.col("landed") <= AS_OF))
    assert split.train + split.test + split.left_out == known.height
    assert split.unlabelled == happened.height - known.height
    assert split.left_out > 0
    assert project.tables().find(record.table).rows == happened.height


def test_the_model_loads_in_stock_mlflow_and_answers_a_pandas_frame(project, later):
    rows = later.head(500)
    expected = predict(project, CHAMPION, rows, principal=project.principal())
    record = record_of(project, project.registry().resolve(CHAMPION))
    scorer_plan = _servable(project, record).plan
    history = {
        name: scan(load_snapshot(project, identity), project.tables()) for name, identity in record.snapshots.items()
    }
    frame = compute(scorer_plan, history, rows=rows).drop("__row").to_pandas()
    assert pd.__version__.startswith("3")
    assert isinstance(frame["carrier"].dtype, pd.StringDtype)

    mlflow = load_mlflow()
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(project.registry().tracking_uri)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = mlflow.pyfunc.load_model("models:/flight-late@champion")
            answers = model.predict(frame)
    finally:
        mlflow.set_tracking_uri(before)
    assert np.allclose(answers["probability"], expected["probability"], rtol=0, atol=1e-6)
    assert answers["prediction"].tolist() == expected["prediction"].to_list()
    assert list(model.metadata.get_input_schema().input_names()) == [
        name for name in frame.columns if name in model.metadata.get_input_schema().input_names()
    ]


def test_nothing_that_was_stored_is_a_pickle(project):
    stored = [path for path in project.state.rglob("*") if path.is_file()]
    assert any(path.name == "MLmodel" for path in stored)
    assert any(path.suffix == ".onnx" for path in stored)
    for path in stored:
        assert path.suffix not in {".pkl", ".pickle", ".joblib", ".npz"}, path
        with path.open("rb") as stream:
            # The protocol's mark; PNG, Parquet, SQLite and ONNX files begin otherwise.
            assert stream.read(2) not in {bytes([0x80, protocol]) for protocol in range(2, 6)}, path


def test_ten_thousand_later_flights_score_over_http_as_offline(project, later):
    who = project.principal()
    assert later.height == 10_000
    offline = predict(project, CHAMPION, later, principal=who)
    service = serve.prepare_service(project, CHAMPION, principal=who)
    with serve.run_server(service) as running:
        served = predict(project, CHAMPION, later, principal=who, url=running.url)
    assert np.abs(offline["probability"].to_numpy() - served["probability"].to_numpy()).max() <= 1e-6
    assert offline["prediction"].to_list() == served["prediction"].to_list()
    assert served["state_age"].null_count() < served.height
    assert 0 < offline["prediction"].sum() < later.height


def test_with_the_state_of_the_first_of_april_the_server_knows_no_later_flight(project, later):
    who, rows = project.principal(), later.head(1000)
    offline = predict(project, CHAMPION, rows, principal=who, as_of=AS_OF)
    service = serve.prepare_service(project, CHAMPION, principal=who, as_of=AS_OF)
    with serve.run_server(service) as running:
        served = predict(project, CHAMPION, rows, principal=who, url=running.url)
    assert np.abs(offline["probability"].to_numpy() - served["probability"].to_numpy()).max() <= 1e-6
    everything = predict(project, CHAMPION, rows, principal=who)
    assert not np.allclose(everything["probability"], offline["probability"], atol=1e-3)


def test_run_again_every_step_is_found(project):
    again = train(project, principal=project.principal(), as_of=AS_OF)
    assert again.reused == (
        "data flights",
        "data weather",
        "features",
        "search",
        "evaluate",
        "package",
        "register",
    )
    assert again.model.version == "1"
    assert len(project.registry().versions("flight-late")) == 1


def test_lineage_leads_to_the_files(project, trained):
    found = lineage(project, CHAMPION, principal=project.principal())
    files = {file.url: file for source in found.sources for file in source.files}
    expected = {
        "data/flights/2013.parquet": 336_776,
        "data/weather.parquet": 26_115,
    }
    assert {url: file.rows for url, file in files.items()} == expected
    for url, file in files.items():
        assert file.sha256 == hashlib.sha256((trained / url).read_bytes()).hexdigest()
        assert file.bytes == (trained / url).stat().st_size
    assert {source.source: source.rows for source in found.sources} == {"flights": 336_776, "weather": 26_115}
    assert found.as_of == AS_OF
    assert found.target == "arr_delay > 15"
    assert found.packages["lightgbm"]
    assert found.training["trials"] == 2
    servable = _servable(project, record_of(project, found.model))
    assert found.files == servable.files
    with project.objects().open(found.servable) as folder:
        assert {name: hashes(folder)[name] for name in found.files} == found.files


def test_the_events_hold_together_and_tell_the_story(project):
    assert verify(project.journal()).breaks == []
    kinds = {event.kind for event in project.journal().events()}
    assert {"data.snapshot_accepted", "training.search_finished", "training.model_evaluated", "model.aliased"} <= kinds


def test_what_a_model_needs_survives_cleaning_and_makes_it_again(copy):
    who = copy.principal()
    # Something for `clean` to find: an object that no version names.
    (copy.root / "stray.txt").write_text("nothing needs this")
    copy.objects().put("models/stray", copy.root / "stray.txt")
    listed = clean(copy, principal=who)
    assert clean(copy, principal=who, dry_run=False) == listed
    assert {item.key for item in listed if item.kind == "object"} == {"models/stray"}
    assert clean(copy, principal=who) == []
    check_whole(copy)
    found = reproduce(copy, CHAMPION, principal=who)
    assert found.identical, found.differences
    assert found.differences == ()
    assert train(copy, principal=who, as_of=AS_OF).reused[-1] == "register"


def test_another_making_is_not_called_the_same(copy):
    version = copy.registry().resolve(CHAMPION)
    record = record_of(copy, version)
    altered = msgspec.structs.replace(
        record,
        packages={**record.packages, "lightgbm": "0.0.1"},
        training=msgspec.structs.replace(record.training, seed=record.training.seed + 1),
    )
    with copy.journal().transaction(actor=Actor("user:test")) as transaction:
        transaction.put(MODEL, f"{version.name}/{version.version}", msgspec.to_builtins(altered))
    found = reproduce(copy, CHAMPION, principal=copy.principal())
    assert not found.identical
    text = "\n".join(found.differences)
    assert "model.onnx" in text
    assert f"lightgbm 0.0.1 then, {record.packages['lightgbm']} now" in text
    assert "settings" in text


def test_a_later_month_is_judged_with_the_same_words(copy, raw):
    moment = datetime(2013, 6, 1, tzinfo=UTC)
    found = evaluate(copy, CHAMPION, principal=copy.principal(), as_of=moment)
    judgement = found.judgement
    known = raw.filter(
        (pl.col("sched_dep") <= moment) & pl.col("arr_delay").is_not_null() & (pl.col("landed") <= moment)
    )
    # Not the last hours: of their flights only the short ones have landed.
    at, landed = (known[name].dt.epoch("us").to_numpy() for name in ("sched_dep", "landed"))
    delay = int(np.quantile((landed - at)[at <= np.median(at)], 0.99))
    ripe = at[at <= moment.timestamp() * 1_000_000 - delay]
    expected = int((ripe > ripe.max() - 21 * 86_400_000_000).sum())
    assert judgement.evaluation.rows == expected
    assert judgement.verdict.word in {"better", "worse", "not_worse", "cannot_tell"}
    assert judgement.evaluation.values()["average_precision"] > judgement.naive.values()["average_precision"]
    assert {rule.metric for rule in judgement.verdict.rules} >= {"average_precision", "calibration_error"}


def test_flights_that_became_known_later_change_nothing_earlier(copy):
    who = copy.principal()
    before = featurize(copy, principal=who, as_of=AS_OF)
    rows_before = scan(newest_snapshot(copy, "flights"), copy.tables(), as_of=AS_OF).collect()
    _add_later_file(copy)
    after = featurize(copy, principal=who, as_of=AS_OF)
    assert after.sources["flights"] != before.sources["flights"]
    assert not after.reused
    assert scan(newest_snapshot(copy, "flights"), copy.tables(), as_of=AS_OF).collect().equals(rows_before)
    tables = copy.state / "tables" / copy.scope.folder
    assert _parts(tables, before.table.key) == _parts(tables, after.table.key)


def test_only_new_files_are_read(copy, monkeypatch):
    who = copy.principal()
    validate(copy, principal=who)  # a copied file is read once more, since it lies elsewhere on the disk
    _add_later_file(copy)
    read = []
    monkeypatch.setattr(inputs, "file_digest", lambda path: read.append(Path(path).name) or file_digest(path))
    found = validate(copy, principal=who)
    assert read == ["2014.parquet"]
    snapshot = found.snapshots["flights"]
    assert snapshot.processed == ("data/flights/2014.parquet",)
    assert found.reused == ("weather",)
    assert snapshot.rows_in == 336_776 + 2000
    assert snapshot.rows_in == snapshot.rows_passed + snapshot.rows_quarantined + snapshot.rows_dropped
    assert scan(snapshot, copy.tables()).select(pl.len()).collect().item() == snapshot.rows_passed


def _add_later_file(project) -> None:
    """2,000 flights a year on, in a file of their own."""
    rows = scan(newest_snapshot(project, "flights"), project.tables()).tail(2000).collect()
    rows = rows.drop("__row", "sched_dep", "landed").with_columns(pl.col("time_hour") + pl.duration(days=365))
    rows.write_parquet(project.root / "data" / "flights" / "2014.parquet")


def _parts(tables: Path, key: str) -> dict[str, str]:
    return {name: found for name, found in hashes(tables / f"{key}.parquet").items() if name.endswith(".parquet")}


def _servable(project, record):
    with project.objects().open(record.servable.key) as folder:
        return load_servable(folder)
