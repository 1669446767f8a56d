"""Figures 1, 2, 3 and 6: speed of one worker and what it costs."""

from __future__ import annotations

import re
import sys
import time

import numpy as np
import payloads
from bench import HERE, Bench
from clients import OpenLoop, Wrk, percentile
from processes import Server, output
from servables import session


def _cost(server: Server, wrk: Wrk, seconds: float, connections: int = 32) -> tuple[float, float]:
    """Good answers a second, and microseconds of processor time a request of all the server's processes."""
    before = server.cpu()
    found = wrk(server.port, seconds, connections)
    return found.rate, (server.cpu() - before) / max(found.answers, 1) * 1e6


def one_row(bench: Bench) -> None:
    """Figure 1."""
    spent: dict[str, list[float]] = {}
    with bench.servers() as keep:
        servers = {"ours": bench.ours(keep), "bare": bench.bare(keep)}
        peer = bench.mlserver()
        servers |= {"peer": peer} if peer else {}

        def measure(name: str) -> float:
            rate, cost = _cost(servers[name], bench.wrk, bench.short)
            spent.setdefault(name, []).append(cost)
            return rate

        rates = bench.turns({name: lambda name=name: measure(name) for name in servers})
    what = "one row, JSON, 32 connections, log on"
    if peer:
        bench.compare("1", f"{what}: against MLServer", rates["ours"], rates["peer"], "/s", least=6)
    bench.compare("1", f"{what}: against the bare loop", rates["ours"], rates["bare"], "/s", least=0.7)
    for name in [name for name in ("bare", "peer") if name in spent]:
        told = {"bare": "the bare loop", "peer": "MLServer"}[name]
        bench.compare("1", f"CPU a request, log process included: against {told}", spent["ours"], spent[name], "µs")


def hundred_rows(bench: Bench) -> None:
    """Figure 2."""
    matrices = payloads.rows_of(100, 100, seed=2)
    forms = {"JSON": payloads.json_infer(matrices), "binary": payloads.binary_infer(matrices)}
    clients = {name: Wrk(payloads.write(bench.work / f"hundred-{name}.req", form)) for name, form in forms.items()}
    engine = session(bench.models.light / "model.onnx")

    def alone() -> float:
        end, done = time.perf_counter() + bench.short, 0
        while time.perf_counter() < end:
            engine.run(None, {"input": matrices[done % len(matrices)]})
            done += 1
        return done / bench.short

    with bench.servers() as keep:
        ours = bench.ours(keep)
        measures = {name: lambda wrk=wrk: wrk(ours.port, bench.short, 4).rate for name, wrk in clients.items()}
        rates = bench.turns(measures | {"engine": alone})
    bench.compare(
        "2", "100 rows a request, binary: against the engine alone", rates["binary"], rates["engine"], "/s", least=0.85
    )
    bench.compare("2", "100 rows a request, JSON: against the engine alone", rates["JSON"], rates["engine"], "/s")
    bench.compare("2", "100 rows a request, binary: against JSON", rates["binary"], rates["JSON"], "/s", least=1.2)
    for rows in (1,) if bench.quick else (1, 100):
        _grpc(bench, rows)


def _grpc(bench: Bench, rows: int) -> None:
    command = [
        sys.executable,
        str(HERE / "grpc_infer.py"),
        str(bench.short / 2),
        str(rows),
        str(bench.models.light),
        str(bench.rounds),
    ]
    printed = output(command, 60 + 12 * bench.short * bench.rounds)
    rates = {
        name: [float(rate) for rate in re.findall(rf"^  {name} (\d+)/s", printed, re.MULTILINE)]
        for name in ("ours", "bare")
    }
    bench.compare(
        "2", f"gRPC, {rows} rows a call: against bare grpc.aio", rates["ours"], rates["bare"], "/s", least=0.7
    )


def alone(bench: Bench) -> None:
    """Figure 3."""
    with bench.servers() as keep:
        ours, bare, peer = bench.ours(keep), bench.bare(keep), bench.mlserver()
        found = bench.turns({s.name: lambda s=s: bench.wrk(s.port, bench.short, 1).p50 for s in (ours, bare)})
        bench.compare(
            "3", "alone, one connection, p50: against the bare loop", found["ours"], found["bare"], "µs", most=1.6
        )
        bare.stop()
        if peer:
            _at_the_peers_pace(bench, ours, peer)
        envoy = bench.envoy(keep, ours)
        if envoy:
            found = bench.turns({s.name: lambda s=s: bench.wrk(s.port, bench.short, 1).p50 for s in (envoy, ours)})
            bench.compare("3", "p50 through Envoy: against direct", found["envoy"], found["ours"], "µs", most=1.8)


def _at_the_peers_pace(bench: Bench, ours: Server, peer: Server) -> None:
    rate = 0.8 * bench.wrk(peer.port, bench.short).rate
    loop = OpenLoop(bench.work, bench.one)
    measures = {s.name: lambda s=s: percentile(loop(s.port, [(rate, 1.5 * bench.short)]), 99) for s in (ours, peer)}
    found = bench.turns(measures, min(bench.rounds, 2))
    what = f"open loop at {rate:.0f}/s, 80% of MLServer's capacity, p99: against MLServer"
    bench.compare("3", what, found["ours"], found["mlserver"], "ms", most=0.25)


def growth(bench: Bench) -> None:
    """Figure 6."""
    with bench.servers() as keep:
        one, two = bench.ours(keep), bench.ours(keep, "--workers", "2", name="two")
        costs = bench.turns({s.name: lambda s=s: _cost(s, bench.wrk, bench.short)[1] for s in (two, one)})
        bench.compare("6", "CPU a request: two workers against one", costs["two"], costs["ours"], "µs", most=1.1)
        two.stop()
        # A thousand requests at once are more than a worker answers within the default of 40 ms.
        patient = bench.ours(keep, "--queue", "10s", name="patient")
        many = {count: lambda count=count: _cost(patient, bench.wrk, bench.short, count)[1] for count in (1000, 1)}
        costs = bench.turns({str(count): measure for count, measure in many.items()})
        bench.compare("6", "CPU a request: 1,000 connections against one", costs["1000"], costs["1"], "µs", most=1.25)
    _idle(bench)


def _idle(bench: Bench) -> None:
    with bench.servers() as keep:
        ours, peer = bench.ours(keep, log=False), bench.mlserver()
        time.sleep(1)
        if peer is None:
            bench.line("6", "idle worker's memory", f"PSS {ours.pss():.0f} MiB")
            return
        bench.compare(
            "6", "idle worker's memory, PSS: against MLServer", [ours.pss()], [bench.peer_idle[0]], "MiB", most=0.5
        )
        bench.compare(
            "6", "idle worker's memory, RSS: against MLServer", [ours.rss()], [bench.peer_idle[1]], "MiB", most=0.5
        )


def light_curve(bench: Bench) -> None:
    """Figure 4's other half: the light model from half its capacity to twice as much."""
    loop = OpenLoop(bench.work, bench.one)
    with bench.servers() as keep:
        ours = bench.ours(keep)
        peak = float(np.median([bench.wrk(ours.port, bench.short).rate for _ in range(bench.rounds)]))
        for share in (0.5,) if bench.quick else (0.25, 0.5, 1.0, 2.0):
            seconds = max(2.0, bench.short)
            records = loop(ours.port, [(share * peak, seconds)], processes=2, warm=64)
            good, refused = records[records["status"] == 200], records[records["status"] == 429]
            told = f"p50 {percentile(good, 50):.1f} ms, p99 {percentile(good, 99):.1f} ms; 429: {len(refused) / len(records):.1%}, p99 {percentile(refused, 99):.1f} ms; unanswered: {np.mean(records['status'] < 1):.1%}; before it was sent: p99 {percentile(records, 99, 'late'):.1f} ms"
            rate = len(good) / seconds
            bench.line(
                "4",
                f"light model, offered {share:g} x its closed-loop peak",
                f"{rate:,.0f}/s good; {told}",
                f"{peak:,.0f} /s",
                f"{rate / peak:.2f}",
            )
