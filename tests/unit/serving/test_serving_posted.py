"""Posted events are checked against the sources that the served plans read."""

import json

import pytest

from cumulant.core.errors import RequestError
from cumulant.core.plan import Field, KnownAt, PredictAt, Source
from cumulant.features.definition.definitions import source
from cumulant.features.definition.functions import col
from cumulant.features.definition.loading import collect
from cumulant.features.definition.plan import compile_plan
from cumulant.features.online.materialization import materialize
from cumulant.features.online.online import OnlineFeatures
from cumulant.serving.posted.posted_events import EventSchema
from cumulant.serving.protocol.request_schema import RequestSchema
from cumulant.testing.online import MemoryOnline

FIELDS = (
    Field("id", "int"),
    Field("card", "str", personal=True),
    Field("at", "time"),
    Field("amount", "float"),
    Field("label", "bool"),
)
TX = Source("tx", ("id",), "at", FIELDS, {"label": KnownAt(delay_us=3_600_000_000)})
RATES = Source("rates", (), "at", (Field("card", "str"), Field("at", "time"), Field("rate", "float")))
SOURCES = {"tx": TX, "rates": RATES}
card = source("tx").by("card")


def plan(**features):
    return compile_plan(collect(features), SOURCES, entity="tx", predict_at=None)


COUNT = plan(n=card.count(window="2h"))
LABELS = plan(label=card.mean("label", window="1d"), rate=source("rates").as_of("card").columns("rate"))


def test_rows_are_read_by_the_fields_of_every_plan_and_may_be_partial():
    body = {"source": "tx", "rows": [{"id": 1, "at": "2013-04-01T00:00:00Z"}, {"id": 2.0, "label": True, "amuont": 5}]}
    found = EventSchema([COUNT, LABELS]).read(json.dumps(body).encode())
    assert found.source == "tx"
    assert [row["id"] for row in found.rows] == [1, 2]
    assert found.rows[0]["at"].isoformat() == "2013-04-01T00:00:00+00:00"  # type: ignore[attr-defined]
    assert (found.rows[1]["label"], found.rows[1]["at"], found.rows[1]["amuont"]) == (True, None, 5)
    assert found.unread == ["amuont"]


@pytest.mark.parametrize(
    ("source", "rows", "says"),
    [
        ("txx", [], "no served model looks back"),
        ("rates", [{"card": "a"}], "has no key"),
        ("tx", [{"id": 1}, {"at": "2013-04-01T00:00:00Z"}], 'row 2: field "id" is required'),
        ("tx", [{"id": None}], 'field "id" must not be null'),
        ("tx", [{"id": 1, "at": "noon"}], 'field "at" must be a time'),
        ("tx", [{"id": 1, "label": "yes"}], 'field "label" must be true or false'),
        ("tx", [5], "expected an object"),
    ],
)
def test_what_does_not_fit_is_refused(source, rows, says):
    with pytest.raises(RequestError, match=says):
        EventSchema([COUNT, LABELS]).check(source, rows)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"source": "tx"}', b'{"source": 5, "rows": []}', b'{"source": "tx", "rows": [], "x": 1}']
)
def test_a_body_of_another_form_is_refused(body):
    with pytest.raises(RequestError, match="cannot be read"):
        EventSchema([COUNT]).read(body)


def test_personal_values_are_not_repeated():
    with pytest.raises(RequestError) as raised:
        EventSchema([COUNT]).check("tx", [{"id": 1, "card": 4_444_333}])
    assert "4444333" not in str(raised.value)


def test_checked_rows_advance_the_state():
    store = MemoryOnline()
    import polars as pl

    types = {"id": pl.Int64, "card": pl.String, "at": pl.Datetime("us", "UTC")}
    materialize(COUNT, {"tx": pl.DataFrame([], schema=types)}, store, table="t")
    online = OnlineFeatures(COUNT, store, "t")
    row = {"id": 1, "card": "a", "at": "2013-04-01T00:00:00Z", "amount": 2, "more": {"not": "kept"}}
    found = EventSchema([COUNT]).check("tx", [row])
    assert online.advance(found.source, found.rows).accepted == 1
    assert online.vectors([{"card": "a", "at": "2013-04-01T01:00:00Z"}]).columns["n_2h"] == [2]


def test_a_request_may_bring_the_key_by_which_its_row_enters_later_windows():
    early = compile_plan(
        collect({"n": card.mean("label", window="1d")}),
        SOURCES,
        entity="tx",
        predict_at=PredictAt("at", -3_600_000_000),
    )
    assert [field.name for field in early.request] == ["card", "at"]
    row = {"id": 7, "card": "a", "at": "2013-04-01T00:00:00Z"}
    assert RequestSchema(early).rows([row])[0]["id"] == 7
    assert RequestSchema(early).rows([{"card": "a", "at": "2013-04-01T00:00:00Z"}])[0]["id"] is None
    with pytest.raises(RequestError, match='no field "label"'):
        RequestSchema(early).rows([row | {"label": True}])
    with pytest.raises(RequestError, match='no field "id"'):
        RequestSchema(plan(twice=col("amount") * 2)).rows([{"id": 1, "amount": 2}])


def test_a_model_that_looks_back_at_nothing_takes_no_events():
    with pytest.raises(RequestError, match="no served model"):
        EventSchema([plan(twice=col("amount") * 2)]).check("tx", [{"id": 1}])
