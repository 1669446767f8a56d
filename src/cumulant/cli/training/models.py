"""`cumulant models`: the registered versions of this project's models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from cumulant.cli.command import application, command
from cumulant.cli.invocation import Invocation
from cumulant.cli.options import Model
from cumulant.core.errors import UsageError
from cumulant.core.servable import GraphServable, Servable
from cumulant.flows.packaging.package_summary import graph_rows
from cumulant.flows.reports.collect import figures
from cumulant.flows.reports.request_example import curl, fields
from cumulant.flows.reports.wording import figure, interval, title
from cumulant.server.client.model_detail import detail_of
from cumulant.server.model_uri import split_uri

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
    operations=("models.list",),
    action="model.show",
    name="list",
    examples=["cumulant models list", "cumulant models list --name flight-late --json"],
)
def list_(
    call: Invocation,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Only the versions of this model.")] = None,
) -> None:
    """List model versions, newest first."""
    with call.api() as api:
        versions = list(api.pages("models.list", name=name or "", limit=1_000))

    def text(console: Console) -> None:
        from cumulant.flows.reports.terminal import table

        rows = [(version.name, version.version, version.aliases, version.created, version.uri) for version in versions]
        console.print(table(["model", "version", "aliases", "registered", "uri"], rows, right=["version"]))
        if not versions:
            console.print("no model yet: " + call.line("train"), style="dim")

    call.answer(versions, text)


@command(
    app,
    operations=("models.show",),
    action="model.show",
    examples=["cumulant models show", "cumulant models show flight-late@champion --json"],
)
def show(call: Invocation, model: Model = "") -> None:
    """Show a version: its figures, what a request must carry, and a curl line to try it."""
    with call.api() as api:
        name, version = split_uri(model or api.project)
        detail = detail_of(api.call("models.show", model=name, version=version))
    call.answer(document(detail), lambda console: _show(console, detail))


@command(
    app,
    operations=("models.compare",),
    action="model.show",
    examples=["cumulant models compare churn/1 churn/2", "cumulant models compare churn@champion churn@candidate"],
)
def compare(
    call: Invocation,
    models: Annotated[list[str], typer.Argument(metavar="MODEL MODEL...", help="Two or more versions.")],
) -> None:
    """Put the figures of versions side by side; whether one is better, `evaluate` decides on equal rows."""
    if len(models) < 2:
        raise UsageError("a comparison needs two models", subject=models[0], hint="name another version")
    with call.api() as api:
        details = [detail_of(each) for each in api.call("models.compare", uri=tuple(models))]

    def text(console: Console) -> None:
        from cumulant.flows.reports.terminal import table

        names = list(dict.fromkeys(name for detail in details for name in figures(detail.metrics)))
        heads = ["metric", *[f"{detail.version.name}/{detail.version.version}" for detail in details]]
        rows: list[Sequence[object]] = [
            (title(name), *[figure(figures(detail.metrics).get(name)) for detail in details]) for name in names
        ]
        rows.append(("threshold", *[getattr(detail.servable, "threshold", None) for detail in details]))
        rows.append(("features", *[_features(detail.servable) for detail in details]))
        rows.append(("test rows", *[detail.measured.rows if detail.measured else None for detail in details]))
        rows.append(
            ("test rows from", *[_day(detail.measured.begin if detail.measured else None) for detail in details])
        )
        rows.append(("test rows to", *[_day(detail.measured.end if detail.measured else None) for detail in details]))
        console.print(table(heads, rows, right=heads[1:]))
        console.print(_equal_rows(details), soft_wrap=True)

    call.answer([{**document(detail), "measured": detail.measured} for detail in details], text)


def _day(moment: str | None) -> str | None:
    return None if moment is None else moment[:16].replace("T", " ")


def learned_text(rows: LearnedRows) -> str:
    """The rows of the served model, and what its figures are of."""
    part = "" if rows.of is None else f"; training.rows chose {rows.chosen:,} of {rows.of:,} to train and test on"
    if rows.rows == rows.tested:
        return f"{rows.rows:,} rows; the test rows are not among them{part}"
    every = "all " if rows.of is None else ""
    return f"{every}{rows.rows:,} rows; the figures are of its configuration fitted on {rows.tested:,} of them{part}"


def _equal_rows(details: list[ModelDetail]) -> str:
    if any(detail.measured is None for detail in details):
        return "the test rows of a version that was not trained here are not known: the figures may be of other rows"
    if len({detail.measured.identity for detail in details if detail.measured}) == 1:
        return "the figures are of the same test rows"
    newest = max((detail.version for detail in details), key=lambda version: int(version.version))
    return (
        "the figures are of different test rows and prove nothing about each other: "
        f"`cumulant evaluate {newest.name}/{newest.version}` measures it and the champion on equal rows"
    )


@command(
    app,
    operations=("models.tag",),
    action="model.tag",
    examples=["cumulant models tag churn/3 reviewed=yes", "cumulant models tag churn/3 reviewed="],
)
def tag(
    call: Invocation,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="NAME/VERSION or NAME@ALIAS.")],
    tags: Annotated[list[str], typer.Argument(metavar="KEY=VALUE...", help="Tags; KEY= removes one.")],
) -> None:
    """Set or remove tags of a version."""
    pairs = dict(_pair(text) for text in tags)
    name, version = split_uri(model)
    with call.api() as api:
        tagged = api.call("models.tag", model=name, version=version, tags=pairs)
    call.answer(tagged, lambda console: console.print(f"tagged {tagged.name} version {tagged.version}"))


@command(
    app,
    operations=("models.alias", "models.remove_alias"),
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
    with call.api() as api:
        if remove:
            api.call("models.remove_alias", model=model, alias=name, reason=reason or "")
            call.answer(
                {"model": model, "alias": name, "version": None},
                lambda console: console.print(f"{name} removed from {model}"),
            )
            return
        of, version = split_uri(model)
        aliased = api.call("models.alias", model=of, version=version, alias=name, reason=reason)
    document_ = {"model": aliased.name, "alias": name, "version": aliased.version, "uri": aliased.uri}
    call.answer(document_, lambda console: console.print(f"{name} is now {aliased.name} version {aliased.version}"))


@command(
    app,
    operations=("training.reproduce",),
    action="model.reproduce",
    examples=["cumulant models reproduce flight-late/3", "cumulant models reproduce churn@champion --json"],
)
def reproduce(call: Invocation, model: Model = "") -> None:
    """Train a version again from its recorded snapshot and show whether it is identical, or what differs.

    Exit code 1 where it is not.
    """
    with call.api() as api, call.progress("reproduce") as progress:
        name, version = split_uri(model or api.project)
        result = api.call("training.reproduce", model=name, version=version, progress=progress)

    def text(console: Console) -> None:
        from cumulant.flows.reports.terminal import clean

        if result.identical:
            console.print("identical: the model trained again answers as the recorded one")
        for difference in result.differences:
            console.print(f"differs: {clean(difference)}", soft_wrap=True)

    call.answer(result, text)
    if not result.identical:
        raise typer.Exit(1)


def document(detail: ModelDetail) -> dict[str, object]:
    servable = detail.servable
    if isinstance(servable, GraphServable):
        names = ("inputs", "outputs", "columns", "classes", "batching", "parity", "lineage")
        fields_ = {name: getattr(servable, name) for name in names}
        return {"version": detail.version, "metrics": detail.metrics, **fields_}
    return {
        "version": detail.version,
        "metrics": detail.metrics,
        "learned": detail.learned,
        "trainer": detail.trainer,
        "task": servable.task,
        "classes": servable.classes,
        "threshold": servable.threshold,
        "parity": servable.parity,
        "request": fields(servable),
        "curl": curl(servable, detail.url),
        "features": servable.plan.names,
        "lineage": servable.lineage,
    }


def _show(console: Console, detail: ModelDetail) -> None:
    from cumulant.flows.reports.terminal import clean, heading, pairs, table

    version, servable = detail.version, detail.servable
    if isinstance(servable, GraphServable):
        _show_graph(console, detail, servable)
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
            *([] if detail.trainer is None else [("trainer", detail.trainer)]),
            *([] if detail.learned is None else [("learned from", learned_text(detail.learned))]),
            *([("threshold", servable.threshold)] if servable.threshold is not None else []),
            ("features", len(servable.plan.features)),
            *[(name, value[:12] if len(value) == HASH else value) for name, value in lineage.items() if value],
        ],
    )
    if detail.metrics:
        rows: list[Sequence[object]] = [
            (title(name), shown.value, interval(shown), detail.metrics.get(f"naive_{name}"))
            for name, shown in figures(detail.metrics).items()
        ]
        console.print(table(["on the test rows", "model", "95% interval", "naive"], rows, right=["95% interval"]))
    request_fields = fields(servable)
    personal = any(field.personal for field in request_fields)  # else the column would hold dashes
    request = [
        (field.name, field.dtype, field.nullable, *([field.personal] if personal else []), field.example)
        for field in request_fields
    ]
    heads = ["request field", "type", "may be absent", *(["personal"] if personal else []), "example"]
    console.print(table(heads, request))
    console.print(clean(curl(servable, detail.url)), soft_wrap=True)


def _show_graph(console: Console, detail: ModelDetail, servable: GraphServable) -> None:
    from cumulant.flows.reports.terminal import heading, pairs

    version = detail.version
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
