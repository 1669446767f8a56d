"""Keys of personal columns stand in online state as keyed hashes, with the features of the values themselves."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from cumulant.core.errors import UsageError
from cumulant.core.expr import Column
from cumulant.core.masking import mask
from cumulant.core.plan import FeaturePlan, FeatureSpec, Field, PredictAt, Source, Window
from cumulant.features.online.hashed_keys import HashedKeys, hashed_columns
from cumulant.features.online.materialization import materialize
from cumulant.features.online.online import OnlineFeatures
from cumulant.testing.online import MemoryOnline

SALT = b"s" * 32
NOW = datetime(2026, 3, 1, tzinfo=UTC)
DAY = 86_400_000_000


def plan(key_type="str", *, personal=True, reads=False, event_key="id"):
    fields = (
        Field("id", "str"),
        Field("at", "time"),
        Field("who", key_type, personal=personal),
        Field("pages", "int"),
    )
    value = Column("who") if reads else Column("pages")
    features = (
        FeatureSpec("count", "int", window=Window("visits", ("who",), "count", None, 7 * DAY)),
        FeatureSpec("seen", "int", window=Window("visits", ("who",), "distinct", value, 7 * DAY)),
    )
    source = Source("visits", (event_key,), "at", fields)
    return FeaturePlan("visits", PredictAt("at"), {"visits": source}, features, fields)


def visits(values):
    return pl.DataFrame(
        {
            "id": [f"v{number}" for number in range(len(values))],
            "at": [NOW - timedelta(hours=len(values) - number) for number in range(len(values))],
            "who": values,
            "pages": [number % 5 for number in range(len(values))],
        }
    ).with_columns(pl.col("at").cast(pl.Datetime("us", "UTC")))


def filled(features, frame, salt):
    hashed, store = HashedKeys(features, salt), MemoryOnline()
    materialize(hashed.plan, hashed.frames({"visits": frame.lazy()}), store, table="t")
    return hashed, store, OnlineFeatures(hashed.plan, store, "t")


VALUES = {
    "str": ["ann", "bob", None, "ann", "ann", "cid"],
    "int": [17, 2**60, None, 17, 17, 3],
    "date": [NOW.date(), NOW.date() - timedelta(days=9), None, NOW.date(), NOW.date(), NOW.date() - timedelta(days=1)],
    "time": [NOW, NOW - timedelta(days=9), None, NOW, NOW, NOW - timedelta(microseconds=1)],
    "bool": [True, False, None, True, True, False],
    "float": [1.5, 0.1, None, 1.5, 1.5, 3.0],
}


@pytest.mark.parametrize("kind", VALUES)
def test_features_are_those_of_the_values(kind):
    frame, features = visits(VALUES[kind]), plan(kind)
    if kind == "time":
        frame = frame.with_columns(pl.col("who").cast(pl.Datetime("us", "UTC")))
    hashed, _, online = filled(features, frame, SALT)
    _, _, plain = filled(plan(kind, personal=False), frame, b"")
    rows = [{"id": f"n{place}", "at": NOW, "who": who, "pages": 1} for place, who in enumerate(VALUES[kind])]
    expected = plain.vectors(rows).columns
    assert online.vectors(hashed.requests(rows)).columns == expected
    assert expected["count"][0] == 4  # three, and the row itself

    posted = [{"id": "p1", "at": NOW - timedelta(hours=1), "who": VALUES[kind][0], "pages": 9}]
    assert online.advance("visits", hashed.rows("visits", posted)).accepted == 1
    assert plain.advance("visits", posted).accepted == 1
    assert online.vectors(hashed.requests(rows)).columns == plain.vectors(rows).columns


def test_nothing_that_is_stored_holds_the_value():
    frame = visits(["ann@example.com"] * 4)
    hashed, store, online = filled(plan(), frame, SALT)
    row = {"id": "p1", "at": NOW, "who": "ann@example.com", "pages": 9}
    online.advance("visits", hashed.rows("visits", [row]))
    stored = repr(vars(store)).encode()
    assert b"ann@example.com" not in stored
    assert mask("ann@example.com", SALT).encode() in stored
    assert len(mask("ann@example.com", SALT)) == 1 + 128 // 4


def test_another_salt_gives_other_keys():
    frame = visits(["ann"] * 4)
    _, _, online = filled(plan(), frame, SALT)
    other = HashedKeys(plan(), b"t" * 32)
    row = {"id": "n", "at": NOW, "who": "ann", "pages": 1}
    assert online.vectors(other.requests([row])).columns["count"] == [1]  # the row itself alone


def test_a_column_that_a_feature_reads_stays():
    assert hashed_columns(plan()) == {"who"}
    assert hashed_columns(plan(personal=False)) == set()
    assert hashed_columns(plan(reads=True)) == set()
    features = plan(personal=False)
    assert HashedKeys(features, b"").plan is features


def test_a_personal_key_of_rows_is_hashed_too():
    hashed = HashedKeys(plan(event_key="who"), SALT)
    (row,) = hashed.rows("visits", [{"who": "ann", "pages": 1}])
    assert row == {"who": mask("ann", SALT), "pages": 1}


def test_without_a_salt_there_are_no_such_keys():
    with pytest.raises(UsageError, match="by keyed hashes of who, and no salt is given"):
        HashedKeys(plan(), b"")
