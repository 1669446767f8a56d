"""Incidents of the data, seeded through the flows that find them: the overview's text alone names model and cause."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))
sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "console"))
from console_browser import NO_BROWSER, Tab, browser, served
from e2e_support import run

from cumulant.project.file.loading import load

pytestmark = [pytest.mark.live, pytest.mark.slow, NO_BROWSER]

PROJECT = """\
version: 1
model: {name: shop}
data:
  visits:
    {path: visits.parquet, key: visit, event_time: began, table: {fresh: 30d}, rules: {pages: {min: 0}}, quarantine: 20%}
features: features.py
training: {target: bought, trainers: [naive, linear], time: null, trials: 1, folds: 2}
"""
FEATURES = """\
from cumulant.features import source

row = source("visits").columns("channel", "pages")
"""
#: a midnight, so that the windows of a day are the same at every hour
NOW = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
COUNT = 700
NAMES = ["--map", "id=id,time=at,prediction=said,score=p", "--version", "1"]


def visits(until, *, low=0, high=31, count=COUNT):
    """Visits of the days before `until`, one each 45 minutes."""
    dice = np.random.default_rng(7)
    pages = dice.integers(low, high, count)
    return pl.DataFrame(
        {
            "visit": [f"v{until:%m%d%H}{number:04d}" for number in range(count)],
            "began": [until - timedelta(minutes=45 * (count - number)) for number in range(count)],
            "channel": dice.choice(["mail", "search"], count),
            "pages": pages,
            "bought": dice.random(count) < 0.1 + 0.75 * (pages > 15),
        }
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A trained project, whose newest visit was last midnight."""
    folder = tmp_path_factory.mktemp("incidents") / "shop"
    folder.mkdir()
    (folder / "cumulant.yaml").write_text(PROJECT)
    (folder / "features.py").write_text(FEATURES)
    visits(NOW).write_parquet(folder / "visits.parquet")
    run(folder, "train")
    return folder


@pytest.fixture(scope="module")
def overview(folder):
    """The text of the overview of all projects, in a browser."""
    with load(folder, via="http") as project, served(project) as server, browser() as opened:
        tab = Tab(opened, server.url)

        def text():
            tab.open("/")
            return tab.page.locator("main").inner_text().lower()

        yield text
        tab.close()


@pytest.fixture
def delivered(folder):
    """Puts other visits in place of the source's, until the test ends."""

    def deliver(rows, *, code):
        rows.write_parquet(folder / "visits.parquet")
        run(folder, "data", "validate", codes=(code,))

    yield deliver
    deliver(visits(NOW), code=0)


def test_a_model_that_is_well_has_no_finding(overview):
    text = overview()
    assert "no problem in shop" in text or "nothing is wrong" in text
    assert "0 firing" in text


def test_stale_data(delivered, overview):
    delivered(visits(NOW - timedelta(days=50)), code=1)
    text = overview()
    assert "shop needs attention today" in text
    assert "newer data of visits were refused" in text
    assert "the newest began up to now is at most 30d old (it is 5" in text  # 50 or 51 days, by the hour


def test_data_that_break_their_contract(delivered, overview):
    delivered(visits(NOW, low=-40), code=1)
    text = overview()
    assert "shop needs attention today" in text
    assert "newer data of visits were refused" in text
    assert "pages:min" in text


def test_drift(folder, overview):
    rows = visits(NOW, low=12).drop("bought").rename({"visit": "id", "began": "at"})
    rows.select("channel", "pages").write_ndjson(folder / "rows.jsonl")
    run(folder, "predict", str(folder / "rows.jsonl"), "--model", "shop/1", "--out", str(folder / "said.jsonl"))
    said = pl.read_ndjson(folder / "said.jsonl").select(said="prediction", p="probability")
    pl.concat([rows, said], how="horizontal").write_csv(folder / "answers.csv")
    run(folder, "labels", "import-predictions", str(folder / "answers.csv"), *NAMES)
    run(folder, "monitor", "run", codes=(1,))
    text = overview()
    assert "shop" in text
    assert "drift: pages: " in text
    assert re.search(r"windows? alarm, up to .*: pages", text), text
