"""What `evaluation` may not say of the gate and the test, as far as no data are needed to see it."""

from __future__ import annotations

from collections.abc import Iterator

from cumulant.core.errors import UsageError, did_you_mean
from cumulant.core.units import share
from cumulant.project.spec import ProjectSpec
from cumulant.statistics.metric_names import HIGHER, TASKS, bounds_of, tasks_of
from cumulant.training.spec import GateRule

#: where a rule is broken, and how; the path is that of the key
Fault = tuple[tuple[str | int, ...], str]

#: the largest share of rows that may be the test; a split without times takes no more either
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
    path = ("evaluation", "gate", name)
    if rule.min is not None and rule.min > most:
        yield (*path, "min"), f"evaluation.gate.{name}.min: {rule.min:g} is above {most:g}, the most that it can be"
    if rule.max is not None:
        floor = _UNINFORMED.get(name, least)
        if rule.max < least:
            text = f"{rule.max:g} is below {least:g}, the least that it can be"
            yield (*path, "max"), f"evaluation.gate.{name}.max: {text}"
        elif name in HIGHER and rule.max <= floor:
            text = f"{rule.max:g} lets no model pass that is better than naive; raise it, or write min"
            yield (*path, "max"), f"evaluation.gate.{name}.max: {text}"
    if rule.margin is not None and rule.margin >= most - least:
        text = f"{rule.margin:g} lets every model pass: {name} lies between {least:g} and {most:g}"
        yield (*path, "margin"), f"evaluation.gate.{name}.margin: {text}; write for example 0.005"


def split_faults(spec: ProjectSpec) -> Iterator[Fault]:
    """A test that is a share of the rows and leaves nothing, or less to learn from than to evaluate on."""
    path, text = ("evaluation", "test"), spec.evaluation.test
    try:
        part = share(text)
    except UsageError:  # a duration
        return
    if not 0 < part < 1:
        yield path, f"evaluation.test: a test of {text} leaves nothing to train or to evaluate on; write 20% or 60d"
    elif part > _MOST_TEST:
        yield path, f"evaluation.test: a test of {text} leaves fewer rows to learn from than to evaluate on; write 20%"
