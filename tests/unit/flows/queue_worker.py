"""A worker as a process, for tests that kill it: `queue_worker.py JOURNAL LEASE_SECONDS`."""

import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path

from cumulant.core.events import Actor
from cumulant.drivers.local.compute import SubprocessCompute
from cumulant.drivers.local.journal import SqliteJournal
from cumulant.flows.worker.worker import StepWorker
from cumulant.ports.step_queue import WorkerOffer


def wait_once(folder):
    """Waits for ever the first time, and returns the second time; each call leaves a file."""
    place = Path(folder)
    number = len(list(place.glob("call-*")))
    (place / f"call-{number}").touch()
    if number == 0:
        time.sleep(600)
    return {"number": number}


def wait_always(folder):
    """Waits for ever; each call leaves a file."""
    place = Path(folder)
    (place / f"call-{len(list(place.glob('call-*')))}").touch()
    time.sleep(600)
    return {}


def main() -> None:
    worker = StepWorker(
        SqliteJournal(f"sqlite://{sys.argv[1]}"),
        SubprocessCompute(),
        prepare=nullcontext,
        offer=WorkerOffer(4, 1 << 40),
        actor=Actor("service:worker"),
        progress=lambda text, share=None: None,
        lease=float(sys.argv[2]),
    )
    for run in worker.work(threading.Event()):
        print(run.name, run.ending, run.attempt, flush=True)


if __name__ == "__main__":
    main()
