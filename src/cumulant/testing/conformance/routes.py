"""Rules of the port `traffic` that need no gateway to run: fakes keep them too."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

import msgspec
import pytest

from cumulant.core.errors import LeaseHeldError
from cumulant.core.traffic import (
    CHAMPION,
    Arm,
    Limits,
    Routes,
)
from cumulant.ports.traffic import Gateway, Traffic
from cumulant.testing.conformance.gaps import Suite

MODEL = "flight-late"
CALM = Limits(deadline=30.0, health_every=0.1, eject_for=0.2)


def routes_of(
    champion: str,
    candidate: str | None = None,
    *,
    weight: float = 0.0,
    revision: int = 1,
    mirror: float = 0.0,
    key: str | None = None,
    limits: Limits = CALM,
) -> Routes:
    """Routes to two base URLs."""
    second = Arm(name="candidate", version="2", endpoints=(candidate,)) if candidate else None
    return Routes(
        model=MODEL,
        revision=revision,
        champion=Arm(name="champion", version="1", endpoints=(champion,)),
        candidate=second,
        weight=weight,
        mirror=mirror,
        key=key,
        limits=limits,
    )


class RoutesConformance(Suite):
    """Give a fixture `connect`: makes a client, each time of the same gateways, of which none runs."""

    @pytest.fixture
    def connect(self) -> Callable[[], Traffic]:
        raise NotImplementedError

    def test_routes_are_read_as_they_were_applied(self, connect: Callable[[], Traffic]) -> None:
        routes = routes_of("http://127.0.0.1:1", "http://127.0.0.1:2", weight=12.5, mirror=100.0, key="card")
        traffic = connect()
        assert traffic.in_force(MODEL) is None
        traffic.apply(routes)
        traffic.apply(msgspec.structs.replace(routes, model="other", weight=0.0))
        assert traffic.in_force(MODEL) == routes
        assert connect().in_force(MODEL) == routes
        assert traffic.in_force("nope") is None

    def test_a_lower_revision_is_refused(self, connect: Callable[[], Traffic]) -> None:
        traffic, other = connect(), connect()
        traffic.apply(routes_of("http://127.0.0.1:1", revision=7))
        with pytest.raises(LeaseHeldError, match="7"):
            other.apply(routes_of("http://127.0.0.1:2", revision=6))
        other.apply(routes_of("http://127.0.0.1:1", revision=7))
        other.apply(routes_of("http://127.0.0.1:3", revision=9))
        routes = traffic.in_force(MODEL)
        assert routes is not None
        assert (routes.revision, routes.champion.endpoints) == (9, ("http://127.0.0.1:3",))

    def test_one_revision_is_one_set_of_routes(self, connect: Callable[[], Traffic]) -> None:
        traffic, other = connect(), connect()
        back = routes_of("http://127.0.0.1:1", revision=7)
        traffic.apply(back)
        with pytest.raises(LeaseHeldError, match="7"):
            other.apply(routes_of("http://127.0.0.1:1", "http://127.0.0.1:2", weight=50.0, revision=7))
        assert traffic.in_force(MODEL) == back

    def test_of_many_writers_the_highest_revision_stays(self, connect: Callable[[], Traffic]) -> None:
        def write(first: int) -> None:
            traffic = connect()
            for revision in range(first, 60, 3):
                with contextlib.suppress(LeaseHeldError):
                    traffic.apply(routes_of(f"http://127.0.0.1:{revision + 1}", revision=revision))

        threads = [threading.Thread(target=write, args=(first,)) for first in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert connect().in_force(MODEL) == routes_of("http://127.0.0.1:60", revision=59)

    def test_what_is_not_there(self, connect: Callable[[], Traffic]) -> None:
        traffic = connect()
        assert list(traffic.health(MODEL)) == []
        assert traffic.active(MODEL, CHAMPION) == 0
        traffic.close()
        traffic.close()


class GatewayRoutesConformance(RoutesConformance):
    """The rules of routes for a `Gateway`, with what it is beside."""

    @pytest.fixture
    def connect(self) -> Callable[[], Gateway]:
        raise NotImplementedError

    def test_a_gateway_that_does_not_run(self, connect: Callable[[], Gateway]) -> None:
        gateway = connect()
        assert gateway.address() is None
        assert gateway.exchanges()[0] == []
        assert gateway.erase_names(["a key"], ["a request"]) == 0

    def test_the_share_of_a_gateway_is_no_change_of_routes(self, connect: Callable[[], Gateway]) -> None:
        routes = routes_of("http://127.0.0.1:1", limits=msgspec.structs.replace(CALM, rate=5), revision=3)
        gateway = connect()
        gateway.share_rates(2)
        gateway.apply(routes)
        gateway.share_rates(3)
        assert connect().in_force(MODEL) == routes
        connect().apply(routes)
