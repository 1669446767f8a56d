"""The page of monitoring: quality over time, drift by column, alerts that are acknowledged and silenced, retraining."""

from __future__ import annotations

import csv
import io
import re
import shutil
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from console_support import ADA, HOSTILE, console_client, send_form
from releases import release

from cumulant.alerting.alert_state import Finding
from cumulant.console.backtest_chart import backtest_chart, window_begin
from cumulant.core.events import Actor
from cumulant.flows.alerting.alerts import observe
from cumulant.flows.alerting.store import read
from cumulant.flows.monitoring.backtest.backtest_record import BacktestResult, stored_backtests, write_backtest
from cumulant.flows.monitoring.backtest.policy_comparison import Difference, PolicyResult
from cumulant.flows.monitoring.drift.drift_history import COMPARED, HISTORY, ColumnHistory, DriftHistory, FoundChange
from cumulant.flows.monitoring.monitoring_views import retraining
from cumulant.flows.monitoring.state import TRAINING, WATCH, MonitoringState, RetrainRequest, WindowRecord, write
from cumulant.flows.release import store
from cumulant.monitoring.drift.profiles import ColumnCells, ProfileBlock
from cumulant.monitoring.events import RetrainingProgressed, RetrainingRequested
from cumulant.monitoring.retrain_rule import RetrainState
from cumulant.project.file.loading import load
from cumulant.testing.access import GrantedAccess

BASE = "/projects/flight-late/monitoring"
START, DAY = datetime(2026, 3, 1, tzinfo=UTC), timedelta(days=1)


def column(name, *, confirmed=(), kind="category", **more):
    cells = {
        "category": ColumnCells(kind="category", values=(HOSTILE, "hat")),
        "number": ColumnCells(kind="number", edges=(0.0, 1.0, 2.0)),
    }[kind]
    values = {
        "feature": name,
        "role": "feature",
        "weight": 1.0,
        "effects": (0.1, None, 0.7, 1.5, 4.5),
        "confirmed": confirmed,
        "findings": (FoundChange(kind="covariate", text=f"{HOSTILE} moved", active=True),) if confirmed else (),
        "cells": cells,
        "before": (50, 30, 10, 0),
        "now": (10, 60, 20, 5),
        "missing": (0.0, 0.25),
    }
    return ColumnHistory(**{**values, **more})


@pytest.fixture
def watched(project):
    blocks = tuple(ProfileBlock(int((START + day * DAY).timestamp() * 1_000_000), 100, timed=True) for day in range(5))
    history = DriftHistory(
        version="2",
        reference="the training rows",
        windows=blocks,
        columns=(column(HOSTILE, confirmed=(3, 4), weight=2.5), column("amount", kind="number")),
        newest=3,
        hidden=1,
    )
    windows = tuple(
        WindowRecord(
            start=START + day * DAY,
            end=START + (day + 1) * DAY,
            rows=100,
            labelled=90,
            loss=0.2 + day / 100,
            loss_low=0.15,
            loss_high=0.3,
            estimated=0.2,
            low=0.1,
            high=0.35,
            word="worse" if day == 2 else "cannot_tell",
        )
        for day in range(3)
    )
    waits = WindowRecord(start=START + 3 * DAY, end=START + 4 * DAY, rows=100, labelled=4)
    state = MonitoringState(
        version="2",
        since=START,
        until=windows[-1].end,
        retrain=RetrainState(trained=START),
        windows=windows,
        pending=(waits,),
        reference_loss=0.18,
    )
    with project.journal().transaction(actor=Actor("user:ada")) as transaction:
        transaction.put(HISTORY, project.name, msgspec.to_builtins(history))
        transaction.put(WATCH, project.name, msgspec.to_builtins(state))
        transaction.emit(RetrainingRequested(model=project.name, champion="2", trigger="harm", reason=HOSTILE))
        transaction.emit(
            RetrainingProgressed(
                model=project.name, stage="trained", candidate="flight-late/3", release=None, reason="passed"
            )
        )
    finding = Finding(
        model=project.name, rule="loss", subject=HOSTILE, moved=HOSTILE, since=START, cost=HOSTILE, level="critical"
    )
    for hours in range(0, 72, 12):
        observe(project, [finding], principal=ADA, at=START + timedelta(hours=hours))
    return project


@pytest.fixture
def client(watched):
    return console_client(watched)


def alert_of(project):
    return read(project.journal())[0].firing[0]


def test_everything_is_on_the_page_and_hostile_texts_are_texts(client):
    text = client.get(BASE).text
    assert HOSTILE not in text
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert "style=" not in text
    for heading in ("Alerts", "Labelled quality", "Drift", "Retraining"):
        assert f">{heading}</h2>" in text
    assert 'class="waiting"' in text  # the window whose labels are still to come
    assert text.count("confirmed") >= 2
    assert "1 column with the least weight is not shown" in text
    assert 'href="/projects/flight-late/models/flight-late/3"' in text


def test_a_cell_opens_the_reference_against_now(client):
    text = client.get(BASE, params={"feature": HOSTILE, "window": "4"}).text
    assert "4.5 times the least that matters, confirmed" in text
    assert "Reference against now" in text
    assert HOSTILE not in text
    number = client.get(BASE, params={"feature": "amount"}).text
    assert "Reference against now" in number
    assert "missing 0.00% then, 25.0% now" in number
    assert client.get(BASE, params={"feature": "none"}).status_code == 404
    assert "times the least" not in client.get(BASE, params={"feature": "amount", "window": "99"}).text
    assert "too few rows" in client.get(BASE, params={"feature": "amount", "window": "1"}).text


def test_of_many_columns_the_map_shows_the_important_ones_and_those_that_alarmed(client, watched):
    row = watched.journal().get(HISTORY, watched.name)
    history = msgspec.convert(row.value, DriftHistory)
    many = tuple(column(f"column{place}", confirmed=(1,) if place == 40 else ()) for place in range(50))
    with watched.journal().transaction(actor=Actor("t")) as transaction:
        transaction.put(HISTORY, watched.name, msgspec.to_builtins(msgspec.structs.replace(history, columns=many)))
    drawn = re.compile(r"<title>(column\d+), weight")
    assert drawn.findall(client.get(BASE).text) == [*(f"column{place}" for place in range(20)), "column40"]
    assert "29 more columns" in client.get(BASE).text
    assert len(drawn.findall(client.get(f"{BASE}?columns=all").text)) == 50


@pytest.mark.parametrize(("name", "rows"), [("quality", 4), ("drift", 10)])
def test_the_numbers_are_files(client, name, rows):
    response = client.get(f"{BASE}/{name}.csv")
    assert response.headers["content-type"].startswith("text/csv")
    heads, *listed = csv.reader(io.StringIO(response.text))
    assert len(listed) == rows
    assert all(len(row) == len(heads) for row in listed)


def test_an_alert_is_acknowledged_with_a_reason(client, watched):
    alert = alert_of(watched)
    path = f"/projects/flight-late/alerts/{alert.id}/acknowledge"
    assert send_form(client, path, BASE).status_code == 400
    assert alert_of(watched).acknowledged is None
    response = send_form(client, path, BASE, reason="I look at it")
    assert response.headers["location"] == f"{BASE}?done=acknowledged"
    assert alert_of(watched).acknowledged == "user:ada"
    assert "acknowledged by ada" in client.get(BASE).text


def test_what_an_alert_is_about_is_silenced_and_the_silence_is_ended(client, watched):
    alert = alert_of(watched)
    path = f"/projects/flight-late/alerts/{alert.id}/silence"
    assert send_form(client, path, BASE, span="99d", reason="x").status_code == 400
    assert send_form(client, path, BASE, span="8h", reason=HOSTILE).status_code == 303
    state = read(watched.journal())[0]
    (silence,) = state.silences
    assert silence.matches(alert, datetime.now(UTC))
    text = client.get(BASE).text
    assert HOSTILE not in text
    end = re.search(r'action="(/projects/flight-late/silences/[^"]+/end)"', text)[1]
    assert send_form(client, end, BASE).headers["location"] == f"{BASE}?done=unsilenced"
    assert read(watched.journal())[0].silences == ()


def test_who_may_not_steer_sees_no_buttons_and_is_refused(watched, monkeypatch):
    grants = [(ADA.id, "monitor.show"), (ADA.id, "project.overview"), (ADA.id, "alerts.show")]
    monkeypatch.setattr(watched, "access", lambda: GrantedAccess(grants))
    client = console_client(watched)
    assert "Acknowledge" not in client.get(BASE).text
    path = f"/projects/flight-late/alerts/{alert_of(watched).id}/acknowledge"
    assert send_form(client, path, BASE, reason="x").status_code == 403
    assert alert_of(watched).acknowledged is None
    monkeypatch.setattr(watched, "access", lambda: GrantedAccess(grants[:2]))
    assert "You may not see alerts" in client.get(BASE).text


def test_a_project_that_was_never_monitored_says_what_to_do(project):
    text = console_client(project).get(BASE).text
    assert "Nothing fires" in text
    assert "cumulant monitor run" in text
    assert console_client(project).get(f"{BASE}/quality.csv").status_code == 200


def test_a_comparison_of_an_earlier_version_says_why_it_has_no_details(project):
    figures = {"rows": 900, "windows": 124, "alarming": 87, "until": "2026-11-01", "alarms": []}
    with project.journal().transaction(actor=Actor("service:tick")) as transaction:
        transaction.put(COMPARED, project.name, figures)
    text = console_client(project).get(BASE).text
    assert "No comparison yet" not in text
    assert "It was of 124 windows, and an earlier version of Cumulant stored only its result" in text


def policy(rule, *losses, trainings=(), gap=None):
    known = [loss for loss in losses if loss is not None]
    return PolicyResult(
        rule=rule,
        loss=sum(known) / max(len(known), 1),
        difference=gap,
        trainings=trainings,
        alarms=2,
        waits=0,
        looks=len(losses),
        losses=losses,
        better=False,
    )


def backtest(run="r1", rules=()):
    return BacktestResult(
        run=run,
        target="y",
        task="binary",
        loss="brier",
        trainer="lightgbm",
        parameters_of=None,
        history="all",
        rows=100,
        start=START,
        end=START + 6 * DAY,
        every="1d",
        windows=6,
        first=2,
        delay=1,
        rules=rules,
        histories=(),
        sentences=(HOSTILE,),
        notes=(),
    )


RULES = (
    policy("default", 0.2, None, 0.3, trainings=(START + 5 * DAY,)),
    policy(HOSTILE, 0.25, 0.2, 0.1, gap=Difference(value=-0.05, low=-0.1, high=0.02)),
)


def store_backtest(project, result):
    with project.journal().transaction(actor=Actor("t")) as transaction:
        write_backtest(transaction, result, at=START)


def test_the_newest_backtest_is_drawn_and_its_losses_are_a_file(project, client):
    assert "No backtest yet" in client.get(BASE).text
    store_backtest(project, backtest(rules=RULES))
    text = client.get(BASE).text
    assert "Losses of retraining policies in 3 windows" in text
    assert "-0.05 (-0.1 to +0.02)" in text
    assert "default: trained on 2026-03-06" in text
    assert HOSTILE not in text
    heads, *rows = csv.reader(io.StringIO(client.get(f"{BASE}/backtest.csv").text))
    assert heads[:2] == ["window", "default"]
    # The last windows are those that were evaluated.
    assert [row[:2] for row in rows] == [
        ["2026-03-04 00:00", "0.2"],
        ["2026-03-05 00:00", ""],
        ["2026-03-06 00:00", "0.3"],
    ]


def test_ten_backtests_are_kept(project, client):
    for number in range(13):
        store_backtest(project, backtest(run=f"20260301T0000{number:02}"))
    assert [record.result.run[-2:] for record in stored_backtests(project, principal=ADA)] == [
        f"{number:02}" for number in range(12, 2, -1)
    ]
    with project.journal().transaction(actor=Actor("t")) as transaction:
        transaction.put("backtest", "20270101T000000", {"of": "another version"})
    assert len(stored_backtests(project, principal=ADA)) == 10
    assert client.get(BASE).status_code == 200  # one without windows has no drawing


@pytest.mark.parametrize(
    "rules", [(), (policy("default"),), (policy("default", 0.2),), (policy("default", None, None),)]
)
def test_a_backtest_of_nothing_has_no_drawing(rules):
    assert backtest_chart(backtest(rules=rules), "") is None


def test_the_first_evaluated_window_comes_after_the_training_and_the_delay():
    assert window_begin(backtest(rules=RULES), 0) == START + 3 * DAY


def test_a_retrained_version_without_a_record_is_listed(client):
    text = client.get(BASE).text
    assert "Retrained versions" in text
    assert ">flight-late/3</a>" in text


def test_a_retrained_version_whose_record_cannot_be_read_is_listed(project, client):
    with project.journal().transaction(actor=Actor("user:ada")) as transaction:
        transaction.put("model", "flight-late/3", {"of": "another version"})
    response = client.get(BASE)
    assert response.status_code == 200
    assert ">flight-late/3</a>" in response.text


def test_a_retrained_version_is_shown_with_the_verdict_of_its_gate_and_its_release(trained_folder, tmp_path):
    shutil.copytree(trained_folder, tmp_path / "shop")
    with load(tmp_path / "shop", via="http") as project:
        with project.journal().transaction(actor=Actor("t")) as transaction:
            transaction.emit(
                RetrainingProgressed(model="shop", stage="released", candidate="shop/1", release="r9", reason="passed")
            )
        (version,) = retraining(project, principal=ADA).versions
        assert (version.version, version.passed, version.word, version.against) == ("shop/1", True, "better", "naive")
        assert version.low < version.difference < version.high
        assert "against naive" in console_client(project).get("/projects/shop/monitoring").text
        request = RetrainRequest(requested=START, champion="shop/0", trigger="harm", sentence="harm", stage="released")
        request = msgspec.structs.replace(request, candidate="shop/1", release="r9", message="it is being released")
        promoted = msgspec.structs.replace(release(model="shop", id="r9"), status="promoted", ended=START)
        with project.journal().transaction(actor=Actor("t")) as transaction:
            write(transaction, TRAINING, "shop", request, expect=0)
            store.write(transaction, None, promoted, expect=0)
        text = console_client(project).get("/projects/shop/monitoring").text
        assert "The release of shop/1 ended: promoted." in text
        assert "it is being released" not in text
