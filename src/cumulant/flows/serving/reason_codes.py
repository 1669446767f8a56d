"""Reason codes as the project declares them: checked early, and completed from the training rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import DefinitionError, did_you_mean
from cumulant.core.servable import Reasons

if TYPE_CHECKING:
    import polars as pl

    from cumulant.core.plan import FeaturePlan
    from cumulant.core.servable import Task
    from cumulant.servable.description import TrainedModel
    from cumulant.serving.spec import ReasonsSpec


def check_codes(spec: ReasonsSpec | None, plan: FeaturePlan) -> None:
    """Raises DefinitionError where a code is of a feature that there is not."""
    unknown = [] if spec is None else [name for name in spec.codes if name not in plan.names]
    if unknown:
        hint = did_you_mean(unknown[0], plan.names) or "see `cumulant features show`"
        raise DefinitionError(
            f"serving: reasons: codes: {unknown[0]} is no feature of this project", subject=unknown[0], hint=hint
        )


def check_when(spec: ReasonsSpec | None, task: Task) -> None:
    """Raises DefinitionError where only decisions are to be explained, and the model makes none."""
    if spec is not None and spec.when == "decision" and task != "binary":
        hint = "write `when: requested` or `when: always`"
        raise DefinitionError(
            f"serving: reasons: when: decision is for models that predict true or false; this one's task is {task}",
            subject="when",
            hint=hint,
        )


def build_reasons(spec: ReasonsSpec | None, model: TrainedModel, features: pl.DataFrame) -> Reasons | None:
    """Reasons in the servable of `model`; `features` are its training rows.

    Raises:
        DefinitionError: as `check_when`.
    """
    if spec is None:
        return None
    check_when(spec, model.task)
    from cumulant.packaging.reference import reference_values

    reference = reference_values(features, model.inputs)
    return Reasons(reference=reference, **msgspec.to_builtins(spec))
