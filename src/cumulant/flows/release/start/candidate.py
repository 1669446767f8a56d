"""The candidate of a release: its version, whether it differs from the champion, and its admission."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from cumulant.core.errors import CumulantError, NotFoundError, RefusedError, UsageError
from cumulant.core.traffic import CANDIDATE, CHAMPION
from cumulant.flows.deployment.deployment import deployment_of
from cumulant.flows.ledger.ledger_records import RUN
from cumulant.flows.registry.equal_models import same_versions
from cumulant.flows.release.views import evaluation_text
from cumulant.release.admission import refusal, with_margins

if TYPE_CHECKING:
    from cumulant.core.progress import Progress
    from cumulant.ports.access import Principal
    from cumulant.ports.registry import ModelVersion
    from cumulant.project.project import Project
    from cumulant.release.paired.paired_records import PairedEvaluation
    from cumulant.release.policy import ReleasePolicy


def find_candidate(project: Project, uri: str) -> ModelVersion:
    """The version to be released. One that the gate refused must be named.

    Raises:
        NotFoundError: no such version.
        RefusedError: the gate refused the one that would be taken by itself.
    """
    try:
        version = project.registry().resolve(uri or f"{project.name}@{CANDIDATE}")
    except NotFoundError:
        if uri:
            raise
        version = _newest_if_refused(project)
    else:
        if not uri and CHAMPION in version.aliases:  # as after a first training: a refused one moved no alias since
            with suppress(NotFoundError):
                version = _newest_if_refused(project)
    if version.name != project.name:
        raise UsageError(
            f"{version.name} is not the model of this project, {project.name}",
            subject=version.name,
            hint="release it from its own project, or with --champion-url and --candidate-url",
        )
    from cumulant.flows.stack.served_versions import is_refused  # loads serving, which a plan without candidate skips

    if not uri and is_refused(version):
        place = "which has the alias candidate" if CANDIDATE in version.aliases else "the newest"
        raise RefusedError(
            f"the gate refused version {version.version} of {version.name}, {place}",
            subject=f"{version.name}/{version.version}",
            hint=f"train another, or name it to release it all the same: {version.name}/{version.version}",
        )
    return version


def _newest_if_refused(project: Project) -> ModelVersion:
    """The newest version where the gate refused it, which is why none is the candidate.

    Raises:
        NotFoundError: no version was refused last. The hint names the newest version beside the champion, if any.
    """
    from cumulant.flows.stack.served_versions import is_refused

    try:
        versions = project.registry().versions(project.name)
    except NotFoundError:  # the model has no version yet
        versions = []
    if versions and is_refused(versions[0]) and CHAMPION not in versions[0].aliases:
        return versions[0]
    newest = next((version for version in versions if CHAMPION not in version.aliases), None)
    raise NotFoundError(
        f"no version of {project.name} has the alias candidate",
        subject=project.name,
        hint="`cumulant train` gives it to a version that passes the gate"
        + ("" if newest is None else f"; or name one: {newest.name}/{newest.version}"),
    ) from None


def find_author(project: Project, version: ModelVersion) -> str:
    """Whoever started the training of a version; empty where that is not known."""
    from cumulant.flows.registry.model_record import find_record  # loads training, which no plan needs

    record = find_record(project, version)
    row = None if record is None else project.journal().get(RUN, record.run)
    return "" if row is None else str(row.value.get("principal", ""))


def check_distinct(project: Project, champion: str, candidate: ModelVersion) -> None:
    """Refuse a candidate that is the version `champion`, or a copy of its packaged model.

    Raises:
        RefusedError: it is.
    """
    name, uri = project.name, f"{candidate.name}/{candidate.version}"
    hint = f"train another with `cumulant train`, or name one that `cumulant models list --name {name}` shows"
    if candidate.version == champion:
        raise RefusedError(f"version {champion} of {name} is the champion already", subject=uri, hint=hint)
    try:
        served = project.registry().resolve(f"{name}/{champion}")
    except NotFoundError:  # deleted from the registry while it is served
        return
    if same_versions(project, served, candidate):
        raise RefusedError(
            f"version {candidate.version} of {name} is the same model as the champion, version {champion}",
            subject=uri,
            hint=hint,
        )


def candidate_warning(project: Project) -> str | None:
    """Why a release without a name would be refused: the gate refused the candidate, or it is the served champion."""
    try:
        version = find_candidate(project, "")
        champion = deployment_of(project).read(project.name).champion
        if champion is not None:
            check_distinct(project, champion, version)
    except RefusedError as refused:
        return f"{refused.message}, so `cumulant release start` refuses it: {refused.hint}"
    except CumulantError:  # no candidate yet, or a registry that does not answer: a plan needs neither
        pass
    return None


def admit_candidate(
    project: Project,
    champion: str,
    candidate: ModelVersion,
    policy: ReleasePolicy,
    *,
    who: Principal,
    notes: list[str],
    progress: Progress,
) -> tuple[ReleasePolicy, PairedEvaluation | None]:
    """The policy with the margins that the evaluation of both versions gives; what is to be noted goes to `notes`.

    Raises:
        RefusedError: what they show may not be released as the policy is declared.
    """
    from cumulant.flows.release.start.paired_evaluation import evaluate_pair  # loads training, which no plan needs

    if policy.evaluation is None or champion == candidate.version:
        return with_margins(policy, None), None
    evaluation, more = evaluate_pair(
        project,
        champion,
        candidate,
        policy=policy.evaluation,
        principal=who,
        progress=progress,
    )
    notes += more
    if evaluation is None:
        return with_margins(policy, None), None
    why = refusal(policy, evaluation)
    if why is not None:
        raise RefusedError(why.text, subject=f"{candidate.name}/{candidate.version}", hint=why.hint)
    notes.append(evaluation_text(evaluation))
    return with_margins(policy, evaluation), evaluation
