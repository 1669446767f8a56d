"""A process that runs steps, for tests that start many and kill some.

    python ledger_worker.py JOURNAL LOG NAME STEPS SECONDS LEASE

Each step adds `begin STEP NAME` and `end STEP NAME` to LOG. Prints each step's result and whether it was reused.
"""

import os
import signal
import sys
import time
from datetime import timedelta

from cumulant.core.events import Actor
from cumulant.drivers.local.journal import SqliteJournal
from cumulant.flows.ledger.ledger import Ledger


def say(log: str, text: str) -> None:
    # One write to a file opened for appending is not torn.
    handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, f"{text}\n".encode())
    os.close(handle)


def main(path: str, log: str, name: str, steps: int, seconds: float, lease: float) -> None:
    journal = SqliteJournal(f"sqlite://{path}")
    with Ledger.open(journal, flow="test", actor=Actor(f"service:{name}"), lease=timedelta(seconds=lease)) as ledger:
        total = 0
        for number in range(steps):

            def work(number: int = number, total: int = total) -> dict[str, object]:
                say(log, f"begin {number} {name}")
                time.sleep(seconds)
                say(log, f"end {number} {name}")
                return {"total": total + number, "by": name}

            done = ledger.step("add", {"number": number, "total": total}, work)
            total = done.result["total"]
            print(number, total, done.result["by"], done.reused, flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored where the tests run in the background
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5]), float(sys.argv[6]))
