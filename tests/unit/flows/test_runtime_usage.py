from __future__ import annotations

import pytest

from cumulant.flows.data.column_usage import used_columns
from cumulant.project.file.loading import load

PROJECT = """\
version: 1
data:
  flights:
    path: flights.csv
    key: id
    event_time: at
    known_time: {landed: delay}
  weather:
    path: weather.csv
    event_time: hour
    rules: {place: {references: places.name}}
  places: {path: places.csv}
training:
  target: delay > 15
  predict_at: dep - 2h
  cost: {false_negative: price}
evaluation: {slices: [carrier], clusters: tail}
"""
FEATURES = """\
from cumulant.features import col, source

flights, weather = source("flights"), source("weather")
own = flights.columns("km")
wind = weather.as_of("origin", within="3h").columns("speed")
late = flights.by("dest").mean(col("delay") - col("slack"), window="7d")
fast = col("miles") / 2
"""


@pytest.fixture
def made(tmp_path):
    (tmp_path / "cumulant.yaml").write_text(PROJECT)
    (tmp_path / "features.py").write_text(FEATURES)
    return tmp_path


def test_every_use_of_a_column_is_found(made):
    assert used_columns(load(made)) == {
        "flights": {
            "id": "the key",
            "at": "the event time",
            "landed": "known_time",
            "delay": "known_time",
            "km": "feature km",
            "origin": "feature speed",
            "dest": "feature late_7d",
            "slack": "feature late_7d",
            "miles": "feature fast",
            "delay > 15": "the target",
            "dep": "predict_at",
            "price": "the cost",
            "carrier": "evaluation.slices",
            "tail": "evaluation.clusters",
        },
        "weather": {
            "hour": "the event time",
            "place": "the rules of weather",
            "speed": "feature speed",
            "origin": "feature speed",
        },
        "places": {"name": "the references of weather.place"},
    }


def test_a_row_of_no_named_source_may_be_any(made):
    (made / "features.py").write_text('from cumulant.features import col\n\nfast = col("miles") / 2\n')
    found = used_columns(load(made))
    assert found is not None
    assert {name for name, uses in found.items() if "miles" in uses} == {"flights", "weather", "places"}


@pytest.mark.parametrize("text", [None, "", "def (:", "1 / 0"])
def test_where_nothing_says_what_is_used_all_columns_are(made, text):
    file = made / "features.py"
    if text is None:
        file.unlink()
    else:
        file.write_text(text)
    assert used_columns(load(made)) is None
