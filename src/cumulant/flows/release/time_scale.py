"""Time scale of releases: the clock's, or faster while a replay sends requests of a past period.

The times of stages (`at_least`, `at_most`, `soak`) are counted in replayed time; looks, blocks and samples are not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cumulant.core.errors import LeaseHeldError
from cumulant.core.events import Actor
from cumulant.flows.ledger.lease import LEASE, LeaseWatch, await_lease, read_lease

if TYPE_CHECKING:
    from cumulant.ports.journal import Journal

TIME_SCALE = "time_scale"
_FACTOR = "factor"
_SECONDS = 15.0


def read_time_scale(journal: Journal, watch: LeaseWatch) -> float:
    """Seconds of a release's time to one of the clock; 1 where no replay says otherwise, as far as `watch` saw."""
    row = journal.get(LEASE, TIME_SCALE)
    if row is None:
        return 1.0
    lease = read_lease(row)
    factor = lease.data.get(_FACTOR)
    if watch.has_lapsed(TIME_SCALE, row.version, ttl=lease.ttl, holder=lease.holder):
        return 1.0
    return float(factor) if isinstance(factor, int | float) and factor > 0 else 1.0


@contextmanager
def scale_time(journal: Journal, factor: float) -> Iterator[None]:
    """The releases of the project go by this scale while the block runs.

    Raises:
        LeaseHeldError: another replay scales their time.
    """
    lease = await_lease(journal, TIME_SCALE, ttl=_SECONDS, actor=Actor("service:replay"), data={_FACTOR: factor})
    if lease is None:
        raise LeaseHeldError(
            "another replay scales the time of releases", subject=TIME_SCALE, hint="wait until it has ended"
        )
    with lease.renewed():
        yield
