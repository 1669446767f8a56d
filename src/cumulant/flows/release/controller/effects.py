"""Effects of an ended release beside its routes: desired state, aliases, tags, draining, notification.

Each effect compares before it changes, so that done twice it is done once. The desired state is first: what moves the
champion on without the registry (`cumulant rollback`) is seen there, and a late alias does not undo it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import CumulantError, NotFoundError
from cumulant.core.traffic import CANDIDATE
from cumulant.flows.alerting import outbox
from cumulant.flows.registry.models import CANDIDATE as CANDIDATE_ALIAS
from cumulant.flows.registry.models import CHAMPION as CHAMPION_ALIAS
from cumulant.flows.registry.models import ModelAliased
from cumulant.flows.release.views import ending_message
from cumulant.flows.stack.desired_state import DesiredState, ServedVersion
from cumulant.release.events import ReleaseTold

if TYPE_CHECKING:
    from cumulant.core.clock import Clock
    from cumulant.core.events import Actor, Fact
    from cumulant.flows.deployment.deployment import Deployment
    from cumulant.ports.journal import Journal, Transaction
    from cumulant.ports.registry import Registry
    from cumulant.ports.traffic import Traffic
    from cumulant.project.notifiers import Receiver
    from cumulant.release.state import Release

#: tags of a version that a release has judged
VERDICT, REASON, RELEASE_TAG = "cumulant.release.verdict", "cumulant.release.reason", "cumulant.release"
#: what MLflow keeps of a tag's value
_LONGEST_TAG = 4000


class ReleaseEffects:
    """Carries out the effects of an ended release, in order.

    Args:
        deployment: has the desired state.
        registry: called when it is first needed.
        receivers: who is told how it ended.
        report: is told in a sentence what waits.
    """

    def __init__(
        self,
        deployment: Deployment,
        *,
        registry: Callable[[], Registry],
        journal: Journal,
        traffic: Traffic,
        receivers: Sequence[Receiver],
        clock: Clock,
        actor: Actor,
        report: Callable[[str], None],
    ) -> None:
        self._deployment, self._registry, self._journal, self._traffic = deployment, registry, journal, traffic
        self._receivers, self._clock, self._actor, self._report = receivers, clock, actor, report
        self._effects: Mapping[str, Callable[[Release], bool]] = {
            "desired_state": self._apply_desired_state,
            "notified": self._queue_messages,
            "alias": self._alias,
            "tags": self._tags,
            "drained": self._drain,
        }

    def pending(self, release: Release) -> tuple[str, ...]:
        """Names of what is left to do, in order."""
        if not release.over:
            return ()
        skipped = {"alias", "tags", "desired_state"} if is_external(release) else set()
        return tuple(name for name in self._effects if name not in release.settled | skipped)

    def settle(self, release: Release, effect: str) -> bool:
        """Do it; whether it is done. What cannot be done now is done later."""
        try:
            return self._effects[effect](release)
        except CumulantError as error:
            self._report(f"{effect} of the release {release.id} waits: {error.message}")
            return False

    def _apply_desired_state(self, release: Release) -> bool:
        self._deployment.change(release.model, lambda desired: apply_ended_release(desired, release, self._clock.now()))
        return True

    def _alias(self, release: Release) -> bool:
        registry, desired = self._registry(), self._deployment.read(release.model)
        candidate = release.candidate.version
        if release.status == "promoted" and desired.champion in (None, candidate):
            self._moved(registry, release, CHAMPION_ALIAS, candidate)
        if self._aliased(registry, release.model, CANDIDATE_ALIAS) == candidate:
            self._moved(registry, release, CANDIDATE_ALIAS, None)
        return True

    def _moved(self, registry: Registry, release: Release, alias: str, version: str | None) -> None:
        if self._aliased(registry, release.model, alias) == version:
            return
        registry.alias(release.model, alias, version)
        self._emit(release, ModelAliased(model=release.model, alias=alias, version=version))

    def _aliased(self, registry: Registry, model: str, alias: str) -> str | None:
        try:
            return registry.resolve(f"{model}@{alias}").version
        except NotFoundError:
            return None

    def _tags(self, release: Release) -> bool:
        registry = self._registry()
        wanted = {VERDICT: release.status, REASON: release.reason[:_LONGEST_TAG], RELEASE_TAG: release.id}
        try:
            present = registry.resolve(f"{release.model}/{release.candidate.version}").tags
        except NotFoundError:
            return True  # it was removed from the registry: nothing is left to be tagged
        if any(present.get(name) != value for name, value in wanted.items()):
            registry.tag(release.model, release.candidate.version, dict(wanted))
        return True

    def _drain(self, release: Release) -> bool:
        return self._traffic.active(release.model, CANDIDATE) == 0

    def _queue_messages(self, release: Release) -> bool:
        with self._journal.transaction(actor=self._actor, run=release.id) as transaction:
            queue_message(transaction, self._receivers, release, self._clock.now())
        return True

    def _emit(self, release: Release, fact: Fact) -> None:
        with self._journal.transaction(actor=self._actor, run=release.id) as transaction:
            transaction.emit(fact)


def queue_message(transaction: Transaction, receivers: Sequence[Receiver], release: Release, at: datetime) -> None:
    """Queue the message about an ended release for its receivers: a release does not wait for a chat server."""
    if receivers:
        outbox.put(transaction, receivers, [ending_message(release, at)])
        transaction.emit(ReleaseTold(release=release.id, model=release.model, receivers=len(receivers)))


def is_external(release: Release) -> bool:
    """Whether the servers are external: then neither the desired state nor the registry has them."""
    return "://" in release.candidate.version


def apply_ended_release(desired: DesiredState, release: Release, now: datetime) -> DesiredState:
    """The desired state after an ended release. The arm that left stays up for `keep_warm`."""
    candidate, until = release.candidate.version, now + release.policy.keep_warm
    if desired.candidate != candidate:  # done before, or changed by an operator
        return desired
    if release.status != "promoted":
        return msgspec.structs.replace(desired, candidate=None, versions=with_warm_version(desired, candidate, until))
    return with_champion(msgspec.structs.replace(desired, candidate=None), candidate, until)


def with_champion(desired: DesiredState, version: str, until: datetime | None) -> DesiredState:
    """The desired state with another champion; the former one is kept to go back to, and its server up until then."""
    old = desired.champion
    if old is None or old == version:
        return msgspec.structs.replace(desired, champion=version)
    former = (*(earlier for earlier in desired.former if earlier not in (old, version)), old)
    return msgspec.structs.replace(
        desired, champion=version, former=former, versions=with_warm_version(desired, old, until)
    )


def with_warm_version(desired: DesiredState, version: str, until: datetime | None) -> dict[str, ServedVersion]:
    """The desired state's versions, one of them to stay up until a moment; unchanged where it is not among them."""
    served = desired.versions.get(version)
    if served is None:
        return dict(desired.versions)
    return {**desired.versions, version: msgspec.structs.replace(served, warm_until=until)}
