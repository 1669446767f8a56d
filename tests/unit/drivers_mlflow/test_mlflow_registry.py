"""The registry on real MLflow with SQLite: runs that go on, versions by key, models that load with plain MLflow."""

from __future__ import annotations

import json
import math
import pickletools
import shutil
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sqlalchemy
from mlflow_servables import FRAME, model_of, servable

from cumulant.core.errors import NotFoundError, UsageError
from cumulant.drivers.mlflow import engine as engine_module
from cumulant.drivers.mlflow.client import MlflowRegistry
from cumulant.drivers.mlflow.database import make_database
from cumulant.ports.registry import About, Dataset, Origin
from cumulant.servable.scorer import Scorer

# Plain MLflow speaks through warnings; the driver's own calls are tested to be silent in a process of their own.
pytestmark = pytest.mark.filterwarnings("ignore")


FLIGHTS = Dataset(
    name="flights",
    digest="d" * 64,
    source="data/flights/*.parquet",
    rows=336_776,
    fields={"carrier": "str", "distance": "float"},
)


BEGUN = datetime(2026, 3, 1, 12, tzinfo=UTC)


ORIGIN = Origin(user="ada", command="cumulant train", begun=BEGUN, commit="c0ffee")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture(scope="module")
def registry(place):
    return MlflowRegistry(f"mlflow+sqlite://{place / 'state' / 'mlflow.db'}")


@pytest.fixture(scope="module")
def registered(registry, place):
    """A training run with one trial and a registered version."""
    folder = servable(place / "9f2c")
    for path in folder.iterdir():
        path.chmod(0o444)  # as an object store keeps them
    with registry.run("flights", "train", key="run-1") as run:
        run.params({"trainer": "linear", "search.trials": 30, "cost": None})
        run.metrics({"average_precision": 0.5, "log_loss": 0.1})
        run.tags({"snapshot": "s1"})
        run.dataset(FLIGHTS)
        with run.child("trial 0") as trial:
            trial.params({"leaves": 31})
            trial.metrics({"average_precision": 0.4}, step=0)
        version = registry.register(run, "late", folder, FRAME, tags={"snapshot": "s1"}, key="model-1")
    registry.alias("late", "candidate", version.version)
    registry.alias("late", "champion", version.version)
    return version


def test_an_empty_registry_is_known_without_the_engine(tmp_path, monkeypatch):
    monkeypatch.setattr("cumulant.drivers.mlflow.client.engine", lambda _: pytest.fail("MLflow was started"))
    file = tmp_path / "mlflow.db"
    empty = MlflowRegistry(f"mlflow+sqlite://{file}")
    for _ in range(2):
        assert list(empty.models()) == []
        with pytest.raises(NotFoundError, match='no registered model named "late"'):
            empty.resolve("late@champion")
        # The same of MLflow's own tables, in which nothing is registered.
        make_database(file, tmp_path / "artifacts")


def test_a_version_has_everything(registry, registered):
    (found,) = registry.versions("late")
    assert (found.name, found.version, found.uri) == ("late", "1", "models:/late/1")
    assert found.run_id == registered.run_id
    assert found.aliases == ("candidate", "champion")
    assert found.tags["snapshot"] == "s1"
    assert abs((datetime.now(UTC) - found.created).total_seconds()) < 600
    assert list(registry.models()) == ["late"]


def test_the_same_work_goes_on_where_it_was(registry, registered, place):
    with registry.run("flights", "train", key="run-1") as run:
        assert run.id == registered.run_id
        run.params({"trainer": "changed by a later version", "extra": 1})
        run.metrics({"average_precision": 0.5, "brier": math.nan})
        with run.child("trial 0") as trial:
            trial.metrics({"average_precision": 0.4}, step=0)
            trial.metrics({"average_precision": 0.45}, step=1)
            first = trial.id
        with run.child("trial 1") as trial:
            assert trial.id != first
        again = registry.register(run, "late", place / "9f2c", FRAME, tags={"snapshot": "s1"}, key="model-1")
    assert again.version == "1"
    client = registry._client
    stored = client.get_run(run.id)
    assert stored.data.params == {"trainer": "linear", "search.trials": "30", "cost": "", "extra": "1"}
    assert stored.info.status == "FINISHED"
    assert len(client.get_metric_history(run.id, "average_precision")) == 1
    assert [point.value for point in client.get_metric_history(first, "average_precision")] == [0.4, 0.45]
    children = client.search_runs([stored.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run.id}'")
    assert sorted(child.info.run_name for child in children) == ["trial 0", "trial 1"]
    assert registry.metrics(run.id)["log_loss"] == 0.1


def test_a_run_that_fails_says_so_and_can_go_on(registry):
    with pytest.raises(ZeroDivisionError), registry.run("flights", "fails", key="run-2") as run:
        raise ZeroDivisionError
    assert registry._client.get_run(run.id).info.status == "FAILED"
    with pytest.raises(KeyboardInterrupt), registry.run("flights", "fails", key="run-2") as run:
        raise KeyboardInterrupt
    assert registry._client.get_run(run.id).info.status == "KILLED"
    with registry.run("flights", "fails", key="run-2") as again:
        assert again.id == run.id
    assert registry._client.get_run(run.id).info.status == "FINISHED"


def test_what_ended_a_run_is_raised_also_where_its_end_cannot_be_recorded(registry):
    def end(error):
        with registry.run("flights", "ends", key=f"run {error.__name__}") as run:
            registry._client.delete_run(run.id)  # MLflow ends no run that was deleted
            raise error

    for error in (ZeroDivisionError, KeyboardInterrupt):
        with pytest.raises(error):
            end(error)
    with pytest.raises(UsageError, match="active"), registry.run("flights", "ends", key="run") as run:
        registry._client.delete_run(run.id)


def test_a_run_that_ends_by_an_error_of_an_interrupt_is_killed(registry):
    def interrupted():
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise sqlalchemy.exc.PendingRollbackError("cannot reconnect") from error

    with pytest.raises(sqlalchemy.exc.PendingRollbackError), registry.run("flights", "ends", key="run") as run:
        interrupted()
    assert registry._client.get_run(run.id).info.status == "KILLED"


def test_a_run_that_is_interrupted_while_it_writes_is_ended_at_once(registry):
    """A statement that has rows left keeps its connection, and the lock on the database, until nothing refers to it."""
    engine = registry._client._tracking_client.store.engine
    entities = engine_module.load_mlflow().entities
    written, interrupted, ids = [], [], []

    def interrupt(connection, cursor, text, *_):
        if text.startswith(("INSERT", "UPDATE")):
            written.append(text)
        elif written and text.startswith("SELECT") and not interrupted:
            interrupted.append(text)
            raise KeyboardInterrupt

    def write():
        with registry.run("flights", "interrupted", key="run-9") as run:
            ids.append(run.id)
            run.tags({"a": "b"})
            sqlalchemy.event.listen(engine, "after_cursor_execute", interrupt)
            registry._client.log_batch(
                run.id,
                params=[entities.Param("trainer", "linear")],
                metrics=[entities.Metric("loss", 0.5, 1, 0)],
                tags=[entities.RunTag("a", "c")],
            )

    try:
        with pytest.raises(KeyboardInterrupt):
            write()
    finally:
        sqlalchemy.event.remove(engine, "after_cursor_execute", interrupt)
    assert interrupted
    assert registry._client.get_run(ids[0]).info.status == "KILLED"


def test_the_run_shows_its_data_and_its_model(registry, registered):
    stored = registry._client.get_run(registered.run_id)
    (data,) = stored.inputs.dataset_inputs
    assert (data.dataset.name, len(data.dataset.digest)) == ("flights", 36)
    assert json.loads(data.dataset.profile) == {"num_rows": 336_776}
    assert [(one["name"], one["type"]) for one in json.loads(data.dataset.schema)["mlflow_colspec"]] == [
        ("carrier", "string"),
        ("distance", "double"),
    ]
    (model,) = stored.outputs.model_outputs
    logged = registry._client.get_logged_model(model.model_id)
    assert (logged.name, logged.status.value) == ("late", "READY")
    assert {metric.key for metric in logged.metrics} >= {"average_precision", "log_loss"}


def test_a_run_tells_who_began_it_and_when(registry):
    with registry.run("flights", "told", key="run-told", origin=ORIGIN) as run:
        run.describe("**Better** than naive")
        with run.child("trial 0", begun=BEGUN + timedelta(seconds=3), seconds=1.5) as trial:
            pass
    client = registry._client
    stored, child = client.get_run(run.id), client.get_run(trial.id)
    for one in (stored, child):
        assert one.info.user_id == one.data.tags["mlflow.user"] == "ada"
        assert (one.data.tags["mlflow.source.name"], one.data.tags["mlflow.source.type"]) == ("cumulant train", "LOCAL")
        assert one.data.tags["mlflow.source.git.commit"] == "c0ffee"
    assert stored.data.tags["mlflow.note.content"] == "**Better** than naive"
    assert stored.info.start_time == BEGUN.timestamp() * 1000
    assert stored.info.end_time > BEGUN.timestamp() * 1000
    assert (child.info.start_time - stored.info.start_time, child.info.end_time - child.info.start_time) == (3000, 1500)


def test_an_experiment_opens_as_one_of_trained_models(registry, registered):
    experiment = registry._client.get_experiment_by_name("flights")
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"


def test_a_model_and_its_versions_are_described(registry, place):
    folder = servable(place / "described")
    client = registry._client
    for number, text in enumerate(("first", "second"), 1):
        with registry.run("others", text, key=text) as run:
            about = About(version=text, model="Tells late flights")
            registry.register(run, "described", folder, FRAME, tags={}, key=text, about=about)
        assert client.get_model_version("described", str(number)).description == text
        assert client.get_registered_model("described").description == "Tells late flights"
        client.update_registered_model("described", "")
    client.update_registered_model("described", "a person's words")
    with registry.run("others", "third", key="third") as run:
        about = About(version="third", model="Tells late flights")
        registry.register(run, "described", folder, FRAME, tags={}, key="third", about=about)
    assert client.get_registered_model("described").description == "a person's words"


@pytest.mark.parametrize("uri", ["models:/late@champion", "models:/late/1", "late@candidate", "late/1", "late"])
def test_every_way_to_name_a_version(registry, registered, uri):
    assert registry.resolve(uri).version == "1"


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("lat", 'did you mean "late"?'),
        ("late@champio", 'did you mean "champion"?'),
        ("late/7", "known: 1"),
        ("runs:/abc/model", "models:/NAME@ALIAS"),
        ("", "models:/NAME@ALIAS"),
    ],
)
def test_what_does_not_exist_is_reported_with_what_does(registry, registered, uri, words):
    with pytest.raises(NotFoundError) as error:
        registry.resolve(uri)
    assert words in error.value.hint


def test_aliases_and_tags_move(registry, registered):
    registry.alias("late", "shadow", "1")
    registry.tag("late", "1", {"reviewed": "yes", "note": "x"})
    registry.tag("late", "1", {"note": None})
    found = registry.resolve("late@shadow")
    assert found.tags["reviewed"] == "yes"
    assert "note" not in found.tags
    registry.alias("late", "shadow", None)
    assert "shadow" not in registry.resolve("late").aliases
    with pytest.raises(NotFoundError):
        registry.alias("late", "champion", "99")
    with pytest.raises(UsageError):
        registry.versions("o'hare")


def test_a_fetched_servable_answers_and_knows_its_version(registry, registered, place):
    folder = registry.fetch(registered, place / "fetched")
    assert folder.parent == place / "fetched"
    scorer = Scorer(folder)
    assert scorer.servable.version == "1"
    columns = {name: FRAME[name].tolist() for name in scorer.features}
    assert scorer.score(columns).tolist() == Scorer(place / "9f2c").score(columns).tolist()
    assert all(path.stat().st_mode & 0o200 for path in folder.iterdir())
    assert registry.fetch(registered, place / "fetched") == folder
    assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name]


def test_a_report_is_added_to_a_finished_run(registry, registered, tmp_path):
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "curve.svg").write_text("<svg/>")
    (tmp_path / "report.html").write_text("<p>report</p>")
    registry.attach(registered.run_id, tmp_path / "report.html", "report")
    registry.attach(registered.run_id, tmp_path / "plots")
    names = {item.path for item in registry._client.list_artifacts(registered.run_id)}
    assert names == {"report", "plots"}


#: a program that works with a copied registry: the database, a run of the original, and a file to add
COPIED = """
import sys; from pathlib import Path; from cumulant.drivers.mlflow.client import MlflowRegistry
registry, note = MlflowRegistry(f"mlflow+sqlite://{sys.argv[1]}"), Path(sys.argv[3])
registry.attach(sys.argv[2], note)
with registry.run("flights", "another", key="r9") as run:
    run.artifact(note)
"""


def test_no_installed_package_is_looked_for(registry, place, monkeypatch):
    """MLflow looks for mismatches in all packages of the environment, which takes up to a second, and only warns."""
    from mlflow.utils import environment, requirements_utils

    monkeypatch.setattr(requirements_utils, "_MODULES_TO_PACKAGES", None)
    before = dict(vars(environment))
    folder = servable(place / "fast")
    with registry.run("flights", "train", key="run-fast") as run:
        registry.register(run, "fast", folder, FRAME, tags={}, key="model-fast")
    assert requirements_utils._MODULES_TO_PACKAGES is None
    assert vars(environment) == before


@pytest.mark.slow
def test_a_copy_reads_and_writes_its_own_artifacts(registry, registered, place, tmp_path):
    def files(state):
        return {path.relative_to(state) for path in (state / "mlartifacts").rglob("*") if path.is_file()}

    state = place / "state"
    before, copy = files(state), tmp_path / "copy"
    shutil.copytree(state, copy)
    (tmp_path / "note.txt").write_text("of the copy")
    # A process of its own: MLflow remembers the place of a run for as long as its process lives.
    # A file: PySpark, where it is installed and MLflow imports it, ends a process whose main module has no name.
    (tmp_path / "copied.py").write_text(COPIED)
    program = str(tmp_path / "copied.py")
    line = [sys.executable, program, str(copy / "mlflow.db"), registered.run_id, str(tmp_path / "note.txt")]
    subprocess.run(line, check=True, timeout=120)
    assert files(state) == before
    assert len(files(copy)) == len(before) + 2
    with sqlite3.connect(copy / "mlflow.db") as opened:
        assert str(state) not in "".join(opened.iterdump())
    opened.close()
    other = MlflowRegistry(f"mlflow+sqlite://{copy / 'mlflow.db'}")
    version = other.resolve(registered.uri)
    for path in (copy / "mlartifacts").rglob("servable.json"):
        described = json.loads(path.read_bytes()) | {"created": "by the copy"}
        path.chmod(0o644)
        path.write_text(json.dumps(described))
    fetched = other.fetch(version, tmp_path / "into")
    assert json.loads((fetched / "servable.json").read_bytes())["created"] == "by the copy"


def test_no_file_of_the_model_holds_a_pickle(registry, registered, place):
    files = [path for path in (place / "state" / "mlartifacts").rglob("*") if path.is_file()]
    names = {path.name for path in files}
    assert {"MLmodel", "wrapper.py", "servable.json", "model.onnx", "input_example.json"} <= names
    assert not [path for path in files if path.suffix in {".pkl", ".pickle", ".joblib", ".pyc"}]
    for path in files:
        assert not is_pickle(path), path


def is_pickle(path: Path) -> bool:
    content = path.read_bytes()
    if not content.startswith(b"\x80"):
        return False
    try:
        list(pickletools.genops(content))
    except (ValueError, IndexError):
        return False
    return True


@pytest.fixture(scope="module")
def plain(registry, registered):
    """The model as any user of MLflow loads it."""
    import mlflow

    mlflow.set_tracking_uri(registry.tracking_uri)
    yield mlflow.pyfunc.load_model("models:/late@champion")
    mlflow.set_tracking_uri(None)


def expected(place, frame):
    scorer = Scorer(place / "9f2c")
    return scorer.score(
        {name: frame[name].astype(object).where(frame[name].notna(), None).tolist() for name in scorer.features}
    )


def test_plain_mlflow_answers_on_pandas_frames_with_strings(plain, place):
    assert isinstance(FRAME["carrier"].dtype, pd.StringDtype)
    found = plain.predict(FRAME.set_index(pd.Index([7, 8, 9])))
    assert list(found.columns) == ["prediction", "probability"]
    assert found.index.tolist() == [7, 8, 9]
    np.testing.assert_array_equal(found["probability"], expected(place, FRAME))
    np.testing.assert_array_equal(found["prediction"], found["probability"] >= 0.5)


@pytest.mark.parametrize(
    "change",
    [
        {"flights": [3.0, None, 0.0]},  # whole numbers with one missing
        {"flights": pd.array([3, None, 0], dtype="Int64")},
        {"carrier": pd.Series(["UA", None, "AA"], dtype=object)},
        {"charter": [True, False, True]},
        {"charter": pd.Series([None, None, None], dtype=object)},
        {"distance": pd.Series([1.5, 2.5, 3.5], dtype="float32")},
    ],
)
def test_whatever_way_pandas_writes_a_column(plain, place, change):
    frame = FRAME.assign(**change)
    np.testing.assert_array_equal(plain.predict(frame)["probability"], expected(place, frame))


def test_no_rows_and_missing_columns(plain):
    found = plain.predict(FRAME.head(0))
    assert (len(found), list(found.columns)) == (0, ["prediction", "probability"])
    with pytest.raises(Exception, match=r"missing inputs \['carrier'\]"):
        plain.predict(FRAME.drop(columns="carrier"))


def test_the_signature_and_the_example(plain):
    signature = plain.metadata.signature
    assert signature.inputs.input_names() == ["distance", "flights", "carrier", "charter"]
    assert [str(kind) for kind in signature.inputs.input_types()][2] == "DataType.string"
    assert signature.outputs.input_names() == ["prediction", "probability"]
    assert list(plain.input_example.columns) == ["distance", "flights", "carrier", "charter"]


@pytest.mark.parametrize(
    ("task", "columns"),
    [
        ("multiclass", ["prediction", "probability_a", "probability_b", "probability_c"]),
        ("regression", ["prediction"]),
    ],
)
def test_models_of_other_tasks(registry, place, task, columns):
    import mlflow

    folder = servable(place / task, task)
    with registry.run("others", task, key=task) as run:
        version = registry.register(run, task, folder, FRAME, tags={}, key=task)
    source = registry._client.get_model_version_download_uri(version.name, version.version)
    found = mlflow.pyfunc.load_model(source).predict(FRAME)
    assert list(found.columns) == columns
    oracle = model_of(task).predict_frame(to_polars(FRAME)).reshape(3, -1)
    np.testing.assert_allclose(found[columns[-oracle.shape[1] :]].to_numpy(float), oracle, rtol=1e-12)


def to_polars(frame):
    import polars as pl

    kinds = {"distance": pl.Float64, "flights": pl.Int64, "carrier": pl.String, "charter": pl.Boolean}
    rows = {n: frame[n].astype(object).where(frame[n].notna(), None).tolist() for n in kinds}
    return pl.DataFrame(rows, schema=kinds)


def test_a_model_that_came_otherwise_cannot_be_fetched(registry, tmp_path):
    client = registry._client
    with registry.run("others", "foreign", key="foreign") as run:
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "MLmodel").write_text("flavors: {}\n")
        run.artifact(tmp_path / "model")
        client.create_registered_model("foreign")
        stored = client.get_run(run.id)
        client.create_model_version("foreign", f"{stored.info.artifact_uri}/model", run.id)
    with pytest.raises(UsageError, match="not registered by Cumulant"):
        registry.fetch(registry.resolve("foreign"), tmp_path)


def test_the_users_own_tracking_uri_stays(registry, registered, place):
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{place / 'other.db'}")
    try:
        with registry.run("flights", "train", key="run-1") as run:
            registry.register(run, "late", place / "9f2c", FRAME, tags={}, key="model-1")
        assert mlflow.get_tracking_uri().endswith("other.db")
    finally:
        mlflow.set_tracking_uri(None)
    assert not (place / "other.db").exists()
