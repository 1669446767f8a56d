"""`cumulant predictions`: requests to the servers of this project, and their answers."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cumulant.cli.command import application, command
from cumulant.cli.invocation import Invocation
from cumulant.core import units
from cumulant.core.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from cumulant.flows.serving.predictions import PredictionView
    from cumulant.ports.log import Log as PredictionLog
    from cumulant.server.operations.predictions import LoggedByGateway

app = application(
    "predictions",
    "The prediction log: every answered request, with personal values as keyed hashes.",
    examples=["cumulant predictions list --since 1h", "cumulant predictions show d1c754e0d1cd9785"],
)

#: most predictions of one page
_PAGE = 1_000

Log = Annotated[
    Path | None,
    typer.Option("--log", metavar="DIR", help="The log's folder; default: the one of the project."),
]


@command(
    app,
    operations=("predictions.show",),
    action="predictions.show",
    examples=["cumulant predictions show d1c754e0d1cd9785", "cumulant predictions show d1c754e0d1cd9785 --log log/"],
)
def show(
    call: Invocation,
    request: Annotated[str, typer.Argument(metavar="ID", help="The request's id, as the answer named it.")],
    log: Log = None,
) -> None:
    """Show the rows of one request: input, answer, model and state."""
    if log is None:
        with call.api() as api:
            predictions = api.call("predictions.show", request=request)
    else:
        from cumulant.flows.serving.predictions import show_prediction

        predictions = show_prediction(_log(call, log), request)

    def text(console: Console) -> None:
        for prediction in predictions:
            _print(console, prediction)

    call.answer(predictions, text)


@command(
    app,
    operations=("predictions.list",),
    action="predictions.show",
    name="list",
    examples=["cumulant predictions list", "cumulant predictions list --model flight-late --since 1h --json"],
)
def list_(
    call: Invocation,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Only predictions of this model.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="A moment, or how long ago: 2026-11-24T06:00Z, 1h, 7d.")
    ] = None,
    limit: Annotated[int, typer.Option(metavar="N", help="How many of the newest.", min=1)] = 20,
    log: Log = None,
) -> None:
    """Show predictions, newest first."""
    # The log is not counted for this: it may hold billions of rows.
    if log is None:
        query = {"model": model or "", "since": _since(since), "limit": min(limit + 1, _PAGE)}
        with call.api() as api:
            further = list(islice(api.pages("predictions.list", **query), limit + 1))
    else:
        from cumulant.flows.serving.predictions import list_predictions

        further = list_predictions(_log(call, log), model=model, since=_since(since), limit=limit + 1)
    predictions = further[:limit]

    def text(console: Console) -> None:
        from cumulant.flows.reports.terminal import table

        if not predictions:
            filtered = model is not None or since is not None
            message = "no prediction in the log fits" if filtered else f"no prediction yet: {call.line('serve')}"
            console.print(message, style="dim")
            return
        rows = [
            (
                prediction.time,
                prediction.id,
                prediction.row,
                prediction.model,
                prediction.version,
                _brief(prediction.outputs),
                f"{prediction.latency_us / 1000:.2f} ms",
            )
            for prediction in predictions
        ]
        console.print(table(["time", "id", "row", "model", "version", "answer", "took"], rows, right=["took"]))
        if len(further) > limit:
            console.print(f"the newest {limit:,}; --limit N for more", style="dim")

    call.answer(predictions, text)


@command(
    app,
    operations=("predictions.gaps",),
    action="predictions.show",
    examples=["cumulant predictions gaps", "cumulant predictions gaps --log log/ --json"],
)
def gaps(call: Invocation, log: Log = None) -> None:
    """Show which answered requests are missing in the log.

    Servers number what they answer, so that a gap is shown by worker and number. Where `up` serves, the gateway's log
    is compared too, which has what a lost machine had not uploaded; such requests are shown by hour and arm.
    """
    compared = None
    if log is None:
        with call.api() as api:
            answer = api.call("predictions.gaps")
        lost, compared = answer.gaps, answer.gateway
    else:
        from cumulant.flows.serving.predictions import lost_predictions

        lost = lost_predictions(_log(call, log))

    def text(console: Console) -> None:
        from cumulant.flows.reports.terminal import table

        if lost:
            rows = [(gap.worker, gap.first, gap.last, gap.count) for gap in lost]
            console.print(table(["worker", "from", "to", "requests"], rows))
            console.print(f"{sum(gap.count for gap in lost):,} requests are missing, by the servers' numbers")
        else:
            console.print("no gap: every request that the log's servers numbered is in the log")
        console.print(_comparison_text(compared), soft_wrap=True)
        if compared is not None and compared.unlogged:
            hours = [(missing.hour, missing.arm, missing.requests) for missing in compared.unlogged]
            console.print(table(["hour", "arm", "requests"], hours))

    entries: list[dict[str, object]] = [
        {"worker": gap.worker, "first": gap.first, "last": gap.last, "requests": gap.count} for gap in lost
    ]
    entries += [
        {"worker": None, "hour": missing.hour, "arm": missing.arm, "requests": missing.requests}
        for missing in (() if compared is None else compared.unlogged)
    ]
    call.answer(entries, text)


def _comparison_text(compared: LoggedByGateway | None) -> str:
    if compared is None:
        return "no gateway's log was compared: what a lost machine had not uploaded is not known here"
    until = f"{compared.until:%Y-%m-%d %H:%M:%SZ}"
    missing = sum(each.requests for each in compared.unlogged)
    if not compared.compared:
        return f"the gateway's log has no answered request until {until}"
    if not missing:
        return f"the log has all {compared.compared:,} requests that the gateway's log has as answered until {until}"
    return (
        f"{missing:,} of the {compared.compared:,} requests that the gateway's log has as answered until {until} are"
        " not in the log; a machine was lost before it uploaded them, or has not uploaded them yet, or their gap is"
        " listed above"
    )


def _log(call: Invocation, folder: Path) -> PredictionLog:
    """The log in the given folder.

    Raises:
        UsageError: it is no folder; or the command is called with `--server`.
    """
    from cumulant.flows.serving.predictions import log_in

    if call.server:
        raise UsageError("--log names a folder of this machine, not of a server", subject="--log", hint="leave one out")
    if not folder.is_dir():
        raise UsageError("there is no such folder", subject=str(folder), hint="name the folder that the server logs to")
    return log_in(folder)


def _since(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return datetime.now(UTC) - units.duration(text)
    except UsageError:
        pass
    try:
        return units.moment(text)
    except UsageError as error:
        hint = "write how long ago, such as 1h or 7d, or a moment: 2013-04-01 or 2013-04-01T06:00:00Z"
        raise UsageError(error.message, hint=hint) from None


def _print(console: Console, prediction: PredictionView) -> None:
    from cumulant.flows.reports.terminal import heading, pairs

    heading(
        console,
        prediction.id if prediction.row == 0 else f"{prediction.id} row {prediction.row}",
        f"{prediction.model} version {prediction.version}",
    )
    fields = [
        ("named by the caller", prediction.caller_id),
        ("sent by", prediction.principal),
        ("answered", prediction.time),
        ("for the moment", prediction.event_time),
        ("took", f"{prediction.latency_us / 1000:.2f} ms"),
        ("state's age", None if prediction.state_age is None else f"{prediction.state_age:,.0f} s"),
        ("may lack events", prediction.incomplete.replace(",", ", ")),
        (
            "arm",
            prediction.arm
            if prediction.served_arm in {"", prediction.arm}
            else f"{prediction.arm}, answered by {prediction.served_arm}",
        ),
        ("shadow", "yes" if prediction.shadow else None),
        ("fallback", prediction.fallback),
        ("breaks", prediction.invalid.replace(",", ", ")),
        ("tenant", prediction.tenant),
        ("region", prediction.region),
        ("features", prediction.fingerprint[:12]),
        ("worker", f"{prediction.worker}, number {prediction.sequence}"),
    ]
    shown: list[tuple[str, object]] = [(name, value) for name, value in fields if value not in (None, "")]
    shown += [(f"request {name}", value) for name, value in prediction.request.items()]
    shown += [(f"answer {name}", value) for name, value in prediction.outputs.items()]
    pairs(console, [(name, "–" if value is None else value) for name, value in shown])


def _brief(outputs: dict[str, object]) -> str:
    from cumulant.flows.reports.terminal import cell

    def text_of(value: object) -> str:
        # Probabilities by class, and whatever else an answer holds by name.
        return (
            " ".join(f"{name} {cell(cell_value)}" for name, cell_value in value.items())
            if isinstance(value, dict)
            else cell(value)
        )

    return ", ".join(f"{name} {text_of(value)}" for name, value in list(outputs.items())[:2])[:60]
