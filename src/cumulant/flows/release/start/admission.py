"""The admission of a candidate: both versions on labelled past rows, and the policy that follows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cumulant.core.errors import RefusedError
from cumulant.flows.release.start.paired_evaluation import evaluate_pair
from cumulant.flows.release.views import evaluation_text
from cumulant.release.paired.admission import refusal, with_margins

if TYPE_CHECKING:
    from cumulant.core.progress import Progress
    from cumulant.ports.access import Principal
    from cumulant.ports.registry import ModelVersion
    from cumulant.project.project import Project
    from cumulant.release.paired.paired_records import PairedEvaluation
    from cumulant.release.policy import ReleasePolicy


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
