"""Personal columns: whole in the store, keyed hashes wherever a person looks."""

from __future__ import annotations

import msgspec
import pytest

from cumulant.core.errors import DataError
from cumulant.core.masking import mask
from cumulant.data.events import facts_of
from cumulant.data.views import preview_rows, read_quarantine

PEOPLE = "id,name,card,km\n1,Ada Lovelace,4242424242424242,5\n2,Grace Hopper,4000056655665556,-1\n3,,,7\n"
SALT = b"pepper"
SPEC = {
    "key": "id",
    "personal": ["name", "card"],
    "rules": {"km": {"min": 0}, "name": {"in": ["Ada Lovelace", "Grace Hopper"]}},
}
RAW = ("Ada", "Lovelace", "Grace", "4242", "4000056655665556")


def test_hashes_are_keyed_stable_and_tell_nothing():
    assert mask("Ada", SALT) == mask("Ada", SALT)
    assert mask("Ada", SALT) != mask("Ada", b"salt")
    assert mask(7, SALT) == mask("7", SALT)
    assert len(mask("Ada", SALT)) == 1 + 128 // 4
    assert mask("Ada", b"") == mask("Eve", b"") == "#hidden"


def test_views_show_hashes_and_the_store_holds_the_rows(place):
    place.write("trips.csv", PEOPLE)
    found = place.ingest(**SPEC, quarantine="50%")
    refused = read_quarantine(found, place.tables, SALT)
    assert refused.select("__rule", "__file", "__row", "id", "name", "card").rows() == [
        ("km:min", "trips.csv", 1, 2, mask("Grace Hopper", SALT), mask(4000056655665556, SALT))
    ]
    shown = preview_rows(found, place.tables, SALT)
    assert shown["name"].to_list() == [mask("Ada Lovelace", SALT), None]
    assert place.rows(found, "name")[0] == ("Ada Lovelace",)
    assert preview_rows(found, place.tables, SALT, rows=1).height == 1
    assert read_quarantine(found, place.tables, SALT, limit=0).height == 0


def test_nothing_told_about_a_source_holds_a_personal_value(place):
    place.write("trips.csv", PEOPLE)
    stopped = place.refused(**SPEC)
    told = msgspec.json.encode(stopped).decode() + "".join(map(str, facts_of(stopped))) + str(stopped.breaches)
    assert not [value for value in RAW if value in told]
    column = stopped.profile["card"]
    assert (column.rows, column.nulls, column.top, column.quantiles, column.max) == (2, 1, (), (), None)


def test_errors_about_personal_columns_quote_no_value(place):
    place.write("trips.csv", PEOPLE)
    place.write("features.py", "def prepare(raw):\n    return raw.select(raw['name'].cast(int))\n")
    with pytest.raises(Exception, match="prepare") as caught:
        place.ingest(**SPEC, prepare="features.py:prepare")
    assert not [value for value in RAW if value in str(caught.value)]


def test_an_empty_quarantine_has_its_columns(place):
    place.write("trips.csv", PEOPLE)
    found = place.ingest(personal=["name"])
    assert found.quarantine is None
    assert read_quarantine(found, place.tables, SALT).columns == [
        "__rule",
        "__file",
        "__row",
        "id",
        "name",
        "card",
        "km",
    ]


def test_a_personal_column_that_is_not_there(place):
    place.write("trips.csv", PEOPLE)
    with pytest.raises(DataError, match='no column "nmae"') as caught:
        place.ingest(personal=["nmae"])
    assert "name" in caught.value.hint
