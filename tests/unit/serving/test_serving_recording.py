"""State that moves while a server answers, and the log of what it answered: real processes, real files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import polars as pl
import pytest
from serving_models import ROW, SALT, WINDOWED, fill_state, flights, servable, windowed_model

from cumulant.core.errors import NotFoundError
from cumulant.drivers.local.online import SqliteOnline
from cumulant.features.offline.offline import compute
from cumulant.flows.serving.predictions import show_prediction
from cumulant.serving.prediction_log.storage.log_reader import find_gaps, find_predictions, recent_predictions
from cumulant.testing.log import folder_log

pytestmark = pytest.mark.slow

PREDICT = "/v1/models/flight-late/predict"
KNOWN = 150


@contextmanager
def serving(*arguments, host="127.0.0.1"):
    command = [sys.executable, "-W", "error", "-m", "cumulant.serving", *map(str, arguments), "--http", f"{host}:0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        yield process, json.loads(line)["url"]
    finally:
        process.terminate()
        process.wait(timeout=60)
        process.stdout.close()
        process.stderr.close()


@pytest.fixture(autouse=True)
def salt(monkeypatch):
    """Servers get the salt of the state."""
    monkeypatch.setenv("CUMULANT_SALT", SALT.decode())


@pytest.fixture
def place(tmp_path):
    """A servable and its state, which knows the first flights only."""
    url = f"sqlite://{tmp_path / 'online.db'}"
    store = SqliteOnline(url)
    fill_state(store, WINDOWED, {"flights": flights(KNOWN).lazy()}, table="flight-late-state")
    store.close()
    folder = servable(
        tmp_path / "servable", plan=WINDOWED, model=windowed_model(), sample={"hour": [1, 2], "late_1d": [0.5, None]}
    )
    return [folder, "--online", url]


def rows_of(frame, columns):
    found = frame.select(columns).to_dicts()
    return [{k: v.isoformat() if hasattr(v, "isoformat") else v for k, v in row.items()} for row in found]


REQUEST = ["distance", "sched_dep", "carrier", "tail"]


def ask(url, row):
    """On a connection of its own, so that any worker may get it."""
    return httpx.post(url + PREDICT, json=row, timeout=30)


def tell(url, rows):
    return httpx.post(url + "/v1/events", json={"source": "flights", "rows": rows}, timeout=30)


def test_a_replay_through_the_server_scores_as_training_did(place):
    """In the order of the world: each landing is told when it happens, each flight is asked two hours before."""
    whole = flights(KNOWN + 60)
    expected = windowed_model().predict_frame(compute(WINDOWED, {"flights": whole.lazy()}))
    later = whole[KNOWN:]
    moments = []
    for number, row in enumerate(later.iter_rows(named=True)):
        moments.append((row["sched_dep"] - timedelta(hours=2), 1, number))
        moments.append((row["landed"], 0, number))
    requests, landings = rows_of(later, REQUEST), rows_of(later, [*REQUEST, "late", "landed"])
    found = {}
    with serving(*place, "--workers", 2) as (process, url):
        for turn, (_, asked, number) in enumerate(sorted(moments)):
            if asked:
                answer = ask(url, requests[number])
                assert answer.status_code == 200, answer.text
                found[number] = answer.json()["probability"]
            else:
                told = tell(url, [landings[number]]).json()
                assert told["accepted"] == 1
            if turn == 60:
                children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
                os.kill(int(children[0]), signal.SIGKILL)
                time.sleep(0.2)
    assert [found[number] for number in range(60)] == pytest.approx(expected[KNOWN:], abs=1e-12)


def moved(row, days):
    """The row with its times so many days later."""
    times = {name: row[name] + timedelta(days=days) for name in ("sched_dep", "landed")}
    return rows_of(pl.DataFrame([row | times], schema_overrides={"tail": pl.String}), [*REQUEST, "late", "landed"])[0]


def test_rows_of_a_wrong_date_break_no_key(place, tmp_path):
    """Flights of 2013 and one of today, then some of 2093: flights of 2013 are answered as before them."""
    last, before = (flights(KNOWN).row(-place, named=True) for place in (2, 5))  # of one carrier
    today = (datetime.now(UTC) - last["landed"].replace(tzinfo=UTC)).days
    (tmp_path / "key").write_bytes(b"k" * 32)
    log = tmp_path / "log"
    with serving(*place, "--log", log, "--salt-file", tmp_path / "key") as (_, url):
        asked = rows_of(pl.DataFrame([last, before]), REQUEST)
        plain = [ask(url, one).json()["probability"] for one in asked]
        told = tell(url, [moved(last, today), *(moved(last, days) for days in range(29_200, 29_230))])
        assert told.json()["accepted"] == 31
        assert [ask(url, one).json()["probability"] for one in asked] == plain
        tell(url, [moved(last, today - 1)])
        late, counts = ask(url, asked[1]), httpx.get(f"{url}/metrics").text
    assert late.status_code == 200, "two newer flights made room, and the answer says so"
    assert "from which the history of its key is kept" in late.json()["warnings"][0]
    (row,) = find_predictions(folder_log(log), late.json()["request_id"])
    assert late.json()["incomplete"] == row.incomplete.split(",") == ["late_1d"]
    assert 'cumulant_incomplete_rows_total{model="flight-late",version="1"} 1' in counts


def test_rows_beyond_the_declared_skew_are_counted_and_not_stored(place):
    last = flights(KNOWN).row(-1, named=True)
    with serving(*place, "--clock-skew", "5m") as (_, url):
        told = tell(url, [moved(last, 29_200), moved(last, 1)]).json()
        ahead, now = ({name: moved(last, days)[name] for name in REQUEST} for days in (29_201, 2))
        answer = httpx.post(url + PREDICT, json=[now, ahead], timeout=30)
        assert "warnings" not in ask(url, now).json()
    assert answer.status_code == 200
    text = "dated further ahead than serving.clock_skew: answered, and not stored for later rows"
    assert f"row 2: {text}" in answer.json()["warnings"]
    assert (told["accepted"], told["future"]) == (1, 1)
    assert told["warnings"] == ["1 rows are dated further ahead than serving.clock_skew and are not stored"]


def test_what_was_acknowledged_outlives_everything_and_counts_once(place):
    whole = flights(KNOWN + 30)
    told = rows_of(whole[KNOWN:], [*REQUEST, "late", "landed"])
    with serving(*place) as (process, url):
        assert tell(url, told[:20]).json() == {"accepted": 20, "duplicates": 0, "unkeyed": 0}
        assert tell(url, told[10:25]).json() == {"accepted": 5, "duplicates": 10, "unkeyed": 0}
        process.kill()
        process.wait()
    row = ROW | {"sched_dep": (whole["landed"].max() + timedelta(hours=2)).isoformat()}
    last = pl.DataFrame(
        {
            "distance": [500.0],
            "sched_dep": [whole["landed"].max() + timedelta(hours=2)],
            "carrier": ["UA"],
            "tail": ["N1"],
            "late": [None],
            "landed": [None],
        },
        schema=whole.schema,
    )
    history = pl.concat([whole, last])
    expected = windowed_model().predict_frame(compute(WINDOWED, {"flights": history.lazy()}))[-1]
    with serving(*place, "--workers", 2) as (_, url):
        assert tell(url, told[20:]).json() == {"accepted": 5, "duplicates": 5, "unkeyed": 0}
        for _ in range(10):
            assert ask(url, row).json()["probability"] == pytest.approx(expected, abs=1e-12)


def test_events_that_do_not_fit_are_refused(place, tmp_path):
    with serving(*place) as (_, url):
        for body, words in (
            ({"source": "weather", "rows": []}, "weather"),
            ({"source": "flights", "rows": [{"tail": "N1"}]}, "sched_dep"),
            ({"source": "flights", "rows": [1]}, "object"),
            ({"rows": []}, "source"),
            ([], "read"),
        ):
            answer = httpx.post(url + "/v1/events", json=body)
            assert answer.status_code == 400, body
            assert words in answer.json()["error"]
        assert httpx.get(url + "/v1/events").status_code == 405
    with serving(servable(tmp_path / "plain")) as (_, url):
        assert "no" in tell(url, []).json()["error"]


def test_every_answer_is_in_the_log_and_personal_values_are_not(place, tmp_path):
    log = tmp_path / "log"
    (tmp_path / "key").write_bytes(b"k" * 32)
    row = ROW | {"sched_dep": "2013-04-02T18:00:00", "tail": "N-secret"}
    with serving(*place, "--workers", 2, "--log", log, "--salt-file", tmp_path / "key", "--region", "eu") as (_, url):
        for number in range(30):
            answer = httpx.post(url + PREDICT, json=row, headers={"x-request-id": f"r{number}"})
            assert answer.status_code == 200
        tensors = [
            {"name": "distance", "datatype": "FP64", "shape": [2], "data": [1.0, 2.0]},
            {"name": "sched_dep", "datatype": "BYTES", "shape": [2], "data": [row["sched_dep"]] * 2},
            {"name": "carrier", "datatype": "BYTES", "shape": [2], "data": ["UA", None]},
        ]
        assert httpx.post(f"{url}/v2/models/flight-late/infer", json={"id": "t", "inputs": tensors}).status_code == 200
        assert httpx.post(url + PREDICT, json={"distance": "x"}).status_code == 400
    found = recent_predictions(folder_log(log), limit=100)
    assert sorted({one.id for one in found}) == sorted([*(f"r{number}" for number in range(30)), "t"])
    assert find_gaps(folder_log(log)) == []
    (one,) = find_predictions(folder_log(log), "r7")
    assert (one.model, one.version, one.region, one.shadow) == ("flight-late", "1", "eu", False)
    assert json.loads(one.outputs)["probability"] == answer.json()["probability"]
    fields = json.loads(one.request)
    assert fields["carrier"] == "UA"
    assert fields["tail"] != "N-secret"
    assert one.event_time == 1364932800_000000  # two hours before six in the evening in New York
    assert one.latency_us > 0
    assert [json.loads(two.request)["distance"] for two in find_predictions(folder_log(log), "t")] == [1.0, 2.0]
    everything = b"".join(path.read_bytes() for path in log.rglob("*") if path.is_file())
    assert b"N-secret" not in everything


def test_an_empty_id_is_that_of_no_prediction(tmp_path):
    with serving(servable(tmp_path / "model"), "--log", tmp_path / "log") as (_, url):
        name = httpx.post(url + PREDICT, json=ROW).json()["request_id"]
    assert [one.id for one in show_prediction(folder_log(tmp_path / "log"), name)] == [name]
    with pytest.raises(NotFoundError, match='the id ""'):
        show_prediction(folder_log(tmp_path / "log"), "")
