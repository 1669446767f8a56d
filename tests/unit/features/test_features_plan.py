"""Compiling definitions against sources: types, known times, the request, and what is refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cumulant.core.errors import DefinitionError, NotFoundError, NotKnownYetError
from cumulant.core.plan import FeaturePlan, Field, KnownAt, PredictAt, Source
from cumulant.features.definition.definitions import source
from cumulant.features.definition.functions import col, when
from cumulant.features.definition.loading import collect
from cumulant.features.definition.plan import compile_plan
from cumulant.features.definition.tiers import tiers
from cumulant.features.offline.groups import fingerprint, groups_of

HOUR = 3_600_000_000
FLIGHTS = Source(
    "flights",
    ("id",),
    "sched_dep",
    (
        Field("id", "int"),
        Field("sched_dep", "time"),
        Field("carrier", "str"),
        Field("tailnum", "str"),
        Field("distance", "int"),
        Field("landed", "time"),
        Field("arr_delay", "float"),
        Field("gate", "int"),
        Field("booked", "time"),
        Field("unused", "float"),
        Field("weight", "float"),
        Field("day", "date"),
        Field("slot", "int"),
    ),
    {
        "arr_delay": KnownAt("landed"),
        "slot": KnownAt("landed"),
        "gate": KnownAt(delay_us=-0),
        "weight": KnownAt(delay_us=HOUR),
    },
)
WEATHER = Source(
    "weather",
    ("origin",),
    "hour",
    (
        Field("hour", "time"),
        Field("carrier", "str"),
        Field("temp", "float"),
        Field("tailnum", "int"),
        Field("gate", "int"),
    ),
    {"gate": KnownAt(delay_us=2 * HOUR), "temp": KnownAt(delay_us=HOUR)},
)
STATIC = Source("static", ("carrier",), None, (Field("carrier", "str"), Field("size", "int")))
SOURCES = {"flights": FLIGHTS, "weather": WEATHER, "static": STATIC}
flights, weather, static = source("flights"), source("weather"), source("static")


def plan(at: PredictAt | None = None, /, **features: Any) -> FeaturePlan:
    return compile_plan(collect(features), SOURCES, entity="flights", predict_at=at)


def refused(error: type[DefinitionError], words: str, at: PredictAt | None = None, /, **features: Any) -> None:
    with pytest.raises(error) as caught:
        plan(at, **features)
    assert words in f"{caught.value.message} {caught.value.hint}"
    assert "feature _" not in caught.value.message  # a name that the user did not write


def test_types() -> None:
    by = flights.by("carrier")
    made = plan(
        row=flights.columns("carrier"),
        far=col("distance") > 100,
        half=col("distance") / 2,
        n=by.count(window="1d"),
        s=by.sum("distance", window="1d"),
        m=by.mean("distance", window="1d"),
        last=by.last("tailnum", window="1d"),
        most=by.max("landed", window="1d"),
        temp=weather.as_of("carrier").columns("temp"),
        share=by.mean(col("arr_delay") > 15, window="1d"),
        wait=col("sched_dep") - col("booked"),
    )
    assert {spec.name: spec.dtype for spec in made.features} == {
        "carrier": "str",
        "far": "bool",
        "half": "float",
        "n_1d": "int",
        "s_1d": "int",
        "m_1d": "float",
        "last_1d": "str",
        "most_1d": "time",
        "temp": "float",
        "share_1d": "float",
        "wait": "float",
    }
    assert made.predict_at == PredictAt("sched_dep")


def test_the_request_asks_for_what_is_needed_and_no_more() -> None:
    before = PredictAt("sched_dep", -2 * HOUR)
    by = flights.by("carrier")
    assert [f.name for f in plan(before, far=col("distance") > 9).request] == ["distance"]
    made = plan(
        before, far=col("distance") > 9, late=by.mean("arr_delay", window="1d"), gates=by.max("gate", window="1d")
    )
    assert [f.name for f in made.request] == ["sched_dep", "carrier", "distance"]
    at_departure = plan(None, gates=by.max("gate", window="1d"), late=by.mean("arr_delay", window="1d"))
    assert [(f.name, f.nullable) for f in at_departure.request] == [
        ("id", True),
        ("sched_dep", True),
        ("carrier", True),
        ("gate", True),
    ]
    elsewhere = plan(PredictAt("booked"), gates=by.max("gate", window="1d"))
    assert [f.name for f in elsewhere.request] == ["id", "sched_dep", "carrier", "gate", "booked"]


def test_a_plan_holds_what_it_reads() -> None:
    made = plan(late=flights.by("carrier").mean("arr_delay", window="1d"))
    assert [f.name for f in made.sources["flights"].fields] == ["id", "sched_dep", "carrier", "landed", "arr_delay"]
    assert set(made.sources) == {"flights"}
    assert made.sources["flights"].known == {"landed": KnownAt("landed"), "arr_delay": KnownAt("landed")}


def test_a_column_known_at_another_time_is_refused_as_input() -> None:
    before = PredictAt("sched_dep", -2 * HOUR)
    refused(
        NotKnownYetError,
        'feature arr_delay: "arr_delay" of flights is not known at the prediction (sched_dep - 2h): it becomes known at "landed"',
        before,
        row=flights.columns("arr_delay"),
    )
    refused(NotKnownYetError, "arr_delay", before, late=col("arr_delay") > 15)
    refused(NotKnownYetError, "at its own time", before, took=col("landed") - col("sched_dep"))
    refused(NotKnownYetError, "test_features_plan.py:", before, late=when(col("arr_delay") > 1).then(1))
    refused(NotKnownYetError, "window", before, n=flights.by("slot").count(window="1d"))


def test_a_delay_is_compared_with_the_moment_of_prediction() -> None:
    refused(NotKnownYetError, '1h after "sched_dep"', PredictAt("sched_dep", HOUR - 1), w=col("weight") + 1)
    refused(NotKnownYetError, "weight", PredictAt("booked", 99 * HOUR), w=col("weight") + 1)
    assert plan(PredictAt("sched_dep", HOUR), w=col("weight") + 1).names == ("w",)
    assert plan(None, g=col("gate") + 1).names == ("g",)
    refused(NotKnownYetError, "gate", PredictAt("sched_dep", -1), g=col("gate") + 1)


@pytest.mark.parametrize(
    ("features", "words"),
    [
        ({"x": 1 / flights.by("tailnum").mean("distanc", window="7d")}, ': there is no column "distanc" did you mean'),
        ({"x": col("distanc") + 1}, 'feature x: there is no column "distanc" did you mean "distance"?'),
        ({"x": flights.columns("carier")}, "carrier"),
        ({"x": weather.columns("temp")}, "look them up"),
        ({"x": flights.by("carrier").mean("arr_dely", window="1d")}, "arr_delay"),
        ({"x": flights.by("carier").count(window="1d")}, "carrier"),
        ({"x": weather.as_of("carrier").columns("tmp")}, "temp"),
        (
            {"x": flights.as_of("carrier", within="30m", order="event_time").columns("weight")},
            '"weight" of flights is known 1h after "sched_dep", so no row is at most 30m old by event time',
        ),
        (
            {"x": weather.as_of("gate", within="90m", order="event_time").columns("temp")},
            '"gate" of weather is known 2h after "hour"',
        ),
        ({"x": source("wether").as_of("carrier").columns("temp")}, "weather"),
        ({"x": static.by("carrier").count(window="1d")}, "no event time"),
        ({"x": weather.by("tailnum").count(window="1d")}, "whole number in weather and text in flights"),
        ({"x": flights.by("slot").count(window="1d")}, "not known"),
        ({"x": flights.by("unused").count(window="1d")}, "match exactly"),
        ({"x": flights.by("carrier").mean("tailnum", window="1d")}, 'share of "a"'),
        ({"x": flights.by("carrier").max("tailnum", window="1d")}, "max does not work on text"),
        ({"x": flights.by("carrier").sum("landed", window="1d")}, "sum does not work on a time"),
        ({"x": col("carrier") + 1}, "text"),
        ({"x": col("carrier").fill_null(None).is_in([1])}, "is_in"),
    ],
)
def test_mistakes_are_refused_in_words(features: dict[str, Any], words: str) -> None:
    refused(DefinitionError, words, None, **features)


def test_a_source_without_times_takes_expressions_only() -> None:
    made = compile_plan(collect({"big": col("size") > 3}), SOURCES, entity="static", predict_at=None)
    assert made.predict_at is None
    with pytest.raises(DefinitionError, match="no prediction time"):
        compile_plan(
            collect({"t": weather.as_of("carrier").columns("temp")}), SOURCES, entity="static", predict_at=None
        )


def test_the_entity_and_its_prediction_time_must_exist() -> None:
    with pytest.raises(NotFoundError, match="flihts"):
        compile_plan(collect({}), SOURCES, entity="flihts", predict_at=None)
    refused(DefinitionError, "no time column", PredictAt("distance"), x=col("distance"))
    refused(NotKnownYetError, "landed", PredictAt("landed"), x=col("distance"))


def test_features_stand_after_those_they_read() -> None:
    a = col("distance") + 1
    b = a * 2
    made = plan(b=b, a=a, c=b + a)
    assert made.names == ("a", "b", "c")


def test_the_fingerprint_names_the_stored_part() -> None:
    by = flights.by("carrier")
    one = plan(n=by.count(window="1d"), x=col("distance") + 1)
    other = plan(n=by.count(window="1d"), x=col("distance") + 2)
    longer = plan(n=by.count(window="2d"))
    assert fingerprint(one) == fingerprint(other) != fingerprint(longer)


def test_groups_share_key_and_time_of_entry() -> None:
    by = flights.by("carrier")
    made = plan(
        a=by.count(window="1d"),
        b=by.mean("distance", window="7d"),
        c=by.mean("arr_delay", window="1d"),
        d=flights.by("tailnum").count(window="1d"),
    )
    assert [sorted(group.measures) for group in groups_of(made)] == [["a_1d", "b_7d"], ["c_1d"], ["d_1d"]]
    assert [group.span_us // HOUR for group in groups_of(made)] == [168, 24, 24]


def test_the_groups_of_a_plan_are_made_once_and_are_no_part_of_it() -> None:
    made, equal = (plan(a=flights.by("carrier").count(window="1d")) for _ in range(2))
    stored = msgspec.json.encode(made)
    assert groups_of(made) is groups_of(made)
    assert (made, msgspec.json.encode(made)) == (equal, stored)
    sooner = msgspec.structs.replace(made, features=())
    assert groups_of(sooner) == ()


def test_a_feature_of_rows_that_python_made_is_computed_by_batches_alone() -> None:
    made = plan(
        far=col("distance") > 100,
        temp=weather.as_of("carrier").columns("temp"),
        warm=col("distance") + weather.as_of("carrier").columns("temp")["temp"],
        n=flights.by("carrier").count(window="1d"),
    )
    run = {"weather": "clean.py:hourly", "unread": "clean.py:other"}
    found = tiers(made, run)
    part = next(name for name in found if name.startswith("_"))  # of `warm`
    assert {name for name, tier in found.items() if tier.tier == "batch"} == {"temp", "warm", part}
    assert found["warm"].functions == ("clean.py:hourly",)
    assert {tier.tier for tier in tiers(made, {}).values()} == {"everywhere"}
    # Every feature takes its key and moment from the row itself.
    assert {tier.tier for tier in tiers(made, {"flights": "clean.py:rows"}).values()} == {"batch"}
