"""YAML text as a tree that knows its lines, whatever the text is."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cumulant.core.errors import ProjectFileError
from cumulant.project.file.document import MAX_BYTES, MAX_DEPTH, document_of, parse_document, read_content


def parsed(text: str):
    return parse_document(text, "cumulant.yaml").plain()


def fault(text: str) -> tuple[str, int | None, str]:
    with pytest.raises(ProjectFileError) as caught:
        parse_document(text, "cumulant.yaml")
    [problem] = caught.value.problems
    return problem


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("NO", "NO"),
        ("y", "y"),
        ("True", True),
        ("FALSE", False),
        ("2018-05-01", "2018-05-01"),
        ("2018-05-01 10:00:00", "2018-05-01 10:00:00"),
        ("12:30", "12:30"),
        ("12:30:45", "12:30:45"),
        ("1_000", "1_000"),
        ("0o17", 15),
        ("0x1F", 31),
        ("012", 12),
        ("+5", 5),
        ("-0", 0),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("1.5e-3", 0.0015),
        ("~", None),
        ("null", None),
        ("", None),
        ("'5'", "5"),
        ('"true"', "true"),
        ("!!str 5", "5"),
        ("! 5", "5"),
        ("!!int '7'", 7),
        ("5%", "5%"),
        ("60d", "60d"),
        ("=", "="),
        ("1.2.3", "1.2.3"),
        ("0b1", "0b1"),
        ("nan", "nan"),
        ("inf", "inf"),
    ],
)
def test_plain_text_is_typed_by_yaml_1_2(text, value):
    found = parsed(f"a: {text}\n")["a"]
    assert found == value
    assert type(found) is type(value)


def test_a_directive_for_yaml_1_1_changes_nothing():
    assert parsed("%YAML 1.1\n---\na: on\nb: 010\nc: 2018-05-01\n") == {"a": "on", "b": 10, "c": "2018-05-01"}


def test_every_entry_knows_its_line():
    root = parse_document("a: 1\nb:\n  c: [x,\n      y]\n  d:\n    {e: 2}\n  f: >\n    long\n    text\n", "p.yaml")
    lines = {
        path: root.at(path).place.line
        for path in [("a",), ("b",), ("b", "c"), ("b", "c", 1), ("b", "d"), ("b", "d", "e"), ("b", "f")]
    }
    assert lines == {
        ("a",): 1,
        ("b",): 2,
        ("b", "c"): 3,
        ("b", "c", 1): 4,
        ("b", "d"): 5,
        ("b", "d", "e"): 6,
        ("b", "f"): 7,
    }
    assert root.at(("b", "c", 2)) is None
    assert root.at(("nothing", "here")) is None


def test_anchors_and_merge_keys():
    text = "base: &b {x: 1, y: 2}\nother: &o {y: 3, z: 4}\none: {<<: *b, y: 9}\ntwo:\n  <<: [*b, *o]\nthree: *b\n"
    found = parsed(text)
    assert found["one"] == {"x": 1, "y": 9}
    assert found["two"] == {"x": 1, "y": 2, "z": 4}
    assert found["three"] == found["base"]


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, 'the key "a" is set twice; the first time in line 1'),
        ("a: {x: 1, y: 2, x: 3}\n", 1, '"x" is set twice'),
        ("a: 1\n1: x\n'1': y\n", 3, '"1" is set twice'),
        ("a:\n\tb: 1\n", 2, "a tab stands where only spaces can"),
        ("a: [1, 2\nb: 3\n", 1, "not valid YAML in column 4"),
        ("a: 'x\n", 1, "not valid YAML in column 4"),
        ("a: b: c\n", 1, "column 5"),
        ("a: *nothing\n", 1, "anchor that is not set"),
        ("a: &x [1, *x]\n", 1, "inside its own anchor"),
        ("a: !!python/object/apply:os.system [ls]\n", 1, "is refused"),
        ("ok: 1\na: !mine 5\n", 2, "is refused"),
        ("a: !!binary aGVsbG8=\n", 1, "is refused"),
        ("---\na: 1\n---\nb: 2\n", 3, "second document"),
        ("a: .inf\n", 1, "not a number that a setting can have"),
        ("a: .NaN\n", 1, "not a number that a setting can have"),
        ("a: 1\nb: 1e999\n", 2, "too large for a float"),
        ("a: 9223372036854775808\n", 1, "64 bits"),
        ("a: " + "9" * 5000 + "\n", 1, "64 bits"),
        ("? [a, b]\n: 1\n", 1, "a key must be text"),
        ("a: 1\nb: x\x07y\n", 2, "control character"),
        ("<<: 5\n", 1, "<< takes a mapping"),
        ("a: &k [1]\n*k : 2\n", 2, "a key must be text"),
    ],
)
def test_faults_carry_their_line(text, line, said):
    file, found, problem = fault(text)
    assert (file, found) == ("cumulant.yaml", line)
    assert said in problem


def test_a_billion_laughs_are_refused_in_little_time_and_memory():
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert "expands to more than" in fault("\n".join(rows))[2]
    keys = ["m0: &m0 {" + ", ".join(f"k{n}: 1" for n in range(50)) + "}"]
    keys += [f"m{n}: &m{n} {{" + ", ".join(f"k{i}: *m{n - 1}" for i in range(20)) + "}" for n in range(1, 9)]
    assert "expands to more than" in fault("\n".join(keys))[2]


@pytest.mark.parametrize("opening", ["[", "{a: "])
def test_deep_nesting_is_refused(opening):
    assert f"deeper than {MAX_DEPTH} levels" in fault("a: " + opening * 3000)[2]


def test_files_that_cannot_be_read(tmp_path):
    def said(path) -> tuple[int | None, str]:
        with pytest.raises(ProjectFileError) as caught:
            document_of(read_content(path, "cumulant.yaml"), "cumulant.yaml")
        return caught.value.problems[0][1:]

    assert said(tmp_path / "missing.yaml") == (None, "the file does not exist")
    assert said(tmp_path) == (None, "this is a folder, not a file")
    (tmp_path / "latin.yaml").write_bytes("a: 1\nb: café\n".encode("latin-1"))
    assert said(tmp_path / "latin.yaml") == (2, "the file is not UTF-8 text")
    (tmp_path / "big.yaml").write_bytes(b"#" * (MAX_BYTES + 1))
    assert "larger than" in said(tmp_path / "big.yaml")[1]
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbfversion: 1\r\nfeatures: x.py\r\n")
    assert document_of(read_content(tmp_path / "bom.yaml", "x"), "x").plain() == {"version": 1, "features": "x.py"}


def test_an_empty_value_is_told_from_null():
    root = parse_document("a:\nb: null\nc: ''\n", "p.yaml")
    assert [root.get(key).blank for key in "abc"] == [True, False, False]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(blacklist_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(categories=["L", "N"])), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(json_values)
def test_json_reads_as_itself(value):
    """JSON is YAML 1.2; what it holds must come back whole."""
    assert parsed(json.dumps({"a": value}))["a"] == value


@settings(deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_a_tree_or_a_fault_with_its_place(text):
    try:
        parse_document(text, "cumulant.yaml")
    except ProjectFileError as error:
        for file, line, said in error.problems:
            assert file == "cumulant.yaml"
            assert (
                line is None
                or 1
                <= line
                <= text.count("\n")
                + text.count("\r")
                + text.count("\x85")
                + text.count("\u2028")
                + text.count("\u2029")
                + 2
            )
            assert said
