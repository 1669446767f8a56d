"""References and scores of many rows are those of one row after the other."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from outcomes_support import KEY

from cumulant.core.plan import Field
from cumulant.core.prediction import read_object
from cumulant.core.units import from_micros
from cumulant.outcomes.join import prediction_losses
from cumulant.outcomes.prediction_refs import key_ref, key_refs, source_text

FIELDS = tuple(
    Field(name=name, dtype=dtype, personal=name == "card")
    for name, dtype in {"card": "str", "shop": "str", "n": "int", "x": "float", "new": "bool", "day": "date"}.items()
)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=3),
    st.sampled_from(["#hidden", -0.0, 0.0, 1, 1.0, True, 1e16, "2024-01-02", "\x1f", '"']),
)


def one_by_one(row, times):
    """The reference of one row, written out."""
    if times is None or None in row or "#hidden" in row:
        return None
    texts = [source_text(value, field) for value, field in zip(row, FIELDS, strict=True)]
    return key_ref(json.dumps(texts, ensure_ascii=False, separators=(",", ":")), from_micros(times))


usual = st.tuples(
    st.sampled_from(["#a1", "#b2"]),
    st.sampled_from(["a", "b"]),
    st.integers(-9, 9),
    st.sampled_from([-0.0, 0.5, 1e22]),
    st.booleans(),
    st.sampled_from(["2024-01-02", "2024-02-01T00:00:00"]),
)


@given(st.lists(st.tuples(usual | st.tuples(*[VALUES] * len(FIELDS)), st.none() | st.integers(-(10**15), 10**15))))
@example([(("#a1", "a", 1, True, False, "2024-01-02"), 0), (("#a1", "a", True, 1, 1, "2024-01-02"), 0)])
def test_the_references_of_many_rows_are_those_of_each(rows):
    columns = list(zip(*(row for row, _ in rows), strict=True)) or [()] * len(FIELDS)
    got = key_refs(columns, FIELDS, [when for _, when in rows])
    assert [_read(one) for one in got] == [_read(one_by_one(row, when)) for row, when in rows]


def _read(ref):
    """The parts of a reference: JSON can write a text in several ways."""
    if ref is None:
        return None
    kind, when, texts = ref.split("\x1f", 2)
    return kind, int(when), json.loads(texts)


def test_hidden_keys_meet_nobody():
    """Without a salt every personal value is the same text: it must not make all cards one."""
    assert key_refs([["#hidden", "#a1", "#hidden"], [7, 7.0, 7]], KEY, [5, 5, 5]) == [
        None,
        'k\x1f5\x1f["#a1","7"]',
        None,
    ]


def test_without_a_key_no_row_has_a_reference():
    assert key_refs([], (), [1, None]) == [None, None]


ANSWERS = [
    {"probability": 0.25, "prediction": True},
    {"prediction": 3},
    {"probability": 1},
    {"probability": None, "score": 2},
    {"prediction": "yes", "probability": 0.5},
    {"prediction": 2.5, "probability": None},
    {"y": 4.0},
    {"y": 1, "z": 2},
    {"probability": True, "prediction": 0.5},
    {"probability": "0.3"},
    {"prediction": 9.5, "probability": False},
    {},
    [],
]


@given(st.lists(st.sampled_from([*map(json.dumps, ANSWERS), "{", "7", '{"probability": 0.5, "probability": 0.75}'])))
@example([json.dumps(ANSWERS[0])] * 3)
@example([json.dumps(ANSWERS[1])] * 3)
@example([json.dumps(ANSWERS[1]), json.dumps(ANSWERS[5])])
def test_the_scores_of_many_answers_are_those_of_each(texts):
    assert prediction_losses.scores(texts) == [prediction_losses.score(read_object(text)) for text in texts]


@pytest.mark.parametrize("text", ['{"probability": 1e999, "prediction": 2}', '{"prediction": 1e999, "score": 0.5}'])
def test_a_number_that_is_none_is_passed_over(text):
    assert prediction_losses.scores([text]) == [prediction_losses.score(read_object(text))]
