"""The pages of models: evidence of a version, two side by side, and the numbers behind each chart."""

from __future__ import annotations

import csv
import html
import io
import re

import msgspec
import pytest
from console_support import ADA, HOSTILE, console_client, make_project

from cumulant.console.charts import csv_response
from cumulant.console.pages.model_charts import version_charts
from cumulant.console.pages.models import chart_pair, feature_lines
from cumulant.console.reliability_chart import axis_end, describe
from cumulant.flows.reports.version_content import version_content

BASE = "/projects/shop/models"
ONE = f"{BASE}/shop/1"


@pytest.fixture
def client(trained):
    return console_client(trained)


def test_versions_are_listed_with_their_gate_and_run(client):
    text = client.get(BASE).text
    assert f'href="{ONE}"' in text
    assert re.search(r'<span class="tag (good|bad)">(passed|refused)</span>', text)
    assert re.search(r'href="/projects/shop/runs/[\w-]+"', text)


def test_a_version_shows_its_evidence_and_hostile_values_as_text(client):
    text = client.get(ONE).text
    assert HOSTILE not in text
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert "&lt;script&gt;alert(1)" in text  # the slice's value and the owner
    for heading in ("Metrics on the test rows", "Gate", "Curves", "Lineage", "Search", "Features"):
        assert f">{heading}</h2>" in text
    assert text.count("Show table") >= 4
    assert f'href="{ONE}/charts/calibration.csv"' in text
    assert "Log loss" in text
    assert "Naive" in text


def test_the_same_version_is_not_compared_with_itself_and_an_unknown_one_is_named(client):
    assert "Version 1</th>" not in client.get(f"{ONE}?compare=1").text
    assert client.get(f"{ONE}?compare=9").status_code == 404
    assert client.get(f"{BASE}/shop/%3Cb%3E").status_code == 404
    assert client.get(f"{BASE}/%3Cscript%3E/1").status_code == 404


def test_what_is_equal_in_two_versions_is_collapsed(trained):
    content = version_content(trained, "shop/1", principal=ADA)
    charts = version_charts(content, lambda name: name)
    assert chart_pair("roc", charts["roc"], charts["roc"]) == ("roc", charts["roc"], None, True)
    pair = chart_pair("roc", charts["roc"], charts["roc"]._replace(rows=[]))
    assert (pair.other is not None, pair.same) == (True, False)
    report = content.report
    first, *rest = report.features
    other = msgspec.structs.replace(
        report,
        features=(
            msgspec.structs.replace(first, name="before"),
            *(msgspec.structs.replace(each, definition="other") for each in rest),
        ),
    )
    lines = {line.feature.name: line for line in feature_lines(report, other)}
    assert lines[first.name].change == "added"
    assert lines[first.name].other is None
    assert lines["before"].change == "removed"
    assert lines["before"].importance is None
    assert {lines[each.name].change for each in rest} == {"changed"}
    assert {line.change for line in feature_lines(report, report)} == {""}


@pytest.mark.parametrize("chart", ["calibration", "scores", "roc", "precision_recall", "thresholds", "search"])
def test_the_numbers_of_a_chart_are_a_file(client, chart):
    response = client.get(f"{ONE}/charts/{chart}.csv")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    assert f'filename="shop-1-{chart}.csv"' in response.headers["content-disposition"]
    heads, *rows = csv.reader(io.StringIO(response.text))
    assert rows
    assert all(len(row) == len(heads) for row in rows)


def test_the_calibration_is_the_isotonic_fit_of_the_test_rows_with_its_band(client, trained):
    text = client.get(ONE).text
    assert "Calibration: the isotonic fit" in text
    assert 'class="consistency"' in text
    content = version_content(trained, "shop/1", principal=ADA)
    _, *rows = csv.reader(io.StringIO(client.get(f"{ONE}/charts/calibration.csv").text))
    assert [float(row[1]) for row in rows] == content.reliability["observed"]
    tested = content.report.training.test_rows
    _, *bins = csv.reader(io.StringIO(client.get(f"{ONE}/charts/scores.csv").text))
    assert sum(float(row[2]) + float(row[3]) for row in bins) == tested


def test_a_record_without_the_fit_has_the_tenths_of_the_rows(trained):
    content = version_content(trained, "shop/1", principal=ADA)
    charts = version_charts(msgspec.structs.replace(content, reliability={}), lambda name: name)
    assert [head for head, _ in charts["calibration"].heads] == ["predicted", "observed", "rows"]
    assert "scores" not in charts


FIT = {"predicted": [0.02, 0.04], "observed": [0.01, 0.09], "low": [0.0, 0.0], "high": [0.05, 0.08]}


def test_the_calibration_says_where_the_fit_leaves_the_band():
    text = describe(FIT)
    assert "at 1 of 2 points, most where 0.0400 is predicted: 0.0900 happened" in text
    assert text.endswith("a calibrated model is outside at about 5% of the points")
    assert describe(FIT | {"high": [0.05, 0.1]}).endswith("at every point")


@pytest.mark.parametrize(("largest", "end"), [(0.09, 0.1), (0.1, 0.1), (0.49, 0.5), (0.6, 1.0)])
def test_rare_events_have_an_axis_of_their_own(largest, end):
    assert axis_end(FIT | {"observed": [0.01, largest]}) == end


def test_an_unknown_chart_is_not_found(client):
    assert client.get(f"{ONE}/charts/nothing.csv").status_code == 404


@pytest.mark.parametrize("text", ["=1+1", "+1", "-2+3", "@SUM(A1)", "\tx", "\rx"])
def test_a_text_that_a_spreadsheet_would_run_is_kept_a_text(text):
    body = csv_response('../"x\r\ny', ["a", "b"], [[text, -1.5]], {})
    assert body.headers["content-disposition"] == 'attachment; filename="..--x--y.csv"'
    (row,) = list(csv.reader(io.StringIO(body.body.decode(), newline="")))[1:]
    assert row == [f"'{text}", "-1.5"]


def test_a_project_without_a_model_says_what_to_do(tmp_path):
    with make_project(tmp_path / "bare", "bare") as bare:
        response = console_client(bare).get("/projects/bare/models")
    assert response.status_code == 200
    assert "cumulant train" in response.text


def test_many_models_are_a_list_of_their_own_with_pages_and_a_filter(project, monkeypatch):
    client = console_client(project)
    names = [f"model-{number:03d}" for number in range(120)]
    monkeypatch.setattr(type(project.registry()), "models", lambda _: iter(names))
    first = client.get("/projects/flight-late/models/all").text
    assert re.findall(r"data-row>([^<]+)</a>", first) == names[:50]
    second = client.get(html.unescape(re.search(r'href="([^"]+)" rel="next"', first)[1])).text
    assert re.findall(r"data-row>([^<]+)</a>", second) == names[50:100]
    some = client.get("/projects/flight-late/models/all?text=MODEL-11").text
    assert re.findall(r"data-row>([^<]+)</a>", some) == names[110:]
    assert "No model has this in its name" in client.get("/projects/flight-late/models/all?text=x").text
