"""A server that owes an answer: how long nothing may come, by a clock of the test."""

import pytest

connection = pytest.importorskip("cumulant.drivers.postgres.connection", reason='pip install "cumulant[postgres]"')
NOTHING, READY = 0, 1


def exchange():
    """Asks to read or write until told "done"."""
    told = []
    while len(told) < 3:
        if ready := (yield "read"):
            told.append(ready)
    return told


def advance(events, *, limit=60.0):
    """The result of the exchange when, at these times, that was ready."""
    now = [0.0]
    limited = connection.limit_silence(exchange(), limit, steady=lambda: now[0])
    assert next(limited) == "read"
    for now[0], ready in events:
        try:
            assert limited.send(ready) == "read"
        except StopIteration as ended:
            return ended.value
    return None


def test_what_answers_now_and_then_may_take_as_long_as_it_needs():
    assert advance([(50, READY), (100, NOTHING), (105, READY), (164, NOTHING), (165, READY)]) == [READY] * 3


def test_what_answers_after_the_time_and_before_it_was_looked_is_taken():
    assert advance([(1, READY), (2, READY), (3600, READY)]) == [READY] * 3


@pytest.mark.parametrize("events", [[], [(30, READY), (31, READY)]])
def test_silence_ends_it(events):
    begun = events[-1][0] if events else 0
    assert advance([*events, (begun + 60, NOTHING)]) is None
    with pytest.raises(connection.SilentServerError, match="has not answered for 60 s"):
        advance([*events, (begun + 60, NOTHING), (begun + 60.1, NOTHING)])
