"""The models that the gateway serves: their routes, and what is remembered of arms and servers while routes change."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterable, Mapping
from urllib.parse import unquote_to_bytes

from cumulant.core.network.gateway_token import token_for
from cumulant.core.traffic import CANDIDATE, CHAMPION, Arm, Limits, Routes
from cumulant.drivers.local.gateway.bounds import Bucket, Gate, Retries
from cumulant.drivers.local.gateway.messages import Fault
from cumulant.drivers.local.gateway.upstream import Endpoint

_READY = b"GET /v2/health/ready HTTP/1.1\r\nhost: %b\r\nuser-agent: cumulant-gateway\r\n\r\n"
_CHECK = 2.0
_KNOWN = 256


class Served:
    """One model."""

    def __init__(self, routes: Routes) -> None:
        self.routes = routes
        self.gates = {CHAMPION: Gate(routes.limits), CANDIDATE: Gate(routes.limits)}
        self.bucket = Bucket(routes.limits.rate)
        self.retries = Retries()
        #: requests under way by the arm whose server has them
        self.active: Counter[str] = Counter()

    def change(self, routes: Routes) -> None:
        """Go by these from now on; requests under way end by those that they began with."""
        self.routes = routes
        for gate in self.gates.values():
            gate.limits = routes.limits
        if routes.limits.rate != self.bucket.rate:
            self.bucket = Bucket(routes.limits.rate)


class Table:
    """All models, and all servers by their URL. With the gateway's key each server is sent a token."""

    def __init__(self, gateway_key: bytes | None = None) -> None:
        self._gateway_key = gateway_key
        self.models: dict[str, Served] = {}
        self.endpoints: dict[str, Endpoint] = {}
        self._known: dict[bytes, Served] = {}

    def change(self, wanted: Mapping[str, Routes]) -> list[Endpoint]:
        """Go by `wanted`, all at once. Returns the servers that are new."""
        for model, routes in wanted.items():
            served = self.models.get(model)
            if served is None:
                self.models[model] = Served(routes)
            elif routes.revision >= served.routes.revision:
                served.change(routes)
        self._known.clear()
        arms = [arm for one in self.models.values() for arm in one.routes.arms]
        trusts = {url: arm.authority for arm in arms for url in arm.endpoints}
        gone = [url for url, one in self.endpoints.items() if url not in trusts or trusts[url] != one.trust]
        for url in gone:
            self.endpoints.pop(url).close()
        new = [self._endpoint(url, trust) for url, trust in trusts.items() if url not in self.endpoints]
        self.endpoints.update({one.url: one for one in new})
        return new

    def find(self, target: bytes) -> Served | None:
        """The model that a path names; the only one where it names none."""
        path = target.partition(b"?")[0]
        found = self._known.get(path)
        if found is None:
            found = self._found(path)
            if found is not None and len(self._known) < _KNOWN:
                self._known[path] = found
        return found

    def _found(self, path: bytes) -> Served | None:
        parts = path.split(b"/")
        if len(parts) > 3 and parts[1] in (b"v1", b"v2") and parts[2] == b"models":
            found = self.models.get(unquote_to_bytes(parts[3]).decode("utf-8", "replace"))
            if found is not None:
                return found
        return next(iter(self.models.values())) if len(self.models) == 1 else None

    def order(self, routes: Routes, assigned: str, *, forced: bool = False) -> list[tuple[str, Endpoint]]:
        """The servers to try for a request of an arm: its own, the least busy first, then one of the other arm.

        Those that are thought to be down are left out, unless all are. What a tester forced goes to no other arm.
        """
        own = [pair for arm in routes.arms if arm.name == assigned for pair in self._servers(arm)]
        others = [pair for arm in routes.arms if arm.name != assigned for pair in self._servers(arm)]
        if len(own) == 1 and own[0][1].usable:
            first = own
        else:
            first = sorted(_usable(own), key=lambda pair: (pair[1].active, random.random()))  # noqa: S311 - a tie
        rescue = _usable(others)
        if not first and not rescue:
            first, rescue = own, others
        retries = routes.limits.retries
        if forced:
            return (first or own)[: retries + 1]
        return first[: retries + 1] + rescue[: 1 if retries or not first else 0]

    def _servers(self, arm: Arm) -> list[tuple[str, Endpoint]]:
        known = self.endpoints
        return [(arm.name, known.get(url) or self._endpoint(url, arm.authority, kept=False)) for url in arm.endpoints]

    def _endpoint(self, url: str, trust: str | None, *, kept: bool = True) -> Endpoint:
        token = b"" if self._gateway_key is None else token_for(self._gateway_key, url).encode()
        return Endpoint(url, trust=trust, kept=kept, token=token)


def _usable(servers: list[tuple[str, Endpoint]]) -> list[tuple[str, Endpoint]]:
    return [pair for pair in servers if pair[1].usable]


async def check(endpoint: Endpoint) -> None:
    """Ask a server whether it takes requests. Where a ready one does not answer it is asked once more.

    A single lost check says little: the server closed a kept connection, or the machine was busy for a moment.
    """
    said = await _said(endpoint)
    if said is None and endpoint.ready and not endpoint.refused:
        said = await _said(endpoint)
    endpoint.ready, endpoint.refused = bool(said), False


async def _said(endpoint: Endpoint) -> bool | None:
    """What it answers; None: nothing."""
    wire = None
    try:
        async with asyncio.timeout(_CHECK):
            wire = await endpoint.wire()
            wire.begin(bare=False)
            wire.write(_READY % endpoint.authority)
            answer = await wire.head  # type: ignore[misc]  # `begin` made it
            while await wire.body.read():
                pass
        return bool(answer.status < 500)  # a server without that path answers, too
    except (Fault, TimeoutError):
        return None
    finally:
        if wire is not None:
            endpoint.give_back(wire)


class Checks:
    """Health checks, one task a server, as often as the limits of its model say."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def follow(self, new: Iterable[Endpoint], patience: float) -> None:
        """Check the new servers, for at most `patience` seconds, and forget those that are gone."""
        for url in self._tasks.keys() - self._table.endpoints.keys():
            self._tasks.pop(url).cancel()
        firsts = []
        for endpoint in new:
            if (before := self._tasks.pop(endpoint.url, None)) is not None:  # other authorities vouch for it now
                before.cancel()
            first = asyncio.ensure_future(check(endpoint))
            firsts.append(first)
            self._tasks[endpoint.url] = asyncio.ensure_future(self._again(endpoint, first))
        if firsts:
            await asyncio.wait(firsts, timeout=patience)

    async def _again(self, endpoint: Endpoint, first: asyncio.Task[None]) -> None:
        await first
        while True:
            await asyncio.sleep(max(0.05, self._limits(endpoint.url).health_every))
            endpoint.trim()
            await check(endpoint)

    def _limits(self, url: str) -> Limits:
        every = [
            one.routes.limits
            for one in self._table.models.values()
            if any(url in arm.endpoints for arm in one.routes.arms)
        ]
        return min(every, key=lambda limits: limits.health_every, default=Limits())

    def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
