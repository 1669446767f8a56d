"""What `training` and `evaluation` may not say, as far as no data are needed to see it.

A project with such a fault loads: what runs already is stopped, listed and rolled back whatever a training would say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from cumulant.core.errors import UsageError, did_you_mean
from cumulant.core.units import count, duration, rate, share
from cumulant.project.file.document import Problem, file_error
from cumulant.project.file.gate_rules import Fault, gate_faults, split_faults
from cumulant.project.file.spec import ProjectSpec
from cumulant.statistics.metric_names import SEARCHABLE, TASKS, tasks_of
from cumulant.training.spec import BUILT_IN, LEAST_ROWS, DecisionCost, Threshold, TrainingSpec

if TYPE_CHECKING:
    from cumulant.project.project import Project


def check_training(project: Project) -> None:
    """Refuse what no training could use, before any data are read.

    Raises:
        ProjectFileError: every fault found, with file and line.
    """
    refuse(project, training_faults(project.spec))


def refuse(project: Project, faults: Iterable[Fault]) -> None:
    """Raises ProjectFileError with every fault, at its line."""
    if problems := [_problem(project, path, text) for path, text in faults]:
        raise file_error(problems)


def _problem(project: Project, path: tuple[str | int, ...], text: str) -> Problem:
    """A fault at the line of its key, or of the nearest section above that a file holds."""
    for length in range(len(path), 0, -1):
        origin = project.file.origin(".".join(str(part) for part in path[:length]))
        if origin.file is not None:
            return origin.file, origin.line, text
    return project.file.path.name, None, text


def training_faults(spec: ProjectSpec) -> Iterator[Fault]:
    """Every fault of both sections that `train` would meet, whatever the data are."""
    if spec.training is not None:
        yield from _metric(spec.training)
        yield from _threshold(spec.training.threshold)
        yield from _cost(spec.training.cost)
        yield from _parameters(spec.training)
        yield from _nothing(spec.training)
    yield from gate_faults(spec)
    yield from split_faults(spec)


def _metric(training: TrainingSpec) -> Iterator[Fault]:
    name, path = training.metric, ("training", "metric")
    if name == "auto":
        return
    tasks = tasks_of(name)
    searchable = bool(tasks) and (name in SEARCHABLE or name not in TASKS)
    if not searchable:
        hint = did_you_mean(name, SEARCHABLE) or f"one of {', '.join(SEARCHABLE)}"
        yield path, f'training.metric: the search cannot follow "{name}"; {hint}'
    elif training.task != "auto" and training.task not in tasks:
        fitting = ", ".join(metric_name for metric_name in SEARCHABLE if training.task in TASKS[metric_name])
        yield path, f"training.metric: {name} does not measure the task {training.task}; write one of {fitting}"


def _threshold(threshold: Threshold | float | None) -> Iterator[Fault]:
    path = ("training", "threshold")
    if threshold is None:
        return
    if not isinstance(threshold, Threshold):
        if not 0 <= threshold <= 1:
            yield path, f"training.threshold: {threshold:g} is no probability; write a number from 0 to 1"
        return
    if (threshold.alerts is None) == (threshold.rate is None):
        which = "has both `alerts` and `rate`" if threshold.rate is not None else "has neither `alerts` nor `rate`"
        yield path, f"training.threshold {which}; write one of them, such as {{alerts: 100/day}} or {{rate: 2%}}"
    part = threshold.source_share
    if part is not None and not _is_part(part):
        yield (*path, "source_share"), f"training.threshold.source_share: {part} is no part of the traffic; write 10%"


def _nothing(training: TrainingSpec) -> Iterator[Fault]:
    """Values that are well written, and by which nothing would be trained or called positive."""
    if not training.trainers:
        yield ("training", "trainers"), f"training.trainers names none; write some of {', '.join(BUILT_IN)}"
    for number, name in enumerate(training.trainers):
        if name in training.trainers[:number]:
            yield ("training", "trainers", number), f"training.trainers names {name} more than once; leave one out"
    if training.rows is not None and count(training.rows) < LEAST_ROWS:
        too_few = f"training.rows: {training.rows} is too few to learn from; write {LEAST_ROWS:,} or more, such as 2M"
        yield ("training", "rows"), too_few
    if training.time is not None and not duration(training.time):
        yield ("training", "time"), "training.time may not be 0; write 60s, or null for no limit"
    if isinstance(training.threshold, Threshold):
        for name, text, of in (
            ("alerts", training.threshold.alerts, _number),
            ("rate", training.threshold.rate, share),
        ):
            if text is not None and not of(str(text)):
                path = ("training", "threshold", name)
                yield path, f"training.threshold.{name} may not be 0: no row would be called positive"


def _number(text: str) -> float:
    return rate(text).number


def _is_part(text: str | float) -> bool:
    try:
        return share(text) > 0
    except UsageError:
        return False


def _cost(cost: DecisionCost | None) -> Iterator[Fault]:
    if cost is None:
        return
    numbers = {}
    for name in ("false_negative", "false_positive"):
        value = getattr(cost, name)
        if not isinstance(value, str):
            numbers[name] = value
            if not value >= 0:
                yield ("training", "cost", name), f"training.cost.{name}: {value:g} is negative; write a number above 0"
    if len(numbers) == 2 and not any(numbers.values()):
        yield ("training", "cost"), "training.cost: both costs are 0; give at least one of them a number above 0"


def _parameters(training: TrainingSpec) -> Iterator[Fault]:
    """Parameters of a trainer that is not used here stay: an environment may use fewer trainers."""
    known = [*BUILT_IN, *training.trainers]
    for name in training.parameters:
        code, _, function = name.rpartition(":")
        if name not in known and not (code and function.isidentifier()):
            hint = did_you_mean(name, known) or f"trainers: {', '.join(dict.fromkeys(training.trainers))}"
            yield ("training", "parameters", name), f'training.parameters: there is no trainer "{name}"; {hint}'
