"""From entries to rows: JSON and tensors of every datatype, and what becomes of personal and of large values."""

import base64
import hashlib
import json
import math
import struct

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cumulant.core.masking import mask
from cumulant.core.plan import Field
from cumulant.data.masking import mask_frame
from cumulant.serving.prediction_log.entry import LogEntry
from cumulant.serving.prediction_log.entry_rows import LARGE, row_texts
from cumulant.serving.prediction_log.personal_values import PersonalValueMask

KEY = b"pepper"
PLAIN = PersonalValueMask(KEY, {"m": []})
KINDS = {
    "BOOL": "?",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}


def entry(**more):
    return LogEntry(id="a", time_us=1, latency_us=1, model="m", version="1", **more)


def rows(one, hiding=PLAIN):
    sent = msgspec.msgpack.decode(msgspec.msgpack.encode(one), type=LogEntry)
    return [(json.loads(asked), json.loads(answered)) for asked, answered in row_texts(sent, hiding.of("m"))]


def as_json(value):
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return [as_json(one) for one in value] if isinstance(value, list) else value


def packed(elements):
    return b"".join(struct.pack("<I", len(one)) + one for one in elements)


def test_json_rows_are_kept_as_they_were_sent():
    asked = b'[{"x": 1.50, "y": "\\u00e9"}, {"x": 2}]'
    found = list(row_texts(entry(rows=asked, answers=b'[{"p":1},{"p":2}]'), None))
    assert found == [('{"x": 1.50, "y": "\\u00e9"}', '{"p":1}'), ('{"x": 2}', '{"p":2}')]


@given(
    st.lists(
        st.dictionaries(
            st.text(max_size=5), st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(), max_size=4
        ),
        min_size=1,
        max_size=5,
    )
)
def test_any_json_rows_come_back(asked):
    data = msgspec.json.encode(asked)
    assert rows(entry(rows=data, answers=data)) == [(row, row) for row in asked]


@settings(max_examples=200)
@given(st.sampled_from(sorted(KINDS)), st.integers(1, 4), st.lists(st.integers(1, 3), max_size=3), st.data())
def test_a_tensor_of_any_datatype_and_shape_comes_back_row_by_row(datatype, count, inner, data):
    shape = [count, *inner]
    dtype = np.dtype(KINDS[datatype])
    size = math.prod(shape) * dtype.itemsize
    raw = data.draw(st.binary(min_size=size, max_size=size))
    if datatype == "BOOL":
        raw = bytes(byte & 1 for byte in raw)
    array = np.frombuffer(raw, dtype).reshape((count,) if math.prod(inner) == 1 else shape)
    with np.errstate(all="ignore"):
        expected = [{"x": as_json(value)} for value in array.astype("f8" if datatype == "FP16" else dtype).tolist()]
    found = rows(entry(tensors=[("x", datatype, shape, raw)], outputs=[("x", datatype, shape, raw)]))
    assert found == [(row, row) for row in expected]


@given(st.lists(st.binary(max_size=6), min_size=1, max_size=4))
def test_bytes_come_back_as_text_or_base64(elements):
    found = rows(entry(tensors=[("t", "BYTES", [len(elements)], packed(elements))]))
    for (row, _), element in zip(found, elements, strict=True):
        value = row["t"]
        assert (base64.b64decode(value["base64"]) if isinstance(value, dict) else value.encode()) == element


def test_columns_name_the_values_of_one_matrix():
    raw = np.array([[1, 2], [3, 4.5]], "<f4").tobytes()
    found = rows(entry(tensors=[("x", "FP32", [2, 2], raw)], columns=["a", "b"]))
    assert found == [({"a": 1, "b": 2}, {}), ({"a": 3, "b": 4.5}, {})]
    one = rows(entry(tensors=[("x", "FP32", [1, 2], raw[:8])], columns=["a", "b"]))
    assert one == [({"a": 1, "b": 2}, {})]
    single = rows(entry(tensors=[("x", "FP32", [3, 1], raw[:12])], columns=["a"]))
    assert [asked for asked, _ in single] == [{"a": 1}, {"a": 2}, {"a": 3}]


def test_columns_that_do_not_fit_are_not_used():
    raw = np.array([[1, 2]], "<f4").tobytes()
    assert rows(entry(tensors=[("x", "FP32", [1, 2], raw)], columns=["a"])) == [({"x": [1, 2]}, {})]


def test_several_tensors_make_one_row_of_each_place():
    tensors = [
        ("x", "FP64", [2, 2], np.array([[1, 2], [3, 4]], "<f8").tobytes()),
        ("who", "BYTES", [2, 1], packed([b"ada", b"eve"])),
    ]
    assert [asked for asked, _ in rows(entry(tensors=tensors))] == [
        {"x": [1, 2], "who": "ada"},
        {"x": [3, 4], "who": "eve"},
    ]


def test_tensors_without_a_common_dimension_are_one_row():
    tensors = [("x", "INT8", [2], b"\1\2"), ("state", "INT8", [3], b"\3\4\5"), ("t", "INT8", [], b"\6")]
    assert rows(entry(tensors=tensors)) == [({"x": [1, 2], "state": [3, 4, 5], "t": 6}, {})]


@pytest.mark.parametrize("shape", [[0], [0, 3], [10**12, 0], [1, 0]])
def test_an_empty_tensor_is_one_row_so_that_its_number_is_there(shape):
    assert len(rows(entry(tensors=[("x", "FP32", shape, b"")]))) == 1


def test_an_entry_of_no_row_is_one_row():
    assert rows(entry(rows=b"[]", answers=b"[]")) == [({}, {})]
    assert rows(entry()) == [({}, {})]
    assert rows(entry(rows=b'[{"a":1},{"a":2}]', answers=b'[{"p":1}]')) == [({"a": 1}, {"p": 1}), ({"a": 2}, {})]


@pytest.mark.parametrize(
    "tensor",
    [
        ("x", "FP32", [2], b"\0" * 7),
        ("x", "FP32", [1, 2], b"\0" * 7),
        ("x", "FP32", [-1], b""),
        ("x", "FP32", [1, -2], b""),
        ("x", "FP99", [1], b"\0"),
        ("x", "FP32", [1, 10**30], b""),
        ("x", "BYTES", [2], packed([b"a"])),
        ("x", "BYTES", [10**9], packed([b"a"])),
        ("x", "BYTES", [1], b"\xff\xff\xff\xff"),
        ("x", "BYTES", [1], b"\1\0\0\0ab"),
    ],
)
def test_bytes_that_are_no_tensor_are_refused_before_a_row_is_made(tensor):
    with pytest.raises(ValueError):
        row_texts(entry(tensors=[tensor]), None)


# Personal values


PERSONAL = PersonalValueMask(KEY, {"m": [Field("email", "str", personal=True), Field("age", "int", personal=True)]})


def test_personal_values_are_keyed_hashes_wherever_they_stand():
    asked = b'[{"em\\u0061il": "ada@x.com", "age": 36.0, "n": 1.50}, {"email": null}]'
    found = rows(entry(rows=asked, answers=b"[]"), PERSONAL)
    assert found[0][0] == {"email": mask("ada@x.com", KEY), "age": mask(36, KEY), "n": 1.5}
    assert found[1][0] == {"email": None}
    tensors = [("email", "BYTES", [2, 1], packed([b"ada@x.com", b"eve"])), ("n", "FP32", [2], bytes(8))]
    assert [row["email"] for row, _ in rows(entry(tensors=tensors), PERSONAL)] == [
        mask("ada@x.com", KEY),
        mask("eve", KEY),
    ]
    matrix = ("x", "FP64", [1, 2], np.array([[36, 1]], "<f8").tobytes())
    assert rows(entry(tensors=[matrix], columns=["age", "n"]), PERSONAL)[0][0] == {"age": mask(36, KEY), "n": 1}


def test_a_name_sent_twice_hides_both():
    (row,) = row_texts(entry(rows=b'[{"email":"ada@x.com","email":"eve@x.com"}]'), PERSONAL.of("m"))
    assert "@" not in row[0]


def test_nested_personal_values_are_hashed_whole():
    found = rows(entry(rows=b'[{"email": ["ada@x.com"]}]'), PERSONAL)
    assert found[0][0] == {"email": mask('["ada@x.com"]', KEY)}


def test_of_a_model_that_nobody_described_every_value_is_hidden():
    assert rows(entry(rows=b'[{"a": "ada", "b": 1}]'), PersonalValueMask(KEY))[0][0] == {
        "a": mask("ada", KEY),
        "b": mask(1, KEY),
    }


def test_without_a_key_nothing_can_be_guessed():
    hiding = PersonalValueMask(b"", {"m": [Field("email", "str", personal=True)]})
    assert rows(entry(rows=b'[{"email": "ada"}]'), hiding)[0][0] == {"email": "#hidden"}


def test_what_one_version_calls_personal_stays_hidden_in_others():
    hiding = PersonalValueMask(KEY, {"m": [Field("email", "str", personal=True)]})
    hiding.describe("m", [])
    assert rows(entry(rows=b'[{"email": "ada"}]'), hiding)[0][0] == {"email": mask("ada", KEY)}


@pytest.mark.parametrize(
    ("dtype", "sent", "zone"),
    [
        ("str", "ada", None),
        ("int", 36, None),
        ("int", 36.0, None),
        ("float", 36, None),
        ("bool", 1, None),
        ("date", "1984-05-01", None),
        ("time", "1984-05-01T06:00:00Z", None),
        ("time", "1984-05-01T08:00:00+02:00", None),
        ("time", "1984-05-01T02:00:00", "America/New_York"),
        ("time", 452239200, None),
    ],
)
def test_hashes_are_those_of_a_source_so_that_labels_join(dtype, sent, zone):
    import datetime as dt

    import polars as pl

    held = {
        "str": "ada",
        "int": 36,
        "float": 36.0,
        "bool": True,
        "date": dt.date(1984, 5, 1),
        "time": dt.datetime(1984, 5, 1, 6, tzinfo=dt.UTC),
    }
    joined = mask_frame(pl.DataFrame({"who": [held[dtype]]}), ["who"], KEY)["who"][0]
    hiding = PersonalValueMask(KEY, {"m": [Field("who", dtype, personal=True, zone=zone)]})
    assert rows(entry(rows=msgspec.json.encode([{"who": sent}])), hiding)[0][0] == {"who": joined}


# Large values


def test_a_large_row_is_known_by_its_shape_and_hash():
    raw = np.arange(2 * 40 * 1024, dtype="<f4").tobytes()
    found = rows(entry(tensors=[("image", "FP32", [2, 40, 1024], raw)]))
    half = len(raw) // 2
    for place, (row, _) in enumerate(found):
        digest = hashlib.sha256(raw[place * half :][:half]).hexdigest()
        assert row == {"$large": {"bytes": half, "sha256": digest, "shape": {"image": [40, 1024]}}}
    one = rows(entry(tensors=[("image", "FP32", [1, 40, 1024], raw[:half])]))
    assert one == found[:1]
    assert rows(entry(tensors=[("image", "FP32", [1, 40 * 1024], raw[:half])]))[0][0]["$large"]["bytes"] == half


def test_a_large_json_row_too_and_a_small_one_beside_it_not():
    asked = [{"t": "x" * LARGE}, {"t": "x"}]
    large, small = rows(entry(rows=msgspec.json.encode(asked), answers=msgspec.json.encode(asked)))
    text = msgspec.json.encode(asked[0])
    told = {"$large": {"bytes": len(text), "sha256": hashlib.sha256(text).hexdigest(), "shape": {}}}
    assert large == (told, told)
    assert small == (asked[1], asked[1])
