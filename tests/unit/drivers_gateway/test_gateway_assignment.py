"""Which arm a request goes to, against a slow and plain account of the rule."""

from __future__ import annotations

import hashlib
import json
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cumulant.core.traffic import CANDIDATE, CHAMPION, Arm, Routes
from cumulant.drivers.local.gateway.assignment import arm_at, key_in, place, stand_in, text_of

KEYS = st.binary(min_size=1, max_size=60)
WEIGHTS = st.floats(0, 100)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["card", "rows", "inputs", "name", "data", "columns", "dataframe_split"]), inner
        )
    ),
    max_leaves=20,
)


def routes(weight: float, *, candidate: bool = True) -> Routes:
    arm = Arm(name="candidate", version="2", endpoints=("http://127.0.0.1:2",)) if candidate else None
    champion = Arm(name="champion", version="1", endpoints=("http://127.0.0.1:1",))
    return Routes(model="m", revision=1, champion=champion, candidate=arm, weight=weight)


def slow_place(key: bytes, model: str) -> Fraction:
    """The first 53 bits of the keyed hash, bit by bit."""
    person = hashlib.blake2b(model.encode(), digest_size=16).digest()
    digest = hashlib.blake2b(key, digest_size=8, person=person).digest()
    bits = "".join(f"{byte:08b}" for byte in digest)[:53]
    return sum((Fraction(int(bit), 2**at) for at, bit in enumerate(bits, 1)), Fraction(0))


@given(KEYS, st.text(max_size=40))
def test_a_keys_place_is_that_of_the_oracle(key: bytes, model: str) -> None:
    assert Fraction(place(key, model)) == slow_place(key, model)
    assert 0 <= place(key, model) < 1


@given(st.lists(KEYS, max_size=30), WEIGHTS, WEIGHTS)
def test_a_ramp_only_takes_from_the_champion(keys: list[bytes], one: float, other: float) -> None:
    low, high = sorted((one, other))
    before = {key for key in keys if arm_at(place(key, "m"), routes(low)) == CANDIDATE}
    after = {key for key in keys if arm_at(place(key, "m"), routes(high)) == CANDIDATE}
    assert before <= after


@given(KEYS)
def test_the_ends_of_a_ramp_are_all_and_nothing(key: bytes) -> None:
    share = place(key, "m")
    assert arm_at(share, routes(0.0)) == arm_at(share, routes(100.0, candidate=False)) == CHAMPION
    assert arm_at(share, routes(100.0)) == CANDIDATE


def test_the_share_of_keys_is_the_weight() -> None:
    found = sum(arm_at(place(b"%d" % number, "m"), routes(10.0)) == CANDIDATE for number in range(20_000))
    assert 1_800 < found < 2_200


def test_two_models_share_out_apart() -> None:
    both = sum(place(b"%d" % n, "one") < 0.1 and place(b"%d" % n, "two") < 0.1 for n in range(20_000))
    assert 120 < both < 280


@given(JSON, st.sampled_from(["card", "rows", "inputs"]))
def test_any_json_is_looked_into_without_a_fault(document: object, column: str) -> None:
    assert isinstance(key_in(json.dumps(document).encode(), column), bytes)


@given(st.binary(max_size=100))
def test_any_bytes_are_looked_into_without_a_fault(body: bytes) -> None:
    key_in(body, "card")


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"card":' * 50_000, b'{"card":' + b"9" * 20_000 + b"}", b"\xff", b""]
)
def test_hostile_bodies_have_no_key(body: bytes) -> None:
    assert isinstance(key_in(body, "card"), bytes)


@given(st.text(min_size=1, max_size=20) | st.integers(-(2**63), 2**63 - 1) | st.booleans())
def test_a_key_is_the_same_in_each_form(value: str | int | bool) -> None:
    tensor = {"name": "card", "shape": [2], "datatype": "BYTES", "data": [value, "other"]}
    bodies = [
        {"card": value},
        [{"card": value}],
        {"rows": [{"card": value}, {"card": "other"}]},
        {"dataframe_records": [{"a": 1, "card": value}]},
        {"dataframe_split": {"columns": ["a", "card"], "data": [[1, value], [2, "other"]]}},
        {"instances": [{"card": value}]},
        {"inputs": {"card": [value, "other"], "a": [1, 2]}},
        {"inputs": [{"card": value}]},
        {"inputs": [{"name": "a", "data": [1]}, tensor]},
        {"inputs": [{**tensor, "data": [[[value]]]}]},
    ]
    assert {key_in(json.dumps(body).encode(), "card") for body in bodies} == {text_of(value)}


def test_numbers_have_one_text() -> None:
    assert text_of(7) == text_of(7.0) == text_of("7") == b"7"
    assert text_of(7.5) == b"7.5"
    assert text_of(None) == text_of([1]) == text_of({}) == b""


@given(KEYS, KEYS)
def test_stand_ins_tell_keys_apart_and_do_not_tell_them(one: bytes, other: bytes) -> None:
    assert (stand_in(one, b"secret") == stand_in(other, b"secret")) == (one == other)
    assert stand_in(one, b"secret") != stand_in(one, b"another")
    assert stand_in(one, None) == stand_in(b"", b"secret") == ""
