"""How often alerts of objectives fire, and how far their beginning is off, in worlds of random requests.

python bench/monitoring/objectives.py --runs 5
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np

from cumulant.alerting.alert_state import AlertsState
from cumulant.alerting.decide import decide
from cumulant.alerting.policy import Policy, Rule
from cumulant.core.units import Rate
from cumulant.flows.observe.objective_alerts import OBJECTIVE, active_alerts, objective_findings
from cumulant.monitoring.objectives import Objective, objective_state
from cumulant.monitoring.request_counts import RequestCounts, RequestHistory, RequestMinutes

START = datetime(2026, 11, 2, tzinfo=UTC)
AVAILABLE = Objective(sli="availability", target=0.999, window=timedelta(days=30), fewest=100)
RULE = Rule(level="warning", pending_for=0.0, resolve_after=300.0)
POLICY = Policy(rules={OBJECTIVE: RULE}, others=RULE, budget=Rate(10_000, "month"), remind=1e9, reminders=0)


class GrowingMinutes(RequestMinutes):
    """Counts that are taken as they are, without an object for each request."""

    def grow(self, minute: int, counts: RequestCounts) -> None:
        self._minutes[minute].add(counts)
        self._hours[minute // 60].add(counts)


#: requests a minute, share of errors, and minutes
Part = tuple[int, float, int]
DAYS = 3 * 24 * 60

#: what alerts do in the last minutes, so many
ALERTS: dict[str, tuple[Sequence[Part], int]] = {
    "0.09%, below each limit": ([(1000, 0.0009, DAYS)], 720),
    "0.1%, at the limit of a ticket": ([(1000, 0.001, DAYS)], 720),
    "0.11%, just above it": ([(1000, 0.0011, DAYS)], 720),
    "0.12%": ([(1000, 0.0012, DAYS)], 720),
    "0.15%, 30 requests/min": ([(30, 0.0015, DAYS)], 720),
    "0.5%": ([(1000, 0.0003, DAYS), (1000, 0.005, 720)], 720),
    "0.6%, at the limit of a page": ([(1000, 0.0003, DAYS), (1000, 0.006, 720)], 720),
    "0.7%, just above it": ([(1000, 0.0003, DAYS), (1000, 0.007, 720)], 720),
    "5%, 20 requests/min": ([(20, 0.0003, DAYS), (20, 0.05, 720)], 720),
    "10 min of 100%, then 0.03%": ([(1000, 0.0003, DAYS), (1000, 1.0, 10), (1000, 0.0003, 710)], 720),
    "10 min of 100%, then 0.1%": ([(1000, 0.0003, DAYS), (1000, 1.0, 10), (1000, 0.001, 710)], 720),
    "10 min of 100%, then 0.2%": ([(1000, 0.0003, DAYS), (1000, 1.0, 10), (1000, 0.002, 710)], 720),
    "10 min of 100%, then 0.3%": ([(1000, 0.0003, DAYS), (1000, 1.0, 10), (1000, 0.003, 710)], 720),
    "10 min of 100% twice, 5 h apart": (
        [(100, 0.0003, DAYS), (100, 1.0, 10), (100, 0.0003, 300), (100, 1.0, 10), (100, 0.0003, 400)],
        720,
    ),
}
#: the beginning of the last part
BEGINNINGS: dict[str, Sequence[Part]] = {
    "2%, 100 requests/min, 5 h": [(100, 0.0003, 600), (100, 0.02, 300)],
    "0.7%, 1,000/min, 5 h": [(1000, 0.0003, 600), (1000, 0.007, 300)],
    "10%, 30/min, 5 h": [(30, 0.0003, 600), (30, 0.1, 300)],
    "30%, 10/min at night, 20 min": [(10, 0.0003, 600), (10, 0.3, 20)],
    "100% for 30 min, 10 h good, 5% for 20 min, 100/min": [
        (100, 0.0003, 60),
        (100, 1.0, 30),
        (100, 0.0003, 600),
        (100, 0.05, 20),
    ],
    "100% for 10 min, 11 h good, 5% for 30 min, 1,000/min": [
        (1000, 0.0003, 60),
        (1000, 1.0, 10),
        (1000, 0.0003, 660),
        (1000, 0.05, 30),
    ],
    "100% for 10 min, 30 min good, 5% for 20 min, 100/min": [
        (100, 0.0003, 60),
        (100, 1.0, 10),
        (100, 0.0003, 30),
        (100, 0.05, 20),
    ],
    "100% for 30 min, a day good, 50% for 20 min, 10/min": [
        (10, 0.0003, 60),
        (10, 1.0, 30),
        (10, 0.0003, 1440),
        (10, 0.5, 20),
    ],
}


def draw(parts: Sequence[Part], seed: int) -> Iterator[RequestCounts]:
    """The counts of each minute."""
    generator = np.random.default_rng(seed)
    for requests, share, minutes in parts:
        counts = generator.poisson(requests, minutes)
        for count, bad in zip(counts.tolist(), generator.binomial(counts, share).tolist(), strict=True):
            yield RequestCounts(requests=count, errors=bad, answered=count)


def alerts(parts: Sequence[Part], last: int, seed: int) -> Counter[str]:
    """Changes of alerts in the `last` minutes, by an evaluation a minute."""
    counts = list(draw(parts, seed))
    known = len(counts) - last
    state, changes = AlertsState(), Counter[str]()
    minutes, first = _minutes(counts[:known]), int(START.timestamp()) // 60
    for number in range(known, len(counts)):
        now = START + timedelta(minutes=number + 1)
        minutes.grow(first + number, counts[number])
        active = active_alerts("m", state)
        states = [objective_state(AVAILABLE, minutes, now, since=None, alert=active.get("availability"))]
        found = objective_findings("m", states, active)
        state, changed = decide(state, list(found), now, policy=POLICY, examined=[("m", OBJECTIVE)])
        changes.update(change.what for change in changed)
    return changes


def beginning(parts: Sequence[Part], seed: int) -> float | None:
    """Minutes by which it is late; None: no alert."""
    counts = list(draw(parts, seed))
    now = START + timedelta(minutes=len(counts))
    episode = objective_state(AVAILABLE, _minutes(counts), now, since=None).episode
    true = now - timedelta(minutes=parts[-1][2])
    return None if episode is None else (episode.begun - true) / timedelta(minutes=1)


def _minutes(counts: Sequence[RequestCounts]) -> GrowingMinutes:
    first = int(START.timestamp()) // 60
    history = RequestHistory(minutes={first + number: each for number, each in enumerate(counts)})
    return GrowingMinutes("m", within=None, history=history)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    print("| world | fired: mean, most | notified: mean, most |\n|---|---|---|")
    for name, (parts, last) in ALERTS.items():
        every = [alerts(parts, last, seed) for seed in range(runs)]
        cells = (
            f"{np.mean(n):.2g}, {max(n)}" for n in ([each[what] for each in every] for what in ("fired", "notified"))
        )
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    print("\n| world | runs with an alert | minutes off: median | within 5 | most |\n|---|---|---|---|---|")
    for name, parts in BEGINNINGS.items():
        off = [each for each in (beginning(parts, seed) for seed in range(40 * runs)) if each is not None]
        near = np.mean([abs(each) <= 5 for each in off])
        print(f"| {name} | {len(off)} | {np.median(off):+.0f} | {near:.1%} | {max(map(abs, off)):.0f} |", flush=True)


if __name__ == "__main__":
    main()
