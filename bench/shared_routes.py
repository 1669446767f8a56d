"""How long a change of the routes takes: of one gateway directly, and of one and two gateways that share a journal.

`python bench/shared_routes.py [--changes 40]` prints medians and maxima in milliseconds, of real Envoys on loopback
with their agents in threads; PostgreSQL where a server is installed.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cumulant.drivers.envoy.client import EnvoyTraffic
from cumulant.flows.traffic.agent import GatewayAgent
from cumulant.flows.traffic.rows import list_reports
from cumulant.flows.traffic.shared_traffic import SharedTraffic
from cumulant.ports.journal import Journal
from cumulant.ports.plugins import Drivers
from cumulant.ports.traffic import ListenOptions, Traffic
from cumulant.testing.arms import ArmServer
from cumulant.testing.conformance.routes import routes_of
from cumulant.testing.gateways import running, wait_for
from cumulant.testing.postgres import postgres_server, server_programs


def main() -> None:
    options = _parse()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        arms = [stack.enter_context(_serving(name)) for name in ("champion", "candidate")]
        measure = _Changes(arms[0].url, arms[1].url, options.changes)
        with _gateways(Path(folder, "direct"), 1) as (gateway,):
            measure("one gateway, directly", gateway)
        for name, journal in _journals(Path(folder), stack):
            for count in (1, 2):
                with _gateways(Path(folder, f"{name}-{count}"), count) as gateways, _followed(gateways, journal):
                    measure(f"{count} by {name}", SharedTraffic(journal()))


class _Changes:
    """Changes the routes, each time to a higher revision."""

    def __init__(self, champion: str, candidate: str, count: int) -> None:
        self._arms, self._count, self._revision = (champion, candidate), count, 0

    def __call__(self, name: str, traffic: Traffic) -> None:
        times = []
        for _ in range(self._count + 1):
            self._revision += 1
            begun = time.perf_counter()
            traffic.apply(routes_of(*self._arms, weight=self._revision % 100, revision=self._revision))
            times.append(1000 * (time.perf_counter() - begun))
        print(f"{name:24} median {statistics.median(times[1:]):6.0f} ms   longest {max(times[1:]):6.0f} ms", flush=True)


@contextmanager
def _serving(name: str) -> Iterator[ArmServer]:
    arm = ArmServer(name).start()
    try:
        yield arm
    finally:
        arm.stop()


@contextmanager
def _gateways(folder: Path, count: int) -> Iterator[list[EnvoyTraffic]]:
    with ExitStack() as stack:
        made = [EnvoyTraffic(f"envoy://{folder}/{number}") for number in range(count)]
        folder.mkdir()
        output = stack.enter_context((folder / "out").open("wb"))
        for number, gateway in enumerate(made, 1):
            stack.enter_context(running(gateway, ListenOptions(http=f"127.0.1.{number}:0", agent=True), output))
        yield made


@contextmanager
def _followed(gateways: list[EnvoyTraffic], journal: Callable[[], Journal]) -> Iterator[None]:
    ended = threading.Event()
    agents = [GatewayAgent(gateway, journal(), host=f"g{number}") for number, gateway in enumerate(gateways)]
    threads = [threading.Thread(target=agent.run, args=(ended.wait,)) for agent in agents]
    for thread in threads:
        thread.start()
    try:
        observer = journal()
        wait_for(lambda: sum(report.ready for report in list_reports(observer)) == len(gateways))
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def _journals(folder: Path, stack: ExitStack) -> Iterator[tuple[str, Callable[[], Journal]]]:
    drivers = Drivers.installed()
    yield "SQLite", lambda: drivers.client(f"sqlite://{folder}/journal.db", "journal")
    if server_programs() is not None:
        url = stack.enter_context(postgres_server()).url()
        yield "PostgreSQL", lambda: drivers.client(url, "journal")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--changes", type=int, default=40)
    return parser.parse_args()


if __name__ == "__main__":
    main()
