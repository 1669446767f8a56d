"""Small worlds of awkward rows: the frames that engines read, and what a plain reader of the same rows understands.

A world has one era (a change of clocks, the ends of a time unit, years far away), one form of its times (unit, naive
in a zone or not), and values on which arithmetic goes wrong: ties, duplicate and null keys, -0.0, NaN, infinities,
decimals, constants near 1e9, whole numbers whose sums do not fit 64 bits.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl

from cumulant.core.plan import FeaturePlan, Field, KnownAt, PredictAt, Source
from cumulant.core.units import to_micros
from cumulant.features.definition.definitions import source
from cumulant.features.definition.loading import collect
from cumulant.features.definition.plan import compile_plan

Row = dict[str, Any]
HALF = timedelta(minutes=30)
ERAS = {
    "1900": datetime(1900, 3, 1),
    "epoch": datetime(1970, 1, 1),
    "spring": datetime(2013, 3, 31, 2),
    "autumn": datetime(2013, 10, 27, 2),
    "2100": datetime(2100, 3, 28, 2),
    "2150": datetime(2150, 10, 25, 2),
    "2262": datetime(2262, 4, 10, 6),
}
#: unit of stored times, their zone in the frame (None: naive), the zone in which naive ones are read
FORMS = [
    ("us", "UTC", None),
    ("ms", "UTC", None),
    ("ns", "Asia/Kathmandu", None),
    ("us", None, "Europe/Paris"),
    ("ns", None, "America/New_York"),
    ("ms", None, "Australia/Lord_Howe"),
    ("us", None, None),
]
CARDS = ["a", "é", "e\u0301", "日本", "\U0001f0a1", "", None]
SHOPS = [1, -(2**63), 2**63 - 1, None]
AMOUNTS = [
    0.0,
    -0.0,
    0.1,
    -0.3,
    1e12,
    -1e12,
    5e-324,
    1e300,
    -1e300,
    1.7e308,
    1e16,
    1.0,
    math.nan,
    math.inf,
    -math.inf,
    None,
    1e9,
    1e9 + 1e-3,
    1e9 - 1e-3,
    1e9 + 2e-3,
]
ITEMS = [0, 1, -3, 2**62, 2**63 - 1, -(2**63), 17 * 10**17, -(17 * 10**17), None]
PRICES = [
    Decimal("0.1"),
    Decimal("-0.2"),
    Decimal("1234567890.1234567891"),
    Decimal("1e9"),
    Decimal("1000000000.0000000001"),
    None,
]
WORDS = ["x", "", "É", "E\u0301", "𝔘", None]
TIMES = ("at", "done", "asked")
PLAIN: dict[str, Any] = {
    "id": pl.Int64,
    "card": pl.String,
    "shop": pl.Int64,
    "day": pl.Date,
    "amount": pl.Float64,
    "items": pl.Int64,
    "price": pl.Decimal(38, 10),
    "label": pl.Boolean,
    "word": pl.String,
}
DTYPES: dict[str, Any] = {
    "id": "int",
    "card": "str",
    "shop": "int",
    "day": "date",
    "amount": "float",
    "items": "int",
    "price": "float",
    "label": "bool",
    "word": "str",
    "at": "time",
    "done": "time",
    "asked": "time",
}


def _definitions(windows: list[str], order: Any) -> dict[str, Any]:
    tx, other = source("tx"), source("other")
    card, pair, day = tx.by("card"), tx.by("card", "shop"), tx.by("day")
    numbers = ("sum", "mean", "min", "max", "std", "distinct", "last", "count")
    defined: dict[str, Any] = {
        f"{value}_{agg}": getattr(card, agg)(value, window=windows)
        for agg in numbers
        for value in ("amount", "items", "price")
    }
    return defined | {
        "n": card.count(window=windows),
        "words": card.distinct("word", window=windows),
        "word": pair.last("word", window=windows, order=order),
        "rate": day.mean("label", window=windows),
        "late": pair.mean("items", window=windows),
        "first": pair.min("at", window=windows),
        "other_late": other.by("card").sum("price", window=windows),
        "near": other.as_of("card", "shop", within="2h", order=order).columns("amount", "word"),
        "ever": other.as_of("card", order=order).columns("items", "label"),
    }


@dataclass
class World:
    """Rows in source order: as frames hold them (`raw`), and as a plain reader understands them (`rows`)."""

    seed: int
    form: tuple[str, str | None, str | None]
    plans: tuple[FeaturePlan, FeaturePlan]
    raw: dict[str, list[Row]]
    rows: dict[str, list[Row]]

    def frame(self, source: str, at: list[int] | None = None) -> pl.DataFrame:
        rows = [self.raw[source][i] for i in (range(len(self.raw[source])) if at is None else at)]
        unit, shown, _ = self.form
        times = pl.Datetime(unit, shown)  # type: ignore[arg-type]
        frame = pl.DataFrame(rows, schema=PLAIN | dict.fromkeys(TIMES, pl.Int64), orient="row", strict=False)
        return frame.with_columns(pl.col(TIMES).cast(times))

    def frames(self) -> dict[str, pl.DataFrame]:
        return {name: self.frame(name) for name in ("tx", "other")}

    def snapshot(self) -> tuple[dict[str, pl.DataFrame], dict[str, list[Row]]]:
        """The frames of accepted rows, and the rows."""
        places = {name: self.accepted(name) for name in ("tx", "other")}
        frames = {name: self.frame(name, at) for name, at in places.items()}
        return frames, {name: [self.rows[name][i] for i in at] for name, at in places.items()}

    def accepted(self, source: str) -> list[int]:
        """The rows that a snapshot would hold: of repeated keys the first."""
        keys = [row["id"] for row in self.raw[source]]
        return [at for at, key in enumerate(keys) if key is None or keys.index(key) == at]

    def sent(self, source: str, at: int) -> Row:
        """A row as a caller sends it: as JSON holds it."""
        raw, row = self.raw[source][at], self.rows[source][at]
        return {name: _sent(raw[f"{name} sent"] if name in TIMES else row[name]) for name in DTYPES}


def _sent(value: Any) -> Any:
    return value.isoformat() if isinstance(value, (date, datetime)) else value


def world(seed: int, rows: int = 24) -> World:
    """The world of a seed: eras and forms in turn, all else by chance."""
    rng = random.Random(seed)
    era, form = list(ERAS.values())[seed % len(ERAS)], FORMS[(seed // len(ERAS) + seed) % len(FORMS)]
    raw: dict[str, list[Row]] = {"tx": [], "other": [], "new": []}
    for name, many in raw.items():
        many += [_row(rng, era, form, i) for i in range(rows if name != "new" else rows // 3)]
    # callers send rows that the history holds, too
    raw["new"] += rng.sample(raw["tx"], 3)
    plain = {name: [_understood(row) for row in many] for name, many in raw.items()}
    return World(seed, form, _plans(rng, form[2], "event_time" if seed % 3 == 1 else "known_time"), raw, plain)


def _plans(rng: random.Random, zone: str | None, order: str) -> tuple[FeaturePlan, FeaturePlan]:
    fields = tuple(Field(name, dtype, zone=zone if dtype == "time" else None) for name, dtype in DTYPES.items())
    known = {
        "items": KnownAt(column="done"),
        "label": KnownAt(delay_us=to_micros(ERAS["epoch"] + rng.choice([0, 2]) * HALF)),
    }
    if order == "event_time":
        known["word"] = KnownAt(column="done", delay_us=3_600_000_000)
    sources = {name: Source(name, ("id",), "at", fields, known) for name in ("tx", "other")}
    column, offset = rng.choice([("at", 0), ("at", -2), ("at", 2), ("asked", 1)])
    at = PredictAt(column, offset * HALF // timedelta(microseconds=1))
    first, second = _definitions(["1h", "3h", "2d"], order), _definitions(["2h", "1d"], order)
    return (
        compile_plan(collect(first), sources, entity="tx", predict_at=at),
        compile_plan(collect(second), sources, entity="tx", predict_at=at),
    )


def _row(rng: random.Random, era: datetime, form: tuple[str, str | None, str | None], number: int) -> Row:
    row: Row = {
        "id": None if rng.random() < 0.2 else number - (rng.random() < 0.1),
        "card": rng.choice(CARDS if rng.random() < 0.5 else CARDS[:2]),
        "shop": rng.choice(SHOPS if rng.random() < 0.5 else SHOPS[:1]),
        "day": rng.choice([date(1969, 12, 31), date(2024, 2, 29), None]),
        "amount": rng.choice(AMOUNTS if rng.random() < 0.6 else AMOUNTS[16:]),
        "items": rng.choice(ITEMS),
        "price": rng.choice(PRICES),
        "label": rng.choice([True, False, None]),
        "word": rng.choice(WORDS),
    }
    for name in TIMES:
        local = None if rng.random() < 0.06 else era + rng.randint(-20, 20) * HALF
        row |= {name: None, f"{name} sent": None, f"{name} utc": None}
        if local is not None:
            row |= _time(rng, name, local, form)
    return row


def _time(rng: random.Random, name: str, local: datetime, form: tuple[str, str | None, str | None]) -> Row:
    """A time as it is stored, as it is sent, and what it means."""
    unit, shown, zone = form
    if unit != "ms":
        local += rng.choice([0, 0, 0, 1, -1]) * timedelta(microseconds=1)
    micros = to_micros(local)
    stored = {"ms": micros // 1000, "us": micros, "ns": micros * 1000 + rng.choice([0, 1, 999])}[unit]
    if shown is not None or zone is None:
        return {name: stored, f"{name} sent": local.replace(tzinfo=UTC), f"{name} utc": local.replace(tzinfo=UTC)}
    there = ZoneInfo(zone)
    moment: datetime | None = local.replace(tzinfo=there).astimezone(UTC)
    assert moment is not None
    if moment.astimezone(there).replace(tzinfo=None) != local:
        moment = None  # clocks never showed it
    return {name: stored, f"{name} sent": local, f"{name} utc": moment}


def _understood(raw: Row) -> Row:
    row = {name: raw[f"{name} utc"] if name in TIMES else raw[name] for name in DTYPES}
    if isinstance(row["amount"], float) and not math.isfinite(row["amount"]):
        row["amount"] = None
    if row["price"] is not None:
        row["price"] = float(row["price"])
    return row
