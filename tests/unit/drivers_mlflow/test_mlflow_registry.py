"""The registry on real MLflow with SQLite: runs that go on, versions by key, models that load with plain MLflow."""

from __future__ import annotations

import contextlib
import json
import math
import pickletools
import shutil
import socket
import sqlite3
import subprocess
import sys
import textwrap
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow_servables import FRAME, model_of, servable

from cumulant.core.errors import EngineUnavailableError, NotFoundError, StorageError, UsageError
from cumulant.drivers.mlflow.client import MlflowRegistry
from cumulant.drivers.mlflow.database import follow_artifacts, make_database
from cumulant.drivers.mlflow.location import locate
from cumulant.drivers.mlflow.reach import check_reachable
from cumulant.packaging import Scorer
from cumulant.ports.registry import About, Dataset, Origin

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
def test_what_does_not_exist_is_said_with_what_does(registry, registered, uri, words):
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


def test_a_copy_reads_and_writes_its_own_artifacts(registry, registered, place, tmp_path):
    def files(state):
        return {path.relative_to(state) for path in (state / "mlartifacts").rglob("*") if path.is_file()}

    state = place / "state"
    before, copy = files(state), tmp_path / "copy"
    shutil.copytree(state, copy)
    (tmp_path / "note.txt").write_text("of the copy")
    # A process of its own: MLflow remembers the place of a run for as long as its process lives.
    line = [sys.executable, "-c", COPIED, str(copy / "mlflow.db"), registered.run_id, str(tmp_path / "note.txt")]
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


def place_of(database):
    with sqlite3.connect(database) as opened:
        (found,) = opened.execute("SELECT artifact_location FROM experiments WHERE experiment_id = 0").fetchone()
    opened.close()
    return found


def add_model(database, artifacts, name):
    """A registered model, with its artifacts in a folder of that name."""
    (artifacts / name).mkdir(parents=True)
    place = (artifacts / name).as_uri()
    with sqlite3.connect(database) as opened:
        opened.execute("PRAGMA foreign_keys=OFF")
        opened.execute(
            "INSERT INTO model_versions (name, version, storage_location, workspace) VALUES (?, 1, ?, 'default')"
            if "workspace" in {row[1] for row in opened.execute("PRAGMA table_info(model_versions)")}
            else "INSERT INTO model_versions (name, version, storage_location) VALUES (?, 1, ?)",
            (name, place),
        )
    opened.close()


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory):
    """MLflow's tables, with artifacts in `elsewhere/mlartifacts` beside the database's folder."""
    folder = tmp_path_factory.mktemp("tables")
    make_database(folder / "mlflow.db", folder / "elsewhere" / "mlartifacts")
    return folder / "mlflow.db"


@pytest.fixture
def foreign(empty_database, tmp_path):
    """A database of another program, its artifacts in a folder `elsewhere`, and an empty folder beside it."""
    database, place = tmp_path / "d" / "mlflow.db", tmp_path / "d" / "elsewhere" / "mlartifacts"
    (tmp_path / "d" / "mlartifacts").mkdir(parents=True)
    shutil.copy(empty_database, database)
    with sqlite3.connect(database) as opened:
        opened.execute("UPDATE experiments SET artifact_location = ?", (f"{place.as_uri()}/0",))
    opened.close()
    add_model(database, place, "model")
    return database, place


@pytest.mark.parametrize("present", [True, False])
def test_a_database_of_another_program_is_no_copy(foreign, present):
    database, place = foreign
    if not present:  # as on a disk that is not mounted
        place.rename(place.with_name("away"))
    follow_artifacts(database, database.with_name("mlartifacts"))
    assert place_of(database) == f"{place.as_uri()}/0"


def test_a_copy_without_all_the_artifacts_stays_with_the_original(foreign, tmp_path):
    database, place = foreign
    shutil.move(database, place.with_name("mlflow.db"))
    database = place.with_name("mlflow.db")
    copy = shutil.copytree(place.parent, tmp_path / "copy")
    (copy / "mlartifacts" / "model").rmdir()
    follow_artifacts(copy / "mlflow.db", copy / "mlartifacts")
    assert place_of(copy / "mlflow.db") == f"{place.as_uri()}/0"
    (copy / "mlartifacts" / "model").mkdir()
    follow_artifacts(copy / "mlflow.db", copy / "mlartifacts")
    assert place_of(copy / "mlflow.db") == f"{(copy / 'mlartifacts').as_uri()}/0"


def test_one_database_under_two_paths_is_no_copy(foreign, tmp_path):
    database, place = foreign
    shutil.move(database, place.with_name("mlflow.db"))
    other = tmp_path / "other"
    (other / "mlartifacts" / "model").mkdir(parents=True)
    (other / "mlflow.db").hardlink_to(place.with_name("mlflow.db"))
    follow_artifacts(other / "mlflow.db", other / "mlartifacts")
    assert place_of(other / "mlflow.db") == f"{place.as_uri()}/0"


def test_a_moved_database_follows_its_artifacts(foreign, tmp_path):
    database, place = foreign
    shutil.move(database, place.with_name("mlflow.db"))
    moved = shutil.move(place.parent, tmp_path / "moved")
    follow_artifacts(moved / "mlflow.db", moved / "mlartifacts")
    assert place_of(moved / "mlflow.db") == f"{(moved / 'mlartifacts').as_uri()}/0"


def test_a_database_whose_artifacts_are_elsewhere_stays_as_it_is(tmp_path):
    database = tmp_path / "mlflow.db"
    make_database(database, tmp_path / "elsewhere" / "mlruns")
    (tmp_path / "mlartifacts").mkdir()
    follow_artifacts(database, tmp_path / "mlartifacts")
    assert place_of(database).endswith("/elsewhere/mlruns/0")
    (tmp_path / "link").symlink_to(tmp_path)
    follow_artifacts(tmp_path / "link" / "mlflow.db", tmp_path / "link" / "mlartifacts")
    assert place_of(database).endswith("/elsewhere/mlruns/0")


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


@pytest.mark.parametrize(("task", "columns"), [
    ("multiclass", ["prediction", "probability_a", "probability_b", "probability_c"]),
    ("regression", ["prediction"]),
])  # fmt: skip
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


def test_a_server_that_nobody_runs_is_told_in_a_moment(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"):
        monkeypatch.delenv(name, raising=False)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    began = time.monotonic()
    with pytest.raises(EngineUnavailableError, match=f"MLflow does not answer at 127.0.0.1:{port}") as caught:
        list(MlflowRegistry(f"http://127.0.0.1:{port}").models())
    assert time.monotonic() - began < 3
    assert caught.value.retryable


def test_a_server_that_takes_no_connection_is_told_in_a_moment():
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
        assert time.monotonic() - began < 3


def test_addresses_that_name_no_server():
    for address in ("http://", "https://host:port", "http://host:99999"):
        with pytest.raises(UsageError, match="names no host"):
            check_reachable(address)
    check_reachable("databricks://team")


def test_behind_a_proxy_the_proxy_is_asked(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    check_reachable("http://mlflow.invalid")


def test_the_driver_is_light_silent_and_offline(place, tmp_path):
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
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert (done.stdout, done.stderr) == ("late-1\n", "")
    left = {path.name for path in tmp_path.iterdir()} - {"mlflow.db.lock"}
    assert left == {"late-1", "mlartifacts", "mlflow.db", "servable"}
