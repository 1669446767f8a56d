"""`cumulant features status` and `freshness`: stored features as they are, and their objectives."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cumulant.cli.command import command
from cumulant.cli.invocation import Invocation
from cumulant.core.errors import UsageError
from cumulant.core.units import moment
from cumulant.flows.reports.wording import duration, instant

if TYPE_CHECKING:
    from rich.console import Console

    from cumulant.features.online.direct_reads import EntityFeatures
    from cumulant.features.verification import FeatureComparison
    from cumulant.flows.features.backfill import Backfill
    from cumulant.flows.features.freshness import FreshnessReport
    from cumulant.flows.features.online_read import OnlineRead
    from cumulant.flows.features.store_status import FeatureStoreStatus, StoredSource, StoredTable
    from cumulant.flows.features.verification_record import FeatureVerification

#: what `--since` takes beside a moment, the beginning of which is a date
_DURATION = re.compile(r"\s*[\d.]+\s*[a-z].*")
#: rows of the feature table that are shown by default
TABLE_ROWS = 10


def add_commands(app: typer.Typer) -> None:
    """Add the commands on stored features to `cumulant features`."""
    command(
        app,
        operations=("features.status",),
        action="features.status",
        examples=["cumulant features status", "cumulant features status --json"],
    )(status)
    command(
        app,
        operations=("features.freshness",),
        action="features.status",
        examples=["cumulant features freshness", "cumulant features freshness --json"],
    )(freshness)
    command(
        app,
        operations=("features.backfill",),
        action="features.materialize",
        examples=["cumulant features backfill", "cumulant features backfill churn/3"],
    )(backfill)
    command(
        app,
        operations=("features.verify",),
        action="features.verify",
        examples=["cumulant features verify", "cumulant features verify --since 1h --rows 200"],
    )(verify)


def entity_keys(words: Sequence[str] | None) -> list[dict[str, str]]:
    """`card=c17 card=c18` as two keys: a column that is named again begins the next."""
    keys: list[dict[str, str]] = [{}]
    for word in words or ():
        name, equals, value = word.partition("=")
        if not name or not equals or not value:
            raise UsageError(
                "a key is written COLUMN=VALUE", subject=word, hint="cumulant features get --online card=c17"
            )
        if name in keys[-1]:
            keys.append({})
        keys[-1][name] = value
    if not keys[0]:
        raise UsageError("which entities to read is missing", hint="cumulant features get --online card=c17")
    return keys


def check_online(*, rows: int, out: Path | None) -> None:
    """Raises UsageError: an option is of the feature table."""
    if out is not None or rows != TABLE_ROWS:
        raise UsageError(
            "--rows and --out are of the feature table", subject="--online", hint="leave out --online, or them"
        )


def get_online(call: Invocation, keys: Sequence[Mapping[str, str]], read: Mapping[str, Any]) -> None:
    """Show features of entities from the online store."""
    call.action = "features.read"
    with call.api() as api:
        answered: OnlineRead = api.call("features.online", keys=list(keys), **read)
    call.answer(answered, lambda console: _print_online(console, keys, answered))


def _print_online(console: Console, keys: Sequence[Mapping[str, str]], answered: OnlineRead) -> None:
    from cumulant.flows.reports.terminal import cell, table

    whose = answered.model or "the project's definition"
    when = "at the moments of the keys" if answered.at is None else f"at {instant(answered.at)}"
    console.print(f"{whose} {when}, fingerprint {answered.fingerprint}", soft_wrap=True)
    names = [name for name in answered.rows[0].features if name not in keys[0]]
    moments = ["moment"] if answered.at is None else []
    columns = [*keys[0], *moments, *names, "age of the newest event", ""]
    rows = [
        (
            *key.values(),
            *("none" if row.at is None else instant(row.at) for _ in moments),
            *(cell(row.features[name]) for name in names),
            duration(row.staleness),
            _remarks(row),
        )
        for key, row in zip(keys, answered.rows, strict=True)
    ]
    console.print(table(columns, rows))
    if answered.missing:
        lacking = ", ".join(f"{name} ({', '.join(fields)})" for name, fields in answered.missing.items())
        console.print(f"not read, for want of further fields: {lacking}", style="dim", soft_wrap=True)


def _remarks(row: EntityFeatures) -> str:
    texts = ["older than ttl"] if row.expired else []
    if row.since is not None:
        texts.append(f"kept from {instant(row.since)} on")
    return ", ".join(texts)


def status(call: Invocation) -> None:
    """Show the tables of stored features: which versions use each, how much it holds, and how fresh it is.

    Exit code 1: a table that is served does not fit its version, or is older than a freshness objective.
    """
    with call.api() as api:
        view: FeatureStoreStatus = api.call("features.status")
    call.answer(view, lambda console: _print_status(console, call, view))
    if view.faulty:
        raise typer.Exit(1)


def freshness(call: Invocation) -> None:
    """Show how old the newest stored event of each source is, beside its objective (`freshness` in the project file).

    Of several tables that are served, the oldest counts. Exit code 1: an objective is missed.
    """
    with call.api() as api:
        report: FreshnessReport = api.call("features.freshness")
    call.answer(report, lambda console: _print_freshness(console, report))
    if report.missed:
        raise typer.Exit(1)


def backfill(
    call: Invocation,
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A version; default: the features file as it is now.")
    ] = "",
) -> None:
    """Fill the stored features of a changed definition beside those that are served, before a version needs them.

    What is served stays as it is. Killed, the same command begins the table anew; where it is there, it adds what was
    posted since. `cumulant data clean` removes tables that no version uses and that were not backfilled last.
    """
    with call.api() as api, call.progress("backfill") as progress:
        done: Backfill = api.call("features.backfill", model=model, progress=progress)

    def text(console: Console) -> None:
        whose = done.model or "the project's definition"
        what = "stored" if done.filled else "were stored already"
        console.print(f"{whose}, fingerprint {done.fingerprint}: {done.keys:,} keys, {done.events:,} events {what}")
        for version, table in done.served.items():
            same = "from it" if table == done.table else f"from {table}, as before"
            console.print(f"{version} is served {same}", style="dim")

    call.answer(done, text)


def verify(
    call: Invocation,
    since: Annotated[str, typer.Option(metavar="TIME", help="Of rows that were answered since then.")] = "1d",
    rows: Annotated[int, typer.Option(metavar="N", help="At most so many rows.", min=1, max=1000)] = 1000,
) -> None:
    """Recompute features of served rows from the history as of their moment, and show those that differ.

    Servers log the stored features of a share of the requests (`serving.log.features`). A value that differs because
    rows arrived after the answer is counted as late. Exit code 1: others differ, which is also an alert.
    """
    from cumulant.core.clock import SystemClock
    from cumulant.core.units import duration as span

    first = SystemClock().now() - span(since) if _DURATION.fullmatch(since) else moment(since)
    with call.api() as api, call.progress("verify features") as progress:
        verification: FeatureVerification = api.call("features.verify", since=first, rows=rows, progress=progress)
    call.answer(verification, lambda console: _print_verification(console, verification))
    if verification.failed:
        raise typer.Exit(1)


def _print_verification(console: Console, verification: FeatureVerification) -> None:
    from cumulant.flows.reports.terminal import cell, table

    console.print(
        f"{verification.rows:,} of {verification.logged:,} served rows with logged features since "
        f"{instant(verification.since)}"
    )
    if verification.unknown:
        unknown = f"{verification.unknown:,} others cannot be recomputed: {verification.WHY_UNKNOWN}"
        console.print(unknown, style="dim", soft_wrap=True)
    if verification.incomplete:
        apart = f"{verification.incomplete:,} others were answered as incomplete: {verification.WHY_INCOMPLETE}"
        console.print(apart, style="dim", soft_wrap=True)
    if verification.uncompared:
        rest = "more were not compared, after as many with differences as are explained"
        console.print(f"{verification.uncompared:,} {rest}", style="dim", soft_wrap=True)
    if verification.features:
        heads = ("feature", "rows", "late", "mismatches", "rate, 95% interval")
        console.print(table(heads, [comparison_row(feature) for feature in verification.features]))
    if verification.mismatches:
        heads = ("request", "version", "feature", "served", "history")
        examples = [
            (f"{each.id} row {each.row}", each.version, each.feature, cell(each.served), cell(each.expected))
            for each in verification.mismatches
        ]
        console.print(table(heads, examples))


def comparison_row(feature: FeatureComparison) -> tuple[str, ...]:
    rate = f"{100 * feature.rate:.3g}%, {100 * feature.low:.3g}% to {100 * feature.high:.3g}%"
    return feature.feature, f"{feature.rows:,}", f"{feature.late:,}", f"{feature.mismatches:,}", rate


def _print_status(console: Console, call: Invocation, view: FeatureStoreStatus) -> None:
    if not view.tables:
        console.print(f"no stored features yet: {call.line('features backfill')} fills them", soft_wrap=True)
    for table in view.tables:
        _print_table(console, call, table)


def _print_table(console: Console, call: Invocation, table: StoredTable) -> None:
    from cumulant.flows.reports.terminal import pairs
    from cumulant.flows.reports.terminal import table as text_table

    rows: list[tuple[str, object]] = [
        ("table", table.table),
        ("served", ", ".join(table.served) or "by no server"),
        ("versions", ", ".join(table.versions) or "none that is registered"),
        ("fingerprint", table.fingerprint or "unknown"),
    ]
    if table.generation is not None:
        filled = "unknown" if table.filled is None else instant(table.filled)
        rows += [
            ("generation", table.generation[:12]),
            ("filled", filled if table.as_of is None else f"{filled}, as of {instant(table.as_of)}"),
            ("then stored", f"{table.keys:,} keys, {table.events:,} events"),
        ]
    pairs(console, rows)
    if table.sources:
        console.print(text_table(SOURCE_COLUMNS, [source_row(source) for source in table.sources]))
    for fault in table.faults:
        console.print(f"{fault.sentence}: run `{call.line(fault.next.removeprefix('cumulant '))}`", soft_wrap=True)
    console.print("")


SOURCE_COLUMNS = ("source", "newest event", "age", "objective", "owner", "")


def source_row(source: StoredSource) -> tuple[str, ...]:
    return (
        source.source,
        "unknown" if source.newest is None else instant(source.newest),
        duration(source.staleness),
        duration(source.objective),
        source.owner or "–",
        "stale" if source.stale else "",
    )


def _print_freshness(console: Console, report: FreshnessReport) -> None:
    from cumulant.flows.reports.terminal import table

    console.print(table(SOURCE_COLUMNS, [source_row(source) for source in report.sources]))
    for name in report.lost:
        gone = f"the online store does not have the table {name}, which is served: see `cumulant features status`"
        console.print(gone, soft_wrap=True)
    if not report.served:
        console.print("no server reads stored features, so that no objective raises an alert", style="dim")
    if not any(source.objective for source in report.sources):
        hint = "no freshness objective is declared: add `freshness: 10m` to a source under `data` in cumulant.yaml"
        console.print(hint, style="dim", soft_wrap=True)
