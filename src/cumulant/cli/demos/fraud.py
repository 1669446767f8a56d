"""`cumulant demo-fraud`: card payments from a topic to decisions, through a spike of five times the traffic."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from cumulant.cli.command import application, command
from cumulant.cli.demos.console import DEFAULT_PLACE, serve_demo_console
from cumulant.cli.invocation import Invocation
from cumulant.cli.program import line
from cumulant.core.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from cumulant.demo.fraud.report import FlinkReport, FraudStory, MoneyReport, RebuildReport, SpikeReport

app = application("demo-fraud", "The Black Friday demo.")

FOLDER = Path("cumulant-demo-fraud")


@command(
    app,
    action=None,
    examples=[
        "cumulant demo-fraud",
        "cumulant demo-fraud --keep",
        "cumulant demo-fraud --streams kafka://127.0.0.1:9092 --online valkey://127.0.0.1:6379/0 --json",
    ],
)
def demo_fraud(
    call: Invocation,
    *,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave everything and the console running until Ctrl-C, which ends all.")
    ] = False,
    folder: Annotated[
        Path, typer.Option("--dir", metavar="DIR", help="Folder of the project; that of an earlier run is removed.")
    ] = FOLDER,
    streams: Annotated[
        str,
        typer.Option(metavar="URL", help="A broker, on which the topic `payments` has two partitions; default: files."),
    ] = "",
    online: Annotated[str, typer.Option(metavar="URL", help="The online store; default: SQLite.")] = "",
    stream_engine: Annotated[
        str,
        typer.Option(
            metavar="URL", help="A gateway of Flink, which computes the card's windows of --streams; default: none."
        ),
    ] = "",
    replace_topic: Annotated[
        str,
        typer.Option(metavar="COMMAND", help="Deletes that topic and creates it anew, late in the story; files: none."),
    ] = "",
    restart_online: Annotated[
        str,
        typer.Option(metavar="COMMAND", help="Restarts the online store empty; default: its tables are removed."),
    ] = "",
    http: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where the gateway listens; port 0 takes a free one.")
    ] = "127.0.0.1:0",
    console: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT", help="Where the console listens with --keep; where that is taken, on a free port."
        ),
    ] = DEFAULT_PLACE,
    customers: Annotated[
        int, typer.Option(metavar="N", min=20, max=20_000, help="Invented customers: each pays 0.8 times a day.")
    ] = 300,
    day: Annotated[
        float, typer.Option("--day", metavar="SECONDS", min=0.5, help="Seconds that a day of live traffic takes.")
    ] = 12.0,
) -> None:
    """Invent card payments, train on four months, then serve an ordinary week and a Black Friday of five times as many.

    Each payment is written to a topic and scored through the gateway at its moment, whether or not earlier ones are
    answered; `cumulant ingest run` takes the topic into the table and the online store beside it. A week later the
    outcomes are delivered, monitoring retrains the model, and both versions are compared on the week after. Every
    decision is computed again from the stored history, with the features that it was served with. Time is compressed:
    by default a day takes 12 s.

    Faults are between these: bad and repeated messages, a consumer with another schema, a full disk, an emptied online
    store; and in the end a topic that is deleted and made anew.

    With --stream-engine a job of Flink computes the windows of the card from the same topic meanwhile; its results are
    compared with the stored history, too.

    Exit code 1 where a promise was not kept: a request failed, a decision or a result of Flink differs from what was
    computed again, or a decision in the spike took more than 100 ms at p99.
    """
    from cumulant.demo.fraud.calendar import StorySize
    from cumulant.demo.fraud.story import StoryEngines, fraud_story
    from cumulant.serving.sockets import split_address

    if keep and call.json:
        raise UsageError("--keep shows a console, and --json ends with its document", hint="leave one of them out")
    address = split_address(console)

    def answer(story: FraudStory) -> None:
        call.answer(msgspec.to_builtins(story), lambda console: _show(console, story, stays_up=keep))
        if keep:
            serve_demo_console(call, folder, address)

    with call.progress("demo: Black Friday") as progress:
        story = fraud_story(
            folder,
            size=StorySize(customers=customers, terminals=customers * 3 // 2, day_seconds=day),
            engines=StoryEngines(streams, online, replace_topic, restart_online, stream_engine),
            http=http,
            progress=progress,
            then=answer if keep else lambda _: None,
        )
    if not keep:
        answer(story)
    if story.missed:
        raise typer.Exit(1)


def _show(console: Console, story: FraudStory, *, stays_up: bool) -> None:
    from cumulant.flows.reports.terminal import pairs, table
    from cumulant.flows.reports.wording import duration

    titles = ["phase", "time", "payments/s", "decisions", "failed", "p50", "p99", "most waiting in the topic"]
    rows = [
        (
            phase.name,
            duration(phase.seconds),
            f"{phase.events_per_second:.1f}",
            phase.decisions,
            phase.failed_requests,
            f"{phase.p50_ms:g} ms",
            f"{phase.p99_ms:g} ms",
            phase.waiting,
        )
        for phase in story.phases
    ]
    console.print(table(titles, rows))
    spike, retraining = story.spike, story.retraining
    lag = spike.lag_recovered_seconds
    released = f", its release is {retraining.release}" if retraining.release else ", and no release began"
    console.print("")
    pairs(
        console,
        [
            ("engines", ", ".join(f"{name} {engine}" for name, engine in story.engines.items())),
            ("time", f"{story.speed:,.0f} times faster than it passes: a day takes {86_400 / story.speed:g} s"),
            ("spike", f"{spike.factor:g} times the payments a day of the week before"),
            ("lag", "not recovered" if lag is None else f"recovered {duration(lag)} after the spike"),
            ("recomputed", _recomputed(spike)),
            *([] if story.flink is None else [("flink", _flink(story.flink)), ("refused", story.flink.refused)]),
            ("online store", _rebuilt(story.rebuild)),
            ("labels", f"{retraining.labels:,} of the live payments, delivered a week later and more"),
            ("monitoring", f"{retraining.decision} {retraining.version} is trained{released}."),
        ],
    )
    console.print("")
    rows_of_faults = [(fault.fault, fault.messages, fault.refused, fault.rows) for fault in story.faults]
    console.print(table(["messages with", "sent", "refused", "rows"], rows_of_faults))
    console.print("")
    rows_of_outages = [
        (
            outage.fault,
            outage.sent,
            "–" if outage.exit_code is None else outage.exit_code,
            outage.committed,
            "–" if outage.recovered is None else outage.recovered,
            outage.answer,
        )
        for outage in story.outages
    ]
    titles = ["ingestion with", "sent", "exit code", "rows", "rows afterwards", "it says"]
    console.print(table(titles, rows_of_outages))
    console.print("")
    console.print(table(_MONEY, [_money("live decisions", story.live), *_weeks(story)]))
    console.print("")
    rows_left: list[tuple[str, object]] = [("time", duration(story.seconds))]
    if stays_up:
        rows_left.append(("gateway", f"{story.url} (Ctrl-C ends everything)"))
    else:
        rows_left.append(("next", line("models show", project=story.folder)))
    pairs(console, [*rows_left, *(("missed", sentence) for sentence in story.missed)])


def _recomputed(spike: SpikeReport) -> str:
    compared = f"{spike.recomputed:,} decisions and the {spike.features_compared:,} values of features behind them"
    return f"{compared}, from the stored history; {spike.mismatches} decisions differ"


def _flink(flink: FlinkReport) -> str:
    from cumulant.flows.reports.wording import duration

    computed = f"{flink.results:,} payments with {len(flink.features)} features each"
    differ = f"{flink.compared:,} values of {flink.events:,} payments, of which {flink.mismatches} differ"
    behind = f"those of the spike could be read {duration(flink.behind_seconds)} after it"
    return f"{computed}; compared with the stored history: {differ}; {behind}"


def _rebuilt(rebuild: RebuildReport) -> str:
    from cumulant.flows.reports.wording import duration

    answers = f"{rebuild.refused} of {rebuild.requests} requests meanwhile had no decision"
    first = f", the first: {rebuild.answer}" if rebuild.answer else ""
    how = "restarted without its data" if rebuild.restarted else "emptied"
    return f"{how}, and filled again after {duration(rebuild.seconds)}; {answers}{first}"


_MONEY = ["decisions of", "version", "payments", "frauds", "amount", "stopped", "false alarms", "cost"]


def _weeks(story: FraudStory) -> list[tuple[object, ...]]:
    week = "the week after"
    return [_money(week, story.retraining.before), _money(week, story.retraining.after)]


def _money(period: str, money: MoneyReport) -> tuple[object, ...]:
    return (
        period,
        money.version,
        money.payments,
        money.frauds,
        f"{money.fraud_amount:,.0f}",
        f"{money.stopped_amount:,.0f}",
        money.false_alarms,
        f"{money.cost:,.0f}",
    )
