"""Corrections and deletions that are posted to a server: a real process, killed between, on a real file."""

from __future__ import annotations

import os
import signal
from datetime import UTC, datetime, timedelta

import msgspec
import polars as pl
import pytest
from serving_models import SALT, WINDOWED, fill_state, flights, servable, windowed_model
from test_serving_recording import REQUEST, ask, rows_of, serving, tell

from cumulant.core.plan import Corrections, Field
from cumulant.drivers.local.online import SqliteOnline
from cumulant.features.offline.offline import compute

KNOWN = 60
CORRECTIONS = Corrections((Field("landed", "time"),), Field("op", "str"), ("D",))
PLAN = msgspec.structs.replace(
    WINDOWED, sources={"flights": msgspec.structs.replace(WINDOWED.sources["flights"], corrections=CORRECTIONS)}
)
COLUMNS = [*REQUEST, "late", "landed"]


@pytest.fixture(autouse=True)
def salt(monkeypatch):
    """Servers get the salt of the state."""
    monkeypatch.setenv("CUMULANT_SALT", SALT.decode())


@pytest.fixture
def place(tmp_path):
    url = f"sqlite://{tmp_path / 'online.db'}"
    store = SqliteOnline(url)
    fill_state(store, PLAN, {"flights": flights(KNOWN).lazy()}, table="flight-late-state")
    store.close()
    folder = servable(
        tmp_path / "servable", plan=PLAN, model=windowed_model(), sample={"hour": [1, 2], "late_1d": [0.5, None]}
    )
    return [folder, "--online", url]


def test_served_answers_follow_posted_corrections_and_deletions_over_kills(place):
    whole = flights(KNOWN)
    # flights of one carrier: one lands later than was told, one was not late, and one never took place
    moved, righted, gone = (whole.row(KNOWN - place, named=True) for place in (3, 6, 9))
    moved |= {"landed": moved["landed"] + timedelta(minutes=10), "late": not moved["late"]}
    righted |= {"landed": righted["landed"] + timedelta(minutes=1), "late": not righted["late"]}
    changed = pl.DataFrame([moved, righted], schema=whole.schema)
    corrected = whole.update(changed, on=["tail", "sched_dep"]).filter(pl.col("tail") != gone["tail"])
    asked = flights(KNOWN + 30).filter(pl.col("carrier") == moved["carrier"])[-2:]
    expected = windowed_model().predict_frame(compute(PLAN, {"flights": corrected.lazy()}, rows=asked.select(REQUEST)))
    deletion = rows_of(pl.DataFrame([gone], schema=whole.schema), ["tail", "sched_dep"])[0] | {"op": "D"}
    posted = rows_of(changed, COLUMNS)
    with serving(*place) as (process, url):
        before = [ask(url, row).json()["probability"] for row in rows_of(asked, REQUEST)]
        assert tell(url, posted).json() == {"accepted": 2, "duplicates": 0, "unkeyed": 0}
        process.send_signal(signal.SIGKILL)
    with serving(*place) as (process, url):
        old = rows_of(whole.filter(pl.col("tail") == moved["tail"]), COLUMNS)
        # what was told again, a version that is older than the one in force, and a deletion
        assert tell(url, [*posted, *old]).json() == {"accepted": 0, "duplicates": 3, "unkeyed": 0}
        assert tell(url, [deletion]).json()["accepted"] == 1
        os.kill(process.pid, signal.SIGKILL)
    with serving(*place) as (_, url):
        found = [ask(url, row).json()["probability"] for row in rows_of(asked, REQUEST)]
    assert found == pytest.approx(expected, abs=1e-12)
    assert found != before


def test_a_correction_before_its_known_time_is_refused_with_what_to_send(place):
    whole = flights(KNOWN)
    known = (datetime.now(UTC) + timedelta(hours=1)).replace(tzinfo=None)
    moved = whole.row(KNOWN - 3, named=True)
    moved |= {"landed": known.replace(tzinfo=moved["landed"].tzinfo), "late": not moved["late"]}
    posted = rows_of(pl.DataFrame([moved], schema=whole.schema), COLUMNS)
    asked = rows_of(flights(KNOWN + 30).filter(pl.col("carrier") == moved["carrier"])[-2:], REQUEST)
    with serving(*place) as (_, url):
        before = [ask(url, row).json()["probability"] for row in asked]
        answer = tell(url, posted).json()
        assert (answer["accepted"], answer["duplicates"], answer["early"]) == (0, 0, 1)
        assert "post them again once that time has come" in answer["warnings"][0]
        assert [ask(url, row).json()["probability"] for row in asked] == before


def test_a_row_that_is_scored_corrects_nothing(place):
    whole = flights(KNOWN)
    asked = rows_of(flights(KNOWN + 30)[-1:], REQUEST)[0]
    stored = rows_of(whole[KNOWN - 3 :], REQUEST)
    with serving(*place) as (_, url):
        before = ask(url, asked | {"carrier": "UA"}).json()["probability"]
        for row in stored:
            assert ask(url, row | {"carrier": "UA"}).status_code == 200
        assert ask(url, asked | {"carrier": "UA", "tail": "other"}).json()["probability"] == before
