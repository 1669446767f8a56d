"""Who ingests which partitions of a stream: processes share them, each by a lease of its own.

A member is a lease, which its process renews, and the row with the positions names the owner of each partition. Every
change of owners is one transaction of that row, and each process changes its own share only, save that it removes
members whose lease has lapsed. A partition moves when its owner has committed what it read of it and gives it back, or
when the owner's lease is removed: from then on that process can commit nothing.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection, Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import LeaseHeldError
from cumulant.core.events import Actor
from cumulant.flows.ledger.lease import LEASE, LeaseHandle, LeaseRecord, LeaseWatch, read_lease, take_lease
from cumulant.flows.ledger.processes import is_gone

if TYPE_CHECKING:
    from cumulant.data.streams.records import StreamState
    from cumulant.data.streams.sharing import PartitionChange
    from cumulant.ports.journal import Journal, Row, Transaction

#: in the data of the lease of whoever compacts a source: what the keys of its tables begin with
COMPACTOR = "writer"
#: seconds after which a process that renews no more loses its partitions
MEMBER_SECONDS = 15.0


class StreamMember:
    """The membership of one reader of a source, from `join` to `leave`. For one thread."""

    def __init__(
        self, journal: Journal, source: str, actor: Actor, steady: Callable[[], float] = time.monotonic
    ) -> None:
        self._journal, self._source, self._actor = journal, source, actor
        self._watch = LeaseWatch(steady)
        self._stack = ExitStack()
        self._lease: LeaseHandle | None = None
        #: the members whose lease has lapsed, and the version that it had then
        self._lapsed: dict[str, int] = {}
        self.id = ""
        #: how many members there were at the last look, and those that this one has removed
        self.count, self.removed = 0, set[str]()

    def join(self) -> None:
        """Become a member, without any partition."""
        self.leave()
        self.id = uuid.uuid4().hex
        lease = take_lease(
            self._journal,
            member_name(self._source, self.id),
            ttl=MEMBER_SECONDS,
            actor=self._actor,
            watch=self._watch,
        )
        assert lease is not None, "nobody else has this name"
        self._lease = self._stack.enter_context(lease.renewed())

    def leave(self) -> None:
        """Give all partitions back. What was read of them and is not committed is read again by others."""
        self._lease = None
        self._stack.close()

    def share(self, state: StreamState, partitions: Collection[int]) -> PartitionChange:
        """What this member has to change, as things are now.

        Raises:
            LeaseHeldError: it is no member any more.
        """
        rows = self._journal.rows(LEASE, member_name(self._source))
        for row in rows:
            if row.key == member_name(self._source, self.id):
                continue
            record = read_lease(row)
            if self._watch.has_lapsed(row.key, row.version, ttl=record.ttl, holder=record.holder):
                self._lapsed[row.key] = row.version
        return self._divide(state, partitions, self._living(rows))

    def take(self, transaction: Transaction, state: StreamState, partitions: Collection[int]) -> StreamState:
        """The state with the partitions that this member may have besides; members that have lapsed are removed.

        Raises:
            LeaseHeldError: it is no member any more.
        """
        self._confirm_lease(transaction)
        rows = transaction.rows(LEASE, member_name(self._source))
        living = self._living(rows)
        for row in rows:
            if row not in living:
                transaction.delete(LEASE, row.key)
                self.removed.add(_id(row))
        self._lapsed.clear()
        share = self._divide(state, partitions, living)
        members = {_id(row) for row in living}
        owners = {number: member for number, member in state.owners.items() if member in members}
        owners |= {str(number): self.id for number in share.take}
        return _with_owners(state, owners)

    def release(self, state: StreamState, partitions: Iterable[int]) -> StreamState:
        """The state without these partitions of this member."""
        gone = {str(number) for number in partitions}
        return _with_owners(state, {number: member for number, member in state.owners.items() if number not in gone})

    def confirm(self, transaction: Transaction, state: StreamState, partitions: Collection[int]) -> None:
        """Check, in the transaction that writes under it, that this is a member and has just these partitions.

        Raises:
            LeaseHeldError: it is no member any more, since others found its lease lapsed.
        """
        self._confirm_lease(transaction)
        self.check_owned(state, partitions)

    def check_owned(self, state: StreamState, partitions: Collection[int]) -> None:
        """Raises LeaseHeldError: by `state` the member's share is another one."""
        if owned(state, self.id) != set(partitions):
            raise LeaseHeldError(
                f"another process reads partitions of source {self._source} that this one had", subject=self._source
            )

    def _confirm_lease(self, transaction: Transaction) -> None:
        if self._lease is None:
            raise LeaseHeldError(f"this process does not ingest source {self._source}", subject=self._source)
        self._lease.confirm(transaction)

    def _divide(self, state: StreamState, partitions: Collection[int], living: Collection[Row]) -> PartitionChange:
        from cumulant.data.streams.sharing import divide

        members = {_id(row) for row in living}
        if self.id not in members:
            raise LeaseHeldError(
                f"this process was taken for gone, and others read its partitions of source {self._source}",
                subject=self._source,
            )
        self.count = len(members)
        owners = {int(number): member for number, member in state.owners.items()}
        return divide(partitions, owners, members, self.id)

    def _living(self, rows: Iterable[Row]) -> list[Row]:
        """The rows of members, without those that had lapsed and were not renewed since."""
        return [row for row in rows if self._lapsed.get(row.key) != row.version]


def member_name(source: str, member: str = "") -> str:
    """The name of a member's lease; without a member, what the names of all of a source begin with."""
    return f"stream/{source}/{member}"


def owned(state: StreamState, member: str) -> set[int]:
    """The partitions that a member has."""
    return {int(number) for number, owner in state.owners.items() if owner == member}


def members_of(journal: Journal, source: str) -> dict[str, LeaseRecord]:
    """The members of a source whose processes are not known to be gone."""
    records = {_id(row): read_lease(row) for row in journal.rows(LEASE, member_name(source))}
    return {member: record for member, record in records.items() if not is_gone(record.holder)}


def compactor_name(source: str) -> str:
    """The name of the lease of whoever compacts a source."""
    return f"stream-compaction/{source}"


def writers_of(journal: Journal, source: str) -> set[str]:
    """With what the keys of tables begin that a process may be about to commit."""
    row = journal.get(LEASE, compactor_name(source))
    record = None if row is None else read_lease(row)
    own = set[str]() if record is None or is_gone(record.holder) else {str(record.data.get(COMPACTOR))}
    return own | set(members_of(journal, source))


def _with_owners(state: StreamState, owners: dict[str, str]) -> StreamState:
    if owners == state.owners:
        return state
    return msgspec.structs.replace(state, owners=owners, rebalances=state.rebalances + 1)


def _id(row: Row) -> str:
    return row.key.rpartition("/")[2]
