"""How far the tables of online features are behind the batches of a source."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import CumulantError
from cumulant.flows.data.stream_records import batches_after, find_batch, find_state
from cumulant.flows.features.online_tables import OnlineTable, online_tables, why_not

if TYPE_CHECKING:
    from cumulant.data.streams.records import StreamState
    from cumulant.project.project import Project


class OnlineStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A table of online features that reads a source: `batch` is the last one that it has, `behind` how many it has
    not, and `lag_seconds` since when the first of these is there. `served`: a process reads the table, or is to.

    `error`: why that is not known, or why it gets no rows.
    """

    table: str
    served: bool
    batch: int | None = None
    behind: int | None = None
    lag_seconds: float | None = None
    error: str | None = None


def online_status(project: Project, source: str, state: StreamState) -> tuple[OnlineStatus, ...]:
    """The tables that rows of the source are put into. What does not answer is an error in words."""
    try:
        tables = online_tables(project, [source])
    except CumulantError as error:
        return (OnlineStatus(table="", served=False, error=project.vault.redact(error.message)),)
    return tuple(_status(project, source, state, table) for table in tables)


def _status(project: Project, source: str, state: StreamState, table: OnlineTable) -> OnlineStatus:
    from cumulant.features.online.hashed_keys import HashedKeys
    from cumulant.features.online.state_writer import StateWriter

    status = OnlineStatus(table=table.name, served=table.served, error=why_not(table.plan, source))
    if status.error is not None:
        return status
    try:
        plan = HashedKeys.of(table.plan, project.salt).plan
        present = StateWriter(plan, project.online(), table.name).present_state()
        batch = present.applied.get(source, 0)
        if has_other_history(project, source, batch, present.contents.get(source)):
            return msgspec.structs.replace(status, batch=batch, error=f"{other_history(batch)}; it is filled again")
        first = batches_after(project, source, batch, state.batches, rows=0)
    except CumulantError as error:
        return msgspec.structs.replace(status, error=project.vault.redact(error.message))
    lag = (datetime.now(UTC) - first[0].at).total_seconds() if first else 0.0
    behind = max(state.batches - batch, 0)
    return msgspec.structs.replace(status, batch=batch, behind=behind, lag_seconds=max(lag, 0.0))


def has_other_history(project: Project, source: str, batch: int, content: str | None) -> bool:
    """Whether a table whose last batch this is, with that `content` where it is known, was filled by another journal:
    one that was lost since, or restored from a backup.

    Raises:
        CumulantError: the journal does not answer.
    """
    state, _ = find_state(project, source)  # read after the table: batches are committed before they enter it
    if state is None or batch > state.batches:
        return batch > 0
    known = None if content is None else find_batch(project, source, batch)
    return known is not None and known.content != content


def other_history(batch: int) -> str:
    """What `has_other_history` means, in words."""
    return f"the online features have batch {batch} of another journal, which was replaced since"
