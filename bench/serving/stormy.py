"""Figures 4, 5 and 7: more than can be done, spikes, versions that change, features that are looked up."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import payloads
import rows
from bench import Bench
from clients import OpenLoop, Running, Wrk, percentile
from processes import Server, ask
from servables import answers, row_seconds
from steady import light_curve

_SWAP = 2.0
_RECOVERY = 2.0


def overload(bench: Bench) -> None:
    """Figure 4."""
    heavy = bench.models.made_heavy()
    cost = row_seconds(heavy / "model.onnx") * 1e3
    loop = OpenLoop(bench.work, bench.one)
    with bench.servers() as keep:
        ours = bench.ours(keep, folder=heavy)
        peak = _peak(bench, ours)
        memory = ours.rss()
        records = loop(ours.port, [(2 * peak, bench.long)], warm=64)
        after = ours.rss()
    good, refused = records[records["status"] == 200], records[records["status"] == 429]
    rate = len(good) / bench.long
    what = f"a row costs {cost:.2f} ms; offered {2 * peak:.0f}/s for {bench.long:g} s"
    bench.line(
        "4",
        f"{what}: good answers against the peak",
        f"{rate:,.0f} /s",
        f"{peak:,.0f} /s",
        f"{rate / peak:.2f}",
        ">= 0.9",
        good=rate >= 0.9 * peak,
    )
    _p99("4", bench, good, "accepted")
    bench.line(
        "4",
        "refusals (429), p50 and p99",
        f"{percentile(refused, 50):.1f} ms, {percentile(refused, 99):.1f} ms",
        "",
        "",
        "< 20 ms",
        good=percentile(refused, 99) < 20,
    )
    failed = len(records) - len(good) - len(refused)
    bench.line("4", "neither answered nor refused", f"{failed} of {len(records)}", "", "", "0", good=failed == 0)
    grown = after / memory
    bench.line(
        "4",
        "memory of all processes, RSS after and before",
        f"{after:.0f} MiB",
        f"{memory:.0f} MiB",
        f"{grown:.2f}",
        "<= 1.1",
        good=grown <= 1.1,
    )
    _overload_with_fallback(bench, heavy, peak)
    light_curve(bench)
    _busy_machine(bench)


def _busy_machine(bench: Bench) -> None:
    """Other programs that take all cores are no reason to refuse."""
    rate, busy = 250, []
    with bench.servers() as keep:
        ours = bench.ours(keep)
        try:
            busy += [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
            records = OpenLoop(bench.work, bench.one)(ours.port, [(rate, bench.long)])
        finally:
            for one in busy:
                one.kill()
                one.wait()
    failed = float(np.mean(records["status"] != 200))
    what = f"light model, {rate}/s for {bench.long:g} s beside a busy loop a core: refused or failed"
    bench.line("4", what, f"{failed:.2%} of {len(records)}", "", "", "<= 0.1%", good=failed <= 0.001)
    _p99("4", bench, records, "beside busy loops")


def _overload_with_fallback(bench: Bench, heavy: Path, peak: float) -> None:
    loop, seconds = OpenLoop(bench.work, bench.one), max(3.0, bench.long / 4)
    with bench.servers() as keep:
        ours = bench.ours(keep, "--fallback", f"servable={bench.models.light}", folder=heavy)
        _peak(bench, ours)
        records = loop(ours.port, [(2 * peak, seconds)], warm=64)
    answered = records[records["status"] == 200]
    share = len(answered) / len(records)
    full = int(np.sum(~answered["degraded"])) / seconds
    what = f"the same with a fallback (the light model) for {seconds:g} s"
    bench.line(
        "4",
        f"{what}: answered",
        f"{share:.2%}, {answered['degraded'].mean():.0%} marked as degraded",
        "",
        "",
        "100%",
        good=share == 1,
    )
    bench.line(
        "4", f"{what}: full answers against the peak", f"{full:,.0f} /s", f"{peak:,.0f} /s", f"{full / peak:.2f}"
    )
    _p99("4", bench, answered, "with the fallback")


def _p99(figure: str, bench: Bench, records: np.ndarray, what: str) -> None:
    found = percentile(records, 99)
    bench.line(
        figure,
        f"{what}: p99",
        f"{found:.1f} ms (p50 {percentile(records, 50):.1f}, max {percentile(records, 100):.0f})",
        "",
        "",
        "< 100 ms",
        good=found < 100,
    )


def _peak(bench: Bench, server: Server) -> float:
    """Good answers a second of the closed loop: the median of the rounds after one that warms."""
    found = [bench.wrk(server.port, bench.short, 16).rate for _ in range(min(3, bench.rounds + 1))]
    return float(np.median(found[1:]))


def spike(bench: Bench) -> None:
    """Figure 5."""
    heavy = bench.models.made_heavy()
    calm = max(2.0, bench.long / 10)
    with bench.servers() as keep:
        ours = bench.ours(keep, "--fallback", f"servable={bench.models.light}", folder=heavy)
        peak = _peak(bench, ours)
        steady = 0.4 * peak
        climb = [(steady * factor, 0.25) for factor in (2, 3, 4, 5)]
        phases = [(steady, calm), *climb, (5 * steady, bench.long), (steady, calm)]
        records = OpenLoop(bench.work, bench.one)(ours.port, phases, warm=64)
    begin, end = calm, calm + 1 + bench.long
    due = records["due"]
    before, during = records[due < begin], records[(due >= begin) & (due < end)]
    failed = int(np.sum(records["status"] != 200))
    what = f"steady {steady:.0f}/s, then {5 * steady:.0f}/s within a second for {bench.long:g} s, fallback on"
    bench.line("5", f"{what}: failed", f"{failed} of {len(records)}", "", "", "0", good=failed == 0)
    _p99("5", bench, before, "before the spike")
    _p99("5", bench, during, f"in the spike, {during['degraded'].mean():.0%} degraded")
    took = _recovery(records, end, percentile(before, 99))
    bench.line(
        "5",
        "recovery: quarters of a second until p99 is at most 1.5 x the one before and nothing is degraded",
        f"{took:.2f} s",
        "",
        "",
        "<= 2 s",
        good=took <= _RECOVERY,
    )


def _recovery(records: np.ndarray, end: float, usual: float, step: float = 0.25) -> float:
    """Seconds after the spike until the first step that is as before it, within noise of such small samples."""
    at = end
    while at < records["due"].max():
        inside = records[(records["due"] >= at) & (records["due"] < at + step)]
        if len(inside) and percentile(inside, 90) <= max(1.5 * usual, 5.0) and not inside["degraded"].any():
            return at - end
        at += step
    return float("inf")


def changes(bench: Bench) -> None:
    """Figure 7."""
    _swaps(bench)
    _lookup(bench)


def _swaps(bench: Bench) -> None:
    versions = [bench.models.light, bench.models.other]
    expected = np.array([answers(folder / "model.onnx", bench.ones) for folder in versions])
    root = bench.work / "repository"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(versions[0], root / "bench")
    loop = OpenLoop(bench.work, bench.one, expected)
    with bench.servers() as keep:
        ours = bench.ours(keep, "--workers", "2", "--model-control", "explicit", folder=root)
        rate = 0.3 * bench.wrk(ours.port, bench.short).rate
        running = loop.start(ours.port, [(rate, bench.long)])
        swaps = _Swaps(ours, versions, root)
        swaps.until(running)
        records = running.records()
    failed, wrong = int(np.sum(records["status"] != 200)), int(np.sum(records["wrong"]))
    what = f"two workers, {swaps.done} swaps of versions ({swaps.took:.2f} s each), {rate:.0f} requests/s for {bench.long:g} s"
    bench.line(
        "7",
        f"{what}: failed, wrong, refused swaps",
        f"{failed}, {wrong}, {swaps.refused} of {len(records)}",
        "",
        "",
        "0, 0, 0",
        good=failed + wrong + swaps.refused == 0 and swaps.done > 0,
    )
    _p99("7", bench, records, "while versions are swapped")


class _Swaps:
    """Puts the other version in the folder and asks for it to be loaded, every two seconds."""

    def __init__(self, server: Server, versions: list[Path], root: Path) -> None:
        self._server, self._versions, self._root = server, versions, root
        self.done = self.refused = 0
        self._times: list[float] = []

    @property
    def took(self) -> float:
        return float(np.median(self._times)) if self._times else 0.0

    def until(self, running: Running) -> None:
        gap = threading.Event()  # never set: only its waiting is used
        try:
            while running.going():
                gap.wait(_SWAP)
                if running.going():
                    self._swap()
        except BaseException:
            running.stop()
            raise

    def _swap(self) -> None:
        folder, old = self._root / "bench", self._root / ".old"
        draft = self._root / ".draft"
        shutil.copytree(self._versions[(self.done + 1) % 2], draft)
        folder.rename(old)
        draft.rename(folder)
        shutil.rmtree(old)
        started = time.perf_counter()
        status, _ = ask(self._server.port, payloads.post("/v2/repository/models/bench/load", b"{}"), timeout=30)
        self._times.append(time.perf_counter() - started)
        self.done += 1
        self.refused += status != 200


def _lookup(bench: Bench) -> None:
    found, bare, url = rows.make(bench.work, bench.models.text.read_text())
    asked = rows.requests(2000)
    wrk = Wrk(payloads.write(bench.work / "rows.req", asked))
    online = ["--online", url, "--state-table", rows.STATE, "--scored", "off"]
    spent: dict[str, list[float]] = {}
    with bench.servers() as keep:
        servers = {
            "with": bench.ours(keep, *online, folder=found, ready=asked[0], name="with"),
            "without": bench.ours(keep, folder=bare, ready=asked[0], name="without"),
        }

        def measure(name: str) -> float:
            server = servers[name]
            before, answered = server.cpu(), wrk(server.port, bench.short)
            spent.setdefault(name, []).append((server.cpu() - before) / max(answered.answers, 1) * 1e6)
            return 1e6 / answered.rate

        took = bench.turns({name: lambda name=name: measure(name) for name in servers})
    bench.compare(
        "7",
        "time a request with feature lookup (SQLite): against without",
        took["with"],
        took["without"],
        "µs",
        most=1.5,
    )
    bench.compare("7", "CPU a request with feature lookup: against without", spent["with"], spent["without"], "µs")
