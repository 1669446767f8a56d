"""The flights of 2013, from the shipped tables to a served model, and everything that is promised about them."""

from __future__ import annotations

import hashlib
import shutil
import warnings
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from e2e_support import hashes, opened, run

from cumulant import data, packaging
from cumulant import project as projects
from cumulant.core.errors import NotKnownYetError
from cumulant.runtime import serve
from cumulant.runtime.events import verify
from cumulant.runtime.features import featurize
from cumulant.runtime.lineage import lineage, record_of, reproduce
from cumulant.runtime.planning import plan
from cumulant.runtime.predict import predict
from cumulant.runtime.rows import labelled_rows
from cumulant.runtime.task import resolve_task
from cumulant.runtime.validate import newest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("flights")]

AS_OF = datetime(2013, 4, 1, tzinfo=UTC)
TRAIN = ("train", "--as-of", "2013-04-01", "--trials", "2")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The project trained as of 1 April with two trials, and the document that the command printed."""
    folder = tmp_path_factory.mktemp("flights")
    projects.create_from_template("late", "flights", directory=folder)
    return folder / "late", run(folder / "late", *TRAIN)


@pytest.fixture
def project(trained):
    with opened(trained[0]) as found:
        yield found


@pytest.fixture(scope="module")
def later(trained):
    """10,000 flights after 1 April, raw: the fields of the request schema, and whether they were late."""
    with opened(trained[0]) as project:
        snapshot = newest(project, "flights")
        flights = data.scan(snapshot, project.tables()).filter(pl.col("sched_dep") - timedelta(hours=2) > AS_OF)
        frame = flights.sort("sched_dep").head(10_000).collect()
        fields = [field.name for field in servable_of(project).plan.request]
        return frame.select(fields)


def servable_of(project):
    version = project.registry().resolve("flight-late")
    return packaging.load_servable(project.objects().path(version.tags["cumulant.servable"]))


def test_every_row_is_accounted_for(trained):
    sources = trained[1]["data"]["sources"]
    assert sources["flights"]["rows_in"] == 336_776
    assert sources["weather"]["rows_in"] == 26_115
    for counts in sources.values():
        assert counts["rows_in"] == counts["rows_passed"] + counts["rows_quarantined"] + counts["rows_dropped"]


def test_it_beats_the_baseline_clearly(trained):
    training = trained[1]["training"]
    assert training["metrics"]["average_precision"]["low"] > training["naive"]["average_precision"]["high"]
    assert trained[1]["gate"]["passed"]


def test_only_what_was_known_on_1_april_was_learned_from(project):
    record = record_of(project, project.registry().resolve("flight-late"))
    split = record.fitted.split
    assert split.test_to < AS_OF
    snapshots = {name: newest(project, name) for name in ("flights", "weather")}
    task = resolve_task(project, snapshots)
    rows = labelled_rows(
        project, task, snapshots["flights"], project.tables().find(record.table),
        spec=record.training, evaluation=record.evaluation, as_of=AS_OF,
    )  # fmt: skip
    assert len(rows) == split.train + split.test + split.left_out
    assert rows.known.max() <= AS_OF.timestamp() * 1e6


def test_a_feature_that_is_not_known_yet_is_refused(trained, tmp_path):
    folder = tmp_path / "late"
    shutil.copytree(trained[0], folder, ignore=shutil.ignore_patterns(".cumulant"))
    features = folder / "features.py"
    features.write_text(features.read_text() + '\ndelay = col("dep_delay")\n')
    with opened(folder) as project, pytest.raises(NotKnownYetError) as caught:
        plan(project, principal=project.principal())
    assert "dep_delay" in str(caught.value)
    assert "landed" in str(caught.value)


def test_10_000_flights_over_http_score_as_offline(project, later):
    who = project.principal()
    offline = predict(project, "flight-late", later, principal=who)
    service = serve.prepare_service(project, "flight-late", principal=who)
    with serve.running(service) as running:
        served = predict(project, "flight-late", later, principal=who, url=running.url)
    assert len(served) == 10_000
    assert (offline["probability"] - served["probability"]).abs().max() <= 1e-6
    assert (offline["prediction"] == served["prediction"]).all()
    assert offline["probability"].n_unique() > 1000


def test_state_as_of_a_time_scores_as_offline_as_of_it(project, later):
    who, rows = project.principal(), later.head(500)
    offline = predict(project, "flight-late", rows, principal=who, as_of=AS_OF)
    service = serve.prepare_service(project, "flight-late", principal=who, as_of=AS_OF)
    with serve.running(service) as running:
        served = predict(project, "flight-late", rows, principal=who, url=running.url)
    assert (offline["probability"] - served["probability"]).abs().max() <= 1e-6
    assert served["state_age"].max() > 0


@pytest.mark.filterwarnings("ignore")  # plain MLflow speaks through warnings
def test_plain_mlflow_loads_it_on_pandas_3(project):
    import mlflow

    version = project.registry().resolve("flight-late")
    table = project.tables().scan(record_of(project, version).table).head(200).collect()
    mlflow.set_tracking_uri(project.registry().tracking_uri)
    model = mlflow.pyfunc.load_model("models:/flight-late@champion")
    frame = table.drop("__row").to_pandas()
    assert str(frame["carrier"].dtype) == "str"
    answers = model.predict(frame)
    scorer = packaging.Scorer(project.objects().path(version.tags["cumulant.servable"]))
    expected = scorer.score({name: table[name].to_list() for name in scorer.features})
    assert abs(answers["probability"].to_numpy() - expected).max() <= 1e-9


def test_nothing_in_the_registered_model_is_pickled(project, tmp_path):
    version = project.registry().resolve("flight-late")
    folder = project.registry().fetch(version, tmp_path)
    artifacts = [*folder.rglob("*"), *(project.state / "mlartifacts").rglob("*")]
    files = [path for path in artifacts if path.is_file()]
    assert any(path.name == "model.onnx" for path in files)
    assert not [
        path for path in files if path.suffix in {".pkl", ".pickle", ".joblib"} or path.read_bytes()[:2] == b"\x80\x04"
    ]


def test_run_again_it_finds_everything_done(trained):
    before = hashes(trained[0] / ".cumulant" / "objects") if (trained[0] / ".cumulant" / "objects").exists() else {}
    again = run(trained[0], *TRAIN)
    assert again["model"] == trained[1]["model"]
    assert len(again["reused"]) == 7
    assert before == (hashes(trained[0] / ".cumulant" / "objects") if before else {})


def test_lineage_leads_to_the_source_files(trained, project):
    found = lineage(project, "flight-late", principal=project.principal())
    for source in found.sources:
        for file in source.files:
            content = (trained[0] / file.url).read_bytes()
            assert hashlib.sha256(content).hexdigest() == file.sha256
    assert {one.source: one.files[0].rows for one in found.sources} == {"flights": 336_776, "weather": 26_115}
    assert found.as_of == AS_OF


def test_reproduced_it_is_identical(project):
    found = reproduce(project, "flight-late", principal=project.principal())
    assert found.differences == ()
    assert found.identical


def test_rows_that_become_known_later_change_nothing_earlier(trained, tmp_path):
    """Three months of flights, then the rest of the year in another file: the features as of 1 March stay the same."""
    folder = tmp_path / "late"
    shutil.copytree(trained[0], folder, ignore=shutil.ignore_patterns(".cumulant"))
    whole = folder / "data" / "flights" / "2013.parquet"
    year = pl.read_parquet(whole)
    first = pl.col("month") <= 3
    year.filter(first).write_parquet(folder / "data" / "flights" / "a.parquet")
    whole.unlink()
    moment = datetime(2013, 3, 1, tzinfo=UTC)
    with opened(folder) as project:
        before = featurize(project, principal=project.principal(), as_of=moment)
        table = project.tables().scan(before.table).collect()
    year.filter(~first).write_parquet(folder / "data" / "flights" / "b.parquet")
    with opened(folder) as project:
        after = featurize(project, principal=project.principal(), as_of=moment)
        assert after.sources["flights"] != before.sources["flights"]
        assert project.tables().scan(after.table).collect().equals(table)
        snapshot = newest(project, "flights")
        assert snapshot.processed == ("data/flights/b.parquet",)
        assert snapshot.rows_in == 336_776


def test_later_it_is_evaluated_again_and_the_gate_speaks(trained):
    found = run(trained[0], "evaluate", "flight-late", "--as-of", "2013-06-01", codes=(0, 1))
    assert found["gate"]["rules"]
    assert found["metrics"]["average_precision"]["low"] is not None


def test_the_story_holds(project):
    assert list(verify(project.journal())) == []
    kinds = {event.kind for event in project.journal().events()}
    assert kinds >= {
        "run.started", "run.finished", "step.finished", "data.snapshot_accepted", "features.computed",
        "training.trial_finished", "training.search_finished", "training.model_evaluated", "training.gate_decided",
        "packaging.servable_built", "model.aliased",
    }  # fmt: skip


def test_clean_keeps_what_a_model_needs(project):
    from cumulant.runtime.clean import clean

    who = project.principal()
    clean(project, principal=who, dry_run=False)
    assert clean(project, principal=who) == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert reproduce(project, "flight-late", principal=who).identical
