"""Several processes post to one store, and are killed in the middle of it."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
from advance_plan import PLAN

from cumulant.features.online.materialization import materialize
from cumulant.features.online.online import OnlineFeatures
from cumulant.ports.plugins import Drivers

WORKER = Path(__file__).parent / "advance_worker.py"
SCHEMA = {"id": pl.Int64, "card": pl.String, "at": pl.Datetime("us", "UTC"), "amount": pl.Float64}
END = datetime(2013, 4, 1, 1, tzinfo=UTC)
CARDS = [f"c{i}" for i in range(5)]


def posting(url: str, log: Path, first: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, str(WORKER), url, str(log), str(first)], stderr=subprocess.PIPE)


def counts(online: OnlineFeatures) -> dict[str, Any]:
    found = online.vectors([{"card": card, "at": END, "id": -1, "amount": 0.0} for card in CARDS]).columns
    # without the row that asks
    return {card: (found["n_2h"][i] - 1, found["total_2h"][i]) for i, card in enumerate(CARDS)}


def test_what_was_acknowledged_survives_kills_and_nothing_is_counted_twice(tmp_path: Path) -> None:
    survive_kills(f"sqlite:///{tmp_path}/online.db", tmp_path)


def survive_kills(url: str, tmp_path: Path) -> None:
    """Workers that post to the store at `url` are killed; what they had acknowledged is there once."""
    random_, store = random.Random(7), Drivers.installed().client(url, "online")
    materialize(PLAN, {"tx": pl.DataFrame([], schema=SCHEMA)}, store, table="t")
    # a reader that was there all the time sees what others wrote
    online = OnlineFeatures(PLAN, store, "t")
    assert counts(online) == dict.fromkeys(CARDS, (0, 0.0))
    logs, ids = [], 0
    for round_ in range(3):
        workers = []
        for side in range(2):
            logs.append(tmp_path / f"{round_}-{side}")
            workers.append(posting(url, logs[-1], ids))
            ids += 1_000_000
        wait_for(logs[-2:])
        time.sleep(random_.random() * 0.4)
        for worker in workers:
            worker.kill()
        for worker in workers:
            assert b"Error" not in worker.communicate()[1]
    acknowledged = [int(line) for log in logs for line in log.read_bytes().decode().split("\n")[:-1]]
    assert len(acknowledged) == len(set(acknowledged)) > 30
    found = counts(online)
    assert found == counts(OnlineFeatures(PLAN, store, "t"))
    for card, (n, total) in found.items():
        assert total == n
        assert n >= sum(f"c{one % 5}" == card for one in acknowledged)
    # what is told again was all there, so that the sums are of the acknowledged rows and of those on their way
    again = [{"id": one, "card": f"c{one % 5}", "at": END, "amount": 1.0} for one in acknowledged]
    assert online.advance("tx", again).duplicates == len(acknowledged)
    assert sum(n for n, _ in found.values()) <= len(acknowledged) + 3 * len(logs)


def wait_for(logs: list[Path]) -> None:
    deadline = time.monotonic() + 60
    while not all(log.exists() and log.stat().st_size for log in logs):
        assert time.monotonic() < deadline, "a worker acknowledged nothing within a minute"
        time.sleep(0.02)
