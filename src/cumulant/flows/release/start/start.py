"""The start of a release: its versions and servers, and what happens to a release already under way."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from cumulant.core.clock import SystemClock
from cumulant.core.errors import (
    CumulantError,
    EngineUnavailableError,
    NotFoundError,
    OutOfMemoryError,
    RefusedError,
    RetryableError,
    UsageError,
)
from cumulant.core.events import Actor
from cumulant.core.progress import Progress, silent
from cumulant.core.traffic import CANDIDATE, CHAMPION, Arm
from cumulant.flows.deployment.deployment import deployment_of, with_servers
from cumulant.flows.deployment.versions import adopt, reads_older_data
from cumulant.flows.ledger.actions import check, verb
from cumulant.flows.release import store
from cumulant.flows.release.actions import override_text
from cumulant.flows.release.controller.custom_metrics import METRIC
from cumulant.flows.release.controller.effects import with_warm_version
from cumulant.flows.release.controller.external_servers import ExternalServers, external_arms, without_shadow
from cumulant.flows.release.controller.http_probe import find_certificate_fault, wait_until_ready
from cumulant.flows.release.slo_gate import SloGateReader, check_objectives
from cumulant.flows.release.start import evidence_blocks
from cumulant.flows.release.start.candidate import admit_candidate, check_distinct, find_author, find_candidate
from cumulant.flows.release.start.key_counts import few_keys_warning
from cumulant.flows.release.start.new_release import (
    begin_release,
    champion_changed_error,
    check_not_under_way,
    check_wound_up,
    routed_version,
)
from cumulant.flows.stack.desired_state import DesiredState
from cumulant.flows.stack.folder_claim import claim_folder
from cumulant.flows.stack.restart import renew_servers
from cumulant.flows.stack.served_versions import is_refused
from cumulant.flows.stack.stack_processes import check_gateway
from cumulant.ports.access import Principal
from cumulant.release.admission import with_margins
from cumulant.release.events import ReleaseWaits
from cumulant.release.policy import ANYBODY, ApprovalPolicy
from cumulant.release.state import Release

if TYPE_CHECKING:
    from cumulant.core.clock import Clock
    from cumulant.ports.registry import ModelVersion
    from cumulant.project.project import Project
    from cumulant.release.paired.paired_records import PairedEvaluation
    from cumulant.release.policy import ReleasePolicy

_GREETING_SECONDS = 5.0
_STALE = (
    "the champion reads stored features of older data than the candidate would, and while a release is under way its"
    " server is not replaced; `cumulant release abort` ends that release at once"
)


class ReleaseStart(msgspec.Struct, frozen=True, kw_only=True):
    """A release that began, or a candidate that waits for one that is under way (`waits_for`, its id)."""

    release: Release | None = None
    waits_for: str | None = None
    notes: tuple[str, ...] = ()


@verb("release.start", of="model")
def start_release(
    project: Project,
    uri: str = "",
    *,
    principal: Principal,
    outside: ExternalServers | None = None,
    model: str = "",
    approval: bool = False,
    override_slo: str = "",
    progress: Progress = silent,
    ready_within: float = 60.0,
    clock: Clock | None = None,
    slo: SloGateReader | None = None,
) -> ReleaseStart:
    """Begin to release a version: by default the one with the alias `candidate`. The controller carries it out.

    With `outside`, two servers are compared instead of versions of the registry; `model` is their model's name. Both
    servers get `ready_within` seconds to be ready. With `approval` the promotion needs an approval also where
    `release.approval` declares none. `override_slo`: why it begins and goes on whatever the objectives are; it is
    recorded. `slo` reads them, where a caller begins releases again and again.

    Raises:
        NotFoundError: no such version, or there is no champion. MissingPartError: no gateway is installed.
        RefusedError: the candidate is the champion; or `risk: high` without an approval; or on labelled rows of the
            past the candidate is worse, or differs more than was declared.
        UsageError: the section `release` cannot be followed, or `model` is named without `outside`.
        EngineUnavailableError: a server does not answer in time.
        ObjectiveMissedError: the served model misses an objective, which `release.slo` waits for.
        LeaseHeldError: the version is on its way already, another process changed the release or the champion
            meanwhile, servers are being replaced, or the last release is not wound up yet.
    """
    name = _compared_model(project, model, outside)
    check_gateway(project)
    routed = routed_version(project, name)
    notes: list[str] = []
    policy = project.policies.release
    check_policy(project, policy)
    policy = _with_approval(policy) if approval else policy
    stored = store.read(project.journal(), name)
    if stored is not None:
        check_wound_up(stored[0])
    clock = clock or SystemClock()
    if override_slo:
        check(project, principal, "release.steer", model=name)
        notes += [] if project.policies.objectives else ["the project declares no objectives, so none is overridden"]
    holding = None if override_slo or name != project.name else slo or SloGateReader(project, clock=clock)
    if outside is not None:
        if holding is not None:
            check_objectives(project, policy, holding)
        compared: _Comparison | str = _compare_servers(project, outside, policy, stored, notes)
    else:
        version = find_candidate(project, uri)
        check_not_under_way(stored and stored[0], version.version)
        compared = _compare_versions(
            project,
            version,
            policy,
            under_way=stored is not None and not stored[0].over,
            principal=principal,
            approval=approval,
            override_slo=override_slo,
            notes=notes,
            progress=progress,
            clock=clock,
            slo=holding,
        )
    if isinstance(compared, str):
        return ReleaseStart(waits_for=compared, notes=tuple(notes))
    try:
        compared = _await_ready(project, compared, ready_within, progress, up=outside is None)
        if few := few_keys_warning(project, name, compared.policy):
            notes.append(few)
        release = begin_release(
            project,
            name,
            at=clock.now(),
            principal=principal,
            policy=compared.policy,
            arms=compared.arms,
            author=compared.author,
            evaluation=compared.evaluation,
            routed=routed,
            slo_override=override_text(principal, override_slo),
        )
        notes += evidence_blocks.longer_block_notes(release.looks_by_metric, compared.policy)
    except BaseException:
        if outside is None:
            _remove_candidate(project, compared.arms[1].version)
        raise
    return ReleaseStart(release=release, notes=tuple(notes))


def _compared_model(project: Project, model: str, outside: ExternalServers | None) -> str:
    if model and outside is None:
        raise UsageError(
            "a model is named only where external servers are compared",
            subject=model,
            hint=f"the model of this project is {project.name}; name its version, or none",
        )
    return model or project.name


class _Comparison(NamedTuple):
    policy: ReleasePolicy
    arms: tuple[Arm, Arm]
    author: str = ""
    evaluation: PairedEvaluation | None = None


def _compare_servers(
    project: Project,
    outside: ExternalServers,
    policy: ReleasePolicy,
    stored: tuple[Release, int] | None,
    notes: list[str],
) -> _Comparison:
    policy = without_shadow(policy, notes)
    arms = external_arms(outside, None if policy.authority is None else project.root / policy.authority)
    check_not_under_way(stored and stored[0], arms[1].version)
    return _Comparison(with_margins(policy, None), arms)


def _compare_versions(
    project: Project,
    version: ModelVersion,
    policy: ReleasePolicy,
    *,
    under_way: bool,
    principal: Principal,
    approval: bool,
    override_slo: str,
    notes: list[str],
    progress: Progress,
    clock: Clock,
    slo: SloGateReader | None,
) -> _Comparison | str:
    """The champion and `version`, with servers; the id of the release that `version` waits for, if it must."""
    if is_refused(version):  # it was named
        notes.append(f"the gate refused version {version.version} of {version.name} when it was trained")
    champion = _champion(project)
    check_distinct(project, champion, version)
    stale = (
        under_way
        and policy.newer == "supersedes"
        and reads_older_data(project, champion, principal=principal, progress=progress)
    )
    waits = _queue_candidate(
        project, version, policy, principal, approval=approval, override_slo=override_slo, supersede=not stale
    )
    if waits is not None:
        notes += [_STALE] if stale else []
        return waits
    if slo is not None:
        check_objectives(project, policy, slo)
    policy, evaluation = admit_candidate(
        project, champion, version, policy, who=principal, notes=notes, progress=progress
    )
    if not under_way:
        renew_servers(project, champion, principal=principal, report=notes.append, progress=progress)
    arms = _arms(project, champion, version, principal=principal, progress=progress, at=clock.now())
    return _Comparison(policy, arms, find_author(project, version), evaluation)


def check_policy(project: Project, policy: ReleasePolicy) -> None:
    """Check what only the project's model and code can show to be wrong with the policy.

    Raises:
        RefusedError, UsageError, DefinitionError, UserCodeError: a release cannot go by it.
    """
    from cumulant.training.trainers.user_trainer import load_function

    if project.policies.model.risk == "high" and policy.approval is None:
        raise RefusedError(
            f"{project.name} has risk high, so nothing of it is released without an approval",
            subject="release.approval",
            hint="write release: {approval: {before: canary, by: [GROUP]}}",
        )
    for metric in policy.metrics.values():
        if metric.call is not None:
            load_function(metric.call, project.root, METRIC)


def _with_approval(policy: ReleasePolicy) -> ReleasePolicy:
    """The policy with an approval: as it declares one, else by anybody who may give it."""
    if policy.approval is not None:
        return policy
    return msgspec.structs.replace(policy, approval=ApprovalPolicy(by=(ANYBODY,), excluded="nobody"))


def _queue_candidate(
    project: Project,
    version: ModelVersion,
    policy: ReleasePolicy,
    principal: Principal,
    *,
    approval: bool,
    override_slo: str,
    supersede: bool,
) -> str | None:
    """The release that the new candidate waits for, noted in the journal; None where it need not wait."""
    stored = store.read(project.journal(), project.name)
    if stored is None or stored[0].over or (policy.newer == "supersedes" and supersede):
        return None
    running = stored[0]
    # Its number: the alias may be another one's by then.
    uri = f"{version.name}/{version.version}"
    note = {"uri": uri, "principal": msgspec.to_builtins(principal), "approval": approval, "override_slo": override_slo}
    with project.journal().transaction(actor=Actor(principal.id), run=running.id) as transaction:
        transaction.put(store.WAITING, project.name, note)
        transaction.emit(ReleaseWaits(model=project.name, uri=uri, running=running.id))
    return running.id


def _arms(
    project: Project, champion: str, version: ModelVersion, *, principal: Principal, progress: Progress, at: datetime
) -> tuple[Arm, Arm]:
    claim_folder(project, progress)
    progress("prepare the candidate's server")
    adopt(project, f"{version.name}/{version.version}", principal=principal, progress=progress)
    until = at + project.policies.release.keep_warm
    desired = deployment_of(project).change(
        project.name, lambda desired: _with_arms(desired, champion, version.version, until)
    )
    return desired.arm(champion, CHAMPION), desired.arm(version.version, CANDIDATE)


def _with_arms(desired: DesiredState, champion: str, candidate: str, until: datetime) -> DesiredState:
    if desired.champion != champion:
        raise champion_changed_error(desired.model, champion, desired.champion)
    versions = (
        desired.versions
        if desired.candidate in (None, candidate)
        else with_warm_version(desired, str(desired.candidate), until)
    )
    return msgspec.structs.replace(desired, candidate=candidate, versions=versions)


def _champion(project: Project) -> str:
    desired = deployment_of(project).read(project.name)
    if desired.champion is None:
        raise NotFoundError(
            f"nothing of {project.name} is served here, so there is no champion to compare with",
            subject=project.name,
            hint="`cumulant up` serves the champion; then start the release again",
        )
    return desired.champion


def _remove_candidate(project: Project, version: str) -> None:
    """Take the candidate out of the desired state again, unless a release of it is under way after all."""
    stored = store.read(project.journal(), project.name)
    if stored is not None and not stored[0].over and stored[0].candidate.version == version:
        return
    before = None if stored is None or stored[0].over else stored[0].candidate.version
    deployment_of(project).change(
        project.name,
        lambda desired: msgspec.structs.replace(desired, candidate=before) if desired.candidate == version else desired,
    )


def _await_ready(
    project: Project, compared: _Comparison, seconds: float, progress: Progress, *, up: bool
) -> _Comparison:
    """The comparison with the servers of both arms, once they are ready."""
    until = time.monotonic() + seconds

    def waiting() -> None:
        progress("waiting for the servers", min(1.0, 1 - (until - time.monotonic()) / seconds))

    champion, candidate = (
        with_servers(project, arm, within=until - time.monotonic(), waiting=waiting) for arm in compared.arms
    )
    for arm in (champion, candidate):
        url = arm.endpoints[0]
        if wait_until_ready(url, until, waiting, authority=arm.authority):
            continue
        if why := find_certificate_fault(url, seconds=_GREETING_SECONDS, authority=arm.authority):
            raise EngineUnavailableError(
                f"the certificate of the {arm.name}'s server at {url} cannot be verified: {why}",
                subject=arm.version,
                hint="name a file of those who signed it with --authority, or as release.authority; the name in the URL"
                " must stand in it",
            )
        raise EngineUnavailableError(
            f"the {arm.name}'s server at {url} is not ready after {seconds:g} s, so the release did not begin",
            subject=arm.version,
            hint="`cumulant ps` shows the servers; `cumulant up` starts them" if up else "start it, then try again",
        )
    return compared._replace(arms=(champion, candidate))


def start_waiting_release(
    project: Project, *, begin: Callable[..., ReleaseStart] = start_release
) -> ReleaseStart | None:
    """Begin the release that waits, if one does and nothing is under way.

    Raises:
        CumulantError: as `start_release`.
    """
    row = project.journal().get(store.WAITING, project.name)
    stored = store.read(project.journal(), project.name)
    if row is None or (stored is not None and not stored[0].over):
        return None
    try:
        return begin(
            project,
            str(row.value["uri"]),
            principal=msgspec.convert(row.value["principal"], Principal),
            approval=bool(row.value.get("approval")),
            override_slo=str(row.value.get("override_slo", "")),
        )
    except CumulantError as error:
        if isinstance(error, RetryableError) and not isinstance(error, OutOfMemoryError):  # which it would lack again
            raise
        with project.journal().transaction(actor=Actor("service:release-controller")) as transaction:
            present = transaction.get(store.WAITING, row.key)
            if present is not None and present.version == row.version:
                transaction.delete(store.WAITING, row.key)
        raise
