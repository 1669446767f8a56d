"""Numbers of rows of a served version are those of all versions of its model, up to the moment of the look."""

import json
from datetime import UTC, date, datetime, timedelta
from typing import cast

import numpy as np
import polars as pl
import pytest
from prediction_rows import prediction_row

from cumulant.core.servable import Servable
from cumulant.flows.monitoring.drift.sides import MonitorRequest
from cumulant.flows.monitoring.monitor import monitor
from cumulant.flows.monitoring.reference import ServedReference
from cumulant.monitoring.policy import DriftPolicy
from cumulant.ports.registry import ModelVersion
from cumulant.serving.prediction_log.storage.part_writer import LogPart

FIRST = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def write(folder, day, rows, version, *, shadow=False, model="m", lag=timedelta()):
    at = FIRST + day * DAY
    number = int(version) + 10 * shadow + 20 * (model != "m")
    part = LogPart(folder, (at.date() - date(1970, 1, 1)).days, "a", number)
    for place in range(rows):
        moment = at + timedelta(minutes=place) - lag
        row = prediction_row(
            id=f"r{number}-{place}",
            time=at,
            event_time=moment,
            model=model,
            version=version,
            shadow=shadow,
            request=json.dumps({"x": place % 7}),
            outputs=json.dumps({"p": 0.5}),
            worker=f"w.{number}",
            sequence=place + 1,
        )
        part.add(row, 300)
    part.close()


@pytest.fixture
def look(tmp_path):
    """Look at the log of a version at a moment, in days after the first."""
    moments = [FIRST - timedelta(days=1 + row % 20) for row in range(400)]
    frame = pl.DataFrame({"moment": moments, "x": [row % 7 for row in range(400)], "answer.p": [0.5] * 400})
    frame.write_parquet(tmp_path / "reference.parquet")

    def looked(version, at):
        asked = MonitorRequest(predictions=tmp_path / "log", reference=None, before=FIRST + at * DAY)
        served = ServedReference(
            version=ModelVersion(name="m", version=version, uri=f"m/{version}", run_id=None, created=FIRST),
            described=cast("Servable", None),  # drift reads nothing of it
            path=tmp_path / "reference.parquet",
            key=version,
            truth="y",
            weights={"x": 1.0},
        )
        found, again = (monitor(asked, DriftPolicy(), served=served, keep=tmp_path / "kept") for _ in range(2))
        assert found.volume == again.volume
        assert len(found.alarming_windows) == len(found.drift.windows)
        return found

    return looked


def fill(folder, days, shares, **how):
    """Days of about 100 requests, of which the two versions answer these shares."""
    rng = np.random.default_rng(7)
    for day in days:
        rows = int(rng.poisson(100))
        for version, share in zip("12", shares, strict=True):
            if int(rows * share):
                write(folder, day, int(rows * share), version, **how)


def test_a_canary_is_no_loss_of_rows(look, tmp_path):
    fill(tmp_path / "log", range(30), (1, 0))
    fill(tmp_path / "log", range(30, 34), (0.1, 0.9))
    found = look("1", 34.01)
    assert (found.volume, found.others > 0) == ((), True)


def test_a_new_champion_has_the_history_of_its_model(look, tmp_path):
    fill(tmp_path / "log", range(30), (1, 0))
    fill(tmp_path / "log", range(30, 34), (0, 1))
    assert look("2", 34.01).volume == ()
    fill(tmp_path / "log", range(34, 36), (0, 0.3))
    write(tmp_path / "log", 35, 90, "1", shadow=True)  # a mirrored copy and another model are no answers of this one
    write(tmp_path / "log", 35, 90, "2", model="other")
    found = look("2", 36.01)
    assert [(one.what, one.windows, one.active, one.alarmed) for one in found.volume] == [("few", 2, True, (4, 5))]


def test_an_outage_is_found_while_it_lasts(look, tmp_path):
    fill(tmp_path / "log", range(30), (1, 0))
    assert look("1", 30.5).volume == ()
    assert [(one.what, one.windows, one.active) for one in look("1", 32.01).volume] == [("gap", 2, True)]
    assert look("1", 29.5).volume == ()


def test_rows_that_are_logged_days_after_their_time_are_no_gap(look, tmp_path):
    fill(tmp_path / "log", range(30), (1, 0), lag=2 * DAY)
    assert look("1", 30.9).volume == ()
    assert [(one.what, one.windows, one.active) for one in look("1", 31.01).volume] == [("gap", 1, True)]


def test_a_day_of_old_rows_only_hides_no_gap_and_no_loss(look, tmp_path):
    fill(tmp_path / "log", (day for day in range(31) if day != 28), (1, 0))
    write(tmp_path / "log", 28, 20, "2", lag=15 * DAY)
    found = [(one.what, one.windows, one.active) for one in look("1", 33.01).volume]
    assert found == [("gap", 3, True)]
    fill(tmp_path / "log", [31, 32], (0.3, 0))
    found = [(one.what, one.windows, one.active) for one in look("1", 33.01).volume]
    assert found == [("gap", 1, False), ("few", 2, True)]
