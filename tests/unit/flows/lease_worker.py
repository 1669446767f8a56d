"""Takes a lease as a process of another machine, and writes under it until it is lost."""

import json
import sys
import time
from contextlib import suppress

from cumulant.core.errors import EngineUnavailableError, LeaseHeldError
from cumulant.core.events import Actor
from cumulant.flows.ledger.lease import LeaseRenewal, LeaseWatch, take_lease
from cumulant.flows.ledger.processes import Process
from cumulant.ports.plugins import Drivers

BEATS = 6


def main(url, host, ttl):
    journal, actor = Drivers.installed().client(url, "journal"), Actor("user:worker")
    lease = take_lease(
        journal, "job", ttl=float(ttl), actor=actor, watch=LeaseWatch(), holder=Process(f"{host}:0", 1, "1")
    )
    print(json.dumps({"fence": lease.fence}), flush=True)
    try:
        with LeaseRenewal(lease.beat, every=float(ttl) / BEATS):
            while True:
                # A server ends the transaction of a client that is stopped within it.
                with suppress(EngineUnavailableError), journal.transaction(actor=actor) as transaction:
                    lease.confirm(transaction)
                    transaction.put("result", "a", {"by": "worker"})
                time.sleep(0.01)
    except LeaseHeldError:
        print(json.dumps({"lost": True}), flush=True)
    journal.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
