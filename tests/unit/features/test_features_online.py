"""The stored state: what is kept, what is refused, how a refill is noticed, and what the server imports."""

from __future__ import annotations

import gc
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cumulant.core.errors import EngineUnavailableError, IntegrityError, RequestError
from cumulant.core.plan import FeaturePlan, Field, KnownAt, PredictAt, Source
from cumulant.features.definition.definitions import source
from cumulant.features.definition.functions import col
from cumulant.features.definition.loading import collect
from cumulant.features.definition.plan import compile_plan
from cumulant.features.online.materialization import materialize
from cumulant.features.online.online import OnlineFeatures
from cumulant.features.online.requests import RequestReader
from cumulant.features.online.state import STATE_KEY, decode_state, encode
from cumulant.testing.online import MemoryOnline

START = datetime(2013, 4, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
TX = Source(
    "tx",
    ("id",),
    "at",
    (
        Field("id", "int"),
        Field("card", "str"),
        Field("at", "time"),
        Field("amount", "float"),
        Field("day", "date"),
        Field("label", "bool"),
    ),
    {"label": KnownAt(delay_us=HOUR // timedelta(microseconds=1))},
)
tx = source("tx")
card = tx.by("card")


def make_plan(**features: Any) -> FeaturePlan:
    return compile_plan(collect(features), {"tx": TX}, entity="tx", predict_at=None)


def history(hours: list[float], **columns: Any) -> pl.DataFrame:
    count = len(hours)
    return pl.DataFrame(
        {
            "id": list(range(count)),
            "card": ["a"] * count,
            "at": [START + h * HOUR for h in hours],
            "amount": [float(i + 1) for i in range(count)],
            "day": [date(2013, 4, 1)] * count,
            "label": [True] * count,
            **columns,
        },
        schema_overrides={"at": pl.Datetime("us", "UTC")},
    )


def ask(hour: float, **fields: Any) -> dict[str, Any]:
    return {"id": 99, "card": "a", "at": START + hour * HOUR, "amount": 10.0, **fields}


def served(plan: FeaturePlan, frame: pl.DataFrame, *rows: dict[str, Any], **options: Any) -> Any:
    store = MemoryOnline()
    materialize(plan, {"tx": frame}, store, table="t", **options)
    return OnlineFeatures(plan, store, "t").vectors(rows)


def test_rows_answer_at_their_own_moment_with_the_age_of_what_they_used() -> None:
    plan = make_plan(
        n=card.count(window="2h"), mean=card.mean("amount", window="2h"), label=card.mean("label", window="1d")
    )
    found = served(plan, history([0, 1, 2]), ask(1.5), ask(2), ask(1.5, card="b"), ask(1.5, card=None), {"card": "a"})
    assert found.columns["n_2h"] == [3, 3, 1, None, None]
    assert found.columns["mean_2h"] == [pytest.approx(13 / 3), 5.0, 10.0, None, None]
    assert found.columns["label_1d"] == [1.0, 1.0, None, None, None]
    assert found.age == [1800.0, 0.0, None, None, None]


@pytest.mark.parametrize("together_from", [1, 1000])
def test_a_row_without_a_value_adds_none_where_all_stored_rows_have_one(together_from: int) -> None:
    features = {
        "sum": card.sum("amount", window="1d"),
        "mean": card.mean("amount", window="1d"),
        "n": card.count("amount", window="1d"),
        "most": card.max("amount", window="1d"),
    }
    store, plan = MemoryOnline(), make_plan(**features)
    materialize(plan, {"tx": history([0, 1])}, store, table="t")
    found = OnlineFeatures(plan, store, "t", together_from=together_from).vectors(
        [ask(2, amount=None), ask(2, amount=None, card="b")]
    )
    assert found.columns == {"sum_1d": [3.0, None], "mean_1d": [1.5, None], "n_1d": [2, 0], "most_1d": [2.0, None]}


def test_features_of_expressions_and_of_every_type_come_out_as_python_values() -> None:
    plan = make_plan(
        row=tx.columns("amount", "day"),
        at=tx.by("card").max("at", window="1d"),
        seen=card.last("label", window="1d"),
        twice=col("amount") * 2,
        flag=card.last("label", window="1d") | (col("amount") > 99),
    )
    found = served(plan, history([0, 1]), ask(4, day="2013-04-01"))
    assert {name: values[0] for name, values in found.columns.items()} == {
        "amount": 10.0,
        "day": date(2013, 4, 1),
        "at_1d": START + 4 * HOUR,
        "seen_1d": True,
        "twice": 20.0,
        "flag": True,
    }


def test_only_what_can_be_seen_is_stored() -> None:
    plan = make_plan(n=card.count(window="2h"), ever=tx.as_of("card").columns("label"))
    store = MemoryOnline()
    stored = materialize(plan, {"tx": history([0, 1, 2, 3, 4, 9])}, store, table="t", since=START + 4.5 * HOUR)
    # of the windows those at 3 h, 4 h and 9 h; of the lookup (known an hour later) those known at 4, 5 and 10 h
    assert (stored.rows, stored.entities) == (3 + 3, 2)
    as_of = materialize(plan, {"tx": history([0, 1, 2, 3, 4, 9])}, store, table="t", as_of=START + 4 * HOUR)
    assert (as_of.rows, as_of.since) == (2 + 1, START + 4 * HOUR)
    assert store.meta("t")["rows"] == "3"


def test_a_moment_before_the_stored_history_is_refused() -> None:
    plan = make_plan(n=card.count(window="2h"))
    with pytest.raises(RequestError, match="before the stored history"):
        served(plan, history([0, 1, 2]), ask(1.9), since=START + 2 * HOUR)


def test_without_state_the_server_says_so() -> None:
    plan = make_plan(n=card.count(window="2h"))
    with pytest.raises(EngineUnavailableError, match="no online state"):
        OnlineFeatures(plan, MemoryOnline(), "t").vectors([ask(1)])
    with pytest.raises(EngineUnavailableError, match="online store"):
        OnlineFeatures(plan, None, "t").vectors([ask(1)])


def test_a_plan_without_windows_needs_no_store() -> None:
    online = OnlineFeatures(make_plan(twice=col("amount") * 2), None, "t")
    assert online.state() is None
    assert online.vectors([{"amount": 3}, {}]).columns == {"twice": [6.0, None]}


def test_state_of_another_plan_is_refused() -> None:
    store = MemoryOnline()
    materialize(make_plan(n=card.count(window="2h")), {"tx": history([0])}, store, table="t")
    with pytest.raises(IntegrityError, match="other windows"):
        OnlineFeatures(make_plan(n=card.count(window="3h")), store, "t").vectors([ask(1)])
    store.put("t", [(b"\x00state", b"rubbish")])
    with pytest.raises(IntegrityError, match="cannot be read"):
        OnlineFeatures(make_plan(n=card.count(window="2h")), store, "t").vectors([ask(1)])


def test_an_entity_that_cannot_be_read_is_named_and_leaves_the_cache_as_it_was() -> None:
    plan, store = make_plan(n=card.count(window="2h")), MemoryOnline()
    materialize(plan, {"tx": history([0])}, store, table="t")
    online = OnlineFeatures(plan, store, "t")
    before = online.vectors([ask(1)])
    ((key,),) = online.request([ask(1)]).keys
    assert key is not None
    (blob,) = store.get("t", [key])
    assert blob is not None
    store.put("t", [(key, b"rubbish"), (STATE_KEY, next_state(store))])
    for _ in range(2):
        with pytest.raises(IntegrityError, match="events of an entity in the online state"):
            online.vectors([ask(1)])
    store.put("t", [(key, blob)])
    assert online.vectors([ask(1)]) == before


def next_state(store: MemoryOnline) -> bytes:
    """The state of table `t` after one more change."""
    (blob,) = store.get("t", [STATE_KEY])
    assert blob is not None
    state = decode_state(blob)
    return encode(msgspec.structs.replace(state, sequence=state.sequence + 1))


def test_a_refill_is_noticed_and_a_small_cache_still_answers() -> None:
    plan, store = make_plan(n=card.count(window="9h")), MemoryOnline()
    cards = {"card": ["a", "b", "c"]}
    first = materialize(plan, {"tx": history([0, 0, 0], **cards)}, store, table="t")
    online = OnlineFeatures(plan, store, "t", cache_bytes=100)
    everyone = [ask(1, card=name) for name in "abcd"]
    assert online.vectors(everyone).columns["n_9h"] == [2, 2, 2, 1]
    assert online.state().generation == first.generation  # type: ignore[union-attr]
    assert materialize(plan, {"tx": history([0, 0, 0], **cards)}, store, table="t").generation == first.generation
    materialize(plan, {"tx": history([0, 0.5], card=["a", "a"])}, store, table="t")
    assert online.vectors(everyone).columns["n_9h"] == [3, 1, 1, 1]
    assert online.vectors(everyone[:1]).columns["n_9h"] == [3]


def test_an_entity_that_is_kept_is_one_object_to_the_garbage_collector() -> None:
    plan, store = make_plan(n=card.sum("amount", window="9h"), old=card.mean("amount", window="1d")), MemoryOnline()
    names = [str(number) for number in range(500)]
    materialize(plan, {"tx": history([0.0] * 500, card=names)}, store, table="t")
    online = OnlineFeatures(plan, store, "t")
    online.vectors([ask(1, card=name) for name in names[:100]])
    gc.collect()
    before = len(gc.get_objects())
    online.vectors([ask(1, card=name) for name in names[100:]])
    gc.collect()
    assert len(gc.get_objects()) - before < 1.1 * 400


def test_a_row_is_known_by_its_key_and_its_window_key() -> None:
    plan = make_plan(n=card.count(window="9h"), total=card.sum("amount", window="9h"))
    found = served(plan, history([0, 1]), ask(1, id=1), ask(1, id=7), ask(1, id=None), ask(1, id=1, card="b"))
    assert found.columns["n_9h"] == [2, 3, 3, 1]
    assert found.columns["total_9h"] == [3.0, 13.0, 13.0, 10.0]


def test_long_windows_are_summed_as_exactly_as_short_ones() -> None:
    count = 3000
    frame = history([i / 100 for i in range(count)], amount=[1e12 if i == 5 else 0.1 + i % 7 for i in range(count)])
    plan = make_plan(
        s=card.sum("amount", window=["1h", "20h", "30d"]),
        d=card.std("amount", window=["20h"]),
        m=card.mean("amount", window="20h"),
    )
    found = served(plan, frame, ask(29.99, id=-1, amount=-1e12), ask(29.99, id=-1, amount=0.5))
    from math import fsum

    amounts = frame["amount"].to_list()
    within = [a for i, a in enumerate(amounts) if i / 100 > 9.99]
    assert found.columns["s_30d"] == [
        pytest.approx(fsum([*amounts, -1e12]), rel=1e-12),
        pytest.approx(fsum([*amounts, 0.5]), rel=1e-15),
    ]
    assert found.columns["s_20h"][1] == pytest.approx(fsum([*within, 0.5]), rel=1e-15)
    assert found.columns["m_20h"][1] == pytest.approx(fsum([*within, 0.5]) / (len(within) + 1), rel=1e-15)


# raw values of requests
FIELDS = (
    Field("b", "bool"),
    Field("i", "int"),
    Field("f", "float"),
    Field("s", "str"),
    Field("d", "date"),
    Field("t", "time"),
    Field("local", "time", zone="Europe/Paris"),
)


@pytest.mark.parametrize(
    ("field", "value", "inside"),
    [
        ("b", True, True),
        ("b", 1, True),
        ("b", 0.0, False),
        ("i", 5.0, 5),
        ("i", True, 1),
        ("f", 3, 3.0),
        ("f", float("nan"), None),
        ("s", float("nan"), None),
        ("s", "x", "x"),
        ("d", "1970-01-02", 1),
        ("d", date(1969, 12, 31), -1),
        ("t", "1970-01-01T00:00:01Z", 1_000_000),
        ("t", "1970-01-01 01:00+01:00", 0),
        ("t", datetime(1970, 1, 1, 0, 0, 0, 5), 5),
        ("t", date(1970, 1, 2), 86_400_000_000),
        ("local", "1970-01-01T01:00", 0),
        ("local", "2013-10-27T02:30", 1_382_833_800_000_000),
        ("local", "2013-03-31T02:30", None),
        ("i", None, None),
    ],
)
def test_values_are_read_by_their_field(field: str, value: Any, inside: Any) -> None:
    found = RequestReader(FIELDS).read({field: value})[field]
    assert (found, type(found)) == (inside, type(inside))


OF_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "b": st.booleans() | st.sampled_from([1, 0.0, 2]),
    "i": st.integers(-(2**63), 2**63 - 1) | st.sampled_from([5.0, True, 2**63, float("nan")]),
    "f": st.floats() | st.integers(0, 9),
    "s": st.text(max_size=2) | st.just(5),
    "d": st.dates() | st.just("1970-01-02"),
    "t": st.datetimes(timezones=st.just(UTC)) | st.sampled_from(["1970-01-01T00:00:01Z", date(1970, 1, 2), [1]]),
    "local": st.datetimes() | st.just("2013-03-31T02:30"),
}


@given(st.data(), st.integers(1, 12))
def test_many_rows_are_read_as_one_after_the_other(data: st.DataObject, count: int) -> None:
    columns = {}
    for field in FIELDS:
        usual = data.draw(OF_FIELDS[field.name])
        value = st.just(usual) | st.none() if data.draw(st.booleans()) else OF_FIELDS[field.name] | st.none()
        columns[field.name] = data.draw(st.lists(value, min_size=count, max_size=count))
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    reader = RequestReader(FIELDS)
    try:
        right = [reader.read(row) for row in rows]
    except RequestError:
        with pytest.raises(RequestError):
            reader.read_all(rows).all()
    else:
        found = reader.read_all(rows).all()
        assert [*map(repr, found)] == [*map(repr, right)]


def test_both_times_of_a_repeated_hour_are_read_in_many_rows() -> None:
    at = datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Paris"))
    rows = [{"t": at.replace(fold=number % 2)} for number in range(12)]
    reader = RequestReader([field for field in FIELDS if field.name == "t"])
    first, second = (datetime(2026, 10, 25, hour, 30, tzinfo=UTC).timestamp() * 1e6 for hour in (0, 1))
    assert [row["t"] for row in reader.read_all(rows).all()] == [first, second] * 6


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("b", 2),
        ("b", "true"),
        ("i", 1.5),
        ("i", "5"),
        ("i", 2**63),
        ("f", "1.0"),
        ("s", 5),
        ("d", "2013-13-01"),
        ("d", datetime(2013, 1, 1)),
        ("t", 5),
        ("t", "noon"),
    ],
)
def test_values_that_do_not_fit_are_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(RequestError, match=f'"{field}" takes'):
        RequestReader(FIELDS).read({field: value})


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        (
            "import cumulant.features",
            ["numpy", "msgspec.msgpack.none", "polars", "cumulant.features.definition.definitions"],
        ),
        ("from cumulant.features import col, source, when", ["polars", "numpy"]),
        ("from cumulant.features.definition import loading, parsing, plan", ["polars", "numpy"]),
        ("from cumulant.features.online.online import OnlineFeatures", ["polars", "pandas", "pyarrow"]),
    ],
)
def test_what_is_imported_when(code: str, absent: list[str]) -> None:
    check = f"{code}\nimport sys\nfound = [m for m in {absent!r} if m in sys.modules]\nassert not found, found"
    subprocess.run([sys.executable, "-c", check], check=True)


def test_every_public_name_is_there_and_nothing_else() -> None:
    import cumulant.features as room

    assert all(getattr(room, name) is not None for name in room.__all__)
    with pytest.raises(AttributeError, match="surce"):
        room.surce


def test_predictions_before_the_event_never_count_the_row_itself() -> None:
    at = PredictAt("at", -2 * 3_600_000_000)
    plan = compile_plan(collect({"n": card.count(window="9h")}), {"tx": TX}, entity="tx", predict_at=at)
    assert [field.name for field in plan.request] == ["card", "at"]
    assert served(plan, history([0, 1]), {"card": "a", "at": START + 3 * HOUR}).columns["n_9h"] == [2]
