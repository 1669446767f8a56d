"""A small trained project whose names and values are hostile, made once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
from console_support import ADA, HOSTILE

from cumulant.flows.training.train import train
from cumulant.project.file.loading import load

_PROJECT = """\
version: 1
model: {{name: shop, owner: {hostile}, purpose: {hostile}}}
data:
  visits:
    path: visits.parquet
    key: visit
    event_time: began
    personal: [email]
    rules: {{pages: {{min: 1}}}}
    quarantine: 20%
features: features.py
training: {{target: bought, trainers: [naive, linear], time: null, trials: 1, folds: 2}}
evaluation: {{slices: [channel]}}
"""
_FEATURES = """\
from cumulant.features import source

row = source("visits").columns("channel", "pages")
"""


def visits(count: int = 700) -> pl.DataFrame:
    dice = np.random.default_rng(7)
    channel, pages = dice.choice(["mail", "search", HOSTILE], count), dice.integers(0, 31, count)
    likely = 0.1 + 0.75 * (pages > 15) * (channel != "mail")
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    return pl.DataFrame(
        {
            "visit": [f"v{number:04d}" for number in range(count)],
            "began": [begin + timedelta(minutes=45 * number) for number in range(count)],
            "channel": channel,
            "pages": pages,
            "email": [f"person{number % 300}@example.com" for number in range(count)],
            "bought": dice.random(count) < likely,
        }
    )


def make_trained(folder: Path) -> Path:
    quoted = "'" + HOSTILE.replace("'", "''") + "'"
    folder.mkdir(parents=True)
    (folder / "cumulant.yaml").write_text(_PROJECT.format(hostile=quoted))
    (folder / "features.py").write_text(_FEATURES)
    visits().write_parquet(folder / "visits.parquet")
    with load(folder) as project:
        train(project, principal=ADA)
    return folder
