"""Servables for the tests of serving, built as training and packaging build them."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import httpx

from cumulant.core.expr import Call, Column
from cumulant.core.plan import FeaturePlan, FeatureSpec, Field, KnownAt, PredictAt, Source, Window
from cumulant.core.servable import Input
from cumulant.features.online.hashed_keys import HashedKeys
from cumulant.features.online.materialization import materialize
from cumulant.packaging.builder import build
from cumulant.serving.http.limits import HttpLimits
from cumulant.serving.http.site import HttpSite
from cumulant.training.model import FittedModel, ModelCard
from cumulant.training.payloads.payload import LinearWeights

ROW = {"distance": 500.0, "sched_dep": "2013-04-01T18:00:00", "carrier": "UA", "tail": "N1"}
FIELDS = (
    Field("distance", "float", nullable=False),
    Field("sched_dep", "time", zone="America/New_York"),
    Field("carrier", "str"),
    Field("tail", "str", personal=True),
    Field("seats", "int"),
    Field("charter", "bool"),
    Field("day", "date"),
)
SOURCE = Source("flights", ("tail", "sched_dep"), "sched_dep", FIELDS)
HOUR = FeatureSpec("hour", "int", expr=Call("hour", (Column("sched_dep"),), {"zone": "America/New_York"}))
PLAIN = FeaturePlan(
    "flights",
    PredictAt("sched_dep"),
    {"flights": SOURCE},
    (
        FeatureSpec("distance", "float", expr=Column("distance")),
        HOUR,
        FeatureSpec("carrier", "str", expr=Column("carrier")),
        FeatureSpec("charter", "bool", expr=Column("charter")),
    ),
    FIELDS,
)
INPUTS = (
    Input("distance", "number"),
    Input("hour", "number"),
    Input("carrier", "category", ("AA", "UA")),
    Input("charter", "flag"),
)
SAMPLE = {"distance": [10.0, 900.0], "hour": [3, None], "carrier": ["AA", None], "charter": [True, None]}


#: of the hashes that stand for the personal key of `WINDOWED` in its state
SALT = b"k" * 32


def fill_state(store, plan, frames, *, table: str) -> None:
    """The state of a plan, as a project with this salt fills it."""
    hashed = HashedKeys(plan, SALT)
    materialize(hashed.plan, hashed.frames(frames), store, table=table)


def linear(outputs: int, link: str) -> LinearWeights:
    steps = [1 + k / 2 for k in range(outputs)]
    return LinearWeights(
        columns=(0, 1, 3),
        fill=(100.0, 12.0, 0.0),
        mean=(500.0, 12.0, 0.0),
        scale=(250.0, 6.0, 1.0),
        weight=tuple(tuple(weight * step for step in steps) for weight in (0.3, 0.7, -0.2)),
        missing=((0.0,) * outputs,) * 3,
        tables={2: tuple(tuple(value * step for step in steps) for value in (0.1, -0.4, 0.0))},
        bias=tuple(-0.1 * k for k in range(outputs)),
        link=link,
    )


def model_of(task: str) -> FittedModel:
    classes = {"binary": ("false", "true"), "multiclass": ("early", "on time", "late"), "regression": ()}[task]
    link = {"binary": "sigmoid", "multiclass": "softmax", "regression": "identity"}[task]
    threshold = 0.45 if task == "binary" else None
    card = ModelCard(kind="linear", trainer="linear", task=task, classes=classes, inputs=INPUTS, threshold=threshold)
    return FittedModel(card, linear(len(classes) if task == "multiclass" else 1, link))


def servable(out, task="binary", *, name="flight-late", plan=PLAIN, model=None, sample=None, **more):
    lineage = {"state": f"{name}-state"}
    build(
        model or model_of(task), plan, name=name, sample=sample or SAMPLE, out=out, lineage=lineage, example=ROW, **more
    )
    return out


HISTORY = (
    *FIELDS[:4],
    Field("late", "bool"),
    Field("landed", "time"),
)
WINDOWED = FeaturePlan(
    "flights",
    PredictAt("sched_dep", -int(timedelta(hours=2) / timedelta(microseconds=1))),
    {"flights": Source("flights", ("tail", "sched_dep"), "sched_dep", HISTORY, {"late": KnownAt(column="landed")})},
    (
        HOUR,
        FeatureSpec("late_1d", "float", window=Window("flights", ("carrier",), "mean", Column("late"), 86_400_000_000)),
    ),
    FIELDS[:4],
)
WINDOWED_INPUTS = (Input("hour", "number"), Input("late_1d", "number"))


def windowed_model() -> FittedModel:
    weights = LinearWeights(
        columns=(0, 1),
        fill=(0.0, -1.0),
        mean=(0.0, 0.0),
        scale=(24.0, 1.0),
        weight=((1.0,), (2.0,)),
        missing=((0.0,), (0.0,)),
        tables={},
        bias=(-1.0,),
        link="sigmoid",
    )
    card = ModelCard(kind="linear", trainer="linear", task="binary", classes=("false", "true"), inputs=WINDOWED_INPUTS)
    return FittedModel(card, weights)


def flights(count: int):
    """Past flights as a frame: one every 20 minutes, landing 3 hours later."""
    import polars as pl

    start = datetime(2013, 4, 1, tzinfo=UTC)
    rows = [
        {
            "distance": 100.0 + k,
            "sched_dep": start + timedelta(minutes=20 * k),
            "carrier": ("AA", "UA", None)[k % 3],
            "tail": f"N{k}",
            "late": (k * 7) % 5 < 2,
            "landed": start + timedelta(minutes=20 * k + 180),
        }
        for k in range(count)
    ]
    kinds = {
        "distance": pl.Float64,
        "sched_dep": pl.Datetime("us", "UTC"),
        "carrier": pl.String,
        "tail": pl.String,
        "late": pl.Boolean,
        "landed": pl.Datetime("us", "UTC"),
    }
    return pl.DataFrame(rows, schema=kinds)


def call(app, method, path, body=None, **settings):
    """One request to the application, over a connection as the server makes it."""
    content = body if not isinstance(body, (dict, list, str, int, float, type(None))) else json.dumps(body).encode()
    return asyncio.run(ask(app, method, path, content=None if body is None else content, **settings))


async def ask(app, method, path, **settings):
    loop = asyncio.get_running_loop()
    site = HttpSite(app, HttpLimits(body=app.body_limit))
    server = await loop.create_server(site, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with server, httpx.AsyncClient(base_url=f"http://{host}:{port}") as client:
        return await client.request(method, path, **settings)
