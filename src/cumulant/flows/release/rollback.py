"""Rollback to a version that was served before, from the desired state and the gateway's folder alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from cumulant.core.clock import SystemClock
from cumulant.core.errors import (
    CumulantError,
    EngineUnavailableError,
    LeaseHeldError,
    NotFoundError,
    UsageError,
    did_you_mean,
)
from cumulant.core.events import Actor
from cumulant.core.progress import Progress, silent
from cumulant.core.traffic import CHAMPION, Arm, Routes
from cumulant.flows.deployment.copy import UnsentRollback, change_copy, read_copy
from cumulant.flows.deployment.deployment import deployment_of, is_shared, with_servers
from cumulant.flows.ledger.actions import verb
from cumulant.flows.ledger.lease import LeaseHandle, LeaseWatch, take_lease
from cumulant.flows.release.controller.effects import with_champion, with_warm_version
from cumulant.flows.release.controller.http_probe import wait_until_ready
from cumulant.flows.release.controller.rollback_outbox import (
    DELIVERIES,
    DELIVERY,
    DELIVERY_SECONDS,
    recorded_rollbacks,
    store_rollback,
)
from cumulant.flows.stack.desired_state import DesiredState, Rollback
from cumulant.flows.stack.folder_claim import claim_folder
from cumulant.flows.stack.served_versions import stored_table
from cumulant.flows.traffic.clients import traffic_of

if TYPE_CHECKING:
    from cumulant.core.clock import Clock
    from cumulant.ports.access import Principal
    from cumulant.ports.deploy import ServerState
    from cumulant.ports.traffic import Gateway, Traffic
    from cumulant.project.project import Project

#: for what may fail: the journal and the registry. On a busy machine MLflow alone takes 15 s to begin.
_LATER_SECONDS = 60.0
_TRIES = 5
#: above every revision that a release may set before a rollback without the journal is delivered
_BEYOND = 1000


class RollbackResult(msgspec.Struct, frozen=True, kw_only=True):
    """All requests go to `version`. `missed`: deliveries that failed, in words; callers see no difference.

    `later`: the controller of `cumulant up`, or `cumulant tick`, delivers it later. `stored_features`: whether it reads
    any, which are those of when its server was last given newer data.
    """

    model: str
    version: str
    given_up: tuple[str, ...]
    reason: str
    revision: int
    serving: bool
    missed: tuple[str, ...] = ()
    later: bool = False
    stored_features: bool = False


@verb("release.rollback", of="model")
def roll_back(
    project: Project,
    model: str,
    *,
    principal: Principal,
    reason: str,
    to: str = "",
    ready_within: float = 60.0,
    progress: Progress = silent,
    clock: Clock | None = None,
) -> RollbackResult:
    """Send all requests to the version `to`: by default the champion of a release under way, else its predecessor.

    Neither registry nor journal is needed; they are updated afterwards, if they can be. A server that is not up is
    started by the supervisor, and requests move when it is ready.

    Raises:
        NotFoundError: the model is not served here, the version was never its champion here, or there is none to go
            back to.
        UsageError: it has all requests already.
        EngineUnavailableError: its server does not become ready in time.
    """
    now = (clock or SystemClock()).now()
    claim_folder(project, progress)
    known = _read_deployment(project, model)
    traffic: Traffic = traffic_of(project) if known.current else _own_gateway(project)
    routes = traffic.in_force(model)
    desired = _desired_versions(project, model, routes, known.desired)
    arm = choose_arm(model, desired, routes, to)
    given_up = _versions_with_requests(routes, arm.version)
    if routes is not None and not given_up:
        raise UsageError(
            f"version {arm.version} has all requests of {model} already{_done_by(project, routes, desired)}",
            subject=f"{model}/{arm.version}",
            hint="name another one with --to",
        )
    keep = now + project.policies.release.keep_warm
    if arm.version in desired.versions and known.current:
        deployment_of(project).change(model, lambda present: _with_started(present, arm.version, keep))
    arm = _with_servers(project, arm, known, ready_within)
    serving = is_shared(project) or project.gateway().address() is not None
    if serving:  # else no requests come, and the supervisor starts from the desired state
        _await_ready(arm, ready_within, progress)
    first = Routes(model=model, revision=0, champion=arm, key=project.policies.release.key)
    rollback = Rollback(at=now, version=arm.version, given_up=given_up, reason=reason, by=principal.id)
    revision = _apply(traffic, arm, routes or first, above=1 if known.current else _BEYOND, rollback=rollback.id)
    own = arm.version in desired.versions
    missed = _record(project, model, rollback, keep, known) if own else _deliver(project, model, rollback)
    return RollbackResult(
        model=model,
        version=arm.version,
        given_up=given_up,
        reason=reason,
        revision=revision,
        serving=serving,
        missed=tuple(f"{name}: {fault}" for name, fault in missed.items()),
        later=own and bool(missed),
        stored_features=own and stored_table(desired.versions[arm.version]) is not None,
    )


@verb("release.show", of="model")
def rollback_target(project: Project, model: str, *, principal: Principal) -> str:
    """The version that `roll_back` would send all requests to.

    Raises:
        NotFoundError: there is none.
        CumulantError: neither the journal nor a copy on this machine can be read.
    """
    known = _read_deployment(project, model)
    routes = traffic_of(project).in_force(model)
    return choose_arm(model, _desired_versions(project, model, routes, known.desired), routes, "").version


class _KnownDeployment(NamedTuple):
    """`current`: as it is now; else this machine's copy, since the journal does not answer."""

    desired: DesiredState
    servers: Sequence[ServerState]
    current: bool


def _read_deployment(project: Project, model: str) -> _KnownDeployment:
    """The deployment, or the copy of it on this machine.

    Raises:
        CumulantError: it cannot be read, and this machine has no copy.
    """
    deployment = deployment_of(project)
    try:
        return _KnownDeployment(deployment.read(model), (), current=True)
    except CumulantError:
        copy = read_copy(project.state) if deployment.shared else None
        if copy is None:
            raise
        return _KnownDeployment(copy.desired, copy.servers, current=False)


def _own_gateway(project: Project) -> Gateway:
    """The gateway of this machine, whose agent brings its routes to the journal and the other gateways later.

    Raises:
        EngineUnavailableError: none runs here.
    """
    gateway = project.gateway()
    if gateway.address() is None:
        raise EngineUnavailableError(
            "the journal does not answer, and no gateway runs on this machine whose routes could be changed without it",
            subject=project.name,
            hint="run the command on the machine of a gateway, or again when the journal is back",
        )
    return gateway


def _with_servers(project: Project, arm: Arm, known: _KnownDeployment, seconds: float) -> Arm:
    if arm.endpoints or known.current:
        return with_servers(project, arm, within=seconds)
    endpoints = tuple(server.endpoint for server in known.servers if server.version == arm.version and server.ready)
    if not endpoints:
        raise EngineUnavailableError(
            f"version {arm.version} has no server, and none can be started while the journal does not answer",
            subject=arm.version,
            hint="name a version whose server runs with --to, or run the command again when the journal is back",
        )
    return msgspec.structs.replace(arm, endpoints=endpoints)


def _record(
    project: Project, model: str, rollback: Rollback, keep: datetime, known: _KnownDeployment
) -> dict[str, str]:
    """As `_deliver`, with the rollback and its pending deliveries in the desired state, or in this machine's copy."""
    pending = msgspec.structs.replace(rollback, pending=tuple(DELIVERIES))
    return (_store_and_deliver if known.current else _keep_for_later)(project, model, pending, keep)


def _keep_for_later(project: Project, model: str, rollback: Rollback, keep: datetime) -> dict[str, str]:
    """Put the rollback into this machine's copy, from which it goes to the journal; what is missing until then."""
    unsent = UnsentRollback(rollback=rollback, until=keep)
    change_copy(
        project.state,
        model,
        lambda copy: msgspec.structs.replace(
            copy, desired=with_rollback(copy.desired, rollback, keep), unsent=(*copy.unsent, unsent)
        ),
    )
    return dict.fromkeys(DELIVERIES, "the journal does not answer")


def _desired_versions(project: Project, model: str, routes: Routes | None, desired: DesiredState) -> DesiredState:
    if desired.model == model:
        return desired
    if routes is None and desired.model:
        raise NotFoundError(
            f'no model "{model}" is served here',
            subject=model,
            hint=did_you_mean(model, [desired.model]) or f"served here: {desired.model}",
        )
    return DesiredState(model=model)  # of servers that are not ours, of which the desired state says nothing


def choose_arm(model: str, desired: DesiredState, routes: Routes | None, to: str) -> Arm:
    """The arm that is to get all requests.

    Raises:
        NotFoundError: the version was never the champion here, or there is none to go back to.
    """
    if to:
        return _named(model, desired, routes, to)
    if routes is not None and routes.candidate is not None and (routes.weight > 0 or routes.mirror > 0):
        return routes.champion
    present = routes.champion.version if routes is not None else desired.champion
    former = [version for version in desired.former if version != present and version in desired.versions]
    if not former:
        others = [version for version in _served_before(desired) if version != present]
        raise NotFoundError(
            f"{model} has no earlier version here to go back to",
            subject=model,
            hint=f"name one with --to; served here before: {', '.join(others)}"
            if others
            else "only a version that was the champion here can come back",
        )
    return desired.arm(former[-1], CHAMPION)


def _named(model: str, desired: DesiredState, routes: Routes | None, to: str) -> Arm:
    """The arm of a version that was the champion: a candidate may never have answered a caller."""
    if routes is not None and routes.champion.version == to:
        return routes.champion
    before = _served_before(desired)
    if to not in before:
        raise NotFoundError(
            f"version {to} of {model} has not been served here as the champion",
            subject=f"{model}/{to}",
            hint=f"versions that have, and can come back: {', '.join(before) or 'none'}",
        )
    if routes is not None and routes.candidate is not None and routes.candidate.version == to:
        return msgspec.structs.replace(routes.candidate, name=CHAMPION)
    return desired.arm(to, CHAMPION)


def _served_before(desired: DesiredState) -> list[str]:
    return sorted(version for version in desired.served_before if version in desired.versions)


def _versions_with_requests(routes: Routes | None, version: str) -> tuple[str, ...]:
    if routes is None:
        return ()
    candidate = routes.candidate
    versions = [routes.champion.version] if routes.weight < 100 else []
    versions += [candidate.version] if candidate is not None and (routes.weight > 0 or routes.mirror > 0) else []
    return tuple(served for served in versions if served != version)


def _done_by(project: Project, routes: Routes, desired: DesiredState) -> str:
    """Whose rollback put the routes in force, as far as it is known without waiting for a journal that is away."""
    rollbacks = list(desired.rollbacks)
    with suppress(CumulantError):
        rollbacks += recorded_rollbacks(project.journal(), routes.model)
    last = next((each for each in rollbacks if each.id == routes.rollback), None)
    return "" if last is None else f": rolled back by {last.by.removeprefix('user:')} ({last.reason})"


def _with_started(desired: DesiredState, version: str, until: datetime) -> DesiredState:
    if version in (desired.champion, desired.candidate):
        return desired
    return msgspec.structs.replace(desired, versions=with_warm_version(desired, version, until))


def with_rollback(desired: DesiredState, rollback: Rollback, until: datetime) -> DesiredState:
    """The desired state after a rollback, whose deliveries are pending."""
    version = rollback.version
    replaced = desired.candidate if desired.candidate != version else None
    versions = with_warm_version(desired, replaced, until) if replaced is not None else desired.versions
    back = with_champion(msgspec.structs.replace(desired, candidate=None, versions=versions), version, until)
    # The replaced champion is no target unless it is named: a second rollback selects an earlier version.
    former = tuple(other for other in back.former if other != desired.champion)
    return msgspec.structs.replace(back, former=former, rollbacks=(*back.rollbacks, rollback))


def _await_ready(arm: Arm, seconds: float, progress: Progress) -> None:
    url = arm.endpoints[0]
    progress(f"server of version {arm.version}")
    if not wait_until_ready(url, time.monotonic() + seconds, authority=arm.authority):
        raise EngineUnavailableError(
            f"version {arm.version} at {url} is not ready after {seconds:g} s; requests stay where they are",
            subject=arm.version,
            hint="`cumulant ps` says why; `cumulant up` starts what is not running",
        )


def _apply(traffic: Traffic, arm: Arm, routes: Routes, *, above: int, rollback: str) -> int:
    """Routes above whatever is in force: a release under way sees that and ends."""
    for attempt in range(_TRIES):
        present = traffic.in_force(routes.model) or routes
        wanted = present.all_to(arm, revision=present.revision + above, rollback=rollback)
        try:
            traffic.apply(wanted)
        except LeaseHeldError:  # the controller was faster by a step
            if attempt == _TRIES - 1:
                raise
            continue
        return wanted.revision
    raise AssertionError


def _store_and_deliver(project: Project, model: str, rollback: Rollback, keep: datetime) -> dict[str, str]:
    """As `_deliver`; the desired state has the champion and the pending deliveries."""
    deployment_of(project).change(model, lambda desired: with_rollback(desired, rollback, keep))
    lease = _take_delivery(project, model, rollback)
    with nullcontext() if lease is None else lease.renewed():
        missed = _deliver(project, model, rollback)
        store_rollback(project, model, msgspec.structs.replace(rollback, pending=tuple(missed)))
    return missed


def _take_delivery(project: Project, model: str, rollback: Rollback) -> LeaseHandle | None:
    """The lease that keeps the controller from delivering the same meanwhile. None without a journal, or where it does:
    each delivery compares before it changes, so that both may do it.
    """
    name, actor = DELIVERY.format(model=model), Actor(rollback.by, rollback.reason)
    leases: list[LeaseHandle | None] = []

    def take() -> None:
        leases.append(take_lease(project.journal(), name, ttl=DELIVERY_SECONDS, actor=actor, watch=LeaseWatch()))

    return None if _within(_LATER_SECONDS, take) else leases[0]


def _deliver(project: Project, model: str, rollback: Rollback) -> dict[str, str]:
    """Deliver to the journal and the registry, each within a time; failed deliveries, with the reason."""
    missed: dict[str, str] = {}
    for name, tell in DELIVERIES.items():
        fault = _within(_LATER_SECONDS, lambda tell=tell: tell(project, model, rollback))  # type: ignore[misc]
        missed |= {name: fault} if fault else {}
    return missed


def _within(seconds: float, call: Callable[[], None]) -> str:
    """Do it in a thread that is left behind when it hangs; what went wrong, or nothing."""
    fault = [f"no answer within {seconds:g} s"]

    def work() -> None:
        try:
            call()
            fault[0] = ""
        except CumulantError as error:
            fault[0] = error.message
        except Exception as error:  # noqa: BLE001 - the edge: requests have moved, and no driver's fault undoes that
            fault[0] = f"{type(error).__name__}: {error}"

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    return fault[0]
