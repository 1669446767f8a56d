"""What `evaluation` may not say of the gate and the test, as far as no data are needed to see it."""

from __future__ import annotations

from collections.abc import Iterator

from cumulant.core.errors import UsageError, did_you_mean
from cumulant.core.units import share
from cumulant.project.file.spec import ProjectSpec
from cumulant.statistics.metric_names import HIGHER, TASKS, bounds_of, tasks_of
from cumulant.training.spec import GateRule

#: where a rule is broken, and how; the path is that of the key
Fault = tuple[tuple[str | int, ...], str]

#: the largest share of rows that a split without times takes as the test
_MOST_TEST = 0.5
#: what answers without information reach, where that is more than the least value
_UNINFORMED = {"roc_auc": 0.5, "r2": 0.0}


def gate_faults(spec: ProjectSpec) -> Iterator[Fault]:
    """Rules of the gate that no model, or every model, would pass."""
    task = "auto" if spec.training is None else spec.training.task
    for name, rule in spec.evaluation.gate.items():
        path, limits = ("evaluation", "gate", name), sum(limit is not None for limit in (rule.min, rule.max))
        if limits > 1 or (rule.margin is None and not limits):
            yield (
                path,
                f"evaluation.gate.{name} needs a margin, or exactly one of min and max; write {{margin: 0.005}}",
            )
        tasks = tasks_of(name)
        if not tasks:
            hint = did_you_mean(name, TASKS) or f"metrics: {', '.join(TASKS)}"
            yield path, f'evaluation.gate: there is no metric "{name}"; {hint}'
        elif task not in ("auto", *tasks):
            yield path, f"evaluation.gate: {name} does not measure the task {task}"
        if name == "cost" and (spec.training is None or spec.training.cost is None):
            example = "{cost: {false_negative: 5, false_positive: 1}}"
            yield path, f"evaluation.gate has a rule for cost, but no cost is declared; write training: {example}"
        if tasks and limits < 2:
            yield from _values(name, rule)


def _values(name: str, rule: GateRule) -> Iterator[Fault]:
    """Limits and margins against the values that the metric can have."""
    least, most = bounds_of(name)
    path, where = ("evaluation", "gate", name), f"evaluation.gate.{name}"
    if rule.min is not None and (fault := _of_min(name, rule.min, least, most)):
        yield (*path, "min"), f"{where}.min: {rule.min:g} {fault}"
    if rule.max is not None and (fault := _of_max(name, rule.max, least, most)):
        yield (*path, "max"), f"{where}.max: {rule.max:g} {fault}"
    if rule.margin is not None and rule.margin >= most - least:
        text = f"{rule.margin:g} lets every model pass: {name} lies between {least:g} and {most:g}"
        yield (*path, "margin"), f"evaluation.gate.{name}.margin: {text}; write for example 0.005"


def _of_min(name: str, limit: float, least: float, most: float) -> str | None:
    if limit > most:
        return f"is above {most:g}, the most that it can be"
    if limit <= least:
        return "lets every model pass; " + (f"raise it above {least:g}" if name in HIGHER else "write max")
    if name not in HIGHER and name != "cost":
        return "refuses the better models and accepts the worse; write max"
    return None


def _of_max(name: str, limit: float, least: float, most: float) -> str | None:
    if limit < least:
        return f"is below {least:g}, the least that it can be"
    if name in HIGHER and limit <= _UNINFORMED.get(name, least):
        return "lets no model pass that is better than naive; raise it, or write min"
    if limit == least:
        return f"lets no model pass that errs at all; raise it above {least:g}"
    if limit >= most:
        return "lets every model pass; " + ("write min" if name in HIGHER else f"lower it below {most:g}")
    return None


def split_faults(spec: ProjectSpec) -> Iterator[Fault]:
    """A test that is a share of the rows and leaves nothing, or without times more than half, which no split takes."""
    path, part = ("evaluation", "test"), _test_share(spec)
    if part is None:
        return
    if not 0 < part < 1:
        text = f"a test of {spec.evaluation.test} leaves nothing to train or to evaluate on"
        yield path, f"evaluation.test: {text}; write 20% or 60d"
    elif part > _MOST_TEST and not _may_have_times(spec):
        yield path, _large_test(spec)


def split_notes(spec: ProjectSpec) -> tuple[str, ...]:
    """A note where the test takes more than half of the rows; it may be wanted in a table of many rows with times."""
    part = _test_share(spec)
    return () if part is None or part <= _MOST_TEST else (_large_test(spec),)


def _test_share(spec: ProjectSpec) -> float | None:
    try:
        return share(spec.evaluation.test)
    except UsageError:  # a duration
        return None


def _large_test(spec: ProjectSpec) -> str:
    text = f"a test of {spec.evaluation.test} leaves fewer rows to learn from than to evaluate on"
    return f"evaluation.test: {text}; write for example 20%"


def _may_have_times(spec: ProjectSpec) -> bool:
    """Whether a source declares an event time, or has a contract, which may declare it."""
    return any(source.event_time is not None or source.contract is not None for source in spec.data.values())
