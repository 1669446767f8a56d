from __future__ import annotations

import msgspec
import polars as pl
import pytest

from cumulant.data.checks.verdict import describe_change, warnings_of
from cumulant.data.proposal.usage import declared_uses, referred_uses
from cumulant.data.spec import SourceSpec

SPEC = msgspec.convert(
    {
        "key": ["id", "leg"],
        "event_time": "at",
        "known_time": {"landed": ["delay"], "7d": "paid"},
        "rules": {"km": {"min": 0}, "plane": {"references": "planes.tail"}},
        "table": {"where": ["dep <= arr and air is not null", "not ( sql"]},
        "personal": ["email"],
    },
    SourceSpec,
)


def test_what_a_declaration_needs_of_its_own_columns():
    assert declared_uses("trips", SPEC) == {
        "id": "the key",
        "leg": "the key",
        "at": "the event time",
        "landed": "known_time",
        "delay": "known_time",
        "paid": "known_time",
        "km": "the rules of trips",
        "plane": "the rules of trips",
        "email": "personal",
        **dict.fromkeys(("dep", "arr", "air"), "the condition `dep <= arr and air is not null`"),
    }
    assert referred_uses({"trips": SPEC}) == {"planes": {"tail": "the references of trips.plane"}}


def ingested(place, *, used):
    place.write("in/0.parquet", pl.DataFrame({"id": [1, 2], "km": [1.5, 2.5], "note": ["a", "b"]}))
    first = place.ingest(path="in", key="id")
    place.write("in/1.parquet", pl.DataFrame({"id": [3], "km": [1.0]}))
    return {"path": "in", "key": "id", "previous": first, "used": used}


def test_a_lost_column_names_what_uses_it(place):
    stopped = place.refused(**ingested(place, used={"note": "feature note"}))
    assert stopped.breaches == ('column "note" is gone in in/1.parquet; it is used by feature note',)


@pytest.mark.parametrize("used", [{"km": "feature km"}, {}])
def test_a_column_that_nothing_uses_is_lost_with_a_warning(place, used):
    found = place.ingest(**ingested(place, used=used))
    assert warnings_of(found) == ('column "note" is gone in in/1.parquet; nothing uses it',)
    assert place.rows(found, "id", "note") == [(1, "a"), (2, "b"), (3, None)]


def test_a_new_column_is_told_and_no_warning(place):
    place.write("in/0.parquet", pl.DataFrame({"id": [1]}))
    first = place.ingest(path="in", key="id")
    place.write("in/1.parquet", pl.DataFrame({"id": [2], "more": [3]}))
    found = place.ingest(path="in", key="id", previous=first, used={})
    assert [describe_change(change) for change in found.changes] == ['column "more" (int) is new in in/1.parquet']
    assert warnings_of(found) == ()
