"""The methods of a project in production, as far as nothing has to be served: those that serve run in the demo."""

from __future__ import annotations

import datetime as dt
import os
import signal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import cumulant
from cumulant.api import results
from cumulant.core.errors import DataError, NotFoundError, UsageError
from cumulant.core.network.http_client import HttpClient

BEGIN = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
COLUMNS = {"id": "id", "time": "moment", "event_time": "moment", "prediction": "answer", "score": "score"}


def test_the_rows_of_a_source_are_all_of_them_and_unmasked(
    project: cumulant.Project, trained: Any, visits: pl.DataFrame
) -> None:
    rows = project.rows("rows").collect()
    assert rows["email"].to_list() == visits["email"].to_list()
    assert set(project.preview("rows", rows=5)["email"]).isdisjoint(visits["email"])
    with pytest.raises(NotFoundError, match="no source"):
        project.rows("nothing")


def test_progress_is_reported_to_the_caller(project: cumulant.Project, trained: Any) -> None:
    texts: list[str] = []
    with cumulant.open(project.root, progress=lambda text, share=None: texts.append(text)) as other:
        assert other.validate().reused == ("rows",)
    assert texts


def test_a_template_becomes_a_project(tmp_path: Path) -> None:
    with cumulant.new_from_template("blank", name="mine", directory=tmp_path) as made:
        assert (made.name, made.root) == ("mine", tmp_path / "mine")
    with pytest.raises(NotFoundError, match="template"):
        cumulant.new_from_template("none", name="other", directory=tmp_path)


def test_past_rows_are_requests_and_their_labels_join(visits: pl.DataFrame, tmp_path: Path) -> None:
    with cumulant.new(visits, target="bought", name="shop", time="began", key="visit", directory=tmp_path) as made:
        until = BEGIN + dt.timedelta(days=3)
        model = str(made.train(quick=True).model.uri)
        requests, labels = made.outcomes.past_requests(model, BEGIN, until, every=2)
        assert requests["number"].to_list() == list(range(0, 96, 2))
        assert requests["moment"].max() < until
        assert labels.columns == ["number", "known_time", "bought"]
        assert labels.join(requests, on="number", how="semi").height == labels.height > 40
        with pytest.raises(DataError, match="no row from"):
            made.outcomes.past_requests(model, until + dt.timedelta(days=365), until + dt.timedelta(days=366))

        answers = made.predict(requests, model=model)
        identity = pl.format("v-{}", "number").alias("id")
        predicted = requests.with_columns(identity, answer=answers["prediction"], score=answers["probability"])
        predicted.drop("number").write_parquet(tmp_path / "predictions.parquet")
        labels.with_columns(identity).drop("number").write_parquet(tmp_path / "labels.parquet")
        imported = made.outcomes.import_predictions(tmp_path / "predictions.parquet", COLUMNS, version="1")
        assert imported.rows == requests.height
        (newest,) = made.outcomes.predictions(limit=1)
        assert (newest.version, newest.features) == ("1", {})
        intake = made.outcomes.ingest_labels(tmp_path / "labels.parquet")
        assert intake.sources[0].rows == labels.height
        # No replay was cut off here, so no labels are missing.
        before = sorted(path.name for path in tmp_path.rglob("labels*"))
        made.outcomes.ingest_replayed_labels(model, BEGIN, until)
        assert sorted(path.name for path in tmp_path.rglob("labels*")) == before


def test_of_a_project_that_serves_nothing_there_is_nothing_to_see(visits: pl.DataFrame, tmp_path: Path) -> None:
    with cumulant.new(visits, target="bought", name="shop", key="visit", directory=tmp_path) as project:
        assert project.stack.status() is None
        assert project.stack.down() == 0
        with pytest.raises(NotFoundError, match="nothing was served"):
            project.stack.champion()
        with pytest.raises(NotFoundError, match="release"):
            project.releases.current()
        with pytest.raises(UsageError, match="no prediction log"):
            project.monitoring.run()
        assert project.monitoring.retrain() is None
        assert list(project.monitoring.alerts(ended=True)) == []
        with pytest.raises(UsageError, match="review"):
            project.reviews.fill()
        with pytest.raises(UsageError, match="review"):
            project.reviews.answer(lambda case: True, limit=1)
        assert project.reviews.used_for_training() == 0


def test_reset_removes_what_is_recorded_of_serving_and_nothing_else(project: cumulant.Project, trained: Any) -> None:
    state = project.root / ".cumulant"
    for name in ("stack", "gateway"):
        (state / name).mkdir(exist_ok=True)
        (state / name / "some.json").write_text("{}")
    others = {path.name for path in state.iterdir()} - {"stack", "gateway"}
    project.stack.reset(reason="a test")
    assert {path.name for path in state.iterdir()} >= others
    assert not (state / "gateway").exists()
    assert not (state / "stack" / "some.json").exists()


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the process of the server outlives this test's object
def test_a_server_that_is_kept_outlives_its_object(project: cumulant.Project, trained: Any) -> None:
    with project.serve(keep=True) as server:
        pass
    try:
        assert HttpClient(seconds=10).get(f"{server.url}/v2/health/ready").ok
    finally:
        os.kill(server.pid, signal.SIGTERM)
    assert project.tracking_uri.startswith("sqlite:")


def test_the_types_of_results_are_all_there() -> None:
    assert {name: getattr(results, name).__name__ for name in results.__all__} == {
        name: name for name in results.__all__
    }
    with pytest.raises(AttributeError, match="Nothing"):
        _ = results.Nothing
