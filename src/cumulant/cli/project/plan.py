"""`cumulant plan`: what would run, checked before anything runs; and every setting with its origin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cumulant.cli.command import application, command
from cumulant.cli.invocation import Invocation
from cumulant.flows.reports.feature_texts import batch_only_text
from cumulant.flows.reports.terminal import cell, heading, pairs, table, warn
from cumulant.flows.reports.wording import classes_text

if TYPE_CHECKING:
    from rich.console import Console

    from cumulant.flows.project.planning import TrainingPlan
    from cumulant.server.operations.project import ResolvedSetting

app = application("plan", "What would run.")


@command(
    app,
    operations=("project.plan", "project.settings"),
    action="project.plan",
    examples=["cumulant plan", "cumulant plan --resolved", "cumulant plan --resolved --env prod --json"],
)
def plan(
    call: Invocation,
    resolved: Annotated[bool, typer.Option("--resolved", help="Every setting with its value and origin.")] = False,
) -> None:
    """Check the project file and the features, and show what would run.

    Refuses what `train` and `release start` would refuse, before data are read where that is possible: an unknown key,
    metric or column, an input that is not known at the prediction, a test that leaves nothing to train on, stages or
    margins that no release could follow, a driver that is not installed, a registry that does not answer.
    """
    with call.api() as api:
        if resolved:
            rows = api.call("project.settings")
            call.answer(rows, lambda console: _resolved(console, rows))
            return
        with call.progress("plan") as progress:
            planned = api.call("project.plan", progress=progress)
    call.answer(planned, lambda console: _show(console, planned, call))


def _resolved(console: Console, rows: list[ResolvedSetting]) -> None:
    def value(content: object) -> str:
        return "–" if content is None else "{}" if content == {} else "[]" if content == [] else cell(content)

    console.print(table(["setting", "value", "from"], [(row.path, value(row.value), row.origin) for row in rows]))


def held_out(part: str, *, timed: bool) -> str:
    """Which rows are the test: a share or a duration, of rows with or without times."""
    return f"the last {part}" if timed else f"{part} of rows, by the hash of what identifies them"


def _show(console: Console, plan: TrainingPlan, call: Invocation) -> None:
    heading(console, plan.project, f"environment {plan.environment}")
    training, evaluation = plan.training, plan.evaluation
    budget = f"{training['trials']} trials" + (f" or {training['time']}" if training.get("time") else "")
    gate = "; ".join(f"{metric} {_rule(rule)}" for metric, rule in evaluation["gate"].items())
    pairs(
        console,
        [
            ("target", f"{plan.target}, for each row of {plan.entity}"),
            *([("classes", classes_text(plan.classes))] if plan.classes else []),
            ("predicted at", plan.predict_at or "any time: the rows have none"),
            ("trainers", training["trainers"]),
            ("search", f"{budget}, {training['folds']} folds"),
            ("test", held_out(evaluation["test"], timed=plan.predict_at is not None)),
            ("gate", gate or "beat naive; be no worse than the champion"),
        ],
    )
    rows = [
        (source.name, source.rows, source.rows_quarantined, "as before" if source.reused else "read now")
        for source in plan.sources
    ]
    console.print(table(["source", "rows", "quarantined", ""], rows))
    kinds = [(source.name, source.dtype) for source in plan.features.features]
    console.print(f"{len(kinds)} features: {', '.join(name for name, _ in kinds)}", soft_wrap=True)
    if plan.batch_only:
        others = [name for name, _ in kinds if name not in plan.batch_only]
        functions = dict.fromkeys(name for named in plan.batch_only.values() for name in named)
        console.print(f"compile everywhere: {', '.join(others) or 'none'}", soft_wrap=True)
        console.print(batch_only_text(functions), soft_wrap=True)
    else:
        console.print("compile everywhere: all")
    warn(console, plan.warnings)
    for note in plan.notes:
        console.print(f"note: {note}", soft_wrap=True)
    console.print("next: " + call.line("train"), style="dim", soft_wrap=True)


def _rule(rule: dict[str, object]) -> str:
    return ", ".join(f"{key} {value}" for key, value in rule.items() if value is not None)
