"""Rows against rules: what passes, what goes to quarantine under which rule, what stops the source."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cumulant.core.errors import DataError, DefinitionError, UsageError
from cumulant.data.checks.verdict import SourceBreachError
from cumulant.data.parts.part import PartContext
from cumulant.data.parts.part_making import build_part
from cumulant.data.spec import SourceSpec
from cumulant.data.text.csv_text import FileTable
from cumulant.drivers.local.tables import FileTables
from cumulant.project.data_section import source_policy


def test_each_rule_refuses_the_rows_that_break_it_and_names_itself(place):
    place.write("trips.csv", "id,km,city,code\n1,5,A,x1\n2,-1,A,x2\n3,200,B,x3\n4,7,Z,x4\n5,8,B,y5\n6,,,\n")
    found = place.ingest(
        key="id",
        quarantine="70%",
        rules={"km": {"min": 0, "max": 100}, "city": {"in": ["A", "B"]}, "code": {"pattern": "^x"}},
    )
    assert place.quarantine(found).select("__rule", "id").rows() == [
        ("km:min", 2),
        ("km:max", 3),
        ("city:in", 4),
        ("code:pattern", 5),
    ]
    assert [row[0] for row in place.rows(found, "id")] == [1, 6], "nulls break no rule"
    assert {check.rule: check.failed for check in found.checks}["km:max"] == 1


def test_a_row_that_breaks_two_rules_is_stored_once_and_counted_in_both(place):
    place.write("trips.csv", "km,city\n-1,Z\n5,A\n")
    found = place.ingest(quarantine=1, rules={"km": {"min": 0}, "city": {"in": ["A"]}})
    assert found.rows_quarantined == 1
    assert {check.rule: check.failed for check in found.checks} == {"km:min": 1, "city:in": 1}
    assert place.quarantine(found)["__rule"].to_list() == ["km:min"]


def test_more_refused_rows_than_declared_stop_the_source_and_lose_nothing(place):
    place.write("trips.csv", "km\n" + "1\n" * 98 + "-5\n-6\n")
    found = place.refused(rules={"km": {"min": 0}}, quarantine="1%")
    assert "2 of 100 rows are refused (2.00%)" in found.breaches[0]
    assert place.quarantine(found)["km"].to_list() == [-5, -6]
    assert place.ingest(rules={"km": {"min": 0}}, quarantine="2%").rows_quarantined == 2, "exactly the share passes"


def test_a_share_of_nulls_judges_the_source_and_no_nulls_judges_rows(place):
    place.write("trips.csv", "a,b\n1,1\n,2\n3,\n4,4\n")
    assert place.ingest(rules={"a": {"nulls": "25%"}}).rows_passed == 4
    stopped = place.refused(rules={"a": {"nulls": 0.2}})
    assert stopped.rows_quarantined == 0
    assert "a is null" in stopped.breaches[0]
    for none in (0, "0%", 0.0):
        found = place.ingest(rules={"b": {"nulls": none}}, quarantine="50%")
        assert place.quarantine(found)["__rule"].to_list() == ["b:nulls"]


def test_repeated_keys_go_to_quarantine_and_the_first_passing_row_stays(place):
    place.write("trips.csv", "id,km\n1,-1\n1,5\n1,6\n2,7\n,8\n")
    found = place.ingest(key="id", rules={"km": {"min": 0}}, quarantine="80%")
    assert place.rows(found, "id", "km") == [(1, 5), (2, 7)]
    assert place.quarantine(found).select("__rule", "km").rows() == [("km:min", -1), ("key:repeat", 6), ("id:nulls", 8)]


def test_keys_repeat_across_files_too_and_earlier_parts_stay_as_they_are(place):
    place.write("in/a.csv", "id,day,km\n1,x,1\n2,x,2\n")
    place.write("in/b.csv", "id,day,km\n2,x,20\n2,y,21\n3,x,30\n3,x,31\n")
    found = place.ingest(path="in", key=["id", "day"], quarantine="50%")
    assert place.rows(found, "id", "day", "km") == [(1, "x", 1), (2, "x", 2), (2, "y", 21), (3, "x", 30)]
    refused = place.quarantine(found).select("__rule", "__file", "km").sort("km").rows()
    assert refused == [("key:repeat", "in/b.csv", 20), ("key:repeat", "in/b.csv", 31)]
    assert {check.rule: check.failed for check in found.checks}["key:repeat"] == 2


def test_unique_columns_beside_the_key(place):
    place.write("in/a.csv", "id,plate\n1,P\n2,P\n3,\n4,\n")
    place.write("in/b.csv", "id,plate\n5,P\n6,Q\n")
    found = place.ingest(path="in", key="id", rules={"plate": {"unique": True}}, quarantine="50%")
    assert [row[0] for row in place.rows(found, "id")] == [1, 3, 4, 6], "nulls repeat nothing"


def test_conditions_across_columns_are_sql(place):
    place.write("trips.csv", "dep,arr\n1,2\n5,3\n4,\n")
    found = place.ingest(table={"where": ["arr >= dep"]}, quarantine="50%")
    assert place.rows(found) == [(1, 2), (4, None)]
    assert place.quarantine(found)["__rule"].to_list() == ["where:arr >= dep"]


@pytest.mark.parametrize("condition", ["arr >", "arr + dep", "arr >= 'text' || 1", "(select 1) = 1"])
def test_conditions_that_make_no_sense_are_named(place, condition):
    place.write("trips.csv", "dep,arr\n1,2\n")
    with pytest.raises(DefinitionError) as caught:
        place.ingest(table={"where": [condition]})
    assert condition in str(caught.value)


def test_a_condition_over_a_column_that_there_is_not_is_named(place):
    place.write("trips.csv", "dep,arr\n1,2\n")
    with pytest.raises(DataError, match='no column "arrr", which the condition `arrr >= dep` names') as caught:
        place.ingest(table={"where": ["arrr >= dep"]})
    assert caught.value.hint == 'did you mean "arr"?'


def test_a_condition_may_not_look_at_other_rows(place):
    place.write("trips.csv", "km\n" + "".join(f"{n * n}\n" for n in range(20)))
    with pytest.raises(DefinitionError, match="reads other rows"):
        place.ingest(table={"where": ["km >= avg(km)"]}, quarantine=1)


def test_references_to_another_source(place):
    place.write("cities.csv", "name\nA\nB\n")
    cities = place.ingest("cities", path="cities.csv", key="name")
    place.write("trips.csv", "city\nA\nC\n\nB\n")
    spec = {"rules": {"city": {"references": "cities.name"}}, "quarantine": "50%"}
    found = place.ingest(**spec, others={"cities": cities})
    assert place.rows(found) == [("A",), ("B",)] or place.rows(found) == [("A",), (None,), ("B",)]
    assert place.quarantine(found)["__rule"].to_list() == ["city:references"]
    with pytest.raises(DefinitionError, match="no snapshot of a source"):
        place.ingest(**spec)
    with pytest.raises(DataError, match='has no column "title"'):
        place.ingest(rules={"city": {"references": "cities.title"}}, others={"cities": cities})


def test_every_dangling_reference_over_several_files(place):
    cities = place.ingest("cities", path="", frame=pl.DataFrame({"name": ["A"]}))
    for n in range(2):
        place.write(f"in/{n}.parquet", pl.DataFrame({"id": [0, 1, 2 + n, 4 + n], "city": ["A", "B", "A", "C"]}))
    found = place.ingest(
        path="in", key="id", rules={"city": {"references": "cities.name"}}, others={"cities": cities}, quarantine=1
    )
    assert place.rows(found, "id") == [(0,), (2,), (3,)]
    assert place.quarantine(found).select("__rule", "__file", "id").rows() == [
        ("city:references", "in/0.parquet", 1),
        ("city:references", "in/0.parquet", 4),
        ("city:references", "in/1.parquet", 1),
        ("city:references", "in/1.parquet", 5),
        ("key:repeat", "in/1.parquet", 0),
    ]
    assert {check.rule: check.failed for check in found.checks} == {
        "id:nulls": 0,
        "city:references": 4,
        "key:repeat": 1,
    }


def test_refused_rows_of_files_with_different_types_stand_in_one_quarantine(place):
    place.write("in/a.csv", "at,km\n2024-01-01T00:00:00Z,-1\n2024-01-01T00:00:00Z,5\n")
    place.write("in/b.csv", "at,km\nsoon,-2\n2024-01-01T00:00:00Z,5\n")
    found = place.ingest(path="in", event_time="at", rules={"km": {"min": 0}}, quarantine=1)
    assert place.quarantine(found).select("__rule", "km").rows() == [("km:min", -1), ("at:type", -2)]
    assert place.quarantine(found)["at"].to_list()[1] == "soon"


def test_row_counts_and_freshness(place):
    place.write("trips.csv", "at\n2024-01-01T00:00:00Z\n2024-01-08T12:00:00Z\n")
    assert place.ingest(event_time="at", table={"fresh": "2d", "min_rows": 2, "max_rows": 2}).rows_passed == 2
    assert "old (it is 1d12h old)" in place.refused(event_time="at", table={"fresh": "1d"}).breaches[0]
    assert "at least 3 rows (2 are)" in place.refused(table={"min_rows": 3}).breaches[0]
    assert "at most 1 rows (2 are)" in place.refused(table={"max_rows": 1}).breaches[0]


def test_declared_types_refuse_what_cannot_be_read_and_keep_it_as_it_came(place):
    place.write("trips.csv", "n,x,ok,day\n1,1.5,yes,2024-01-01\nabc,2,no,2024-01-02\n3.0,,1,2024-02-30\n4.5,z,maybe,\n")
    types = {"n": {"type": "int"}, "x": {"type": "float"}, "ok": {"type": "bool"}, "day": {"type": "date"}}
    found = place.ingest(rules=types, quarantine=1)
    assert [(field.name, field.dtype) for field in found.fields] == [
        ("n", "int"),
        ("x", "float"),
        ("ok", "bool"),
        ("day", "date"),
    ]
    assert place.rows(found, "n", "x", "ok") == [(1, 1.5, True)]
    assert place.quarantine(found).select("__rule", "n", "x", "ok", "day").rows() == [
        ("n:type", "abc", "2", "no", "2024-01-02"),
        ("day:type", "3.0", None, "1", "2024-02-30"),
        ("n:type", "4.5", "z", "maybe", None),
    ]


def test_text_stays_text_where_declared(place):
    place.write("trips.csv", "zip\n007\n010\n")
    assert place.rows(place.ingest(rules={"zip": {"type": "str"}})) == [("007",), ("010",)]


def test_missing_marks_and_blanks_are_nulls_and_no_faults(place):
    place.write("trips.csv", "n,city\n1,A\n?,?\n ,B\n")
    found = place.ingest(missing=["?"], rules={"n": {"type": "int", "min": 0}, "city": {"in": ["A", "B"]}})
    assert place.rows(found) == [(1, "A"), (None, None), (None, "B")]


def test_limits_on_times(place):
    place.write("trips.csv", "at\n2023-12-31T23:59:59Z\n2024-01-01T00:00:00Z\n")
    found = place.ingest(event_time="at", rules={"at": {"min": "2024-01-01"}}, quarantine="50%")
    assert place.rows(found) == [(datetime(2024, 1, 1, tzinfo=UTC),)]


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ({"city": {"min": 1}}, "does not fit"),
        ({"km": {"in": ["x"]}}, "can never be in"),
        ({"city": {"pattern": "("}}, "no regular expression"),
        ({"cty": {"min": 1}}, 'no column "cty"'),
        ({"km": {"nulls": "few"}}, "is not a share"),
    ],
)
def test_rules_that_do_not_fit_their_column(place, rule, told):
    place.write("trips.csv", "km,city\n1,A\n")
    with pytest.raises(UsageError, match=told) as caught:
        place.ingest(rules=rule)
    assert caught.value.hint


def test_a_wrong_value_among_numbers_with_limits_goes_to_quarantine(place):
    place.write("trips.csv", "km,city\n1,A\nfar,B\n,C\n-3,D\n2.5,E\n")
    found = place.ingest(rules={"km": {"min": 0}}, quarantine="50%")
    assert place.rows(found) == [(1.0, "A"), (None, "C"), (2.5, "E")]
    assert place.quarantine(found).select("__rule", "km").rows() == [("km:type", "far"), ("km:min", "-3")]


def test_a_set_of_numbers_on_a_column_of_text(place):
    place.write("trips.parquet", pl.DataFrame({"code": ["1", "2", "3"]}))
    found = place.ingest(path="trips.parquet", rules={"code": {"in": [1, 2]}}, quarantine="40%")
    assert place.quarantine(found)["code"].to_list() == ["3"]


ROWS = st.lists(
    st.tuples(
        st.one_of(st.none(), st.integers(0, 4)),
        st.one_of(st.none(), st.integers(-3, 12)),
        st.one_of(st.none(), st.sampled_from(["A", "B", "ab", ""])),
    ),
    min_size=1,
    max_size=25,
)


def by_hand(rows):
    """The rules of the property test, one row after the other."""
    passed, refused, seen = [], [], set()
    for position, (key, number, text) in enumerate(rows):
        if key is None:
            rule = "id:nulls"
        elif number is not None and number < 0:
            rule = "n:min"
        elif number is not None and number > 9:
            rule = "n:max"
        elif text is not None and text not in ("A", "B", "ab"):
            rule = "t:in"
        elif text is not None and "b" not in text.lower() and text != "A":
            rule = "t:pattern"
        elif number is not None and number == 2 * key + 1:
            rule = "where:n <> 2 * id + 1"
        elif key in seen:
            rule = "key:repeat"
        else:
            seen.add(key)
            passed.append((key, number, text))
            continue
        refused.append((rule, position))
    return passed, refused


@given(rows=ROWS)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_rules_agree_with_a_row_by_row_reading(tmp_path_factory, rows):
    tables = FileTables(f"file://{tmp_path_factory.mktemp('tables')}")
    spec = SourceSpec(
        key="id",
        rules={"n": _rule(min=0, max=9), "t": _rule(in_=["A", "B", "ab"], pattern="(?i)b|^A$")},
        table=_table(["n <> 2 * id + 1"]),
    )
    schema = {"id": pl.Int64, "n": pl.Int64, "t": pl.String}
    table = FileTable(pl.DataFrame(rows, schema=schema, orient="row"))
    facts = build_part(PartContext("s", source_policy(spec), tables), "p", table, url="f", guessed=False)
    passed, refused = by_hand(rows)
    assert tables.scan(facts.rows).collect().rows() == passed
    stored = [row for ref in facts.refused for row in tables.scan(ref).select("__rule", "__row").collect().rows()]
    assert stored == refused
    assert facts.rows_in == facts.rows.rows + facts.rows_refused + facts.rows_dropped


def _rule(**values):
    from cumulant.data.spec import RuleSpec

    return RuleSpec(**values)


def _table(where):
    from cumulant.data.rules.verdict_spec import TableRule

    return TableRule(where=where)


def test_a_column_of_another_type_than_declared_is_shown_by_an_example(place):
    place.write("trips.csv", "id,km\n1,5 miles\n2,7 miles\n3,\n4,9\n5,1 mile\n")
    with pytest.raises(SourceBreachError) as refused:
        place.ingest(rules={"km": {"type": "float"}})
    assert 'most values of km, such as "5 miles" cannot be read' in refused.value.hint
    assert "raise `quarantine`" not in refused.value.hint
    with pytest.raises(SourceBreachError) as refused:
        place.ingest(rules={"km": {"type": "float"}}, personal=["km"])
    assert "most values of km cannot be read" in refused.value.hint
    assert "miles" not in refused.value.hint
