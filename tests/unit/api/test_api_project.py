"""The Python API: a project from a frame to answers over HTTP, and how results show themselves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

import cumulant
from cumulant.api import RowWarning
from cumulant.api.display import Listing, ResultPage, ResultView
from cumulant.core.errors import DataError, NotFoundError, PortInUseError, ProjectFileError, RequestError, UsageError
from cumulant.flows.reports.request_example import example


def test_importing_cumulant_costs_nothing() -> None:
    code = "import sys, cumulant; cumulant.open, cumulant.new; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not loaded & {"polars", "pandas", "numpy", "mlflow", "sklearn", "lightgbm", "typer", "rich", "IPython"}


def test_public_names_are_those_of_all() -> None:
    for name in cumulant.__all__:
        assert getattr(cumulant, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        cumulant.nothing  # type: ignore[attr-defined]


def test_a_new_project_says_what_it_assumed(project: cumulant.Project) -> None:
    assert (project.root / "cumulant.yaml").is_file()
    assert "Project shop" in repr(project)
    assert project.assumptions
    assert project.assumptions[0] in repr(project)
    assert "shop" in project._repr_html_()


def test_what_cannot_be_a_project_is_refused(visits: pl.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        cumulant.new(visits, target="bougth", name="shop", directory=tmp_path)
    with pytest.raises(DataError):
        cumulant.new("nowhere.csv", target="bought", name="shop", directory=tmp_path)
    assert not list(tmp_path.iterdir())


def test_open_takes_environment_and_overrides(project: cumulant.Project) -> None:
    with cumulant.open(project.root, overrides={"training.trials": 5}) as again:
        assert again.loaded.spec.training is not None
        assert again.loaded.spec.training.trials == 5
    with pytest.raises(NotFoundError):
        cumulant.open(project.root, env="prod")
    with pytest.raises(ProjectFileError, match="training"):
        cumulant.open(project.root, overrides={"training.trails": 5})


def test_plan_and_validate_show_themselves(project: cumulant.Project) -> None:
    plan = project.plan()
    assert plan.target == "bought"
    assert "channel" in repr(plan)
    assert "<table" in plan._repr_html_()
    data = project.validate()
    (snapshot,) = data.snapshots.values()
    assert snapshot.rows_in == 900
    assert "900" in repr(data)
    assert project.quarantine(snapshot.source).height == 0
    assert project.preview(snapshot.source)["email"].str.starts_with("#").all()


def test_features_are_a_frame_in_the_order_of_the_rows(project: cumulant.Project, visits: pl.DataFrame) -> None:
    features = project.features()
    assert features.height == visits.height
    assert features["pages"].to_list() == visits["pages"].to_list()
    assert project.features(limit=3).height == 3
    assert "email" not in features.columns


def test_a_training_shows_figures_with_intervals_and_the_gate(trained: Any) -> None:
    metrics = {metric.name: metric for metric in trained.page.metrics}
    found = metrics["roc_auc"]
    assert found.model.low <= found.model.value <= found.model.high
    assert found.model.value > 0.6
    assert trained.verdict.word in {"better", "worse", "not_worse", "cannot_tell"}
    text = repr(trained)
    assert "ROC AUC" in text
    assert "models:/shop/1" in text
    html = trained._repr_html_()
    assert "models:/shop/1" in html
    assert "Gate" in html


def test_the_same_training_again_is_found(project: cumulant.Project, trained: Any) -> None:
    again = project.train(quick=True)
    assert again.model.version == trained.model.version
    assert set(again.reused) >= {"search", "evaluate", "package", "register"}
    assert [run.flow for run in project.runs("train")] == ["train", "train"]


def test_models_are_listed_and_shown(project: cumulant.Project, trained: Any) -> None:
    (version,) = project.models()
    assert version.uri == trained.model.uri
    assert "models:/shop/1" in repr(project.models())
    shown = project.model()
    assert shown.servable.plan.names
    html = shown._repr_html_()
    assert "curl" in html
    assert html.count("ROC AUC") == 1
    assert "naive 0.500" in html
    for raw in ("_low", "_high", " low<", " high<", "Naive", "roc_auc"):
        assert raw not in html
    project.alias("shop/1", "champion", reason="a test")
    assert "champion" in project.models()[0].aliases
    assert project.tag("shop/1", reviewed="yes").tags["reviewed"] == "yes"
    assert "what" in repr(project.clean())


def test_the_example_of_a_text_is_a_known_category_and_never_a_personal_value(
    project: cumulant.Project, trained: Any
) -> None:
    servable = project.model(trained.model.uri).servable
    servable = msgspec.structs.replace(servable, example={})
    (channel,) = (field for field in servable.plan.request if field.name == "channel")
    assert example(channel, servable) in {"mail", "search", "shop"}
    assert example(msgspec.structs.replace(channel, personal=True), servable) == "..."


@pytest.mark.usefixtures("trained")
def test_answers_come_in_the_kind_of_table_that_was_asked_with(project: cumulant.Project, visits: pl.DataFrame) -> None:
    import pandas as pd

    rows = visits.head(20)
    answers = project.predict(rows)
    assert isinstance(answers, pl.DataFrame)
    assert answers.height == 20
    pandas = project.predict(rows.to_pandas())
    assert isinstance(pandas, pd.DataFrame)
    assert pandas["probability"].tolist() == pytest.approx(answers["probability"].to_list())
    explained = project.predict(rows, features=True)
    assert explained.drop("features").equals(answers)
    assert set(explained["features"][0]) == {each.feature for each in project.model().servable.inputs}
    with pytest.raises(UsageError, match="without its features"):
        project.predict(rows, features=True, url="http://127.0.0.1:9")
    listed = project.predict(rows.to_dicts())
    assert listed["probability"].to_list() == pytest.approx(answers["probability"].to_list())


@pytest.mark.usefixtures("trained")
def test_rows_that_break_a_rule_are_warned_of_where_they_are_predicted(
    project: cumulant.Project, visits: pl.DataFrame
) -> None:
    rows = visits.head(5).with_columns(channel=pl.lit("pigeon"))
    with pytest.warns(RowWarning, match=r"5 of 5 rows.*channel") as warned:
        answers = project.predict(rows)
    assert answers.height == 5
    assert warned[0].filename == __file__
    with pytest.warns(RowWarning, match="channel"):
        project.predict(rows.to_pandas())


@pytest.mark.usefixtures("trained")
def test_a_server_answers_as_the_offline_engine(project: cumulant.Project, visits: pl.DataFrame) -> None:
    rows = visits.head(10)
    offline = project.predict(rows)
    fields = [field.name for field in project.model().servable.plan.request]
    with project.serve() as server:
        assert server.url in repr(server)
        assert "curl" in server._repr_html_()
        asked = [{key: _plain(value) for key, value in row.items()} for row in rows.select(fields).to_dicts()]
        answers = server.predict(*asked)
        assert [one["probability"] for one in answers] == pytest.approx(offline["probability"].to_list(), abs=1e-6)
        with pytest.raises(RequestError, match="pages"):
            server.predict({**asked[0], "pages": "many"})
        port = int(server.url.rpartition(":")[2])
        with pytest.raises(PortInUseError):
            project.serve(port=port)
        over_http = project.predict(rows, url=server.url)
        assert over_http["probability"].to_list() == pytest.approx(offline["probability"].to_list(), abs=1e-6)


def _plain(value: Any) -> Any:
    return value.isoformat() if hasattr(value, "isoformat") else value


def test_lineage_events_and_report(project: cumulant.Project, trained: Any, tmp_path: Path) -> None:
    lineage = project.lineage()
    assert lineage.run
    assert lineage.sources[0].snapshot[:12] in repr(lineage)
    kinds = [event.kind for event in project.events(run=trained.run)]
    assert kinds[0] == "run.started"
    assert "run.finished" in kinds
    assert len(project.events()[-2:]) == 2
    report = project.report(out=tmp_path / "report.html")
    assert report.name == "shop"
    assert "srcdoc" in report._repr_html_()
    assert "# shop version 1" in repr(report)
    page = (tmp_path / "report.html").read_text()
    assert "models:/shop/1" in page
    assert "@example.com" not in page
    assert project.report("shop@champion").version == "1"
    with pytest.raises(NotFoundError):
        project.report("nothing")


def test_evaluate_again(project: cumulant.Project, trained: Any) -> None:
    found = project.evaluate()
    told = {metric.name: metric.model.value for metric in found.page.metrics}
    before = {metric.name: metric.model.value for metric in trained.page.metrics}
    assert told["roc_auc"] == pytest.approx(before["roc_auc"], abs=1e-6)


def test_lists_and_results_escape_what_they_show() -> None:
    hostile = "<script>alert(1)</script>"
    listing = Listing([hostile], ["<b>"], lambda item: (item,))
    result = ResultPage(title=hostile, columns=[hostile], rows=[(hostile,)], facts=[(hostile, hostile)], code=hostile)
    for html in (listing._repr_html_(), result.render()):
        assert "<script>" not in html
    assert hostile in repr(listing)
    assert listing[:1][0] == hostile
    shown: ResultView[str] = ResultView(hostile, text=lambda console: console.print("x"), html=lambda: hostile)
    assert shown.upper() == hostile.upper()
    assert "upper" in dir(shown)
    with pytest.raises(AttributeError):
        shown.nothing
