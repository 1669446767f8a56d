"""Messages of a stream become rows by the rules of their source; a bad one is refused alone, with rule and place."""

import itertools
import json

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cumulant.core.errors import DataError, DefinitionError
from cumulant.data.parts.part import PartContext
from cumulant.data.rules.verdict_spec import TableRule
from cumulant.data.spec import EventTime, RuleSpec, SourceSpec
from cumulant.data.streams.batches import content_of
from cumulant.data.streams.checking import check_messages
from cumulant.data.streams.decoding import MESSAGE, decode
from cumulant.drivers.local.tables import FileTables
from cumulant.ports.streams import Messages
from cumulant.project.data_section import source_policy

PLAIN = SourceSpec(stream="t")


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    return FileTables(f"file://{tmp_path_factory.mktemp('tables')}")


def rows_of(values, spec=PLAIN, known=None, schema=None):
    rows, refused = decode(values, spec, known or {}, schema)
    return dict(zip(rows[MESSAGE].to_list(), rows.drop(MESSAGE).to_dicts(), strict=True)), refused


def checked(tmp_path, values, spec, known=None):
    context = PartContext("s", source_policy(spec), FileTables(f"file://{tmp_path}"))
    return check_messages([Messages(0, values, range(len(values)), len(values))], context, known or {})


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (None, "row:empty"),
        (b"", "row:empty"),
        (b" \n ", "row:empty"),
        (b"{}", "row:empty"),
        (b"{ \t}", "row:empty"),
        (b"[1]", "row:json"),
        (b"[1", "row:json"),
        (b'[{"a": 1}]', "row:json"),
        (b"17", "row:json"),
        (b"null", "row:json"),
        (b"text", "row:json"),
        (b'{"a": 1', "row:json"),
        (b'{"a": 1}}', "row:json"),
        (b'{"a": 1}{"a": 2}', "row:json"),
        (b'{"a": NaN}', "row:json"),
        (b'{"a": "\xff"}', "row:json"),
        (b"\x00\x01\x02", "row:json"),
        (b"\xef\xbb\xbf", "row:json"),
        (b'{"a": ' + b"[" * 5000 + b"]" * 5000 + b"}", "row:depth"),
        (b'{"a": ' * 5000 + b"1" + b"}" * 5000, "row:depth"),
        (b'{"a": [1]}', "a:nested"),
        (b'{"a": {"b": 1}}', "a:nested"),
        (b'{"a": true}', "a:kind"),
        (b'{"a": "x"}', "a:kind"),
        (b'{"a": 1, "c": [1, {"d": 2}]}', "row:nested"),
        (b'{"a": 1, "c": {"d": 2}}', "row:nested"),
        (b'{"a": 1, "__row": 2}', "row:name"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("schema", [None, {"a": pl.Float64(), "b": pl.String()}])
def test_a_bad_message_is_refused_and_no_other(value, rule, first, schema):
    good = [b'{"a": 1, "b": "x"}', b'{"a": 2.5}', b' {\n"a": 3,\n"b": "\\n"\n}\n']
    values = [value, *good] if first else [*good, value]
    rows, refused = rows_of(values, schema=schema)
    bad = 0 if first else 3
    assert refused == {bad: rule}
    expected = [{"a": 1.0, "b": "x"}, {"a": 2.5, "b": None}, {"a": 3.0, "b": "\n"}]
    assert [rows[number] for number in sorted(rows)] == expected


def test_many_bad_messages_at_once():
    values = [b'{"a": %d}' % number for number in range(300)]
    for place, bad in {3: b"{", 50: b'{"a": true}', 51: b'{"a": []}', 120: b"x", 299: b'{"z": {"y": 1}}'}.items():
        values[place] = bad
    rows, refused = rows_of(values)
    assert refused == {3: "row:json", 50: "a:kind", 51: "a:nested", 120: "row:json", 299: "row:nested"}
    assert rows == {number: {"a": number} for number in range(300) if number not in refused}


def test_a_single_bad_message_and_none():
    assert rows_of([b"x"]) == ({}, {0: "row:json"})
    assert rows_of([]) == ({}, {})


def test_the_kind_that_a_field_had_before_decides():
    values = [b'{"a": "x"}', b'{"a": "y"}', b'{"a": 1}']
    assert rows_of(values)[1] == {}
    assert rows_of(values, known={"a": "int"})[1] == {0: "a:kind", 1: "a:kind"}
    assert rows_of([b'{"a": 1}', b'{"a": true}', b'{"a": true}'], known={"a": "float"})[1] == {1: "a:kind", 2: "a:kind"}
    assert rows_of([b'{"a": true}', b'{"a": 2}', b'{"a": 3}'], known={"a": "bool"})[1] == {1: "a:kind", 2: "a:kind"}
    assert rows_of([b'{"a": "1"}'], SourceSpec(stream="t", rules={"a": RuleSpec(type="int")}), {"a": "int"})[1] == {}


def test_numbers_and_truth_values_among_texts_are_texts():
    rows, refused = rows_of([b'{"a": "x"}', b'{"a": "y"}', b'{"a": 1}', b'{"a": true}', b'{"a": {"b": 1}}'])
    assert refused == {4: "a:nested"}
    assert [row["a"] for row in rows.values()] == ["x", "y", "1", "true"]


def test_declared_paths_are_followed():
    spec = SourceSpec(stream="t", columns={"city": "address.city"})
    values = [b'{"id": 1, "address": {"city": "Bern", "no": [1]}}', b'{"id": 2}', b'{"id": 3, "address": {"city": {}}}']
    values += [b"x", b'{"id": {}, "address": {"city": "Rom"}}']
    rows, refused = rows_of(values, spec)
    assert rows == {0: {"id": 1, "city": "Bern"}, 1: {"id": 2, "city": None}}
    assert refused == {2: "city:path", 3: "row:json", 4: "id:nested"}


def test_messages_with_too_many_fields_are_refused(tmp_path):
    wide = json.dumps(dict.fromkeys(map(str, range(10_001)), 1)).encode()
    assert rows_of([b'{"a": 1}', wide, b'{"a": 2}'])[1] == {1: "row:fields"}
    known = dict.fromkeys(map(str, range(9_999)), "int")
    result = checked(tmp_path, [b'{"one": 1}', b'{"two": 1}', b'{"3": 1, "one": 2}'], PLAIN, known)
    assert result.refused.select("__rule", "__position").rows() == [("row:fields", 1)]
    assert len(result.columns) == 10_000


def test_a_wide_message_among_many_small_ones_takes_no_memory():
    values = [b'{"id": 1}'] * 20_000 + [json.dumps(dict.fromkeys(map(str, range(2_000)), 1)).encode()]
    rows, refused = decode(values, PLAIN, {})
    assert refused == {20_000: "row:fields"}
    assert rows.shape == (20_000, 2)
    assert decode(values[-1:], PLAIN, {}).rows.width == 2_001


VALUES = st.sampled_from(
    ["1", "2.5", "-7", "true", "null", '"x"', '"1"', '"\\u00e9"', "[1]", "1e400", str(2**63), "1.0"]
)
OBJECTS = st.dictionaries(st.sampled_from(["a", "b", "c d", "ä"]), VALUES, min_size=1, max_size=3)


def written(fields):
    return "{" + ", ".join(f'"{name}": {value}' for name, value in fields.items()) + "}"


@settings(max_examples=50)
@given(st.lists(OBJECTS.map(written), max_size=12))
def test_the_types_of_earlier_messages_change_no_row(texts):
    values = [text.encode() for text in texts]
    slow, _ = decode(values, PLAIN, {})
    schema = {name: dtype for name, dtype in slow.schema.items() if name != MESSAGE}
    known = {name: "float" for name, dtype in schema.items() if dtype == pl.Float64()}  # as after a batch
    slow, refused = decode(values, PLAIN, known)
    schema = {name: dtype for name, dtype in slow.schema.items() if name != MESSAGE}
    quick, again = decode(values, PLAIN, known, schema)
    assert again.keys() == refused.keys()  # one that breaks two rules may be refused by either
    assert quick.select(sorted(quick.columns)).equals(slow.select(sorted(slow.columns)))


def test_a_new_field_and_a_wider_type_are_seen():
    schema = {"a": pl.Int64()}
    values = [b'{"a": 1}'] * 50 + [b'{"a": 2.5}', b'{"a": 3, "new": "x"}']
    rows, refused = decode(values, PLAIN, {"a": "int"}, schema)
    assert refused == {}
    assert rows["a"].to_list() == [1.0] * 50 + [2.5, 3.0]
    assert rows["new"].to_list() == [None] * 51 + ["x"]


CONTRACT = SourceSpec(
    stream="t",
    key="id",
    event_time=EventTime(column="at"),
    rules={
        "amount": RuleSpec(type="float", min=0, nulls=0),
        "kind": RuleSpec(in_=["card", "cash"]),
        "paid": RuleSpec(type="time"),
    },
    table=TableRule(where=["paid >= at"]),
)


def payment(**changes):
    fields = {"id": 1, "at": "2026-11-01T10:00:00Z", "amount": 2.5, "kind": "card", "paid": "2026-11-01T11:00:00Z"}
    return json.dumps({name: value for name, value in (fields | changes).items() if value is not ...}).encode()


def test_rows_are_checked_by_the_rules_of_their_source(tmp_path):
    bad = {
        "id:nulls": payment(id=...),
        "at:nulls": payment(at=None),
        "at:type": payment(at="yesterday"),
        "at:zone": payment(at="2026-11-01T10:00:00"),
        "amount:min": payment(amount=-1),
        "amount:nulls": payment(amount=...),
        "amount:type": payment(amount="much"),
        "kind:in": payment(kind="gold"),
        "where:paid >= at": payment(paid="2026-10-01T11:00:00Z"),
    }
    values = [payment(), *bad.values(), payment(id=2, kind=..., paid=...), payment(id=1)]
    result = checked(tmp_path, values, CONTRACT)
    assert result.refused["__rule"].to_list() == list(bad)
    assert result.refused["__position"].to_list() == list(range(1, 10))
    assert result.refused["__value"].to_list() == list(bad.values())
    assert result.rules == dict.fromkeys(bad, 1)
    assert result.rows["id"].to_list() == [1, 2, 1]  # which of two rows of a key counts, the snapshot decides
    assert result.columns == {"id": "int", "at": "time", "amount": "float", "kind": "str", "paid": "time"}


def test_columns_that_no_message_has_are_null(tmp_path):
    result = checked(tmp_path, [payment(kind=..., paid=...)], CONTRACT, {"shop": "str", "note": "int"})
    assert result.refused.height == 0
    assert result.rows.select("kind", "paid", "shop", "note").row(0) == (None, None, None, None)
    only_bad = checked(tmp_path, [b'{"other": 1}', b"x"], CONTRACT)
    assert (only_bad.rows.height, only_bad.rules) == (0, {"id:nulls": 1, "row:json": 1})


def test_the_places_of_refused_messages_are_those_of_their_partition(tmp_path):
    batch = [Messages(2, [b"x", b'{"a": 1}'], [70, 75], 80), Messages(0, [], [], 3), Messages(1, [None], [9], 10)]
    context = PartContext("s", source_policy(PLAIN), FileTables(f"file://{tmp_path}"))
    result = check_messages(batch, context, {})
    assert result.refused.rows() == [("row:json", 2, 70, b"x"), ("row:empty", 1, 9, None)]
    assert result.rows.equals(pl.DataFrame({"a": [1]}))


def test_what_orders_rows_keeps_its_declared_type(tmp_path):
    spec = {"stream": "t", "key": "id", "on_repeat": "latest", "known_time": {"at": []}, "sequence_by": "lsn"}
    values = [b'{"id": 1, "at": "2024-01-01T00:00:00Z", "lsn": %s}' % lsn for lsn in (b"null", b"5", b"6.5")]
    with pytest.raises(DataError, match='the type of "lsn", which `sequence_by` names, is not declared'):
        checked(tmp_path, values, SourceSpec(**spec))
    found = checked(tmp_path, values, SourceSpec(**spec, rules={"lsn": RuleSpec(type="int")}))
    assert (found.columns["lsn"], found.rows.height, dict(found.rules)) == ("int", 2, {"lsn:type": 1})


def test_a_declaration_that_cannot_be_used_is_an_error(tmp_path):
    with pytest.raises(DataError, match="limit"):
        checked(tmp_path, [b'{"a": "x"}'], SourceSpec(stream="t", rules={"a": RuleSpec(max="2026-01-01")}))
    with pytest.raises(DefinitionError, match="understood"):
        checked(tmp_path, [b'{"a": 1}'], SourceSpec(stream="t", table=TableRule(where=["b > > 1"])))
    with pytest.raises(DefinitionError, match="regular expression"):
        checked(tmp_path, [b'{"a": "1"}'], SourceSpec(stream="t", rules={"a": RuleSpec(pattern="(")}))


ANY_KIND = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)
FIELDS = ["id", "at", "amount", "kind", "paid", "size", "code", "day", "seen", "flag", "__row", "", "a\x00b"]
ANY_OBJECT = st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=3), ANY_KIND, max_size=4)
ANY_MESSAGE = st.one_of(
    st.none(),
    st.binary(max_size=12),
    ANY_OBJECT.map(lambda fields: json.dumps(fields).encode()),
    ANY_OBJECT.map(lambda fields: payment(**fields)),
    st.sampled_from(
        [
            b'{"\\ud800": 1}',
            b'{"a\\"b": 1}',
            b'{"kind": "\\ud800"}',
            b'{"kind": "x\ny"}',
            b'{"amount": 1e400}',
            b'{"id": 1}{"id": 2}',
        ]
    ),
)
WIDE_CONTRACT = SourceSpec(
    stream="t",
    key="id",
    event_time=EventTime(column="at"),
    rules={
        **CONTRACT.rules,
        "size": RuleSpec(min=0),
        "code": RuleSpec(in_=[1, 2]),
        "day": RuleSpec(type="date"),
        "seen": RuleSpec(type="int", max=5),
        "flag": RuleSpec(in_=[True]),
    },
    table=TableRule(where=["paid >= at", "size < 100", "extra > 1", "CAST(note AS INT) > 0"]),
)
GOOD = {"size": 5, "code": 2, "day": "2026-11-01", "seen": 3, "flag": True, "extra": 2, "note": "7"}


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.lists(ANY_MESSAGE, max_size=8), st.data())
def test_no_message_stops_a_source_or_changes_another(tables, messages, data):
    good = [payment(id=100 + number, **GOOD) for number in range(6)]
    values = data.draw(st.permutations([*messages, *good[1:]]))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(values)), max_size=1)))
    context = PartContext("s", source_policy(WIDE_CONTRACT), tables)
    known, schema, rows = {}, None, []
    # one good batch says what is known; what comes after it has to fit
    for batch in [good[:1], *(values[start:end] for start, end in itertools.pairwise([0, *cuts, len(values)]))]:
        result = check_messages([Messages(0, batch, range(len(batch)), len(batch))], context, known, schema)
        known, schema = result.columns, result.schema
        assert result.rows.height + result.refused.height == len(batch)
        assert not {*good} & {*result.refused["__value"].to_list()}
        rows += result.rows.to_dicts()
    expected = {json.loads(value)["id"]: json.loads(value) for value in good}
    payment_names = list(expected[100])
    there = [row for row in rows if row["id"] in expected and row["note"] == "7"]
    assert sorted(row["id"] for row in there) == sorted(expected)
    for row in there:
        # a number under a declared type is text beside texts, and is read as the same number
        read = {name: float(row[name]) if name in {"amount", "size", "seen"} else row[name] for name in payment_names}
        assert read == expected[row["id"]]
        assert type(row["flag"]) is bool


def test_what_messages_were_decides_what_they_may_be(tmp_path):
    spec = SourceSpec(stream="t", rules={"kind": RuleSpec(in_=["card"]), "one": RuleSpec(in_=[1, 2.5])})
    known = {"kind": "str", "one": "float", "z": "str"}
    values = [b'{"kind": 5}', b'{"kind": true}', b'{"one": true}', b'{"one": "x"}', b'{"one": 1}', b'{"z": 1}']
    result = checked(tmp_path, values, spec, known)
    assert result.refused["__rule"].to_list() == ["kind:in", "kind:in", "one:kind", "one:kind"]
    assert result.columns == known
    assert result.rows["z"].to_list() == [None, "1"]
    assert checked(tmp_path, [b'{"z": 1}', b'{"z": 2}'], spec, known).columns["z"] == "str"
    assert checked(tmp_path, [b'{"z": 2.5}'], spec, {"z": "int"}).columns["z"] == "float"
    assert checked(tmp_path, [b'{"z": 2}'], spec, {"z": "float"}).columns["z"] == "float"


def test_lists_and_objects_are_refused_whatever_is_in_them():
    values = [b'{"a": {"b": 1}}', b'{"a": {"b": {"c": 1}}}', b'{"a": [[1]]}', b'{"a": [{"c": 1}]}', b'{"a": {}}']
    assert rows_of(values) == ({}, dict.fromkeys(range(5), "row:nested"))
    assert rows_of(values, known={"a": "int"})[1] == dict.fromkeys(range(5), "a:nested")


def test_names_of_unknown_fields_are_in_no_rule(tmp_path):
    result = checked(tmp_path, [b'{"ada%d@example.com": [1]}' % number for number in range(2000)], PLAIN)
    assert result.rules == {"row:nested": 2000}


def test_messages_that_are_no_json_are_no_rows(tmp_path):
    values = [b'{"a": "x\ny"}', b'{"a": "x\\ud800"}', b'{"\\ud800": 1}', b'{"a": "ok"}']
    assert rows_of(values) == ({3: {"a": "ok"}}, dict.fromkeys(range(3), "row:json"))
    result = checked(tmp_path, [None, b"", *values], PLAIN)
    assert (result.refused.height, result.faulty) == (5, 3)


def test_the_content_of_a_batch_names_what_was_known():
    batch = [Messages(0, [b'{"a": 1}'], [0], 1)]
    assert content_of(batch, PLAIN, {}, {"a": "int"}) != content_of(batch, PLAIN, {}, {"a": "str"})


def test_a_condition_is_broken_by_the_messages_that_it_cannot_be_computed_for(tmp_path):
    spec = SourceSpec(stream="t", table=TableRule(where=["b > 1", "CAST(c AS INT) > 0"]), rules={"d": RuleSpec(min=0)})
    assert checked(tmp_path, [b'{"a": 1}'], spec).refused.height == 0
    result = checked(tmp_path, [b'{"b": "x"}', b'{"a": 1}', b'{"c": "x"}', b'{"c": "1"}'], spec)
    assert result.rules == {"where:b > 1": 1, "where:CAST(c AS INT) > 0": 1}
    assert result.columns == {"a": "int", "c": "str"}
    assert result.rows.schema["d"] == pl.Float64()  # so that its limits are of its type


def test_a_field_without_a_name_keeps_it():
    values = [b'{"": 1, "column_0": 2, "column_1": 3}']
    assert (
        rows_of(values)[0]
        == rows_of(values, schema={"": pl.Int64(), "column_0": pl.Int64(), "column_1": pl.Int64()})[0]
    )
    assert rows_of(values)[0] == {0: {"": 1, "column_0": 2, "column_1": 3}}
