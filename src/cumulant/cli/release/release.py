"""`cumulant release`: a candidate replaces the champion step by step, or is rolled back automatically."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cumulant.cli.command import application, command
from cumulant.cli.invocation import Invocation
from cumulant.cli.release.release_page import page
from cumulant.cli.release.release_plan import show
from cumulant.cli.release.release_simulate import declare as declare_simulate
from cumulant.cli.release.release_watch import follow
from cumulant.core.errors import UsageError
from cumulant.core.units import share
from cumulant.flows.release.views import view
from cumulant.flows.reports.terminal import clean, table, warn
from cumulant.server.client.local_api import LocalApi
from cumulant.server.model_uri import LATEST
from cumulant.server.operations.releases import StartedRelease

if TYPE_CHECKING:
    from rich.console import Console

    from cumulant.flows.release.controller.external_servers import ExternalServers
    from cumulant.flows.release.views import ReleaseView
    from cumulant.server.client.caller import OperationCaller

app = application(
    "release",
    "Release a new version step by step, with automatic rollback.",
    examples=["cumulant release plan", "cumulant release start --wait", "cumulant release watch"],
)

Name = Annotated[
    str, typer.Option("--model", metavar="NAME", help="Of servers that are not this project's own; else its model.")
]
Reason = Annotated[str, typer.Option(metavar="TEXT", help="Why; kept in the event.")]


@command(
    app,
    operations=("releases.start",),
    action="release.start",
    examples=[
        "cumulant release start",
        "cumulant release start flight-late/4 --wait",
        "cumulant release start --champion-url http://10.0.0.5:8080 --candidate-url http://10.0.0.6:8080 --model fraud",
    ],
)
def start(
    call: Invocation,
    *,
    model: Annotated[
        str,
        typer.Argument(
            metavar="[MODEL]",
            help="The candidate: NAME@ALIAS or NAME/VERSION; default: the version with the alias candidate.",
        ),
    ] = "",
    champion_url: Annotated[
        str | None, typer.Option(metavar="URL", help="A server that is not ours, instead of the served champion.")
    ] = None,
    candidate_url: Annotated[str | None, typer.Option(metavar="URL", help="Its candidate's server.")] = None,
    authority: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="PEM certificates of those who may have signed those of https servers; default: `release.authority`, "
            "else those that the system trusts.",
        ),
    ] = None,
    name: Name = "",
    wait: Annotated[
        bool, typer.Option("--wait", help="Stay until it is over: exit code 0 promoted, 1 anything else.")
    ] = False,
    within: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, max=3600, help="How long to wait for the candidate's server.")
    ] = 60.0,
    override_slo: Annotated[
        str | None,
        typer.Option(
            metavar="REASON",
            help="Begin and go on whatever the objectives of the served model are (`release.slo`); kept in the event.",
        ),
    ] = None,
) -> None:
    """Begin to release a candidate through the stages of the section `release`; the controller of `up` continues it."""
    if override_slo is not None:
        _check_reason(override_slo, "--override-slo")
    outside = _outside(model, champion_url, candidate_url, name=name, authority=authority)
    if outside is None:
        with call.api() as api:
            with call.progress("release start") as progress:
                started = api.call(
                    "releases.start", model=model, within=within, override_slo=override_slo or "", progress=progress
                )
            last = _show_started(call, api, started, wait=wait)
    else:
        from cumulant.flows.release.start.start import start_release

        with call.project() as project:
            with call.progress("release start") as progress:
                begun = start_release(
                    project,
                    principal=project.principal(),
                    outside=outside,
                    model=name,
                    override_slo=override_slo or "",
                    progress=progress,
                    ready_within=within,
                )
            release = None if begun.release is None else view(begun.release)
            started = StartedRelease(release=release, waits_for=begun.waits_for, notes=tuple(begun.notes))
            last = _show_started(call, LocalApi(project, call.note), started, wait=wait)
    if last is not None:
        _finish(call, last)
    elif wait:  # it has not begun, so nothing was promoted
        raise typer.Exit(1)


@command(
    app,
    operations=("releases.show", "releases.waiting"),
    action="release.show",
    examples=["cumulant release status", "cumulant release status --json"],
)
def status(call: Invocation, name: Name = "") -> None:
    """Show where the release is, what each metric has shown, and what is still needed."""
    with call.api() as api:
        status_view = api.call("releases.show", release=LATEST, model=name)
        waits = api.call("releases.waiting").candidate

    def text(console: Console) -> None:
        console.print(page(status_view, waiting=waits))

    call.answer({**_plain(status_view), "waiting": waits}, text)


@command(
    app,
    operations=("releases.show",),
    action="release.show",
    examples=["cumulant release watch", "cumulant release watch --json"],
)
def watch(call: Invocation, name: Name = "") -> None:
    """Follow the release until it is over; exit code 0 promoted, 1 anything else. Ctrl-C ends this command only.

    With --json: one document a line, at each change. With --server it goes on after a lost connection.
    """
    call.output.interrupted = f"the release goes on: `{call.line('release abort')}` ends it"
    with call.api() as api:
        release = api.call("releases.show", release=LATEST, model=name)
        last = follow(call, api, name, release.id)
    if last.status != "promoted":
        raise typer.Exit(1)


@command(
    app,
    operations=("releases.pause",),
    action="release.steer",
    examples=["cumulant release pause --reason 'a sale begins'", "cumulant release pause"],
)
def pause(call: Invocation, reason: Reason = "", name: Name = "") -> None:
    """Keep the weights as they are. Failures and proven harm still roll the candidate back."""
    _steer(call, "releases.pause", reason=reason, name=name)


@command(app, operations=("releases.resume",), action="release.steer", examples=["cumulant release resume"])
def resume(call: Invocation, reason: Reason = "", name: Name = "") -> None:
    """Resume a paused release."""
    _steer(call, "releases.resume", reason=reason, name=name)


@command(
    app,
    operations=("releases.promote",),
    action="release.steer",
    examples=["cumulant release promote --reason 'the bug fix cannot wait'"],
)
def promote(
    call: Invocation,
    *,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; kept in the event.")],
    name: Name = "",
) -> None:
    """Send everything to the candidate now, whatever the evidence. A declared approval is needed all the same."""
    _check_reason(reason)
    _steer(call, "releases.promote", reason=reason, name=name)


@command(
    app,
    operations=("releases.abort",),
    action="release.steer",
    examples=["cumulant release abort --reason 'wrong training data'"],
)
def abort(
    call: Invocation,
    *,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; kept in the event.")],
    name: Name = "",
) -> None:
    """Send everything back to the champion and end the release."""
    _check_reason(reason)
    _steer(call, "releases.abort", reason=reason, name=name)


@command(
    app,
    operations=("releases.override_slo",),
    action="release.steer",
    examples=["cumulant release override-slo --reason 'the candidate fixes the failures of the champion'"],
)
def override_slo(
    call: Invocation,
    *,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; kept in the event.")],
    name: Name = "",
) -> None:
    """Let the release go on to its end whatever the objectives of the served model are. Harm still rolls it back."""
    _check_reason(reason)
    _steer(call, "releases.override_slo", reason=reason, name=name)


@command(
    app,
    operations=("releases.approve",),
    action="release.approve",
    examples=["cumulant release approve --reason 'reviewed with risk'"],
)
def approve(call: Invocation, reason: Reason = "", name: Name = "") -> None:
    """Agree to what the release waits for, as a member of a group that `release.approval` names."""
    _steer(call, "releases.approve", reason=reason, name=name)


@command(
    app,
    operations=("releases.show",),
    action="release.show",
    examples=["cumulant release why", "cumulant release why 20260501T120000-3fa2", "cumulant release why --json"],
)
def why(
    call: Invocation,
    release: Annotated[str, typer.Argument(metavar="[ID]", help="Of `release history`; default: the newest.")] = "",
    name: Name = "",
) -> None:
    """Explain the state of a release, or its end: a sentence, then the numbers of that moment."""
    with call.api() as api:
        explained = api.call("releases.show", release=release or LATEST, model=name)

    def text(console: Console) -> None:
        console.print(page(explained))
        if explained.metrics:
            console.print(
                "harm and no harm are shares of the evidence that proves it; 100% is proof at any moment", style="dim"
            )

    call.answer(explained, text)


@command(
    app,
    operations=("releases.list",),
    action="release.show",
    examples=["cumulant release history", "cumulant release history --json"],
)
def history(call: Invocation, name: Name = "") -> None:
    """Show all releases, newest first."""
    with call.api() as api:
        releases = list(api.pages("releases.list", model=name, limit=1_000))

    def text(console: Console) -> None:
        rows = [
            (item.id, item.candidate, item.champion, item.status.replace("_", " "), item.begun, item.ended, item.reason)
            for item in releases
        ]
        if rows:
            console.print(table(["release", "candidate", "champion", "verdict", "began", "ended", "reason"], rows))
        else:
            console.print("no release yet: `cumulant release start` begins one", style="dim")

    call.answer(releases, text)


@command(
    app,
    operations=("release_plan.show",),
    action="release.plan",
    examples=["cumulant release plan", "cumulant release plan --requests 2000/d --errors 0.5% --json"],
)
def plan(
    call: Invocation,
    *,
    requests: Annotated[
        str | None,
        typer.Option(metavar="N/s", help="Traffic: 200/s, 30/m, 500/h, 2000/d; default: as the prediction log shows."),
    ] = None,
    errors: Annotated[str, typer.Option(metavar="SHARE", help="Share of requests that fail today.")] = "0.5%",
) -> None:
    """Forecast how long each stage takes, the smallest harm it detects, and what cannot be decided in time."""
    with call.api() as api:
        release_plan = api.call("release_plan.show", requests=requests or "", errors=share(errors))
    call.answer(release_plan, lambda console: show(console, release_plan))


declare_simulate(app)


def _check_reason(reason: str, option: str = "--reason") -> None:
    if not reason.strip():
        raise UsageError("the reason is empty", subject=option, hint="say why; it is kept in the event")


def _outside(
    model: str, champion: str | None, candidate: str | None, *, name: str, authority: str | None
) -> ExternalServers | None:
    from cumulant.flows.release.controller.external_servers import ExternalServers

    if champion is None and candidate is None:
        if authority:
            raise UsageError(
                "--authority vouches for servers that are not ours, and none is given",
                subject="--authority",
                hint="add --champion-url and --candidate-url, or leave it out",
            )
        if name:
            raise UsageError(
                "--model names the model of servers that are not ours, and none is given",
                subject="--model",
                hint="add --champion-url and --candidate-url; or name the candidate without --model",
            )
        return None
    if champion is None or candidate is None:
        missing = "--champion-url" if champion is None else "--candidate-url"
        raise UsageError("a comparison needs both servers", subject=missing, hint=f"add {missing} URL")
    if model:
        raise UsageError(
            "the candidate is given twice: as a version and by --candidate-url", subject=model, hint="leave one out"
        )
    return ExternalServers(champion=champion, candidate=candidate, authority=authority)


def _show_begun(console: Console, begun: StartedRelease) -> None:
    warn(console, begun.notes)
    if begun.release is None:
        console.print(f"it waits until the release {begun.waits_for} is over")
        return
    release = begun.release
    versions = f"version {release.candidate} of {release.model} beside {release.champion}"
    console.print(clean(f"release {release.id}: {versions}"), soft_wrap=True)
    console.print("steps: " + ", ".join(stage.name for stage in release.stages), style="dim")
    console.print("`cumulant release watch` follows it", style="dim")


def _plain(value: object) -> dict[str, object]:
    import msgspec

    fields: dict[str, object] = msgspec.to_builtins(value)
    return fields


def _steer(call: Invocation, operation: str, *, reason: str, name: str) -> None:
    """Do the operation to the release under way, and print what it is then."""
    with call.api() as api:
        release = api.call(operation, reason=reason, model=name)
    call.answer(release, lambda console: console.print(clean(release.sentence), soft_wrap=True))


def _show_started(call: Invocation, api: OperationCaller, started: StartedRelease, *, wait: bool) -> ReleaseView | None:
    """Print what has begun; with `wait` follow it, and return its end."""
    if not wait or started.release is None:
        call.answer(started, lambda console: _show_begun(console, started))
        return None
    if not call.json:
        _show_begun(call.output.console(), started)
    return follow(call, api, started.release.model, started.release.id, last_only=True)


def _finish(call: Invocation, last: ReleaseView) -> None:
    if call.json:
        call.output.document(last)
    if last.status != "promoted":
        raise typer.Exit(1)
