"""What a worker refuses, in a simulated time: nothing on a busy machine, and what would wait when it has too much to do.

Requests are real bytes through real connections; only the clocks, the core and the model are made up.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import numpy as np
import pytest

from cumulant.serving.http.connection import HttpConnection
from cumulant.serving.http.limits import HttpLimits
from cumulant.serving.http.messages import Response
from cumulant.serving.http.overload import Turns
from cumulant.serving.http.site import HttpSite

REQUEST = b"POST /predict HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody"
#: seconds of the processor: to read a request, to refuse one, to poll the sockets
READ, REFUSE, POLL = 12e-6, 10e-6, 3e-6
LIGHT = 65e-6
#: requests a second of the light model that a whole core answers
PEAK = 1 / (LIGHT + READ + POLL)
QUEUE = 0.04


class Core:
    """A core that other processes take away for `off` seconds after each `on` seconds."""

    def __init__(self, on=1.0, off=0.0):
        self.on, self.off = round(on * 1e9), round(off * 1e9)
        self.at = self.spent = 0  # nanoseconds, of which sums are exact

    now = property(lambda self: self.at / 1e9)
    used = property(lambda self: self.spent / 1e9)
    share = property(lambda self: self.on / (self.on + self.off))

    def wait(self, until):
        self.at = max(self.at, round(until * 1e9))
        self._come_back()

    def _come_back(self):
        place = self.at % (self.on + self.off)
        if self.off and place >= self.on:
            self.at += self.on + self.off - place

    def spend(self, seconds):
        left = round(seconds * 1e9)
        self.spent += left
        while self.off and left > (here := self.on - self.at % (self.on + self.off)):
            self.at += here
            left -= here
            self._come_back()
        self.at += left
        self._come_back()


class Wire(asyncio.Transport):
    """The server's end of a connection."""

    def __init__(self, world):
        super().__init__()
        self.world, self.due, self.connection = world, 0.0, HttpConnection(world.site)
        self.connection.connection_made(self)

    def is_closing(self):
        return False

    def pause_reading(self): ...

    def resume_reading(self): ...

    def write(self, data):
        self.world.answered(self, int(data[9:12]))


class Figures(NamedTuple):
    rate: float
    refused: float
    p50: float
    p99: float
    refusals_p99: float


class World:
    """Random arrivals over many connections, each with one request at a time; others wait at the client."""

    def __init__(self, core, rate, seconds, *, answer=LIGHT, connections=1000):
        draw = np.random.default_rng(1)
        self.core, self.answer = core, answer
        self.due = np.sort(draw.random(draw.poisson(rate * seconds)) * seconds)
        turns = Turns(HttpLimits().turn, QUEUE, clock=lambda: core.now, busy=lambda: core.used)
        self.site = HttpSite(self.handle, HttpLimits(queue=QUEUE), turns=turns)
        self.free, self.answers = [Wire(self) for _ in range(connections)], []

    def handle(self, _):
        self.core.spend(self.answer)
        return Response(200, b"")

    def answered(self, wire, status):
        self.core.spend(REFUSE if status == 429 else 0)
        self.answers.append((self.core.now - wire.due, status))
        self.free.append(wire)

    async def run(self):
        sent = 0
        while len(self.answers) < len(self.due):
            if len(self.answers) == sent:
                self.core.wait(self.due[sent])
            came = int(np.searchsorted(self.due, self.core.now, side="right"))
            ready = [self.free.pop() for _ in range(min(came - sent, len(self.free), 1024))]
            for wire, due in zip(ready, self.due[sent:].tolist(), strict=False):
                wire.due = due
                self.core.spend(READ)
                wire.connection.data_received(REQUEST)
            sent += len(ready)
            self.core.spend(POLL)
            await asyncio.sleep(0)
        return self.figures()

    def figures(self):
        latency, status = np.array(self.answers).T
        good = status == 200
        p50, p99 = np.percentile(latency[good], [50, 99])
        refusals = float(np.percentile(latency[~good], 99)) if not good.all() else 0.0
        return Figures(good.sum() / self.core.now, 1 - good.mean(), float(p50), float(p99), refusals)


def run(core, *args, **settings):
    return asyncio.run(World(Core(*core), *args, **settings).run())


@pytest.mark.parametrize(
    ("core", "rate", "seconds", "answer"),
    [
        ((0.003, 0.027), 250, 4, LIGHT),  # a tenth of a core is left
        ((0.003, 0.097), 250, 4, LIGHT),
        ((0.003, 0.027), 1100, 2, LIGHT),  # of that tenth, nine in ten are needed
        ((0.3, 0.2), 2000, 2, LIGHT),
        ((0.06, 0.06), 4000, 1, LIGHT),
        ((0.003, 0.012), 250, 4, 0.4e-3),
        ((0.06, 0.06), 350, 4, 1e-3),
        ((0.06, 0.24), 150, 4, 1e-3),
        ((), 0.9 * PEAK, 0.5, LIGHT),
    ],
)
def test_a_worker_whose_core_is_taken_by_others_refuses_nothing(core, rate, seconds, answer):
    assert run(core, rate, seconds, answer=answer).refused == 0


@pytest.mark.parametrize(("core", "p50"), [((), 0.03), ((0.003, 0.003), 0.05), ((0.003, 0.009), 0.1)])
def test_twice_the_peak_is_refused_at_once_and_what_is_accepted_waits_little(core, p50):
    left = PEAK * Core(*core).share
    found = run(core, 2 * left, 1.5)
    assert found.p50 < p50
    assert found.refusals_p99 < 0.012
    assert found.rate > 0.6 * left


def test_a_whole_core_at_twice_its_peak_answers_what_it_accepts_within_100_ms():
    assert run((), 2 * PEAK, 1.5).p99 < 0.1


@pytest.mark.parametrize("answer", [0.5e-3, 1.1e-3])
def test_a_few_clients_that_wait_for_their_answers_are_never_refused(answer):
    """Whatever they have to wait: refusing one of 32 makes no room for the others."""
    assert run((0.003, 0.057), 400, 2, answer=answer, connections=32).refused == 0
