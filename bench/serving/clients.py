"""What asks the servers: wrk for closed loops, processes of `openloop.py` for open ones."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

HERE = Path(__file__).parent
_SCRIPT = """
local file = io.open("%s", "rb")
local requests, lengths = {}, {}
for length in string.gmatch(file:read("*l"), "%%d+") do lengths[#lengths + 1] = tonumber(length) end
for n, length in ipairs(lengths) do requests[n] = file:read(length) end
file:close()
local n, count = math.random(0, #requests - 1), #requests
function request()
  n = n + 1
  if n > count then n = 1 end
  return requests[n]
end
function done(summary, latency, all)
  io.write(string.format("\\nFOUND %%d %%d %%d %%.1f %%.1f\\n", summary.requests, summary.duration,
    summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""


class Closed(NamedTuple):
    """Of a closed loop: good answers and their rate, failures, latencies in microseconds."""

    answers: int
    rate: float
    failed: int
    p50: float
    p99: float


class Wrk:
    """`wrk` with the requests of one file."""

    def __init__(self, requests: Path) -> None:
        self._script = requests.with_suffix(".lua")
        self._script.write_text(_SCRIPT % requests)

    def __call__(self, port: int, seconds: float, connections: int = 32) -> Closed:
        whole = max(1, round(seconds))  # it takes whole seconds
        command = [
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{whole}s",
            "--timeout",
            "5s",
            "-s",
            str(self._script),
            f"http://127.0.0.1:{port}/",
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=whole + 30, check=False)
        found = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("FOUND")]
        if not found:
            raise RuntimeError(f"wrk failed: {done.stdout[-500:]} {done.stderr[-500:]}")
        requests, duration, failed, p50, p99 = map(float, found[0])
        good = int(requests - failed)
        return Closed(good, good / (duration / 1e6), int(failed), p50, p99)


class OpenLoop:
    """Phases of `(requests a second, seconds)` at fixed moments. `expected`: answers by version and request."""

    def __init__(self, work: Path, requests: Path, expected: np.ndarray | None = None) -> None:
        self._work, self._requests, self._expected = work, requests, None
        if expected is not None:
            self._expected = work / "expected.npy"
            np.save(self._expected, expected)
        self._runs = 0

    def start(
        self, port: int, phases: list[tuple[float, float]], *, processes: int = 1, warm: int = 16, most: int = 1000
    ) -> Running:
        started = time.perf_counter() + 1.0
        children, outs = [], []
        for place in range(processes):
            self._runs += 1
            plan, out = self._work / f"plan-{place}.json", self._work / f"open-{place}.npy"
            plan.write_text(
                json.dumps(
                    {
                        "requests": str(self._requests),
                        "expected": self._expected and str(self._expected),
                        "port": port,
                        "phases": phases,
                        "seed": self._runs,
                        "share": processes,
                        "warm": warm,
                        "most": most // processes,
                        "start": started,
                    }
                )
            )
            out.unlink(missing_ok=True)
            children.append(subprocess.Popen([sys.executable, str(HERE / "openloop.py"), str(plan), str(out)]))
            outs.append(out)
        return Running(children, outs, sum(seconds for _, seconds in phases))

    def __call__(self, port: int, phases: list[tuple[float, float]], **settings: int) -> np.ndarray:
        return self.start(port, phases, **settings).records()


class Running:
    """An open loop under way."""

    def __init__(self, children: list[subprocess.Popen[bytes]], outs: list[Path], seconds: float) -> None:
        self._children, self._outs, self._end = children, outs, time.monotonic() + seconds + 30

    def going(self) -> bool:
        return any(child.poll() is None for child in self._children)

    def records(self) -> np.ndarray:
        """Every request's record, in the order of the schedule."""
        try:
            for child in self._children:
                child.wait(max(1.0, self._end - time.monotonic()))
        finally:
            self.stop()
        found = np.concatenate([np.load(out) for out in self._outs])
        return found[np.argsort(found["due"])]

    def stop(self) -> None:
        for child in self._children:
            if child.poll() is None:
                child.kill()
                child.wait()


def percentile(records: np.ndarray, share: float, what: str = "latency") -> float:
    """Of latencies, in milliseconds; nan without any."""
    return float(np.percentile(records[what], share) * 1e3) if len(records) else float("nan")
