"""A small project for the end-to-end tests: orders of a shop, and which of them come back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

PROJECT = """\
version: 1
model: {name: returns, owner: shop@example.com, purpose: Find orders that come back}
data:
  orders:
    path: data/orders/*.parquet
    key: order
    event_time: ordered
    known_time: {3d: returned}
    rules:
      amount: {min: 0}
    quarantine: 5%
  prices:
    path: data/prices.csv
    key: [kind, changed]
    event_time: {column: changed, zone: UTC}
features: features.py
training:
  target: returned
  trials: 3
  time: null
  folds: 2
  ensemble: 2
  cost: {false_negative: 3, false_positive: 1}
evaluation:
  slices: [kind]
  gate: {log_loss: {margin: 0.01}}
"""

FEATURES = '''\
"""What is known of an order when it is placed."""

from cumulant.features import col, source

orders, prices = source("orders"), source("prices")

row = orders.columns("kind", "amount", "express")
hour = col("ordered").dt.hour("UTC")
price = prices.as_of("kind", within="30d").columns("price")
kind_back = orders.by("kind").mean("returned", window=["7d", "21d"])
customer_n = orders.by("customer").count(window="21d")
'''

KINDS = ("coat", "hat", "shoe", "sock")
START = datetime(2024, 1, 1, tzinfo=UTC)


def orders(rows: int = 4000, *, seed: int = 1) -> pl.DataFrame:
    """[rows] orders over 60 days; boosters see what a line cannot. One in a hundred has a negative amount, which the contract refuses."""
    rng = np.random.default_rng(seed)
    seconds = np.sort(rng.integers(0, 60 * 86_400, rows))
    kind = rng.integers(0, len(KINDS), rows)
    amount = np.round(rng.gamma(2.0, 30.0, rows), 2)
    express = rng.random(rows) < 0.3
    chance = 1 / (1 + np.exp(-(-3.0 + 3.0 * ((kind % 2 == 1) == express) + 0.02 * np.abs(amount - 60))))
    returned = rng.random(rows) < chance
    amount[rng.random(rows) < 0.01] *= -1
    return pl.DataFrame(
        {
            "order": np.arange(rows, dtype=np.int64),
            "ordered": pl.Series(seconds * 1_000_000 + int(START.timestamp()) * 1_000_000).cast(
                pl.Datetime("us", "UTC")
            ),
            "customer": [f"c{number:03d}" for number in rng.integers(0, 200, rows)],
            "kind": [KINDS[number] for number in kind],
            "amount": amount,
            "express": express,
            "returned": returned,
        }
    )


def prices() -> pl.DataFrame:
    """A price of each kind, changed every second week."""
    days = range(0, 60, 14)
    return pl.DataFrame(
        [
            {"kind": kind, "changed": f"{START + timedelta(days=day):%Y-%m-%d %H:%M:%S}", "price": 10.0 * place + day}
            for day in days
            for place, kind in enumerate(KINDS)
        ]
    )


def make(folder: Path, *, rows: int = 4000, project: str = PROJECT, features: str = FEATURES) -> Path:
    """Write the project; its orders lie in two files."""
    (folder / "data" / "orders").mkdir(parents=True)
    table = orders(rows)
    half = rows // 2
    table[:half].write_parquet(folder / "data" / "orders" / "a.parquet")
    table[half:].write_parquet(folder / "data" / "orders" / "b.parquet")
    prices().write_csv(folder / "data" / "prices.csv")
    (folder / "cumulant.yaml").write_text(project)
    (folder / "features.py").write_text(features)
    return folder
