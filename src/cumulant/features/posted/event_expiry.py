"""Until when a table keeps the events of an entity.

A row expires old events: what lies further back than a group's longest span and a day (`LATE_US`) before the row's
event, or before the prediction for it if that comes first, is dropped, and predictions that would have seen it are
answered from what remains. Events expire only up to the second newest one that is known by now: one row with a wrong
date drops nothing, nor does any number of rows of the future.

A lookup without a limit needs one event of those that are dropped: the last one known, or in the order of event times
the latest one (`latest_dropped`). No later prediction takes another of them, since all of them are known to it.
"""

from __future__ import annotations

from typing import NamedTuple

from cumulant.features.offline.kernel.ranges import LatestEvents
from cumulant.features.offline.kernel.timeline import Flags, Ints

#: how late behind the newest event of an entity a prediction may be made
LATE_US = 86_400_000_000


class Expiry(NamedTuple):
    """Events are dropped that no prediction from a moment on can see: from `floor` on they never come back, and those
    before `since` are told that some are missing.
    """

    floor: int | None
    since: int | None


def expiry_of(table_since: int | None, dropped: int | None, second: int | None, newest: int | None) -> Expiry:
    """For a table that answers from `table_since` on, and an entity whose events before `dropped` are gone, whose
    second newest known event is at `second`, and which a row enters that may be asked for at `newest`.
    """
    limit = None if second is None else second - LATE_US
    # Events that earlier rows expired stay out. Blobs of earlier versions have a correction's moment there: not
    # beyond the limit.
    retained = None if limit is None or dropped is None else min(dropped, limit)
    floor = max((moment for moment in (table_since, retained) if moment is not None), default=None)
    since = None if limit is None or newest is None else min(newest - LATE_US, limit)
    return Expiry(floor, since if since is not None and (floor is None or since > floor) else None)


def latest_expiry(table_since: int | None, second: int | None) -> int | None:
    """The latest moment that `expiry_of` can give for this table and second newest event; None: it gives none."""
    if second is None:
        return table_since
    return second - LATE_US if table_since is None else max(table_since, second - LATE_US)


def latest_dropped(owners: Ints, event_times: Ints, starts: Ints, counts: Ints) -> tuple[Ints, Flags]:
    """Of the first `counts` events of each entity, which are too old for anything else, the position of the one that
    stays where `MeasureGroup.takes_latest_ever`, and whether there is one: the last with the greatest event time.

    `owners` has the number of each event's entity, `starts` the positions of their first events in order of entry.
    """
    return LatestEvents(owners, event_times).before(starts, starts + counts)
