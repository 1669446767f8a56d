"""A registered version on the rows of today: answers from features as its own plan defines them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cumulant.core import expr
from cumulant.core.errors import DataError, IntegrityError, NotFoundError
from cumulant.data.row_columns import ROW
from cumulant.flows.data.memory_budget import memory_budget, scratch_folder
from cumulant.flows.features.feature_table import scans, used_sources
from cumulant.flows.registry.version_servable import open_servable
from cumulant.flows.training.chosen_rows import at_positions, read_rows

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

    from cumulant.core.plan import FeaturePlan
    from cumulant.flows.ledger.run_context import Context
    from cumulant.flows.training.training_identity import TrainingWork
    from cumulant.ports.registry import ModelVersion
    from cumulant.training.dataset import TrainingSet
    from cumulant.training.model import FittedModel


@dataclass(frozen=True)
class ModelAnswers:
    """Answers to the test rows, and the threshold that turns them into decisions. `classes`: in the answers' order."""

    values: NDArray[np.float64]
    threshold: float | None
    importance: Mapping[str, float] = field(default_factory=dict)
    classes: tuple[str, ...] = ()


def model_answers(
    context: Context, work: TrainingWork, version: ModelVersion, test: TrainingSet, *, tested: FittedModel | None = None
) -> tuple[ModelAnswers | None, tuple[str, ...]]:
    """A version's answers to the test rows, or its `tested` model's; None, with a note, if not comparable."""
    try:
        from cumulant.servable.scorer import Scorer

        with open_servable(context.project, version) as folder:
            scorer = Scorer(folder)
        why = _another_question(version, scorer.servable.task, work, test)
        if why is None:
            servable = scorer.servable
            names = (
                scorer.features
                if tested is None
                else tuple(dict.fromkeys(model_input.feature for model_input in tested.inputs))
            )
            own = _features(context, work, servable.plan, names, test)
            if tested is not None:
                return ModelAnswers(tested.predict_frame(own), tested.threshold, classes=servable.classes), ()
            columns = {name: own[name].to_list() for name in names}
            return ModelAnswers(scorer.score(columns), servable.threshold, classes=servable.classes), ()
    except (DataError, IntegrityError, NotFoundError) as error:
        why = error.message
    return None, (f"{version.uri} could not be compared with: {why}",)


def _another_question(version: ModelVersion, task: str, work: TrainingWork, test: TrainingSet) -> str | None:
    target = version.tags.get("target", work.training.target)
    if target != work.training.target:
        return f"it answers another question, {target}"
    return None if task == test.task else f"it answers a {task} question"


def _features(
    context: Context, work: TrainingWork, plan: FeaturePlan, names: tuple[str, ...], test: TrainingSet
) -> pl.DataFrame:
    """The named features of the test rows. They are computed only where the plan of today would give others."""
    import numpy as np
    import polars as pl

    if set(names) <= set(test.features.columns) and _same(plan, work.task.plan, names):
        return test.features
    gone = sorted(set(plan.sources) - set(work.snapshots))
    if gone:
        raise DataError(f"its source {', '.join(gone)} is gone", subject=gone[0])
    context.progress("features of the champion")
    used = used_sources(plan, work.snapshots)
    frames = scans(context.project, work.snapshots, used, as_of=work.as_of)
    budget = memory_budget(context.project)
    from cumulant.features.offline.partitions import compute_within

    computed = compute_within(plan, frames, memory=budget.memory, scratch=scratch_folder(context.project))
    read = read_rows(context.project, work.snapshot, work.training, [], as_of=work.as_of)[ROW].to_numpy()
    wanted = read[test.rows]
    rows = at_positions([computed] if isinstance(computed, pl.DataFrame) else computed, np.sort(wanted))
    return rows[np.searchsorted(rows[ROW].to_numpy(), wanted)]


def _same(old: FeaturePlan, new: FeaturePlan, names: tuple[str, ...]) -> bool:
    """Whether two plans give the named features the same values."""
    if (old.entity, old.predict_at) != (new.entity, new.predict_at):
        return False
    before, after = ({spec.name: spec for spec in plan.features} for plan in (old, new))
    unchecked, seen = list(names), set()
    while unchecked:
        name = unchecked.pop()
        old_spec, other = before[name], after.get(name)
        if other is None or _definition(old_spec) != _definition(other):
            return False
        seen.add(name)
        unchecked += (
            [] if old_spec.expr is None else [part for part in expr.features(old_spec.expr) if part not in seen]
        )
    read = {part.source for name in seen if (part := before[name].window or before[name].lookup) is not None}
    return all(_times(old, name) == _times(new, name) for name in read)


def _definition(spec: object) -> tuple[object, ...]:
    return tuple(getattr(spec, name) for name in ("dtype", "expr", "lookup", "window"))


def _times(plan: FeaturePlan, source: str) -> tuple[object, ...] | None:
    source_plan = plan.sources.get(source)
    return None if source_plan is None else (source_plan.event_time, source_plan.known)
