"""What the figures share: the working folder, the servers, pairs that take turns, rows of the table."""

from __future__ import annotations

import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import payloads
from clients import Wrk
from processes import Server, free_port
from servables import Models

HERE = Path(__file__).parent
PEERS = HERE / ".peers"
MLSERVER = "/v2/models/bench/infer"


class Line(NamedTuple):
    """One line of the table. `good`: whether the goal is met; None where there is none, or no peer."""

    figure: str
    what: str
    ours: str
    peer: str = ""
    ratio: str = ""
    goal: str = ""
    good: bool | None = None


class Bench:
    """Seconds: `short` of one measurement, `long` of overload, spike and swaps; `rounds` that pairs take turns."""

    def __init__(self, work: Path, *, short: float, long: float, rounds: int) -> None:
        self.work, self.short, self.long, self.rounds = work, short, long, rounds
        self.lines: list[Line] = []
        self.models = Models(work)
        self.ones = payloads.rows_of(2000, 1)
        self.one = payloads.write(work / "one.req", payloads.json_infer(self.ones))
        self.wrk = Wrk(self.one)
        self._stack = ExitStack()
        self._peer: Server | None = None
        #: PSS and RSS of the peer in MiB, just after its first answer
        self.peer_idle = (0.0, 0.0)

    @property
    def quick(self) -> bool:
        """Only that everything runs is to be seen."""
        return self.rounds == 1

    def close(self) -> None:
        self._stack.close()

    # --- servers

    @contextmanager
    def servers(self) -> Iterator[Callable[[Server], Server]]:
        """What is given to it is stopped at the end of the block."""
        with ExitStack() as stack:

            def keep(server: Server) -> Server:
                stack.callback(server.stop)
                return server

            yield keep

    def ours(
        self,
        keep: Callable[[Server], Server],
        *more: str,
        folder: Path | None = None,
        ready: bytes = b"",
        log: bool = True,
        name: str = "ours",
    ) -> Server:
        port = free_port()
        command = [
            sys.executable,
            "-m",
            "cumulant.serving",
            str(folder or self.models.light),
            "--http",
            f"127.0.0.1:{port}",
            "--cache",
            "off",
            "--parent",
            str(os.getpid()),
            *more,
        ]
        if log:
            command += ["--log", str(self.work / "log" / str(port))]
        started = keep(Server(name, command, port=port, log=self.work / f"{name}.log"))
        return started.ready(ready or payloads.read(self.one)[0])

    def bare(self, keep: Callable[[Server], Server]) -> Server:
        port = free_port()
        command = [sys.executable, str(HERE / "bare.py"), str(self.models.light / "model.onnx"), str(port)]
        return keep(Server("bare", command, port=port, log=self.work / "bare.log")).ready(payloads.read(self.one)[0])

    def mlserver(self) -> Server | None:
        """One for all figures, in its usual way for a LightGBM; one process: its pool of workers adds a hop."""
        program = PEERS / "bin" / "mlserver"
        if not program.exists():
            return None
        if self._peer is None:
            self._peer = self._start_mlserver(program)
            time.sleep(1)
            self.peer_idle = self._peer.pss(), self._peer.rss()
        return self._peer

    def _start_mlserver(self, program: Path) -> Server:
        port, folder = free_port(), self.work / "mlserver"
        folder.mkdir(exist_ok=True)
        settings = {
            "host": "127.0.0.1",
            "http_port": port,
            "grpc_port": free_port(),
            "metrics_port": free_port(),
            "parallel_workers": 0,
            "debug": False,
        }
        model = {
            "name": "bench",
            "implementation": "mlserver_lightgbm.LightGBMModel",
            "parameters": {"uri": str(self.models.text)},
        }
        (folder / "settings.json").write_text(json.dumps(settings))
        (folder / "model-settings.json").write_text(json.dumps(model))
        env = {"OMP_NUM_THREADS": "1", "PYTHONPATH": "", "PATH": f"{PEERS / 'bin'}:{os.environ['PATH']}"}
        command = [str(program), "start", str(folder)]
        started = Server("mlserver", command, port=port, log=self.work / "mlserver.log", env=env, cwd=folder)
        self._stack.callback(started.stop)
        return started.ready(payloads.read(self.one)[0])

    def envoy(self, keep: Callable[[Server], Server], to: Server) -> Server | None:
        program = PEERS / "bin" / "envoy"
        if not program.exists():
            return None
        port, place = free_port(), self.work / "envoy.json"
        place.write_text(json.dumps(_envoy(port, to.port)))
        command = [str(program), "-c", str(place), "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
        return keep(Server("envoy", command, port=port, log=self.work / "envoy.log")).ready(payloads.read(self.one)[0])

    # --- pairs and lines

    def turns(self, measures: dict[str, Callable[[], float]], rounds: int | None = None) -> dict[str, list[float]]:
        """A B A B ...: what slows the machine slows all alike."""
        found: dict[str, list[float]] = {name: [] for name in measures}
        for _ in range(rounds or self.rounds):
            for name, measure in measures.items():
                found[name].append(measure())
        return found

    def line(
        self,
        figure: str,
        what: str,
        ours: str,
        peer: str = "",
        ratio: str = "",
        goal: str = "",
        *,
        good: bool | None = None,
    ) -> None:
        self.lines.append(Line(figure, what, ours, peer, ratio, goal, good))
        print("  " + " | ".join(str(part) for part in self.lines[-1] if part != ""), flush=True)

    def compare(
        self,
        figure: str,
        what: str,
        ours: list[float],
        peer: list[float],
        unit: str,
        *,
        least: float | None = None,
        most: float | None = None,
    ) -> float:
        """A line of two lists that were measured in turns; the ratio is the median of the pairs' ratios."""
        pairs = [a / b if b else math.nan for a, b in zip(ours, peer, strict=True)]
        ratio = statistics.median(pairs)
        goal = f">= {least:g}" if least is not None else f"<= {most:g}" if most is not None else ""
        good = ratio >= least if least is not None else ratio <= most if most is not None else None
        told = f"{ratio:.2f} ({min(pairs):.2f}-{max(pairs):.2f})"
        self.line(figure, what, spread(ours, unit), spread(peer, unit), told, goal, good=good)
        return ratio


def spread(values: list[float], unit: str) -> str:
    """Median, least and greatest."""
    digits = 0 if statistics.median(values) >= 100 else 2
    return f"{statistics.median(values):,.{digits}f} {unit} ({min(values):,.{digits}f}-{max(values):,.{digits}f})"


def table(lines: list[Line]) -> str:
    told = {True: "yes", False: "**no**", None: ""}
    rows = [[*line[:6], told[line.good]] for line in lines]
    head = ["figure", "what", "ours", "baseline or peer", "ratio", "goal", "met"]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def _envoy(port: int, to: int) -> dict[str, Any]:
    def at(number: int) -> dict[str, Any]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": number}}

    kind = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{kind}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "route_config": {
            "virtual_hosts": [
                {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "ours"}}]}
            ]
        },
        "http_filters": [
            {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{kind}.http.router.v3.Router"}}
        ],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    cluster = {
        "name": "ours",
        "connect_timeout": "1s",
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": "ours",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": at(to)}}]}],
        },
    }
    return {
        "static_resources": {
            "listeners": [{"name": "in", "address": at(port), "filter_chains": [chain]}],
            "clusters": [cluster],
        }
    }
