"""The check of watched slices against the request fields, before the first draw."""

from __future__ import annotations

import difflib

from cumulant.core.errors import DefinitionError
from cumulant.core.expr import columns
from cumulant.core.plan import FeaturePlan
from cumulant.review.policy import ReviewPolicy

#: how alike a name must be to be a slip of another one: a request may have fields that no feature reads
_ALIKE = 0.75


def check_slices(policy: ReviewPolicy | None, plan: FeaturePlan) -> None:
    """Refuse a slice whose name is nearly that of a field, before there are predictions.

    Raises:
        DefinitionError: a name is misspelt, or a text is no condition.
    """
    if policy is None or not policy.slices:
        return
    from cumulant.review import reasons

    fields = {field.name for field in (*plan.request, *plan.sources[plan.entity].fields)}
    for text, condition in zip(policy.slices, reasons.parse_conditions(policy.slices), strict=True):
        for name in sorted(columns(condition) - fields):
            near = difflib.get_close_matches(name, fields, n=1, cutoff=_ALIKE)
            if near:
                raise DefinitionError(
                    f'monitoring.review.slices: "{text}": no request has a field {name}',
                    subject=name,
                    hint=f'did you mean "{near[0]}"?',
                )
