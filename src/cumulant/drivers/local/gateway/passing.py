"""One request on its way: assigned, sent to a server of its arm, its answer passed back, and told in the log."""

from __future__ import annotations

import asyncio
import os
import random
import re
import time
from collections.abc import Sequence

from cumulant.core.traffic import (
    ARM_HEADER,
    CALLER_HEADER,
    CANDIDATE,
    CHAMPION,
    REQUEST_HEADER,
    SERVED_HEADER,
    SHADOW_HEADER,
    TOKEN_HEADER,
    Exchange,
    Routes,
    predicts,
    printable_id,
)
from cumulant.drivers.local.gateway.assignment import Assignment, arm_at, assign, stand_in
from cumulant.drivers.local.gateway.counts import Counts
from cumulant.drivers.local.gateway.exchange_log import ExchangeLog
from cumulant.drivers.local.gateway.front import Connection, Incoming
from cumulant.drivers.local.gateway.messages import (
    LAST_CHUNK,
    Fault,
    Header,
    chunk,
    error_body,
    head,
    passed_on,
    small_answer,
    status_line,
)
from cumulant.drivers.local.gateway.mirror import LARGEST, Copy, Mirror
from cumulant.drivers.local.gateway.table import Served, Table
from cumulant.drivers.local.gateway.upstream import Answer, Endpoint, Wire

_ARM, _SERVED, _REQUEST, _SHADOW, _TOKEN, _CALLER = (
    name.encode() for name in (ARM_HEADER, SERVED_HEADER, REQUEST_HEADER, SHADOW_HEADER, TOKEN_HEADER, CALLER_HEADER)
)
_NOT_THE_CALLERS = frozenset({_ARM, _SERVED, _SHADOW, _REQUEST, _TOKEN, _CALLER})
_NOT_THE_SERVERS = frozenset({_ARM, _REQUEST, _TOKEN, _CALLER})
_ABSOLUTE = re.compile(rb"^[A-Za-z][A-Za-z0-9+.-]*://[^/?]*")
#: the caller went away; nobody reads the status
_GONE = 499
#: answers of a server that is not there for now; other errors are its own
_DOWN = (502, 503, 504)


class Gateway:
    """Answers the requests of callers."""

    def __init__(self, table: Table, log: ExchangeLog, *, secret: bytes | None) -> None:
        self.table, self.log, self.counts = table, log, Counts()
        self.mirror = Mirror(self.counts)
        self.secret = secret

    async def __call__(self, request: Incoming, connection: Connection) -> bool:
        request.target = _ABSOLUTE.sub(b"", request.target)
        if not request.target.startswith((b"/", b"*")):
            request.target = b"/" + request.target
        served = self.table.find(request.target)
        if served is None:
            status, text = (404, "no such model here") if self.table.models else (503, "no model is served yet")
            last = connection.last(request) or not request.body.ended
            bare = request.method == b"HEAD"
            connection.write(small_answer(status, error_body(status, text), close=last, bare=bare))
            return not last
        return await Passage(self, served, request, connection).run()


class Passage:
    """One request of one model. The routes are those of its beginning, whatever changes meanwhile."""

    def __init__(self, gateway: Gateway, served: Served, request: Incoming, connection: Connection) -> None:
        self._gateway, self._served, self._request, self._connection = gateway, served, request, connection
        self._routes: Routes = served.routes
        self._began = time.perf_counter()
        # Until its key is known. One whose body never comes stays so, and must burden both arms by their weights.
        by_chance = arm_at(random.random(), self._routes)  # noqa: S311 - nothing is secret here
        self._assigned = Assignment(by_chance, b"", False, b"")  # noqa: FBT003
        self._name = os.urandom(16).hex().encode()
        given = request.header(_CALLER) or b""
        #: the caller's own name of it; without one it has the gateway's there too
        self._caller = given if printable_id(given) else self._name
        self._serving, self._status, self._fault = "", 0, ""
        #: an answer began; the caller does not take more of it for now
        self._headed, self._held_up = False, False
        self._copied: list[bytes] | None = None
        self._size = 0
        self._sender: asyncio.Task[None] | None = None
        self._timeout: asyncio.Timeout | None = None

    async def run(self) -> bool:
        """Answer it. Returns whether the caller's connection goes on."""
        try:
            try:
                async with asyncio.timeout(None) as self._timeout:
                    return await self._pass()
            except TimeoutError:
                if self._held_up:
                    raise Fault("", _GONE, "the caller does not read the answer") from None
                raise Fault("timeout", 504, "the model did not answer in time") from None
        except Fault as fault:
            return self._fail(fault)
        except asyncio.CancelledError:
            self._status, self._fault = _GONE, ""
            raise
        finally:
            if self._sender is not None:
                self._sender.cancel()
            self._tell()

    async def _pass(self) -> bool:
        self._assigned = await assign(self._request, self._connection, self._routes)
        if not self._served.bucket.take():
            raise Fault("rate", 429, "this model gets more requests a second than it takes")
        if self._request.body.ended:
            self._start_clock()
        if self._mirrors():
            self._copied = []
        arm, endpoint, wire = await self._reach()
        answered = False
        try:
            answered = await self._exchange(arm, endpoint, wire)
        finally:
            endpoint.active -= 1
            self._served.active[arm] -= 1
            self._served.gates[arm].leave()
            if answered:
                endpoint.give_back(wire)
            else:
                wire.close()
        return not self._connection.last(self._request)

    def _start_clock(self) -> None:
        """The deadline runs once the request is whole."""
        if self._timeout is not None:
            self._timeout.reschedule(asyncio.get_running_loop().time() + self._routes.limits.deadline)

    def _mirrors(self) -> bool:
        routes, assigned = self._routes, self._assigned
        wanted = routes.candidate is not None and routes.mirror > 0 and self._request.method == b"POST"
        if not wanted or assigned.forced or assigned.arm != CHAMPION:
            return False
        if random.random() * 100 >= routes.mirror:  # noqa: S311 - nothing is secret here
            return False
        if (self._request.length or 0) > LARGEST:
            self._gateway.mirror.dropped(routes.model)
            return False
        return True

    # --- a server

    async def _reach(self) -> tuple[str, Endpoint, Wire]:
        """A connection to a server of the arm, else of the other one. Nothing was sent yet."""
        limits, served = self._routes.limits, self._served
        order = self._gateway.table.order(self._routes, self._assigned.arm, forced=self._assigned.forced)
        last = Fault("connect", 503, "this model has no servers")
        for number, (arm, endpoint) in enumerate(order):
            again = number > 0 and arm == self._assigned.arm
            # A rescue is the request's first try at its arm, and the last: it needs no budget.
            if again and not served.retries.allowed(sum(served.active.values()), limits.retry_budget):
                continue
            try:
                return arm, endpoint, await self._enter(arm, endpoint, retry=again)
            except Fault as fault:
                if fault.kind != "connect":
                    raise
                last = fault
        raise last

    async def _enter(self, arm: str, endpoint: Endpoint, *, retry: bool) -> Wire:
        gate, served = self._served.gates[arm], self._served
        async with asyncio.timeout(self._routes.limits.deadline):
            await gate.enter()
        endpoint.active += 1
        served.active[arm] += 1
        served.retries.now += retry
        if retry:
            self._gateway.counts.add("retries", self._routes.model)
        try:
            return await endpoint.wire()
        except BaseException as error:
            endpoint.active -= 1
            served.active[arm] -= 1
            gate.leave()
            if isinstance(error, Fault):
                self._blame(endpoint)
                endpoint.refused = True  # until the next health check
            raise
        finally:
            served.retries.now -= retry

    def _blame(self, endpoint: Endpoint) -> None:
        limits = self._routes.limits
        if endpoint.failed(limits.eject_after, limits.eject_for):
            self._gateway.counts.add("ejections", self._routes.model)

    async def _exchange(self, arm: str, endpoint: Endpoint, wire: Wire) -> bool:
        """Send the request and pass the answer back. Returns whether the connection can be kept."""
        wire.begin(bare=self._request.method == b"HEAD")
        try:
            self._send(wire, arm, endpoint.headers)
            answer = await wire.head  # type: ignore[misc]  # `begin` made it
            self._serving, self._status = arm, answer.status
            await self._answer(answer, wire)
        except (Fault, asyncio.CancelledError) as error:
            if self._is_the_servers(error):
                self._blame(endpoint)
            raise
        if answer.status in _DOWN:
            self._blame(endpoint)
        else:
            endpoint.succeeded()
        self._copy()
        return self._sender is None or self._sender.done()

    def _is_the_servers(self, error: BaseException) -> bool:
        """Cancelled by the deadline, it is the server's failure; by a caller that went away, nobody's."""
        if isinstance(error, Fault):
            return bool(error.kind)
        return self._timeout is not None and self._timeout.expired() and not self._held_up

    # --- the request

    def _head(self, arm: str, *, shadow: bool = False) -> list[Header]:
        request = self._request
        headers = passed_on(request.headers, without=_NOT_THE_CALLERS)
        if request.header(b"host") is None:
            headers.append((b"host", b"localhost"))
        headers += [(_REQUEST, self._name), (_CALLER, self._caller)]
        headers += [(_ARM, self._assigned.arm.encode()), (_SERVED, arm.encode())]
        if shadow:
            headers.append((_SHADOW, b"1"))
        return headers

    def _first_line(self) -> bytes:
        return b"%b %b HTTP/1.1" % (self._request.method, self._request.target)

    def _send(self, wire: Wire, arm: str, more: Sequence[Header]) -> None:
        """Send it with `more` headers: at once where it is whole, else as it comes."""
        request, body = self._request, self._assigned.body
        headers = [*self._head(arm), *more]
        if request.body.ended:
            body += request.body.rest()
            self._keep(body)
            wire.write(head(self._first_line(), [*headers, *_length(request, len(body))]) + body)
            return
        self._connection.cheer(request)
        framing = [(b"transfer-encoding", b"chunked")] if request.length is None else _length(request, request.length)
        wire.write(head(self._first_line(), [*headers, *framing]))
        self._sender = asyncio.ensure_future(self._stream(wire, body))

    async def _stream(self, wire: Wire, first: bytes) -> None:
        request, deadline = self._request, self._routes.limits.deadline
        chunked = request.length is None
        part = first or await self._part(wire)
        while part:
            self._keep(part)
            wire.write(chunk(part) if chunked else part)
            try:
                async with asyncio.timeout(deadline):
                    await wire.writable()
            except TimeoutError:
                wire.fail(Fault("timeout", 504, "the model did not read the request in time"))
                return
            part = await self._part(wire)
        if chunked and request.body.ended:
            wire.write(LAST_CHUNK)
        self._start_clock()

    async def _part(self, wire: Wire) -> bytes:
        try:
            return await self._request.body.read()
        except Fault as fault:
            wire.fail(fault)
            raise asyncio.CancelledError from None

    def _keep(self, part: bytes) -> None:
        """Remember what is sent, for the copy."""
        if self._copied is None:
            return
        self._copied.append(part)
        self._size += len(part)
        if self._size > LARGEST:
            self._copied = None
            self._gateway.mirror.dropped(self._routes.model)

    def _copy(self) -> None:
        candidate = self._routes.candidate
        if self._copied is None or candidate is None or not self._request.body.ended:
            return
        endpoints = tuple(one for url in candidate.endpoints if (one := self._gateway.table.endpoints.get(url)))
        if endpoints:
            body = b"".join(self._copied)
            headers = [*self._head(CANDIDATE, shadow=True), (b"content-length", b"%d" % len(body))]
            message = head(self._first_line(), headers) + body
            deadline = self._routes.limits.deadline
            self._gateway.mirror.offer(Copy(self._routes.model, endpoints, message, deadline, False))  # noqa: FBT003

    # --- the answer

    async def _answer(self, answer: Answer, wire: Wire) -> None:
        bare = self._request.method == b"HEAD" or answer.status in (204, 304)
        chunks = not bare and answer.length is None and not self._request.old
        first = head(status_line(answer.status, answer.reason), self._answer_headers(answer, bare=bare, chunks=chunks))
        self._headed = True
        if bare:
            self._connection.write(first)
            await wire.body.read()
            return
        while True:
            whole = wire.body.ended
            part = wire.body.rest() if whole else await wire.body.read()
            sent = chunk(part) if chunks and part else part
            ends = whole or not part
            self._connection.write(first + sent + (LAST_CHUNK if ends and chunks else b""))
            first = b""
            if ends:
                return
            self._held_up = True
            await self._connection.writable()
            self._held_up = False

    def _answer_headers(self, answer: Answer, *, bare: bool, chunks: bool) -> list[Header]:
        headers = passed_on(answer.headers, without=_NOT_THE_SERVERS)
        headers += [(_ARM, self._assigned.arm.encode()), (_REQUEST, self._name), (_CALLER, self._caller)]
        if chunks:
            headers.append((b"transfer-encoding", b"chunked"))
        elif answer.length is not None and answer.status != 204:
            headers.append((b"content-length", b"%d" % answer.length))
        elif not bare:
            self._request.keep = False  # HTTP/1.0: the body ends with the connection
        if self._ends():
            headers.append((b"connection", b"close"))
        elif self._request.old:
            headers.append((b"connection", b"keep-alive"))
        return headers

    def _ends(self) -> bool:
        """Whether the caller's connection ends with this answer; decided here, so that the answer says it."""
        if self._connection.last(self._request) or not self._request.body.ended:
            self._request.keep = False
        return not self._request.keep

    def _fail(self, fault: Fault) -> bool:
        """Answer for the server, or break off what began."""
        self._fault, self._status = fault.kind, fault.status
        if self._headed:
            self._connection.abort()
            return False
        self._serving = ""
        headers = [(_ARM, self._assigned.arm.encode()), (_REQUEST, self._name), (_CALLER, self._caller)]
        if fault.status in (429, 503):
            headers.append((b"retry-after", b"1"))
        bare, last = self._request.method == b"HEAD", self._ends()
        body = error_body(fault.status, fault.text)
        self._connection.write(small_answer(fault.status, body, headers=headers, close=last, bare=bare))
        return not last

    # --- the log

    def _tell(self) -> None:
        exchange = Exchange(
            request=self._name.decode("ascii"),
            caller_id="" if self._caller is self._name else self._caller.decode("ascii"),
            time=time.time_ns() // 1000,
            model=self._routes.model,
            assigned=self._assigned.arm,
            served=self._serving,
            status=self._status,
            duration_us=int((time.perf_counter() - self._began) * 1e6),
            key=stand_in(self._assigned.key, self._gateway.secret),
            forced=self._assigned.forced,
            fault=self._fault,
            revision=self._routes.revision,
            predicts=predicts(self._request.method.decode("latin-1"), self._request.target.decode("latin-1")),
        )
        self._gateway.log.put(exchange)
        self._gateway.counts.told(exchange)


def _length(request: Incoming, size: int) -> list[Header]:
    """A GET without a body says no length, as it came."""
    if size == 0 and request.header(b"content-length") is None and request.length == 0:
        return []
    return [(b"content-length", b"%d" % size)]
