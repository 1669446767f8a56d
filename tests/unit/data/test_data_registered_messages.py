"""Messages of Avro and Protobuf become the rows that the same records give as JSON; bad ones are refused alone.

Messages are written by Confluent's own serializers where these can write them. The registry is the small one of
`cumulant.testing`, which has the documented REST API; no product could be installed here.
"""

import base64
import io
import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cumulant.core.errors import CredentialsError, EngineUnavailableError, StorageError, UsageError
from cumulant.data.spec import RuleSpec, SourceSpec
from cumulant.data.streams.decoding import MESSAGE, decode
from cumulant.data.streams.registered import decoder as registered
from cumulant.data.streams.registered.decoder import RegisteredDecoder
from cumulant.drivers.confluent.location import parse_registry_url
from cumulant.drivers.confluent.registry import ConfluentSchemas
from cumulant.testing.secrets import MemorySecrets
from cumulant.testing.servers.schema_registry import schema_registry

fastavro = pytest.importorskip("fastavro", reason='pip install "cumulant[schemas]"')

from google.protobuf import (  # noqa: E402
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)

PLAIN = SourceSpec(stream="t")
SUBJECTS = iter(range(1 << 30))


@pytest.fixture(scope="module")
def registry():
    with schema_registry() as server:
        yield server


@pytest.fixture(scope="module")
def register(registry):
    def add(schema, kind="AVRO", references=None):
        text = schema if isinstance(schema, str) else json.dumps(schema)
        return registry.register(f"subject-{next(SUBJECTS)}", text, kind, references)

    return add


@pytest.fixture(scope="module")
def rows_of(registry):
    schemas = ConfluentSchemas(registry.location)

    def rows(values, spec=PLAIN, kind="avro", known=None):
        decoder = RegisteredDecoder(schemas, kind, spec)
        rows, refused = decode(values, spec, known or {}, None, decoder.objects_of)
        return dict(zip(rows[MESSAGE].to_list(), rows.drop(MESSAGE).to_dicts(), strict=True)), refused

    return rows


def json_rows(records, spec=PLAIN):
    rows, refused = decode([json.dumps(record).encode() for record in records], spec, {})
    return dict(zip(rows[MESSAGE].to_list(), rows.drop(MESSAGE).to_dicts(), strict=True)), refused


def record_of(*fields, name="Payment"):
    return {"type": "record", "name": name, "fields": [{"name": key, "type": kind} for key, kind in fields]}


def framed(number, payload=b""):
    return b"\0" + number.to_bytes(4, "big") + payload


def avro(number, schema, record):
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(schema), record)
    return framed(number, stream.getvalue())


PAYMENT = record_of(
    ("id", "long"),
    ("amount", {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}),
    ("whole", ["null", {"type": "bytes", "logicalType": "decimal", "precision": 4}]),
    ("at", {"type": "long", "logicalType": "timestamp-micros"}),
    ("local", {"type": "long", "logicalType": "local-timestamp-millis"}),
    ("day", ["null", {"type": "int", "logicalType": "date"}]),
    ("kind", {"type": "enum", "name": "Kind", "symbols": ["card", "cash"]}),
    ("reference", {"type": "string", "logicalType": "uuid"}),
    ("note", ["null", "string"]),
    ("address", record_of(("city", "string"), ("seen", ["null", {"type": "int", "logicalType": "date"}]), name="A")),
    ("tags", {"type": "map", "values": "string"}),
)
RECORD = {
    "id": 7,
    "amount": Decimal("12.50"),
    "whole": Decimal(3),
    "at": datetime(2026, 12, 1, 10, 0, 0, 250, UTC),
    "local": datetime(2026, 12, 1, 11),
    "day": None,
    "kind": "cash",
    "reference": UUID(int=5),
    "note": None,
    "address": {"city": "Bern", "seen": date(2026, 11, 30)},
    "tags": {"color": "red"},
}
COLUMNS = SourceSpec(
    stream="t", format="avro", columns={"city": "address.city", "seen": "address.seen", "color": "tags.color"}
)
ROW = {
    "id": 7,
    "amount": 12.5,
    "whole": 3,
    "at": "2026-12-01T10:00:00.000250+00:00",
    "local": "2026-12-01T11:00:00",
    "day": None,
    "kind": "cash",
    "reference": "00000000-0000-0000-0000-000000000005",
    "note": None,
    "city": "Bern",
    "seen": "2026-11-30",
    "color": "red",
}


def test_a_record_of_confluents_serializer_is_the_row_of_its_json(registry, rows_of):
    client = pytest.importorskip("confluent_kafka.schema_registry")
    from confluent_kafka.schema_registry.avro import AvroSerializer
    from confluent_kafka.serialization import MessageField, SerializationContext

    with client.SchemaRegistryClient({"url": registry.url}) as known:
        value = AvroSerializer(known, json.dumps(PAYMENT))(RECORD, SerializationContext("a", MessageField.VALUE))
    assert rows_of([value, b"", None, value], COLUMNS) == ({0: ROW, 3: ROW}, {1: "row:empty", 2: "row:empty"})


def test_bytes_and_decimals_are_texts_where_the_source_says_so(register, rows_of):
    schema = record_of(
        ("raw", "bytes"), ("amount", {"type": "bytes", "logicalType": "decimal", "precision": 30, "scale": 2})
    )
    number = register(schema)
    exact = Decimal("1234567890123456789.10")
    values = [avro(number, schema, {"raw": raw, "amount": exact}) for raw in ("ä".encode(), b"\xff")]
    rules = {"raw": RuleSpec(type="str"), "amount": RuleSpec(type="str")}
    spec = SourceSpec(stream="t", format="avro", rules=rules)
    assert rows_of(values, spec) == ({0: {"raw": "ä", "amount": "1234567890123456789.10"}}, {1: "raw:bytes"})
    assert rows_of(values)[1] == {0: "row:bytes", 1: "row:bytes"}


def test_a_schema_that_changes_between_messages(register, rows_of):
    first = record_of(("id", "long"), ("amount", "int"), ("gone", "string"))
    second = record_of(("id", "long"), ("amount", "double"))
    second["fields"].append({"name": "shop", "type": "string", "default": "online"})
    third = record_of(("id", "string"), ("amount", "double"))
    values = [
        avro(register(first), first, {"id": 1, "amount": 2, "gone": "x"}),
        avro(register(second), second, {"id": 2, "amount": 2.5, "shop": "a"}),
        avro(register(third), third, {"id": "3", "amount": 1.0}),
    ]
    rows, refused = rows_of(values, known={"id": "int"})
    assert rows == {
        0: {"id": 1, "amount": 2.0, "gone": "x", "shop": None},
        1: {"id": 2, "amount": 2.5, "gone": None, "shop": "a"},
    }
    assert refused == {2: "id:kind"}


def test_schemas_that_refer_to_others(registry, register, rows_of):
    city = record_of(("name", "string"), name="City")
    registry.register("city", json.dumps(city))
    schema = record_of(("id", "long"), ("city", "City"))
    number = register(schema, references=[{"name": "City", "subject": "city", "version": 1}])
    named = {}
    fastavro.parse_schema(city, named)
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(schema, named), {"id": 1, "city": {"name": "Rom"}})
    spec = SourceSpec(stream="t", format="avro", columns={"city": "city.name"})
    assert rows_of([framed(number, stream.getvalue())], spec)[0] == {0: {"id": 1, "city": "Rom"}}
    lost = register(schema, references=[{"name": "City", "subject": "nowhere", "version": 1}])
    around = [{"name": "City", "subject": "around", "version": 1}]
    registry.register("around", json.dumps(schema), references=around)
    circle = register(record_of(("x", "City")), references=around)
    assert rows_of([framed(lost, b"\2"), framed(circle, b"\2")])[1] == {0: "row:schema", 1: "row:schema"}


BOMB = {"type": "array", "items": "null"}
WIDE = record_of(*((f"f{number}", "null") for number in range(500)), ("x", "boolean"), name="Wide")
TREE = record_of(("v", "int"), ("next", ["null", "Tree"]), name="Tree")
DOUBLING = [record_of(("a", "null"), ("b", "null"), name="D0")] + [
    record_of(("a", f"D{level - 1}"), ("b", f"D{level - 1}"), name=f"D{level}") for level in range(1, 19)
]
DEEP = "int"
for level in range(30):
    DEEP = record_of(("x", DEEP), name=f"L{level}")


@pytest.mark.parametrize(
    ("schema", "payload"),
    [
        (record_of(("a", BOMB)), b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f\0"),
        (record_of(("a", {"type": "map", "values": WIDE})), b""),
        (record_of(("a", {"type": "array", "items": ["null", WIDE]})), b""),
        (TREE, b"\2\2" * 200_000 + b"\2\0"),
        (DEEP, b"\2"),
        (record_of(*((f"d{number}", kind) for number, kind in enumerate(DOUBLING))), b""),
        (record_of(("a", {"type": "fixed", "name": "F", "size": -1})), b"\0"),
        (record_of(("a", {"type": "bytes", "logicalType": "decimal", "precision": 10**9, "scale": 10**9})), b"\2\2"),
        (record_of(("a", [])), b"\0"),
        (record_of(("a", "Nothing")), b"\0"),
        ({"type": "array", "items": "int"}, b"\2\2\0"),
        ("[" * 100_000, b"\2"),
        ("{", b"\2"),
        ("7", b"\2"),
        ({"type": "record", "name": "R", "fields": 3, "__fastavro_parsed": True, "__named_schemas": {}}, b"\2"),
    ],
)
def test_a_schema_that_could_exhaust_memory_or_stack_is_refused(register, rows_of, schema, payload):
    assert rows_of([framed(register(schema), payload)]) == ({}, {0: "row:schema"})


SCHEMA = record_of(("id", "long"), ("name", ["null", "string"]), ("n", {"type": "array", "items": "int"}))


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (b"\0", "row:avro"),
        (b'{"id": 1}', "row:avro"),
        (b"\1\0\0\0\1\2", "row:avro"),
        (framed((1 << 32) - 1, b"\2"), "row:schema"),
        ("NUMBER", "row:avro"),
        (b"\2\2\2a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "row:avro"),
        (b"\2\2\xfe\xff\xff\xff\xff\xff\xff\xff\x7fa", "row:avro"),
        (b"\2\2\2\xff\0", "row:avro"),
        (b"\2\2\2a\0\0", "row:avro"),
        (b"\2\x0e\2a\0", "row:avro"),
        (b"\2\2\2a\2\2\0", "row:nested"),
    ],
)
def test_a_bad_message_is_refused_and_no_other(register, rows_of, value, rule):
    number = register(SCHEMA)
    if value == "NUMBER":
        value = framed(number)
    elif value[:1] == b"\2":
        value = framed(number, value)
    schema = record_of(("id", "long"), ("name", "string"))
    good = avro(register(schema), schema, {"id": 1, "name": "x"})
    rows, refused = rows_of([good, value, good], known={"id": "int", "name": "str"})
    assert rows == {key: {"id": 1, "name": "x"} for key in (0, 2)}
    assert refused == {1: rule}


# messages of several types, as one file
FILE = descriptor_pb2.FileDescriptorProto(
    name="shop.proto", syntax="proto3", package="shop", dependency=["google/protobuf/timestamp.proto"]
)
FILE.dependency.extend(["google/protobuf/wrappers.proto", "google/protobuf/struct.proto"])
TYPES = descriptor_pb2.FieldDescriptorProto


def add_message(parent, name, *fields, optional=()):
    message = (
        parent.message_type.add(name=name) if hasattr(parent, "message_type") else parent.nested_type.add(name=name)
    )
    for number, (key, kind, *more) in enumerate(fields, 1):
        field = message.field.add(name=key, number=number, label=3 if "repeated" in more else 1)
        if isinstance(kind, str):
            field.type, field.type_name = (TYPES.TYPE_ENUM if kind.endswith("Kind") else TYPES.TYPE_MESSAGE), kind
        else:
            field.type = kind
        if key in optional:
            field.proto3_optional, field.oneof_index = True, len(message.oneof_decl)
            message.oneof_decl.add(name=f"_{key}")
    return message


kinds = FILE.enum_type.add(name="Kind")
kinds.value.add(name="card", number=0)
kinds.value.add(name="cash", number=1)
add_message(FILE, "Other", ("x", TYPES.TYPE_INT32))
PAY = add_message(
    FILE,
    "Payment",
    ("id", TYPES.TYPE_INT64),
    ("amount", TYPES.TYPE_DOUBLE),
    ("note", TYPES.TYPE_STRING),
    ("at", ".google.protobuf.Timestamp"),
    ("kind", ".shop.Kind"),
    ("limit", ".google.protobuf.Int64Value"),
    ("address", ".shop.Payment.Address"),
    ("tags", TYPES.TYPE_STRING, "repeated"),
    ("raw", TYPES.TYPE_BYTES),
    ("more", ".google.protobuf.Struct"),
    ("big", TYPES.TYPE_UINT64),
    ("next", ".shop.Payment"),
    ("labels", ".shop.Payment.LabelsEntry", "repeated"),
    optional=("note",),
)
add_message(PAY, "Address", ("city", TYPES.TYPE_STRING), ("no", TYPES.TYPE_INT32, "repeated"))
entry = add_message(PAY, "LabelsEntry", ("key", TYPES.TYPE_STRING), ("value", TYPES.TYPE_INT32))
entry.options.map_entry = True
POOL = descriptor_pool.DescriptorPool()
for module in (timestamp_pb2, wrappers_pb2, struct_pb2):
    POOL.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
POOL.AddSerializedFile(FILE.SerializeToString())
Payment: Any = message_factory.GetMessageClass(POOL.FindMessageTypeByName("shop.Payment"))
#: the second message type of the file
INDEXES = b"\2\2"
PROTOBUF = SourceSpec(
    stream="t",
    format="protobuf",
    columns={"city": "address.city", "color": "more.color", "level": "labels.level", "next_id": "next.id"},
)


@pytest.fixture(scope="module")
def payments(register):
    return register(base64.b64encode(FILE.SerializeToString()).decode(), "PROTOBUF")


def test_a_message_of_confluents_serializer_is_the_row_of_its_json(registry, rows_of):
    client = pytest.importorskip("confluent_kafka.schema_registry")
    from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
    from confluent_kafka.serialization import MessageField, SerializationContext

    full = Payment(id=1, amount=2.5, kind=1, big=2**63, raw=b"", next=Payment(id=9), labels={"level": 3})
    full.at.FromJsonString("2026-12-01T10:00:00.5Z")
    full.limit.value = 4
    full.address.city = "Bern"
    full.address.no.append(1)
    full.more.update({"color": "red"})
    context = SerializationContext("payments", MessageField.VALUE)
    with client.SchemaRegistryClient({"url": registry.url}) as known:
        write = ProtobufSerializer(Payment, known, {"use.deprecated.format": False})
        values = [write(message, context) for message in (full, Payment(note=""), Payment(tags=["a"]))]
    assert values[0][5:7] != b"\0"
    spec = SourceSpec(stream="t", format="protobuf", columns=PROTOBUF.columns, rules={"big": RuleSpec(type="float")})
    rows, refused = rows_of(values, spec, "protobuf")
    absent = dict.fromkeys(("at", "limit", "city", "color", "level", "next_id", "note"))
    assert rows[0] == absent | {
        "id": 1,
        "amount": 2.5,
        "at": "2026-12-01T10:00:00.500Z",
        "kind": "cash",
        "limit": 4,
        "city": "Bern",
        "color": "red",
        "level": 3,
        "next_id": 9,
        "big": 2.0**63,
    }
    assert rows[1] == absent | {"id": 0, "amount": 0.0, "kind": "card", "big": 0.0, "note": ""}
    assert refused == {2: "row:nested"}  # whose field no other message has


@pytest.mark.parametrize(
    ("payload", "rule"),
    [
        (b"", "row:protobuf"),
        (b"\2", "row:protobuf"),
        (b"\1", "row:protobuf"),
        (b"\2\x12\x08\1", "row:protobuf"),
        (b"\xff" * 20, "row:protobuf"),
        (INDEXES + b"\xff", "row:protobuf"),
        (INDEXES + b"\x1a\1\xff", "row:protobuf"),
        (INDEXES + Payment(at={"seconds": 2**62}).SerializeToString(), "row:protobuf"),
        (INDEXES + Payment(raw=b"x").SerializeToString(), "row:bytes"),
        (INDEXES + Payment(big=2**64 - 1).SerializeToString(), "big:type"),
    ],
)
def test_bytes_that_are_no_message_of_the_type_are_refused(payments, rows_of, payload, rule):
    known = {"id": "int", "big": "int"}
    assert rows_of([framed(payments, payload)], PROTOBUF, "protobuf", known) == ({}, {0: rule})


def test_schemas_of_protobuf_that_cannot_be_used(register, rows_of):
    torn = base64.b64encode(FILE.SerializeToString()[:-3]).decode()
    lost = descriptor_pb2.FileDescriptorProto(name="x", dependency=["elsewhere.proto", "google/protobuf/none.proto"])
    texts = ["", "!", "syntax = 'proto3';", torn, base64.b64encode(lost.SerializeToString()).decode()]
    numbers = [register(text, "PROTOBUF") for text in texts]
    numbers.append(register(SCHEMA))  # of the other kind
    values = [framed(number, b"\0\x08\1") for number in numbers]
    rows, refused = rows_of(values, PROTOBUF, "protobuf")
    assert rows == {}
    assert refused == {0: "row:protobuf"} | dict.fromkeys(range(1, 6), "row:schema")


def test_a_message_within_itself_and_one_of_many_values_are_bounded(register, payments, rows_of):
    deep = Payment(id=1)
    for _ in range(60):
        deep = Payment(id=1, next=deep)
    many = Payment(labels={str(number): 1 for number in range(10_001)})
    values = [framed(payments, INDEXES + message.SerializeToString()) for message in (deep, many)]
    assert rows_of(values, PROTOBUF, "protobuf")[1] == {0: "row:depth", 1: "row:fields"}


SCALARS = st.sampled_from(["long", "double", "boolean", "string", "int"])
VALUES = {
    "long": st.integers(-(2**63), 2**63 - 1),
    "int": st.integers(-(2**31), 2**31 - 1),
    "double": st.floats(allow_nan=False, allow_infinity=False),
    "boolean": st.booleans(),
    "string": st.text(st.characters(exclude_categories=["Cs"])),
}


@st.composite
def streams(draw):
    """A schema of plain fields, an optional one and a record, and records of it."""
    fields = [(f"f{number}", draw(SCALARS)) for number in range(draw(st.integers(1, 4)))]
    inner = draw(SCALARS)
    schema = record_of(*fields, ("maybe", ["null", "long"]), ("own", record_of(("x", inner), name="Own")))
    record = st.fixed_dictionaries(
        {name: VALUES[kind] for name, kind in fields}
        | {"maybe": st.none() | VALUES["long"], "own": st.fixed_dictionaries({"x": VALUES[inner]})}
    )
    return schema, draw(st.lists(record, min_size=1, max_size=5))


@settings(max_examples=50, deadline=None)
@given(streams())
def test_any_records_give_the_rows_of_their_json(register, rows_of, stream):
    schema, records = stream
    number = register(schema)
    spec = SourceSpec(stream="t", format="avro", columns={"x": "own.x"})
    assert rows_of([avro(number, schema, record) for record in records], spec) == json_rows(records, spec)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(VALUES["long"], VALUES["double"], VALUES["string"], VALUES["long"], st.booleans()),
        min_size=1,
        max_size=5,
    )
)
def test_any_messages_of_protobuf_give_the_rows_of_their_json(payments, rows_of, records):
    columns = {"city": "address.city"}
    values, twins = [], []
    for number, amount, text, limit, noted in records:
        message = Payment(id=number, amount=amount, address={"city": text}, limit={"value": limit})
        twin = {"id": number, "amount": amount, "big": 0, "kind": "card", "address": {"city": text}, "limit": limit}
        if noted:
            message.note = twin["note"] = text
        values.append(framed(payments, INDEXES + message.SerializeToString()))
        twins.append(twin)
    rows, refused = rows_of(values, SourceSpec(stream="t", format="protobuf", columns=columns), "protobuf")
    expected, _ = json_rows(twins, SourceSpec(stream="t", columns=columns))
    assert refused == {}
    assert {key: {name: row[name] for name in row if row[name] is not None} for key, row in rows.items()} == {
        key: {name: row[name] for name in row if row[name] is not None} for key, row in expected.items()
    }


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_bytes_are_refused_or_read_and_never_stop_a_source(register, payments, rows_of, data):
    kind = data.draw(st.sampled_from(["avro", "protobuf"]))
    if kind == "avro":
        whole = avro(register(PAYMENT), PAYMENT, RECORD)
    else:
        whole = framed(payments, INDEXES + Payment(id=1, note="x", address={"city": "y"}).SerializeToString())
    changed = bytearray(whole)
    for place, byte in data.draw(st.lists(st.tuples(st.integers(5, len(whole) - 1), st.integers(0, 255)), max_size=4)):
        changed[place] = byte
    values = [
        bytes(changed[: data.draw(st.integers(0, len(whole)))]),
        whole[:5] + data.draw(st.binary(max_size=40)),
        whole,
    ]
    spec = COLUMNS if kind == "avro" else PROTOBUF
    rows, refused = rows_of(values, spec, kind)
    assert rows.keys() | refused.keys() == {0, 1, 2}
    assert rows.keys() & refused.keys() == set()


def test_a_registry_that_is_away_or_refuses_is_no_fault_of_a_message(register, monkeypatch):
    with schema_registry() as server:
        number = server.register("s", json.dumps(SCHEMA))
        server.user, server.password = "ada", "a pass word"
        address = server.location.replace("//", "//ada@") + "?password=REGISTRY"
        schemas = ConfluentSchemas(address, secrets=MemorySecrets({"REGISTRY": "a pass word"}))
        value = avro(number, SCHEMA, {"id": 1, "name": None, "n": []})
        decoder = RegisteredDecoder(schemas, "avro", PLAIN)
        assert decoder.objects_of({0: value, 1: value}, {}) == {key: {"id": 1, "name": None, "n": []} for key in (0, 1)}
        assert server.asked == [f"/schemas/ids/{number}"]
        now, most = 0.0, 3
        monkeypatch.setattr(registered, "_MOST_ABSENT", most)
        decoder = RegisteredDecoder(schemas, "avro", PLAIN, lambda: now)
        values = {key: b"\0" + (number + 1 + key).to_bytes(4, "big") for key in range(3 * most)}
        server.asked.clear()
        for asked in (most, 2 * most):
            refused: dict[int, str] = {}
            assert decoder.objects_of(values | {-1: value}, refused).keys() == {-1}
            assert set(refused.values()) == {"row:schema"}
            assert refused.keys() == values.keys()
            assert server.asked == [f"/schemas/ids/{number + place}" for place in range(asked + 1)]
        now += registered._ABSENT_SECONDS
        decoder.objects_of({0: values[0], 1: values[0]}, {})
        assert server.asked[-2:] == [f"/schemas/ids/{number + place}" for place in (2 * most, 1)]
        other = ConfluentSchemas(address, secrets=MemorySecrets({"REGISTRY": "another"}))
        with pytest.raises(CredentialsError, match="refuses this user"):
            other.schema(number, "avro")
        server.user = None
        with pytest.raises(StorageError, match="does not answer as a schema registry"):
            ConfluentSchemas(f"{server.location}/elsewhere").schema(number, "avro")
        for status in (429, 500, 503):
            server.status = status
            with pytest.raises(EngineUnavailableError):
                schemas.schema(number + 1, "avro")
        assert decoder.objects_of({0: value}, {}) != {}  # what is known is not asked for again
    with pytest.raises(EngineUnavailableError, match="does not answer"):
        schemas.schema(number, "avro")


@pytest.mark.parametrize(
    "url",
    [
        "confluent+https://",
        "confluent+https://host:99999",
        "confluent+https://ada:secret@host",
        "confluent+https://ada@host",
        "confluent+https://host?password=X",
        "confluent+http://host?ca=/nowhere",
        "confluent+https://host?ca=/nowhere",
        "confluent+https://ada@host?password=${secret:X}",
        "confluent+https://host?timeout=3",
    ],
)
def test_an_address_that_cannot_be_used(url):
    with pytest.raises(UsageError) as refused:
        parse_registry_url(url)
    assert "secret@" not in refused.value.full_text
