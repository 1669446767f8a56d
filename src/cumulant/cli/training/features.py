"""`cumulant features`: what the features are, their values, and the stored state that serving reads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cumulant.cli.command import application, command
from cumulant.cli.invocation import Invocation
from cumulant.cli.options import AsOf
from cumulant.cli.training import features_import, features_job, features_sql
from cumulant.cli.training.feature_store import TABLE_ROWS, add_commands, check_online, entity_keys, get_online
from cumulant.cli.training.frame_output import check_out, show_frame
from cumulant.core.errors import UsageError
from cumulant.core.units import moment
from cumulant.flows.reports.feature_texts import TIERS, batch_only_text, personal
from cumulant.flows.reports.wording import instant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from cumulant.server.operations.features import FeatureValues, KeyState

app = application(
    "features",
    "What the features are, and their values.",
    examples=["cumulant features show", "cumulant features get --rows 5"],
)

features_sql.declare(app)
features_import.declare(app)
features_job.declare(app)

Key = Annotated[list[str] | None, typer.Argument(metavar="COLUMN=VALUE", help="The key, such as card=c17.")]
OfModel = Annotated[str, typer.Option("--model", metavar="MODEL", help="The model; default: the champion.")]


@command(
    app,
    operations=("features.list", "features.stored"),
    action="features.show",
    examples=["cumulant features show", "cumulant features show card=c17", "cumulant features show --json"],
)
def show(
    call: Invocation,
    key: Key = None,
    model: OfModel = "",
    rows: Annotated[int, typer.Option(metavar="N", help="Of a key: how many of its newest events.", min=1)] = 10,
) -> None:
    """Show every feature: its type, what it is in words, and what a request must carry for it.

    With a key: what is stored of it for the windows and lookups of a model.
    """
    if key:
        _show_key(call, key, model, rows)
        return
    with call.api() as api, call.progress("features") as progress:
        listed = api.call("features.list", progress=progress)

    def text(console: Console) -> None:
        from cumulant.flows.reports.terminal import table

        rows = [
            (feature.name, feature.dtype, feature.description or feature.definition, TIERS[feature.tier], feature.owner)
            for feature in listed.features
        ]
        console.print(table(["feature", "type", "what it is", "compiles", "owner"], rows))
        functions = list(dict.fromkeys(name for feature in listed.features for name in feature.functions))
        if functions:
            console.print(batch_only_text(functions), style="dim", soft_wrap=True)
        fields = ", ".join(field.name for field in listed.request)
        console.print(f"a request carries: {fields}", style="dim")

    call.answer(listed, text)


@command(
    app,
    operations=("features.values", "features.online"),
    action="features.compute",
    examples=[
        "cumulant features get --rows 5",
        "cumulant features get --as-of 2013-04-01 --out features.parquet",
        "cumulant features get --online card=c17",
        "cumulant features get --online card=c17 card=c18 --model churn/3 --fingerprint 610488783c55",
    ],
)
def get(
    call: Invocation,
    *,
    key: Key = None,
    online: Annotated[
        bool, typer.Option("--online", help="Of entities from the online store, in place of the feature table.")
    ] = False,
    model: Annotated[
        str, typer.Option("--model", metavar="MODEL", help="With --online: whose features; default: the champion's.")
    ] = "",
    definition: Annotated[
        bool, typer.Option("--definition", help="With --online: as the features file defines them now.")
    ] = False,
    fingerprint: Annotated[
        str, typer.Option(metavar="HASH", help="With --online: that the definition must have; else it is refused.")
    ] = "",
    rows: Annotated[int, typer.Option(metavar="N", help="How many rows to show.", min=1)] = TABLE_ROWS,
    as_of: AsOf = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write them all: .csv, .parquet or .jsonl.")] = None,
) -> None:
    """Bring the feature table up to date and show its values, one row an entity row, in order.

    A file has each row's number in the snapshot (`__row`), its key and its event time as well.

    With --online: the features of entities as the store has them now, or at the moment of --as-of, with the age of
    their newest event; a key is columns of a window or lookup, and a column that is named again begins the next entity.
    Features that would show a personal value appear as keyed hashes.
    """
    when = None if as_of is None else moment(as_of)
    if online:
        check_online(rows=rows, out=out)
        read = {"model": model, "definition": definition, "fingerprint": fingerprint, "at": when}
        get_online(call, entity_keys(key), read)
        return
    if key or model or definition or fingerprint:
        raise UsageError(
            "keys and models are read from the online store",
            subject=" ".join(key or ()) or None,
            hint=f"cumulant features get --online {' '.join(key or ['COLUMN=VALUE'])}",
        )
    if out is None:
        with call.api() as api, call.progress("features") as progress:
            computed = api.call("features.values", rows=rows, as_of=when, progress=progress)
        _show_values(call, computed)
        return
    from cumulant.flows.features.feature_table import featurize, keyed_features

    check_out(out)
    with call.project() as project, call.progress("features") as progress:
        featurized = featurize(project, principal=project.principal(), as_of=when, progress=progress)
        frame = keyed_features(project, featurized, hidden=personal(featurized.plan))
    from cumulant.cli.training.frame_output import write_frame

    write_frame(frame, out)

    def text(console: Console) -> None:
        detail = _computed(reused=featurized.reused, computed_of=featurized.computed_of)
        console.print(f"{featurized.rows:,} rows, {len(featurized.plan.names)} features{detail}")
        console.print(f"written to {out}")

    figures = {
        "run": featurized.run,
        "rows": featurized.rows,
        "rows_computed": featurized.rows_computed,
        "features": featurized.plan.names,
        "table": featurized.table.key,
        "reused": featurized.reused,
    }
    call.answer(figures | {"file": str(out)}, text)


def _show_values(call: Invocation, computed: FeatureValues) -> None:
    def text(console: Console) -> None:
        import polars as pl

        detail = _computed(reused=computed.reused, computed_of=computed.computed_of)
        console.print(f"{computed.rows:,} rows, {len(computed.features)} features{detail}")
        frame = pl.DataFrame(computed.values, schema=computed.columns, infer_schema_length=None)
        show_frame(console, frame.drop("__row", strict=False))

    figures = ("run", "rows", "rows_computed", "features", "table", "reused", "values")
    call.answer({name: getattr(computed, name) for name in figures}, text)


def _computed(*, reused: bool, computed_of: str | None) -> str:
    return ", nothing new" if reused else f": {computed_of}" if computed_of else ""


@command(
    app,
    operations=("features.materialize",),
    action="features.materialize",
    examples=[
        "cumulant features materialize flight-late@champion",
        "cumulant features materialize churn/3 --as-of 2013-04-01",
    ],
)
def materialize(
    call: Invocation,
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="The model whose features are stored; default: the champion.")
    ] = "",
    as_of: AsOf = None,
) -> None:
    """Fill the stored state that a server reads for a model's windows and lookups."""
    with call.api() as api, call.progress("online state") as progress:
        when = None if as_of is None else moment(as_of)
        prepared = api.call("features.materialize", model=model, as_of=when, progress=progress)

    def text(console: Console) -> None:
        if prepared.table is None:
            console.print(f"{prepared.model.name} needs no stored state: its features are all of the row itself")
            return
        console.print(
            f"{prepared.entities:,} entities stored for {prepared.model.name} version {prepared.model.version}"
        )

    call.answer(
        {"model": prepared.model.uri, "table": prepared.table, "entities": prepared.entities, "as_of": prepared.as_of},
        text,
    )


@command(
    app,
    operations=("features.forget",),
    action="features.forget",
    examples=["cumulant features forget card=c17", "cumulant features forget card=c17 --after 2026-11-27"],
)
def forget(
    call: Invocation,
    key: Key = None,
    model: OfModel = "",
    after: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only rows dated later; default: all that were posted.")
    ] = None,
) -> None:
    """Delete what was posted of a key, and make its stored state again from the data.

    Rows of the project's data stay. A server that runs reads the new state with its next request.
    """
    values = _key(key)
    with call.api() as api, call.progress("stored state") as progress:
        forgotten = api.call(
            "features.forget",
            key=values,
            model=model,
            after=None if after is None else moment(after),
            progress=progress,
        )

    def text(console: Console) -> None:
        console.print(f"{forgotten.rows:,} posted rows deleted, {forgotten.entities:,} entities made again")
        _print_stored(console, forgotten.stored)

    call.answer(forgotten, text)


def _show_key(call: Invocation, key: list[str], model: str, rows: int) -> None:
    values = _key(key)
    with call.api() as api, call.progress("stored state") as progress:
        stored = api.call("features.stored", key=values, model=model, rows=rows, progress=progress)
    call.answer(list(stored), lambda console: _print_stored(console, stored))


def _key(words: list[str] | None) -> dict[str, object]:
    """`card=c17` as columns and values."""
    pairs = [word.partition("=") for word in words or ()]
    if not pairs or not all(name and equals for name, equals, _ in pairs):
        raise UsageError(
            "a key is written COLUMN=VALUE",
            subject=" ".join(words or ()) or None,
            hint="name the columns of a window: cumulant features show card=c17",
        )
    if empty := [name for name, _, value in pairs if not value]:
        raise UsageError(
            f"the key has no value of {', '.join(empty)}, and nothing is stored of rows without one",
            subject=", ".join(empty),
            hint="windows and lookups of such rows are empty; name a value: cumulant features show card=c17",
        )
    return {name: value for name, _, value in pairs}


def _print_stored(console: Console, stored: Sequence[KeyState]) -> None:
    from cumulant.flows.reports.terminal import cell, table

    for state in stored:
        where = ", ".join(f"{name} {cell(value)}" for name, value in state.key.items())
        console.print(
            f"{state.source} by {where}: {state.events:,} events, for {', '.join(state.features)}", soft_wrap=True
        )
        if state.future:
            console.print(
                f"  {state.future:,} become known after now: `features forget` deletes posted ones", style="dim"
            )
        if state.since is not None:
            console.print(f"  kept from {instant(state.since)} on; earlier moments are answered from what is left")
        columns = list(state.newest[0].values) if state.newest else []
        rows = [(event.known, *(event.values[name] for name in columns)) for event in state.newest]
        console.print(table(["known", *columns], rows) if rows else "")


add_commands(app)
