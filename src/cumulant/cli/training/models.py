"""`cumulant models`: the registered versions of this project's models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from cumulant.cli.command import application, command
from cumulant.cli.invocation import Invocation
from cumulant.cli.options import Model
from cumulant.cli.program import line
from cumulant.core.errors import UsageError
from cumulant.core.servable import GraphServable, Servable

if TYPE_CHECKING:
    from rich.console import Console

    from cumulant.flows.registry.models import LearnedRows, ModelDetail

HASH = 64

app = application(
    "models",
    "Registered model versions.",
    examples=[
        "cumulant models list",
        "cumulant models show flight-late@champion",
        "cumulant models compare churn/1 churn/2",
    ],
)


@command(
    app,
    action="model.show",
    name="list",
    examples=["cumulant models list", "cumulant models list --name flight-late --json"],
)
def list_(
    call: Invocation,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Only the versions of this model.")] = None,
) -> None:
    """List model versions, newest first."""
    from cumulant.flows.registry.models import list_models

    with call.project() as project:
        found = list_models(project, principal=project.principal(), name=name)

    def text(console: Console) -> None:
        from cumulant.flows.reports.terminal import table

        rows = [(one.name, one.version, one.aliases, one.created, one.uri) for one in found]
        console.print(table(["model", "version", "aliases", "registered", "uri"], rows, right=["version"]))
        if not found:
            console.print("no model yet: " + line("train"), style="dim")

    call.answer(found, text)


@command(
    app, action="model.show", examples=["cumulant models show", "cumulant models show flight-late@champion --json"]
)
def show(call: Invocation, model: Model = "") -> None:
    """Show a version: its figures, what a request must carry, and a curl line to try it."""
    from cumulant.flows.registry.models import show_model

    with call.project() as project:
        found = show_model(project, model or project.name, principal=project.principal())
    call.answer(document(found), lambda console: _show(console, found))


@command(
    app,
    action="model.show",
    examples=["cumulant models compare churn/1 churn/2", "cumulant models compare churn@champion churn@candidate"],
)
def compare(
    call: Invocation,
    models: Annotated[list[str], typer.Argument(metavar="MODEL MODEL...", help="Two or more versions.")],
) -> None:
    """Put the figures of versions side by side; whether one is better, `evaluate` decides on equal rows."""
    from cumulant.flows.registry.models import compare_models
    from cumulant.flows.reports.collect import figures

    if len(models) < 2:
        raise UsageError("a comparison needs two models", subject=models[0], hint="name another version")
    with call.project() as project:
        found = compare_models(project, models, principal=project.principal())

    def text(console: Console) -> None:
        from cumulant.flows.reports.terminal import table
        from cumulant.flows.reports.wording import figure, title

        names = list(dict.fromkeys(name for one in found for name in figures(one.metrics)))
        heads = ["metric", *[f"{one.version.name}/{one.version.version}" for one in found]]
        rows: list[Sequence[object]] = [
            (title(name), *[figure(figures(one.metrics).get(name)) for one in found]) for name in names
        ]
        rows.append(("threshold", *[getattr(one.servable, "threshold", None) for one in found]))
        rows.append(("features", *[_features(one.servable) for one in found]))
        rows.append(("test rows", *[one.measured.rows if one.measured else None for one in found]))
        rows.append(("test rows from", *[_day(one.measured.begin if one.measured else None) for one in found]))
        rows.append(("test rows to", *[_day(one.measured.end if one.measured else None) for one in found]))
        console.print(table(heads, rows, right=heads[1:]))
        console.print(_equal_rows(found), soft_wrap=True)

    call.answer([{**document(one), "measured": one.measured} for one in found], text)


def _day(moment: str | None) -> str | None:
    return None if moment is None else moment[:16].replace("T", " ")


def learned_text(rows: LearnedRows) -> str:
    """The rows of the served model, and what its figures are of."""
    part = "" if rows.of is None else f"; training.rows chose {rows.chosen:,} of {rows.of:,} to train and test on"
    if rows.rows == rows.tested:
        return f"{rows.rows:,} rows; the test rows are not among them{part}"
    every = "all " if rows.of is None else ""
    return f"{every}{rows.rows:,} rows; the figures are of its configuration fitted on {rows.tested:,} of them{part}"


def _equal_rows(found: list[ModelDetail]) -> str:
    """Whether the figures are of equal rows, and what to do where they are not."""
    if any(one.measured is None for one in found):
        return "the test rows of a version that was not trained here are not known: the figures may be of other rows"
    if len({one.measured.identity for one in found if one.measured}) == 1:
        return "the figures are of the same test rows"
    newest = max((one.version for one in found), key=lambda version: int(version.version))
    return (
        "the figures are of different test rows and prove nothing about each other: "
        f"`cumulant evaluate {newest.name}/{newest.version}` measures it and the champion on equal rows"
    )


@command(
    app,
    action="model.tag",
    examples=["cumulant models tag churn/3 reviewed=yes", "cumulant models tag churn/3 reviewed="],
)
def tag(
    call: Invocation,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="NAME/VERSION or NAME@ALIAS.")],
    tags: Annotated[list[str], typer.Argument(metavar="KEY=VALUE...", help="Tags; KEY= removes one.")],
) -> None:
    """Set or remove tags of a version."""
    from cumulant.flows.registry.models import tag_model

    pairs = dict(_pair(text) for text in tags)
    with call.project() as project:
        found = tag_model(project, model, pairs, principal=project.principal())
    call.answer(found, lambda console: console.print(f"tagged {found.name} version {found.version}"))


@command(
    app,
    action="model.alias",
    examples=[
        "cumulant models alias churn/3 champion --reason 'approved by risk'",
        "cumulant models alias churn candidate --remove",
    ],
)
def alias(
    call: Invocation,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="NAME/VERSION; with --remove, NAME.")],
    name: Annotated[str, typer.Argument(metavar="ALIAS", help="Such as champion or candidate.")],
    remove: Annotated[bool, typer.Option("--remove", help="Remove the alias from the model.")] = False,
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="Why; kept in the event.")] = None,
) -> None:
    """Point an alias at a version, or remove it. The event keeps who did it and why."""
    from cumulant.flows.registry.models import remove_alias, set_alias

    with call.project() as project:
        who = project.principal()
        if remove:
            remove_alias(project, model, name, principal=who, reason=reason)
            call.answer(
                {"model": model, "alias": name, "version": None},
                lambda console: console.print(f"{name} removed from {model}"),
            )
            return
        found = set_alias(project, model, name, principal=who, reason=reason)
    document_ = {"model": found.name, "alias": name, "version": found.version, "uri": found.uri}
    call.answer(document_, lambda console: console.print(f"{name} is now {found.name} version {found.version}"))


@command(
    app,
    action="model.reproduce",
    examples=["cumulant models reproduce flight-late/3", "cumulant models reproduce churn@champion --json"],
)
def reproduce(call: Invocation, model: Model = "") -> None:
    """Train a version again from its recorded snapshot and say whether it is identical, or what differs.

    Exit code 1 where it is not.
    """
    from cumulant.flows.registry.lineage import reproduce as flow

    with call.project() as project, call.progress("reproduce") as progress:
        found = flow(project, model or project.name, principal=project.principal(), progress=progress)

    def text(console: Console) -> None:
        from cumulant.flows.reports.terminal import clean

        if found.identical:
            console.print("identical: the model trained again answers as the recorded one")
        for difference in found.differences:
            console.print(f"differs: {clean(difference)}", soft_wrap=True)

    call.answer(found, text)
    if not found.identical:
        raise typer.Exit(1)


def document(found: ModelDetail) -> dict[str, object]:
    """A version for machines."""
    from cumulant.flows.reports.request_example import curl, fields

    servable = found.servable
    if isinstance(servable, GraphServable):
        names = ("inputs", "outputs", "columns", "classes", "batching", "parity", "lineage")
        told = {name: getattr(servable, name) for name in names}
        return {"version": found.version, "metrics": found.metrics, **told}
    return {
        "version": found.version,
        "metrics": found.metrics,
        "learned": found.learned,
        "trainer": found.trainer,
        "task": servable.task,
        "classes": servable.classes,
        "threshold": servable.threshold,
        "parity": servable.parity,
        "request": fields(servable),
        "curl": curl(servable, found.url),
        "features": servable.plan.names,
        "lineage": servable.lineage,
    }


def _show(console: Console, found: ModelDetail) -> None:
    from cumulant.flows.reports.collect import figures
    from cumulant.flows.reports.request_example import curl, fields
    from cumulant.flows.reports.terminal import clean, heading, pairs, table
    from cumulant.flows.reports.wording import interval, title

    version, servable = found.version, found.servable
    if isinstance(servable, GraphServable):
        _show_graph(console, found, servable)
        return
    lineage = {name.replace(".", " "): value for name, value in sorted(servable.lineage.items())}
    lineage["feature plan"] = lineage.pop("features", "")
    heading(console, f"{version.name} version {version.version}", version.uri)
    pairs(
        console,
        [
            ("aliases", version.aliases or "–"),
            ("registered", version.created),
            ("task", servable.task),
            *([] if found.trainer is None else [("trainer", found.trainer)]),
            *([] if found.learned is None else [("learned from", learned_text(found.learned))]),
            *([("threshold", servable.threshold)] if servable.threshold is not None else []),
            ("features", len(servable.plan.features)),
            *[(name, value[:12] if len(value) == HASH else value) for name, value in lineage.items() if value],
        ],
    )
    if found.metrics:
        rows: list[Sequence[object]] = [
            (title(name), shown.value, interval(shown), found.metrics.get(f"naive_{name}"))
            for name, shown in figures(found.metrics).items()
        ]
        console.print(table(["on the test rows", "model", "95% interval", "naive"], rows, right=["95% interval"]))
    asked = fields(servable)
    personal = any(one.personal for one in asked)  # else the column would hold dashes
    request = [(one.name, one.dtype, one.nullable, *([one.personal] if personal else []), one.example) for one in asked]
    heads = ["request field", "type", "may be absent", *(["personal"] if personal else []), "example"]
    console.print(table(heads, request))
    console.print(clean(curl(servable, found.url)), soft_wrap=True)


def _show_graph(console: Console, found: ModelDetail, servable: GraphServable) -> None:
    from cumulant.flows.packaging.package_summary import graph_rows
    from cumulant.flows.reports.terminal import heading, pairs

    version = found.version
    heading(console, f"{version.name} version {version.version}", version.uri)
    about = [("aliases", version.aliases or "–"), ("registered", version.created)]
    pairs(console, [*about, ("made with", servable.lineage.get("kind")), *graph_rows(servable)])


def _features(servable: Servable | GraphServable) -> int:
    return len(servable.columns if isinstance(servable, GraphServable) else servable.plan.features)


def _pair(text: str) -> tuple[str, str | None]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise UsageError(f'"{text}" is no tag', subject=text, hint="write KEY=VALUE; KEY= removes the tag")
    return key, value or None
