"""The rules of the training source that requests are checked for, and notes on those that they are not."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cumulant.core.plan import FeaturePlan
    from cumulant.core.servable import FieldRule
    from cumulant.data.policy import SourcePolicy
    from cumulant.project.policies import Policies

#: rule to why requests are not checked for it
_REASONS = {
    "in": "the allowed values of a personal column stay out of the model's package",
    "pattern": "the pattern is of no text, is not read alike by the server, or may take long to match; simplify it",
}


def request_rules(policies: Policies, plan: FeaturePlan) -> dict[str, FieldRule]:
    """Request field to the rules of each of its values, from the contract of the training source.

    Raises:
        DataError: a rule names a value that its column cannot hold.
    """
    from cumulant.data.rules.request_rules import request_rules

    policy = _policy(policies, plan)
    return {} if policy is None else request_rules(policy, plan.request, source=plan.entity)


def unchecked_notes(policies: Policies, plan: FeaturePlan) -> tuple[str, ...]:
    """One note a rule that no request is checked for although `serving.invalid: refuse` is set."""
    policy = _policy(policies, plan)
    if policy is None or policies.serving.invalid != "refuse":
        return ()
    from cumulant.data.rules.request_rules import unchecked_rules

    return tuple(
        f"requests are not checked for the rule {name}:{rule}, which only refuses rows of the source: {_REASONS[rule]}"
        for name, rules in unchecked_rules(policy, plan.request).items()
        for rule in rules
    )


def _policy(policies: Policies, plan: FeaturePlan) -> SourcePolicy | None:
    return policies.source(plan.entity) if plan.entity in policies.sources else None
