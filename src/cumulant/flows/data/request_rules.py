"""The rules of the training source that requests are checked for, and notes on those that they are not."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cumulant.core.plan import FeaturePlan
    from cumulant.core.servable import FieldRule
    from cumulant.data.spec import SourceSpec
    from cumulant.project.project import Project

#: rule to why requests are not checked for it
_REASONS = {
    "in": "the allowed values of a personal column stay out of the model's package",
    "pattern": "the pattern is of no text, is not read alike by the server, or may take long to match; simplify it",
}


def request_rules(project: Project, plan: FeaturePlan) -> dict[str, FieldRule]:
    """Request field to the rules of each of its values, from the contract of the training source.

    Raises:
        DataError: a rule names a value that its column cannot hold.
    """
    from cumulant.data.checks.request_rules import request_rules

    spec = _contract(project, plan)
    return {} if spec is None else request_rules(spec, plan.request, source=plan.entity)


def unchecked_notes(project: Project, plan: FeaturePlan) -> tuple[str, ...]:
    """One note a rule that no request is checked for although `serving.invalid: refuse` is set."""
    spec = _contract(project, plan)
    if spec is None or project.spec.serving.invalid != "refuse":
        return ()
    from cumulant.data.checks.request_rules import unchecked_rules

    return tuple(
        f"requests are not checked for the rule {name}:{rule}, which only refuses rows of the source: {_REASONS[rule]}"
        for name, rules in unchecked_rules(spec, plan.request).items()
        for rule in rules
    )


def _contract(project: Project, plan: FeaturePlan) -> SourceSpec | None:
    from cumulant.data.proposal.contract import with_contract

    declared = project.spec.data.get(plan.entity)
    return None if declared is None else with_contract(declared, source=plan.entity, root=project.root)
