"""`cumulant access`: who may do what, and by which policy."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer

from cumulant.cli.command import application, command
from cumulant.cli.invocation import Invocation

if TYPE_CHECKING:
    from rich.console import Console

    from cumulant.ports.access import RoleBinding

app = application(
    "access",
    "Who may do what, and by which policy.",
    examples=["cumulant access roles", "cumulant access check user:ada release.approve --group risk --env prod"],
)

Subject = Annotated[
    str, typer.Argument(metavar="PRINCIPAL", help="user:NAME (or a bare NAME), service:NAME, or anonymous.")
]
Groups = Annotated[
    list[str] | None, typer.Option("--group", metavar="NAME", help="A group of the principal; may be repeated.")
]
OfModel = Annotated[str | None, typer.Option("--model", metavar="NAME", help="A model; default: the project.")]


@command(
    app,
    operations=("access.roles",),
    action="access.show",
    examples=["cumulant access roles", "cumulant access roles --actions", "cumulant access roles --json --env prod"],
)
def roles(
    call: Invocation,
    actions: Annotated[bool, typer.Option("--actions", help="A table of all actions, with what each does.")] = False,
) -> None:
    """Show what each role may do, and who has which role."""
    with call.api() as api:
        rules = api.call("access.roles")

    def text(console: Console) -> None:
        from cumulant.flows.reports.terminal import clean, pairs, table

        if actions:
            names = list(rules.roles)
            rows = [
                (item.action, *("yes" if role in item.roles else "" for role in names), item.text)
                for item in rules.actions
            ]
            console.print(table(["action", *names, "what"], rows))
        else:
            everything = [item.action for item in rules.actions]
            of_role = {role: {item.action for item in rules.actions if role in item.roles} for role in rules.roles}
            common = set.intersection(*of_role.values())
            rest = [(role, actions_text(everything, its - common)) for role, its in of_role.items()]
            pairs(console, [("every role", actions_text(everything, common)), *rest])
            console.print("--actions: a table with what each action does", style="dim")
        bound = [
            (
                item.id,
                item.role or ", ".join(item.actions),
                clean(", ".join((*item.users, *(f"group {name}" for name in item.groups)))),
                clean(_where(item)),
            )
            for item in rules.bindings
        ]
        if bound:
            console.print(table(["binding", "role", "whom", "where"], bound))
        if rules.driver == "open://":
            console.print("this environment has `access: open://`: everybody may do everything")

    call.answer(rules, text)


def actions_text(everything: Sequence[str], chosen: Collection[str]) -> str:
    """Chosen actions by their subject: `data.*` for all of one, `runs.cancel|show` for some."""
    parts = []
    for subject, group in groupby(sorted(everything), lambda action: action.partition(".")[0]):
        names = list(group)
        its = [name.partition(".")[2] for name in names if name in chosen]
        if its:
            parts.append(f"{subject}.{'*' if len(its) == len(names) > 1 else '|'.join(its)}")
    return ", ".join(parts) or "nothing else"


def _where(binding: RoleBinding) -> str:
    limits = {
        "project": binding.projects,
        "model": binding.models,
        "environment": binding.environments,
        "region": binding.regions,
    }
    return "; ".join(f"{name} {', '.join(names)}" for name, names in limits.items() if names) or "everywhere"


@command(
    app,
    operations=("access.check",),
    action="access.show",
    examples=[
        "cumulant access check user:ada release.approve --group risk",
        "cumulant access check service:shop model.predict --model shop --env prod --json",
    ],
)
def check(call: Invocation, subject: Subject, action: str, group: Groups = None, model: OfModel = None) -> None:
    """Show whether a principal may do an action, and the policies that decide. Exit code 1: it may not."""
    with call.api() as api:
        decision = api.call("access.check", subject=subject, action=action, group=tuple(group or ()), model=model or "")

    def text(console: Console) -> None:
        from cumulant.flows.reports.terminal import clean

        verdict = "may" if decision.allowed else "may not"
        console.print(f"{clean(decision.principal)} {verdict} do {decision.action} to the {clean(decision.resource)}")
        if decision.policies:
            console.print(f"policies: {clean(', '.join(decision.policies))}")
        if decision.hint and not decision.allowed:
            console.print(clean(decision.hint))

    call.answer(decision, text)
    if not decision.allowed:
        raise typer.Exit(1)


@command(
    app,
    operations=("access.explain",),
    action="access.show",
    examples=["cumulant access explain user:ada --group risk --env prod", "cumulant access explain anonymous --json"],
)
def explain(call: Invocation, subject: Subject, group: Groups = None, model: OfModel = None) -> None:
    """Show all that a principal may do, each with the policies that allow it."""
    with call.api() as api:
        decisions = api.call("access.explain", subject=subject, group=tuple(group or ()), model=model or "")

    def text(console: Console) -> None:
        from cumulant.flows.reports.terminal import clean, table

        may = [item for item in decisions if item.allowed]
        if may:
            console.print(
                table(["action", "by"], [(item.action, clean(", ".join(item.policies)) or "open") for item in may])
            )
        console.print(f"{clean(decisions[0].principal)} may do {len(may)} of {len(decisions)} actions")

    call.answer(decisions, text)


@command(
    app,
    operations=("access.policies",),
    action="access.show",
    examples=["cumulant access policies", "cumulant access policies --schema > cumulant.cedarschema"],
)
def policies(
    call: Invocation,
    schema: Annotated[bool, typer.Option("--schema", help="What policies can use, instead of the policies.")] = False,
) -> None:
    """Print the Cedar policies in force: those of the bindings, and those of the folder that `access` names."""
    with call.api() as api:
        text = api.call("access.policies", schema=schema).text
    call.answer({"schema" if schema else "policies": text}, lambda console: console.out(text, highlight=False, end=""))
