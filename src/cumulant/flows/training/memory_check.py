"""Whether a training fits in memory, checked before its rows are read."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from cumulant.core.errors import UsageError
from cumulant.core.system.memory import machine_memory, release_free_memory, resident_memory
from cumulant.core.units import show_count
from cumulant.flows.training.chosen_rows import eligible_count
from cumulant.flows.training.training_rows import columns_read
from cumulant.training.memory_need import TrainingNeed, TrainingRows, total_need, training_need
from cumulant.training.spec import LEAST_ROWS

if TYPE_CHECKING:
    from cumulant.data.snapshot import Snapshot
    from cumulant.flows.features.task import Task
    from cumulant.project.project import Project
    from cumulant.training.policy import TrainingPolicy

_GIB = 1 << 30
#: whatever is held already, rows of so many bytes are read
_LEAST = 32 << 20


def refuse_too_many_rows(
    project: Project,
    task: Task,
    snapshot: Snapshot,
    spec: TrainingPolicy,
    *,
    as_of: datetime | None,
    share: float = 1.0,
) -> None:
    """Raises UsageError where a training takes more than `resources.memory`, or without it more than the machine has.
    `share`: of the training rows, the part that is learned from.
    """
    declared = project.policies.memory
    memory = machine_memory() if declared is None else declared
    release_free_memory()
    resident = resident_memory()
    kinds = [feature.dtype for feature in task.plan.features if feature.name in task.plan.names]
    evaluation = project.policies.evaluation
    tested = 0.0 if isinstance(evaluation.test, timedelta) else evaluation.test

    def need_of(rows: int) -> TrainingNeed:
        read = TrainingRows(
            rows=rows,
            features=kinds,
            columns=len(columns_read(task, snapshot, spec, evaluation)),
            timed=task.predict_at is not None,
            share=share,
            tested=tested,
        )
        return training_need(read, spec, threads=spec.cores)

    def fits(need: TrainingNeed) -> bool:
        return max(need) <= _LEAST or total_need(need, resident) <= memory

    bound = math.inf if spec.rows is None else spec.rows
    if fits(need_of(int(min(snapshot.rows_passed, bound)))):
        return
    rows = int(min(eligible_count(project, snapshot, spec, as_of=as_of), bound))
    need = need_of(rows)
    if fits(need):
        return
    total = total_need(need, resident)
    most = "the machine has" if declared is None else f"resources.memory allows ({project.spec.resources.memory})"
    raise UsageError(
        f"training on {rows:,} rows of {task.entity} with {len(kinds):,} features takes {_shown(need.search)}, beside "
        f"the {_shown(total - need.search)} of the program itself: more than {most}",
        subject="resources.memory",
        hint=f"set resources.memory to {_shown(total).replace(' ', '')} or more (this machine has "
        f"{_shown(machine_memory())}), {_fewer(rows, lambda fewer: fits(need_of(fewer)), snapshot)}, or take fewer "
        "trainers",
    )


def _fewer(rows: int, fits: Callable[[int], bool], snapshot: Snapshot) -> str:
    """How to train on fewer than `rows`, of which the largest number that fits is named where there is one."""
    most = bisect.bisect_left(range(rows + 1), 1, key=lambda fewer: int(not fits(fewer))) - 1
    newer = "train on newer rows alone (training.since)"
    if most < LEAST_ROWS:
        return newer if snapshot.event_time is not None else "read fewer columns"
    few = f"train on a part of the rows (training.rows: {show_count(most)})"
    return few if snapshot.event_time is None else f"{few} or {newer.removeprefix('train ')}"


def _shown(size: int) -> str:
    """A size that is not less, in words."""
    if size < _GIB:
        return f"{math.ceil(size / (1 << 20))} MiB"
    return f"{math.ceil(size / _GIB * 10) / 10:g} GiB"
