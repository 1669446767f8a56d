"""The controller of one model's releases: a loop that reads, decides, writes, and applies the result.

It may be killed at any moment and started again, anywhere: all that it knows is in the release's row. Its own clock
is steady, so that a jump of the wall clock changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import msgspec

from cumulant.core.errors import LeaseHeldError
from cumulant.core.events import Actor
from cumulant.flows.ledger.lease import LeaseHandle, LeaseWatch, take_lease
from cumulant.flows.release import store
from cumulant.release.decide import act_on_failure, build_failure_reference, decide, end_release, start
from cumulant.release.evidence.accumulate import count_look, is_readable
from cumulant.release.evidence.health import find_hard_failure
from cumulant.release.state import Release, desired_routes
from cumulant.release.wording import rolled_back_beside

if TYPE_CHECKING:
    from cumulant.core.clock import Clock
    from cumulant.core.traffic import Routes
    from cumulant.flows.release.controller.route_keeper import RouteKeeper
    from cumulant.ports.journal import Journal
    from cumulant.ports.traffic import Traffic
    from cumulant.release.evidence.health import RecentHealth
    from cumulant.release.evidence.look import Look

#: the lease of the controller of a model
CONTROLLER = "release_controller/{model}"
#: seconds without a sign of life after which another controller takes over
LAPSE = 5.0
#: looks that a gap may stand for: a controller that slept long has not watched for that long
_LONGEST = 3.0
_ACTOR = Actor("service:release-controller")


class EvidenceSource(Protocol):
    """The evidence of a running release."""

    def health(self, release: Release) -> RecentHealth:
        """The last seconds, for failures that need no statistics."""
        ...

    def look(self, release: Release, seconds: float) -> tuple[Look, str]:
        """Everything since the release's cursor, and the next cursor."""
        ...


class Effects(Protocol):
    """What an ended release asks for beside its routes. Each is done again until it is settled, and may be."""

    def pending(self, release: Release) -> tuple[str, ...]:
        """Names of what is left to do, in order."""
        ...

    def settle(self, release: Release, effect: str) -> bool:
        """Do it; whether it is done. An error leaves it for the next time."""
        ...


class SloGate(Protocol):
    """The objectives of the served model."""

    def hold(self, release: Release) -> str:
        """What stops a release under way, as a clause; empty: nothing."""
        ...


class Controller:
    """Call `tick` about once a second."""

    def __init__(
        self,
        model: str,
        *,
        journal: Journal,
        traffic: Traffic,
        evidence: EvidenceSource,
        effects: Effects,
        clock: Clock,
        steady: Callable[[], float] = time.monotonic,
        pace: Callable[[], float] = lambda: 1.0,
        keeper: RouteKeeper | None = None,
        slo: SloGate | None = None,
    ) -> None:
        self._model = model
        self._journal = journal
        self._traffic = traffic
        self._evidence = evidence
        self._effects = effects
        self._clock = clock
        self._steady = steady
        #: seconds of the release's time to one of the clock
        self._pace = pace
        #: where servers come and go on several machines
        self._keeper = keeper
        self._slo = slo
        self._lease: LeaseHandle | None = None
        self._watch = LeaseWatch(steady)
        self._last_look: tuple[str, float] | None = None
        #: the release whose evidence was read
        self._readable = ""

    def tick(self) -> Release | None:
        """One round; the release as it is after it, or None where there is none or another controller acts.

        Raises:
            CumulantError: the journal or the gateway cannot be reached. Serving goes on as it is; call again.
        """
        if not self._holds_lease():
            return None
        stored = store.read(self._journal, self._model)
        if stored is None:
            self._keep_routes(None)
            return None
        before, version = self._follow_servers(*stored)
        release, counted, at = self._without_look(before), None, self._clock.now()
        if release is None:
            ceilings = before.policy.ceilings
            health = self._evidence.health(before)
            failure = find_hard_failure(health, ceilings, build_failure_reference(before))
            release = act_on_failure(before, failure, at=at)
            seconds = self._seconds_since_look(release)
            if not release.over and seconds >= release.policy.look and not self._traffic.lagging(self._model):
                look, cursor = self._evidence.look(release, seconds)
                look = replace(look, seconds=seconds * self._pace())
                if self._slo is not None:
                    release = msgspec.structs.replace(release, slo_hold=self._slo.hold(release))
                counted, skewed = count_look(msgspec.structs.replace(release, cursor=cursor), look)
                self._last_look = (counted.id, self._steady())
                failure = find_hard_failure(health, ceilings, build_failure_reference(counted))
                release = decide(counted, skewed=skewed, failing=failure is not None, at=at)
        if release != before:
            with self._journal.transaction(actor=_ACTOR, run=release.id) as transaction:
                store.write(transaction, before, release, expect=version)
                if counted is not None:
                    store.write_look(transaction, counted, at=at)
        self._apply(release)
        self._keep_routes(release)
        return release

    def _follow_servers(self, release: Release, version: int) -> tuple[Release, int]:
        """The release with the servers that there are, and its row's version; first, since evidence may be missing."""
        if self._keeper is None or release.over or release.status == "pending" or self._ended_elsewhere(release):
            return release, version
        present = self._keeper.with_present_servers(release)
        if present == release:
            return release, version
        with self._journal.transaction(actor=_ACTOR, run=release.id) as transaction:
            version = store.write(transaction, release, present, expect=version)
        self._traffic.apply(desired_routes(present))
        return present, version

    def _keep_routes(self, release: Release | None) -> None:
        """Let the routes follow the servers, where no release is under way that does."""
        if self._keeper is not None and (release is None or release.over):
            self._keeper.follow_servers()

    def _without_look(self, release: Release) -> Release | None:
        """The release after a round that needs no evidence; None where a look decides."""
        if release.over:
            return release
        ended = self._ended_elsewhere(release)
        if ended is not None:
            return ended
        if not self._can_read(release):
            text = "another version of Cumulant began it, and its evidence cannot be read; start the release again"
            return end_release(release, "inconclusive", text, at=self._clock.now())
        if release.status == "pending":
            return start(self._with_present_routes(release))
        return None

    def _with_present_routes(self, release: Release) -> Release:
        """A pending release above the routes in force, which followed the servers while it was written, with these.

        Unchanged where they are of a rollback a moment ago, which it must not undo: its own are then refused.
        """
        present = self._traffic.in_force(self._model)
        if present is None or present.revision <= release.revision or _is_past(present, release):
            return release
        release = msgspec.structs.replace(release, revision=present.revision)
        return release if self._keeper is None else self._keeper.with_present_servers(release)

    def _can_read(self, release: Release) -> bool:
        """Whether the release's evidence is of this program's form; read once for each release."""
        if self._readable != release.id and is_readable(release):
            self._readable = release.id
        return self._readable == release.id

    def _ended_elsewhere(self, release: Release) -> Release | None:
        """The release, ended, where the gateway has newer routes: `cumulant rollback` needs no journal."""
        present = self._traffic.in_force(self._model)
        if present is None or not _is_past(present, release):
            return None
        text = rolled_back_beside(present.champion.version)
        ended = end_release(release, "rolled_back", text, at=self._clock.now())
        return msgspec.structs.replace(ended, revision=present.revision, rollback=present.rollback)

    def _seconds_since_look(self, release: Release) -> float:
        now = self._steady()
        if self._last_look is None or self._last_look[0] != release.id:
            self._last_look = (release.id, now)
            return 0.0
        return min(now - self._last_look[1], _LONGEST * release.policy.look)

    def _apply(self, release: Release) -> None:
        present, wanted = self._traffic.in_force(self._model), desired_routes(release)
        if present is None or present.revision < wanted.revision or self._traffic.lagging(self._model):
            self._traffic.apply(wanted)
        for effect in self._effects.pending(release):
            if not self._effects.settle(release, effect):
                return
            self._record_settled(release, effect)

    def _record_settled(self, release: Release, effect: str) -> None:
        """Record in the row that it is done, unless the row has changed meanwhile: then it is done once more."""
        stored = store.read(self._journal, self._model)
        if stored is None or stored[0].id != release.id:
            return
        present, version = stored
        after = msgspec.structs.replace(present, settled=present.settled | {effect})
        with self._journal.transaction(actor=_ACTOR, run=release.id) as transaction:
            store.write(transaction, present, after, expect=version)

    def _holds_lease(self) -> bool:
        """Whether this controller is the one that acts; takes over from one that has stopped."""
        try:
            if self._lease is not None:
                self._lease.beat()
                return True
        except LeaseHeldError:
            self._lease = None
        name = CONTROLLER.format(model=self._model)
        self._lease = take_lease(self._journal, name, ttl=LAPSE, actor=_ACTOR, watch=self._watch)
        return self._lease is not None


def _is_past(present: Routes, release: Release) -> bool:
    """Whether these routes are newer than the release's own. A pending release has none: until it begins, routes may
    follow the servers of its champion, and are newer where another version was made the champion.
    """
    if release.status == "pending":
        return present.revision >= release.revision and present.champion.version != release.champion.version
    if present.revision == release.revision:
        return present != desired_routes(release)
    return present.revision > release.revision
