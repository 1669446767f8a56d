"""Runs and `clean` exclude each other.

A run writes its row and then reads whether something is being removed; `clean` takes the lease of its step and then
reads which runs there are. Each records what it does before it reads, so at least one of the two sees the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cumulant.flows.ledger.ledger import identity_of
from cumulant.flows.ledger.ledger_records import STEP, read_step
from cumulant.flows.ledger.step_lease import StepWatch

if TYPE_CHECKING:
    from cumulant.core.clock import Clock
    from cumulant.core.progress import Progress
    from cumulant.flows.ledger.ledger import Ledger

#: the flow that removes things, and its one step
CLEAN = "clean"


def await_clean(ledger: Ledger, clock: Clock, progress: Progress) -> None:
    """Wait until nothing is being removed from the project, by this or another process."""
    watch = StepWatch(CLEAN, clock=clock, progress=progress)
    while row := ledger.journal.get(STEP, identity_of(CLEAN, {})):
        record = read_step(row)
        if record.status != "running" or watch.may_take(row, record):
            return
        watch.pause(record)
