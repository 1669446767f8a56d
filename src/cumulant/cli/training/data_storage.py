"""`cumulant data cost` and `lifecycle`: what the stores cost, and rules of storage classes."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cumulant.cli.command import command
from cumulant.cli.invocation import Invocation
from cumulant.flows.reports.wording import size

if TYPE_CHECKING:
    from rich.console import Console

    from cumulant.data.storage.cost import CostRow
    from cumulant.flows.storage.cost import StorageCost
    from cumulant.flows.storage.lifecycle import LifecycleView


class RenderedCloud(StrEnum):
    """The clouds of `--render`."""

    s3 = "s3"
    azure = "azure"
    gcs = "gcs"


def declare(app: typer.Typer) -> None:
    """Add the commands to `cumulant data`."""
    command(
        app,
        action="data.cost",
        name="cost",
        examples=[
            "cumulant data cost",
            "cumulant data cost --env production --reads 4 --json",
            "cumulant data cost --formats --prices our-prices.toml",
        ],
    )(_cost)
    command(
        app,
        action="data.cost",
        name="lifecycle",
        examples=[
            "cumulant data lifecycle",
            "cumulant data lifecycle --env production --render s3 --out rules",
        ],
    )(_lifecycle)


def _cost(
    call: Invocation,
    *,
    formats: Annotated[
        bool, typer.Option("--formats", help="The same rows as CSV, Parquet and ORC, measured on a sample.")
    ] = False,
    prices: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A price list in TOML. Default: the one of this version.")
    ] = None,
    region: Annotated[
        str | None, typer.Option(metavar="NAME", help="The region of the prices. Default: that of the environment.")
    ] = None,
    reads: Annotated[
        float, typer.Option(metavar="N", min=0, help="How often a month all of the data is read, for retrieval fees.")
    ] = 0.0,
) -> None:
    """Show what the project's stores hold and cost in a month, by kind and storage class.

    Sizes are read from the stores, and so is the class of up to 1,000 files of each part of a bucket (`read`, one
    request each); the others count in the same shares of classes, by kind and age (`N of M files read`), or, where none
    was read, in the class that `lifecycle` gives their age (`declared`). Prices are a dated list,
    without discounts, taxes, requests and traffic; files of this machine cost 0 unless `--prices` has a price.
    """
    from cumulant.flows.storage.cost import storage_cost

    with call.project(personal=formats) as project, call.progress("cost") as progress:
        result = storage_cost(
            project,
            principal=project.principal(),
            prices=prices,
            region=region,
            reads=reads,
            formats=formats,
            progress=progress,
        )
    call.answer(result, lambda console: _print_cost(console, result))


def _lifecycle(
    call: Invocation,
    render: Annotated[
        RenderedCloud | None, typer.Option(metavar="s3|azure|gcs", help="Rules of that cloud for the project's keys.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="With --render: write BUCKET.json, of Azure management-policy.json.",
        ),
    ] = None,
) -> None:
    """Show the declared storage classes by age, or with --render rules for a bucket.

    Rules move files and remove uploads that were cut off; they delete nothing by age. `cumulant tick` and `cumulant
    data clean` delete what expired and nothing needs.
    """
    from cumulant.core.errors import UsageError
    from cumulant.flows.storage.lifecycle import show_lifecycle

    if out is not None and render is None:
        raise UsageError("--out is for rules", subject=str(out), hint="add --render s3, azure or gcs")
    with call.project() as project:
        view = show_lifecycle(project, principal=project.principal(), render=None if render is None else render.value)
    written = [] if out is None else _write(view, out)
    call.answer(view, lambda console: _print_lifecycle(console, view, rendered=render is not None, written=written))


def _write(view: LifecycleView, folder: Path) -> list[Path]:
    """One file a bucket, of Azure an account. Raises StorageError."""
    import msgspec

    from cumulant.core.errors import StorageError

    paths = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, rules in view.rules.items():
            path = folder / f"{name}.json"
            path.write_bytes(msgspec.json.format(msgspec.json.encode(rules)) + b"\n")
            paths.append(path)
    except OSError as error:
        raise StorageError(f"the rules could not be written: {error.strerror}", subject=str(folder)) from None
    return paths


def _print_cost(console: Console, cost: StorageCost) -> None:
    from cumulant.flows.reports.terminal import clean, pairs, table, warn

    currency = cost.prices.currency
    rows = [
        (
            row.kind,
            row.name or "–",
            row.store,
            _class(row),
            f"{row.files:,}",
            size(row.bytes),
            _money(row.monthly),
            _money(row.hot_monthly),
        )
        for row in cost.rows
    ]
    heads = ["kind", "of", "store", "class", "files", "size", f"{currency} a month", "if hot"]
    console.print(table(heads, rows, right=heads[4:]))
    unneeded = f"{size(cost.removable_bytes)}, {_money(cost.removable_monthly)} {currency} a month"
    moves = f"; moving these files costs {_money(cost.move_fees)} once" if cost.move_fees else ""
    pairs(
        console,
        [
            ("in all", f"{size(cost.bytes)}, {_money(cost.monthly)} {currency} a month"),
            ("lifecycle saves", f"{_money(cost.saved_monthly)} {currency} a month{moves}"),
            ("nothing needs", f"{unneeded}: `cumulant data clean` shows it"),
        ],
    )
    if cost.formats:
        console.print("")
        _print_formats(console, cost)
    for where, reason in cost.unmeasured.items():
        console.print(clean(f"not measured: {where}: {reason}"), markup=False, soft_wrap=True)
    warn(console, cost.warnings)
    regions = "".join(f", {store} in {region}" for store, region in cost.prices.regions.items())
    console.print(clean(f"prices of {cost.prices.date}{regions}: {cost.prices.source}"), style="dim", soft_wrap=True)
    if any(row.store == "file" and not row.monthly for row in cost.rows):
        console.print("files of this machine cost 0 in this list; `--prices` may give them a price", style="dim")


def _class(row: CostRow) -> str:
    if row.class_source == "local":
        return row.storage_class
    if row.class_source == "sampled":
        return f"{row.storage_class} ({row.read_files:,} of {row.files:,} files read)"
    return f"{row.storage_class} ({row.class_source})"


def _print_formats(console: Console, cost: StorageCost) -> None:
    from cumulant.flows.reports.terminal import clean, table
    from cumulant.flows.storage.file_formats import SAMPLE_ROWS

    rows = [
        (
            item.source,
            f"{item.format} ({item.compression})",
            size(item.bytes),
            _money(item.monthly),
            f"{item.read_seconds:.3f} s",
            f"{item.sample_rows:,} of {item.rows:,}",
        )
        for item in cost.formats
        if item.error is None
    ]
    heads = ["source", "format", "size", f"{cost.prices.currency} a month", "read", "rows measured"]
    console.print(table(heads, rows, right=heads[2:]))
    explained = (
        "size and cost are of all accepted rows, those that were corrected since too, in proportion to the rows "
        f"measured: those in force, at most {SAMPLE_ROWS:,} of a source; read is the time of all their columns"
    )
    console.print(explained, style="dim", soft_wrap=True)
    for item in cost.formats:
        if item.error is not None:
            console.print(clean(f"{item.source} cannot be {item.format}: {item.error}"), markup=False, soft_wrap=True)


def _print_lifecycle(console: Console, view: LifecycleView, *, rendered: bool, written: list[Path]) -> None:
    from cumulant.flows.reports.terminal import clean, table, warn

    if rendered and not written:
        import msgspec

        only = next(iter(view.rules.values())) if len(view.rules) == 1 else view.rules
        console.print(msgspec.json.format(msgspec.json.encode(only)).decode(), markup=False, soft_wrap=True)
        return
    for path in written:
        console.print(f"written to {path}", soft_wrap=True)
    if written:
        return
    rows = [
        (
            kind.kind,
            kind.store,
            _days(kind.cool_days),
            _days(kind.archive_days),
            ", ".join(f"{_days(days)} ({name})" for name, days in kind.expire_days.items()) or "never by age",
        )
        for kind in view.kinds
    ]
    console.print(table(["kind", "store", "cool", "archive", "expire"], rows))
    balances = [
        (
            item.kind,
            item.name,
            _days(item.days) if item.days is not None else "no end",
            f"{item.minimum_days}d",
            f"{item.saves:.4f}",
            "–" if item.break_even_reads is None else f"{item.break_even_reads:.2f}",
            "–" if item.break_even_bytes is None else size(round(item.break_even_bytes)),
        )
        for item in view.classes
    ]
    if balances:
        heads = ["kind", "class", "for", "billed at least", "saves a GiB", "break-even reads a month", "file size"]
        console.print(table(heads, balances, right=heads[3:]))
        note = "savings are before the fees for moving files, which exceed them where files are smaller than the last"
        console.print(f"{note} column; `cumulant data cost` counts them by stored sizes", style="dim", soft_wrap=True)
    for note in view.notes:
        console.print(clean(f"note: {note}"), markup=False, soft_wrap=True)
    warn(console, view.warnings)


def _days(days: float | None) -> str:
    return "–" if days is None else f"{days:g}d"


def _money(amount: float | None) -> str:
    """To the cent where there is one, else to three figures."""
    if amount is None:
        return "no price"
    return f"{amount:,.2f}" if amount >= 0.1 or amount == 0 else f"{amount:.2g}" if amount >= 0.005 else "<0.01"
