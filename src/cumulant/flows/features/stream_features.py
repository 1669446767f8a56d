"""Rows of ingested streams are put into online state, so that windows of features are fresh seconds after a message.

It follows the batches that ingestion committed: refused messages never come here, and no message is decoded twice.
Each table says itself which batch it has (`EventBatchWriter`), in the transaction of the rows. So whatever is killed,
and whatever the online store loses, goes on where the table stands; a table that is lost is filled from the snapshot
of all rows, which says the last batch in it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cumulant.core.errors import CumulantError, RetryableError
from cumulant.core.events import Actor
from cumulant.core.progress import Progress, silent
from cumulant.flows.data.stream_records import streamed_sources
from cumulant.flows.features.online_tables import online_tables, why_not
from cumulant.flows.features.stream_follower import AppliedSource, StreamFollower
from cumulant.flows.ledger.actions import verb
from cumulant.flows.ledger.lease import LeaseHandle, LeaseWatch, take_lease

if TYPE_CHECKING:
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project

#: seconds between two looks for new batches, for new tables, and after an error that may pass
_POLL, _REFRESH, _RETRY = 0.25, 10.0, 2.0
#: seconds for which one process follows a source, unless it renews that
_LEASE = 20.0


@verb("data.ingest")
def apply_ingested(
    project: Project,
    *,
    principal: Principal,
    sources: Iterable[str] = (),
    once: bool = False,
    stop: threading.Event | None = None,
    progress: Progress = silent,
) -> list[AppliedSource]:
    """Put the rows that are ingested of the named sources (default: all with a stream) into the online state of the
    models that read them, until `stop` is set. `once`: the batches that are there when the call begins.

    Where several processes do so, one of them follows each source; with `once` each does its own.

    Raises:
        NotFoundError: there is no such source.
        UsageError: no source has a stream.
        CumulantError: with `once`, the first error of a table; the others are done. Without, it is tried again.
    """
    stop = stop or threading.Event()
    runner = _Runner(project, streamed_sources(project, sources), principal, progress)
    if once:
        runner.refresh()
        while runner.step(everything=True):
            pass
        if runner.errors:
            raise next(iter(runner.errors.values()))
        return runner.results()
    with runner.leases():
        while not stop.is_set():
            if not runner.try_step():
                stop.wait(_POLL)
        runner.try_step()
    return runner.results()


@contextmanager
def apply_in_background(
    project: Project, *, principal: Principal, sources: Iterable[str], progress: Progress
) -> Iterator[list[AppliedSource]]:
    """`apply_ingested` on a thread while the block runs; the result has been filled after it. An error there ends
    nothing else, and is told.

    Raises:
        NotFoundError: there is no such source.
        UsageError: no source has a stream.
    """
    results: list[AppliedSource] = []
    stop, names = threading.Event(), list(streamed_sources(project, sources))

    def run() -> None:
        try:
            results.extend(apply_ingested(project, principal=principal, sources=names, stop=stop, progress=progress))
        except CumulantError as error:
            progress(project.vault.redact(f"online features: {error.message}"))

    thread = threading.Thread(target=run, name="cumulant-apply", daemon=True)
    thread.start()
    try:
        yield results
    finally:
        stop.set()
        thread.join()


class _Runner:
    """Follows the batches of some sources into the tables that read them. For one thread."""

    def __init__(self, project: Project, sources: Iterable[str], principal: Principal, progress: Progress) -> None:
        self._project, self._sources, self._progress = project, list(sources), progress
        self._principal = principal
        self._followers: dict[tuple[str, str], StreamFollower] = {}
        self._refreshed = float("-inf")
        self._pause_until = float("-inf")
        self._watch = LeaseWatch()
        self._leases: dict[str, LeaseHandle] = {}
        self._beat_at = float("-inf")
        #: the last error of each source and table
        self.errors: dict[tuple[str, str], CumulantError] = {}

    def refresh(self) -> None:
        """Find the tables. Those that servers read and that the store lost are filled again."""
        tables = online_tables(self._project, self._sources)
        self._refreshed = time.monotonic()
        followers = {}
        for table in tables:
            for source in filter(table.reads, self._sources):
                key = (source, table.name)
                reason = why_not(table.plan, source)
                if reason is not None:
                    if key not in self.errors:
                        self._progress(f"{source}: not put into online features: {reason}")
                    continue
                followers[key] = self._followers.get(key) or StreamFollower(self._project, source, table)
                followers[key].check()
        self._followers = followers

    def step(self, *, everything: bool = False) -> bool:
        """Put the next batches into each table; whether there were any."""
        applied = False
        for key, follower in self._followers.items():
            if key in self.errors or not (everything or key[0] in self._leases):
                continue
            try:
                applied |= follower.step(self._principal, self._progress)
            except CumulantError as error:
                self.errors[key] = error
        return applied

    def try_step(self) -> bool:
        """As `step`, of the sources that this process follows; what fails is told, and tried again later."""
        now = time.monotonic()
        if now < self._pause_until:
            return False
        before = {key: error.message for key, error in self.errors.items()}
        try:
            if now - self._refreshed > _REFRESH:
                self.errors = {}
                self.refresh()
            self._renew_leases()
            applied = self.step()
        except CumulantError as error:  # the journal, or the online store as a whole
            self._tell("online features", error)
            self._pause_until = now + _RETRY
            return False
        for (source, table), fault in self.errors.items():
            if before.get((source, table)) != fault.message:
                self._tell(f"{source}: online features in {table}", fault)
        lasting = {key: fault for key, fault in self.errors.items() if not isinstance(fault, RetryableError)}
        if len(lasting) < len(self.errors):
            self.errors = lasting
            self._pause_until = now + _RETRY
        return applied

    def _tell(self, what: str, error: CumulantError) -> None:
        self._progress(self._project.vault.redact(f"{what}: {error.message}; trying again"))

    @contextmanager
    def leases(self) -> Iterator[None]:
        try:
            yield
        finally:
            for lease in self._leases.values():
                try:
                    lease.release()
                except CumulantError:  # it ends by itself
                    continue

    def _renew_leases(self) -> None:
        now = time.monotonic()
        if now - self._beat_at < _LEASE / 6:
            return
        self._beat_at = now
        followed = {source for source, _ in self._followers}
        for source in self._sources:
            lease = self._leases.get(source)
            if lease is not None:
                try:
                    lease.beat()
                except CumulantError:
                    del self._leases[source]
            elif source in followed:
                taken = take_lease(
                    self._project.journal(),
                    f"online features of {source}",
                    ttl=_LEASE,
                    actor=Actor(self._principal.id),
                    watch=self._watch,
                )
                if taken is not None:
                    self._leases[source] = taken

    def results(self) -> list[AppliedSource]:
        return [
            follower.result(None if (error := self.errors.get(key)) is None else error.message)
            for key, follower in self._followers.items()
        ]
