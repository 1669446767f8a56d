from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import cumulant


@pytest.fixture(scope="session")
def visits() -> pl.DataFrame:
    """Visits of a shop, and whether they ended in a purchase: a small, learnable table."""
    dice, count = np.random.default_rng(7), 900
    channel, pages = dice.choice(["mail", "search", "shop"], count), dice.integers(1, 31, count)
    likely = 0.1 + 0.75 * (pages > 15) * (channel != "mail")
    begin = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    return pl.DataFrame(
        {
            "visit": [f"v{number:04d}" for number in range(count)],
            "began": [begin + dt.timedelta(minutes=45 * number) for number in range(count)],
            "channel": channel,
            "pages": pages,
            "email": [f"person{number % 300}@example.com" for number in range(count)],
            "bought": dice.random(count) < likely,
        }
    )


@pytest.fixture(scope="session")
def project(visits: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Iterator[cumulant.Project]:
    folder = tmp_path_factory.mktemp("projects")
    with cumulant.new(visits, target="bought", name="shop", time="began", key="visit", directory=folder) as made:
        yield made


@pytest.fixture(scope="session")
def trained(project: cumulant.Project) -> Any:
    return project.train(quick=True)


@pytest.fixture
def tour() -> Path:
    return Path(__file__).parents[3] / "docs" / "tutorials" / "tour.ipynb"
