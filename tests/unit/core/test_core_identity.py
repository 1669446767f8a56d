from datetime import UTC, datetime

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from cumulant.core import events, ids
from cumulant.core.errors import CumulantError, did_you_mean, not_found

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), JSON, max_size=6))
def test_identity_does_not_depend_on_the_order_of_keys(value):
    turned = dict(reversed(list(value.items())))
    assert ids.digest(value) == ids.digest(turned)


def test_identity_tells_different_values_apart():
    values = [{}, [], "", 0, None, False, {"a": 1}, {"a": "1"}, {"b": 1}, [1], [[1]], "1", 1.5]
    assert len({ids.digest(value) for value in values}) == len(values)


def chain(count):
    previous, made = events.GENESIS, []
    for seq in range(1, count + 1):
        event = events.Event(
            seq=seq,
            id=f"e{seq}",
            time=datetime(2026, 1, 1, tzinfo=UTC),
            kind="test",
            schema=1,
            actor="user:ada",
            reason=None,
            project="p",
            run=None,
            cause=None,
            data={"n": seq},
            previous=previous,
        ).sealed()
        made.append(event)
        previous = event.hash
    return made


@given(st.integers(0, 8))
def test_an_untouched_chain_has_no_break(count):
    assert list(events.verify_chain(chain(count))) == []


@given(st.integers(2, 8), st.data())
def test_every_edit_deletion_and_swap_breaks_the_chain(count, data):
    made = chain(count)
    at = data.draw(st.integers(0, count - 2))
    edited = [*made[:at], msgspec.structs.replace(made[at], actor="user:mallory"), *made[at + 1 :]]
    resealed = [*made[:at], msgspec.structs.replace(made[at], actor="user:mallory").sealed(), *made[at + 1 :]]
    deleted = made[:at] + made[at + 1 :]
    swapped = [*made[:at], made[at + 1], made[at], *made[at + 2 :]]
    for tampered in (edited, resealed, deleted, swapped):
        assert list(events.verify_chain(tampered))


def test_an_event_survives_json():
    event = chain(1)[0]
    again = msgspec.json.decode(msgspec.json.encode(event), type=events.Event)
    assert again.expected_hash() == event.hash


def every_error(root=CumulantError):
    for kind in root.__subclasses__():
        yield kind
        yield from every_error(kind)


def test_every_error_has_a_code_of_its_own():
    codes = [kind.code for kind in every_error() if kind.__module__ == CumulantError.__module__]
    assert len(codes) == len(set(codes))


def test_suggestions():
    assert did_you_mean("traning", ["training", "data"]) == 'did you mean "training"?'
    assert did_you_mean("xyz", ["training"]) is None
    assert 'did you mean "weather"' in not_found("source", "wether", ["weather", "flights"]).hint
