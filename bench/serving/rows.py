"""A project's servable that looks up a window, and its twin that looks up nothing: 30 columns, the same booster."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
from payloads import post

from cumulant.core.expr import Call, Column
from cumulant.core.plan import FeaturePlan, FeatureSpec, Field, KnownAt, PredictAt, Source, Window
from cumulant.core.servable import Input
from cumulant.drivers.local.online import SqliteOnline
from cumulant.features.online.materialization import materialize
from cumulant.packaging.builder import build
from cumulant.training.model import FittedModel, ModelCard
from cumulant.training.payloads.payload import Boosters

_NUMBERS = tuple(f"x{n}" for n in range(28))
_ROW = (Field("when", "time"), Field("card", "str"), *(Field(name, "float") for name in _NUMBERS))
_HISTORY = (*_ROW[:2], Field("amount", "float"), Field("landed", "time"))
_DAY_US = 86_400_000_000
_SIMPLE = (
    FeatureSpec("hour", "int", expr=Call("hour", (Column("when"),), {"zone": "UTC"})),
    *(FeatureSpec(name, "float", expr=Column(name)) for name in _NUMBERS),
)
_WINDOW = FeatureSpec("spent", "float", window=Window("payments", ("card",), "mean", Column("amount"), 7 * _DAY_US))
_TWIN = FeatureSpec("spent", "float", expr=Column("x0"))
_CARDS, _START = 500, datetime(2026, 4, 1, tzinfo=UTC)
STATE = "bench-state"


def plan(*, lookup: bool) -> FeaturePlan:
    source = Source("payments", ("card", "when"), "when", (*_HISTORY, *_ROW[2:]), {"amount": KnownAt(column="landed")})
    specs = (*_SIMPLE, _WINDOW if lookup else _TWIN)
    return FeaturePlan("payments", PredictAt("when"), {"payments": source}, specs, _ROW)


def make(work: Path, text: str) -> tuple[Path, Path, str]:
    """The folders with and without lookup, and the URL of the state, which is made anew."""
    url = f"sqlite://{work / 'online.db'}"
    if not (work / "online.db").exists():
        store = SqliteOnline(url)
        materialize(plan(lookup=True), {"payments": _payments().lazy()}, store, table=STATE)
        store.close()
    folders = work / "with-lookup", work / "without-lookup"
    names = [spec.name for spec in plan(lookup=True).features]
    inputs = tuple(Input(name, "number") for name in names)
    card = ModelCard(kind="lightgbm", trainer="lightgbm", task="binary", classes=("false", "true"), inputs=inputs)
    sample = {name: [0.5, 1.5] for name in names} | {"hour": [1, 2]}
    for folder, lookup in zip(folders, (True, False), strict=True):
        if not folder.exists():
            model = FittedModel(card, Boosters((text,)))
            example = json.loads(requests(1)[0].partition(b"\r\n\r\n")[2])
            build(
                model,
                plan(lookup=lookup),
                name="rows",
                sample=sample,
                out=folder,
                lineage={"state": STATE},
                example=example,
            )
    return *folders, url


def _payments() -> pl.DataFrame:
    random, count = np.random.default_rng(5), 20_000
    when = [_START + timedelta(seconds=60 * k) for k in range(count)]
    columns = {
        "when": when,
        "card": [f"c{k}" for k in random.integers(0, _CARDS, count)],
        "amount": random.gamma(2.0, 30.0, count),
        "landed": [one + timedelta(hours=3) for one in when],
    }
    return pl.DataFrame(columns | {name: np.zeros(count) for name in _NUMBERS}).with_columns(
        pl.col("when", "landed").cast(pl.Datetime("us", "UTC"))
    )


def requests(count: int) -> list[bytes]:
    """Plain JSON rows of cards that have a history, a week after its end at the latest."""
    random, end = np.random.default_rng(6), _START + timedelta(seconds=60 * 20_000)
    found = []
    for number in range(count):
        row = {"when": (end + timedelta(seconds=number)).isoformat(), "card": f"c{number % _CARDS}"}
        row |= {name: round(float(value), 4) for name, value in zip(_NUMBERS, random.normal(size=28), strict=True)}
        found.append(post("/v1/models/rows/predict", json.dumps(row).encode()))
    return found
