"""Requests beyond what the event loop can answer in time are refused by their heads; the others keep their order."""

from __future__ import annotations

import asyncio
from functools import wraps

import pytest

from cumulant.serving.http.connection import HttpConnection
from cumulant.serving.http.limits import HttpLimits
from cumulant.serving.http.messages import Response
from cumulant.serving.http.overload import Turns
from cumulant.serving.http.site import HttpSite
from cumulant.serving.workers.worker import is_urgent

#: a request takes a second, a turn has two, and four may wait
TURN, EACH, QUEUE = 2.0, 1.0, 4.0


def on_loop(test):
    @wraps(test)
    def run(**arguments):
        asyncio.run(test(**arguments))

    return run


class Clock:
    """Time passes only where a request is answered."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Wire(asyncio.Transport):
    """What the connection's end of a socket was told."""

    def __init__(self):
        super().__init__()
        self.written, self.ended, self.reading = b"", False, True

    def write(self, data):
        self.written += data

    def is_closing(self):
        return self.ended

    def close(self):
        self.ended = True

    def can_write_eof(self):
        return True

    def write_eof(self):
        self.ended = True

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True

    @property
    def statuses(self):
        return [int(part[:3]) for part in self.written.split(b"HTTP/1.1 ")[1:]]


class Loop:
    """A site whose handler takes `takes`, and what it was asked, with the time at which each was answered."""

    def __init__(self, *, slow=()):
        self.clock = Clock()
        self.answered: list[tuple[bytes, float]] = []
        self.slow, self.takes = slow, EACH
        turns = Turns(TURN, QUEUE, each=EACH, clock=self.clock, busy=self.clock)
        self.site = HttpSite(self.handle, HttpLimits(), urgent=is_urgent, turns=turns)

    def handle(self, request):
        if request.body in self.slow:
            return self.later(request)
        self.clock.now += self.takes * max(1.0, len(request.body) / 1500)
        self.answered.append((request.body or request.target, self.clock.now))
        return Response(200, request.body)

    async def later(self, request):
        return Response(200, request.body)

    def connect(self):
        connection, wire = HttpConnection(self.site), Wire()
        connection.connection_made(wire)
        return connection, wire

    def send(self, body, target="/predict"):
        connection, wire = self.connect()
        connection.data_received(post(body, target))
        return connection, wire


def head(size, target="/predict", extra=""):
    return f"POST {target} HTTP/1.1\r\nhost: a\r\ncontent-length: {size}\r\n{extra}\r\n".encode()


def post(body, target="/predict", extra=""):
    return head(len(body), target, extra) + body


async def rest():
    """The loop goes on until nothing is left to do."""
    for _ in range(30):
        await asyncio.sleep(0)


@on_loop
async def test_a_turn_is_answered_at_once_and_the_rest_waits_for_the_sockets_to_be_read():
    loop = Loop()
    wires = [loop.send(b"%d" % number)[1] for number in range(5)]
    assert [wire.statuses for wire in wires] == [[200], [200], [], [], []]
    await asyncio.sleep(0)
    assert [wire.statuses for wire in wires] == [[200], [200], [200], [200], []]
    await rest()
    assert [body for body, _ in loop.answered] == [b"0", b"1", b"2", b"3", b"4"]


@on_loop
async def test_large_bodies_count_by_their_size():
    loop = Loop()
    large = b"x" * 15_000
    statuses = [loop.send(large)[1] for _ in range(4)]
    # The first takes ten seconds, and one more in line is more than may wait.
    assert [wire.statuses for wire in statuses] == [[200], [], [429], [429]]
    await rest()
    assert [wire.statuses for wire in statuses] == [[200], [200], [429], [429]]
    # They say nothing of a small one.
    assert [loop.send(b"small")[1].statuses for _ in range(2)] == [[200], [200]]


@on_loop
async def test_what_would_wait_too_long_is_refused_before_its_body_comes():
    loop = Loop()
    for number in range(2 + 4):
        loop.send(b"%d" % number)
    _, last = loop.send(b"last")
    connection, refused = loop.connect()
    connection.data_received(head(100_000))
    assert refused.statuses == [429]
    assert b"retry-after: 1\r\n" in refused.written
    assert b"has more to do than it can do in time" in refused.written
    waiting = len(b"2345last")
    assert (loop.site.refusals.counts["busy"], loop.site.body_bytes, last.statuses) == (1, waiting, [])
    await rest()
    # The body is thrown away, and the connection goes on.
    connection.data_received(b"x" * 100_000 + post(b"again"))
    await rest()
    assert refused.statuses == [429, 200]
    assert [body for body, _ in loop.answered] == [b"0", b"1", b"2", b"3", b"4", b"5", b"last", b"again"]


@on_loop
async def test_no_accepted_request_waits_for_longer_than_the_queue_and_a_request_more():
    loop, came = Loop(), {}
    wires = []
    for number in range(200):
        body = b"%d" % number
        came[body] = loop.clock.now
        wires.append(loop.send(body)[1])
        if number % 7 == 0:
            await asyncio.sleep(0)
    await rest()
    assert {status for wire in wires for status in wire.statuses} == {200, 429}
    assert all(len(wire.statuses) == 1 for wire in wires)
    assert max(done - came[body] for body, done in loop.answered) <= QUEUE + 2 * EACH


PROBES = ["/health", "/v2/health/ready", "/metrics", "/v2/models/m/ready", "/v2/models/m/versions/3/ready?x=1"]
OTHERS = ["/predict", "/v2/models/m/infer", "/v2/models/m/infer?x=/ready", "/v1/ready"]


@pytest.mark.parametrize(("target", "status"), [*((one, 200) for one in PROBES), *((one, 429) for one in OTHERS)])
@on_loop
async def test_probes_are_answered_whatever_waits(target, status):
    loop = Loop()
    for number in range(12):
        loop.send(b"%d" % number)
    assert loop.send(b"probe", target)[1].statuses == [status]
    await rest()


@on_loop
async def test_a_loop_that_was_idle_begins_a_new_turn():
    loop = Loop()
    for number in range(10):
        assert loop.send(b"%d" % number)[1].statuses == [200]
        loop.clock.now += 0.001


@on_loop
async def test_requests_of_one_connection_keep_their_order_and_take_a_turn_each():
    loop = Loop(slow=(b"s",))
    connection, wire = loop.connect()
    connection.data_received(b"".join(post(body) for body in (b"a", b"b", b"c", b"s", b"d", b"e")))
    _, other = loop.send(b"other")
    await rest()
    bodies = [part.partition(b"\r\n\r\n")[2] for part in wire.written.split(b"HTTP/1.1 ")[1:]]
    assert bodies == [b"a", b"b", b"c", b"s", b"d", b"e"]
    order = [body for body, _ in loop.answered]
    assert other.statuses == [200]
    assert order.index(b"other") < order.index(b"d")


@on_loop
async def test_a_connection_that_ends_while_it_waits_is_passed_over():
    loop = Loop()
    sent = [loop.send(b"%d" % number) for number in range(5)]
    connection, wire = sent[3]
    wire.ended = True
    connection.connection_lost(None)
    await rest()
    assert [body for body, _ in loop.answered] == [b"0", b"1", b"2", b"4"]
    assert len(loop.site.turns.line) == 0


@on_loop
async def test_what_waits_when_the_site_is_drained_is_answered():
    loop = Loop()
    wires = [loop.send(b"%d" % number)[1] for number in range(5)]
    drained = asyncio.ensure_future(loop.site.drain(5))
    await rest()
    assert [wire.statuses for wire in wires] == [[200]] * 5
    assert all(wire.ended for wire in wires)
    drained.cancel()


@on_loop
async def test_a_handler_that_fails_does_not_stop_the_line():
    loop = Loop()
    handle, faults = loop.handle, []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context["exception"]))

    def failing(request):
        if request.body == b"2":
            raise ZeroDivisionError
        return handle(request)

    loop.site.handle = failing
    wires = [loop.send(b"%d" % number)[1] for number in range(5)]
    await rest()
    assert [wire.statuses for wire in wires] == [[200], [200], [], [200], [200]]
    assert [type(one) for one in faults] == [ZeroDivisionError]


@pytest.mark.parametrize("stall", [10.0, 1000.0])
@on_loop
async def test_one_long_stall_does_not_make_the_next_requests_refused(stall):
    loop = Loop()
    for number in range(2):
        loop.send(b"%d" % number)
    loop.takes += stall
    loop.send(b"stalls, in line")
    await rest()
    loop.takes = EACH
    loop.clock.now += 0.001
    for number in range(5):
        loop.send(b"%d" % number)
    await rest()
    assert loop.site.refusals.counts["busy"] == 0


async def burst(loop, count, *, takes):
    """The number of requests that are refused of those that come at once."""
    before, loop.takes = loop.site.refusals.counts["busy"], takes
    for number in range(count):
        loop.send(b"%d" % number)
    await rest()
    return loop.site.refusals.counts["busy"] - before


@on_loop
async def test_what_slow_requests_have_shown_is_forgotten_after_a_time_without_any():
    loop = Loop()
    for _ in range(20):
        await burst(loop, 7, takes=10 * EACH)
    assert await burst(loop, 7, takes=EACH) > 0
    loop.clock.now += 0.9
    assert await burst(loop, 7, takes=EACH) > 0
    loop.clock.now += 1.1
    assert await burst(loop, 7, takes=EACH) == 0


@on_loop
async def test_an_idle_time_does_not_make_quick_requests_slow():
    loop = Loop()
    for _ in range(40):
        await burst(loop, 7, takes=0.1 * EACH)
    loop.clock.now += 1.1
    assert await burst(loop, 50, takes=0.1 * EACH) == 0


@on_loop
async def test_the_estimate_follows_requests_that_are_answered_at_once():
    loop = Loop()
    for takes, refused in ((0.1 * EACH, False), (2 * EACH, True), (0.1 * EACH, False)):
        for _ in range(60):
            assert await burst(loop, 1, takes=takes) == 0
            loop.clock.now += 0.001
        assert (await burst(loop, int((TURN + QUEUE) / EACH), takes=takes) > 0) == refused


@on_loop
async def test_a_turn_is_the_latest_time_at_which_the_loop_was_busy():
    loop = Loop()
    await burst(loop, 2, takes=EACH)
    await burst(loop, 1, takes=0.0001)
    assert loop.send(b"in a new turn")[1].statuses == [200]
    # The line is busy for longer than what is forgotten takes.
    for _ in range(20):
        await burst(loop, 7, takes=10 * EACH)
    assert await burst(loop, 7, takes=EACH) > 0


@on_loop
async def test_a_request_behind_another_of_its_connection_is_not_refused():
    loop = Loop()
    sent = [loop.send(b"%d" % number) for number in range(7)]
    connection, wire = sent[3]
    connection.data_received(post(b"behind it"))
    await rest()
    assert wire.statuses == [200, 200]
    assert loop.answered[-1][0] == b"behind it"


@pytest.mark.parametrize("size", [3, HttpLimits().body + 1])
@on_loop
async def test_a_refusal_ends_a_connection_whose_client_waits_to_send_its_body(size):
    loop = Loop()
    for number in range(7):
        loop.send(b"%d" % number)
    connection, wire = loop.connect()
    connection.data_received(head(size, extra="expect: 100-continue\r\n"))
    assert wire.statuses == [413 if size > 3 else 429]
    assert b"connection: close\r\n" in wire.written
    assert wire.ended
    await rest()


@on_loop
async def test_a_head_that_is_refused_ends_a_connection_whose_client_waits_to_send_its_body():
    connection, wire = Loop().connect()
    connection.data_received(head(3, extra="host: twice\r\nexpect: 100-continue\r\n"))
    assert (wire.statuses, wire.ended) == ([400], True)


def test_of_requests_without_a_gap_one_in_four_is_measured():
    readings = []
    turns = Turns(TURN, QUEUE, clock=lambda: 0.0, busy=lambda: readings.append(0) or 0.0)
    for _ in range(9):
        assert turns.try_start()
        turns.finish(0)
    assert len(readings) == 2 * 3  # the first, the fifth and the ninth
