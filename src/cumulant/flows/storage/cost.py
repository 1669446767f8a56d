"""What a project's stores cost in a month, and what the declared lifecycle and `clean` would save."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.clock import SystemClock
from cumulant.core.errors import UsageError, did_you_mean
from cumulant.core.progress import Progress, silent
from cumulant.data.storage.cost import ClassBalance, CostRow, balances, class_warnings, cost_rows
from cumulant.data.storage.prices import GIB, PriceList, RegionPrices, package_prices, read_prices
from cumulant.flows.ledger.actions import verb
from cumulant.flows.maintenance.cleanup import unneeded
from cumulant.flows.storage.stored_files import kind_prefixes, list_stored_files, unmeasured
from cumulant.project.residency import declared_region

if TYPE_CHECKING:
    from cumulant.data.storage.cost import StoredSize
    from cumulant.data.storage.policy import LifecycleKind
    from cumulant.flows.storage.file_formats import FormatCost
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project

#: files of each place of a bucket whose class is read: one request each
_CLASSES = 1_000


class PricesUsed(msgspec.Struct, frozen=True, kw_only=True):
    """The price list: its date and source, and the region of each store's prices, by URL scheme."""

    date: str
    source: str
    currency: str
    regions: dict[str, str]
    pages: dict[str, str]


class StorageCost(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes and monthly costs of a project's stores.

    `monthly`: each file in the class that the store says it has, else in proportion to the classes of others, else in
    that which the declared lifecycle gives its age; `hot_monthly`: with every file hot, as without rules in the store;
    `move_fees`: billed once for the moves of these files. `removable_*`: what `cumulant clean --yes` would delete now.
    `unmeasured`: stores whose size is not known here, each with the reason.
    `formats`: of `--formats`.
    """

    environment: str
    prices: PricesUsed
    rows: tuple[CostRow, ...]
    bytes: int
    monthly: float
    hot_monthly: float
    saved_monthly: float
    move_fees: float
    removable_bytes: int
    removable_monthly: float
    unmeasured: dict[str, str]
    classes: tuple[ClassBalance, ...]
    warnings: tuple[str, ...]
    formats: tuple[FormatCost, ...] = ()


@verb("data.cost")
def storage_cost(
    project: Project,
    *,
    principal: Principal,
    prices: Path | None = None,
    region: str | None = None,
    reads: float = 0.0,
    formats: bool = False,
    progress: Progress = silent,
) -> StorageCost:
    """What the stores hold and cost; with `formats` also the same rows in other file formats.

    `prices`: a price list (default: the package's own); `region`: of its prices (default: what the URL of the store or
    the environment declares); `reads`: how often a month all of a kind is read, for the fees of its class.

    Raises:
        NotFoundError, DataError: the price list cannot be read.
        UsageError: it has no such `region`.
        CredentialsError, StorageError, EngineUnavailableError: a store cannot be listed.
    """
    del principal
    listed = package_prices() if prices is None else read_prices(prices)
    if region is not None and region not in (names := listed.regions()):
        hint = did_you_mean(region, names) or f"it has {', '.join(sorted(names))}"
        raise UsageError(f'the price list has no region "{region}"', subject="--region", hint=hint)
    where = region or declared_region(project.file.environment)
    progress("list stores")
    unread: list[str] = []
    stored, now = list(list_stored_files(project, classes=_CLASSES, warn=unread.append)), SystemClock().now()
    rows = cost_rows(stored, project.policies.lifecycle, listed, region=where, now=now)
    classes = class_balances(project, listed, region=where, reads=reads, stored=stored)
    progress("find what nothing needs")
    removable = sum(item.bytes for item in unneeded(project) if item.kind in ("table", "object"))
    scheme = next((row.store for row in rows if row.kind == "data"), "file")
    group = listed.prices(scheme, where)
    hot = 0.0 if group is None else group.hot
    measured: Sequence[FormatCost] = ()
    if formats:
        from cumulant.flows.storage.file_formats import compare_formats

        measured = compare_formats(project, price=hot, progress=progress)
    monthly, all_hot = (sum(row.monthly or 0 for row in rows), sum(row.hot_monthly or 0 for row in rows))
    return StorageCost(
        environment=project.environment,
        prices=_prices_used(listed, rows, where),
        rows=tuple(rows),
        bytes=sum(row.bytes for row in rows),
        monthly=monthly,
        hot_monthly=all_hot,
        saved_monthly=all_hot - monthly,
        move_fees=sum(row.move_fees or 0 for row in rows),
        removable_bytes=removable,
        removable_monthly=removable / GIB * hot,
        unmeasured=dict(unmeasured(project)),
        classes=tuple(classes),
        warnings=(
            *unread,
            *class_warnings(stored, project.policies.lifecycle, listed, now),
            *(item.warning for item in classes if item.warning),
        ),
        formats=tuple(measured),
    )


def class_balances(
    project: Project, prices: PriceList, *, region: str, reads: float = 0.0, stored: Collection[StoredSize] = ()
) -> list[ClassBalance]:
    """Whether each declared class pays in this environment; `stored`: the files whose sizes give the fees of moves."""
    kinds, stores = project.policies.lifecycle, kind_stores(project)
    return list(balances(kinds, prices, stores=stores, region=region, reads=reads, stored=stored))


def kind_stores(project: Project) -> dict[LifecycleKind, str]:
    """The URL scheme of the store of each kind."""
    return {kind: places[0][0].scheme for kind, places in kind_prefixes(project).items()}


def _prices_used(prices: PriceList, rows: Sequence[CostRow], region: str) -> PricesUsed:
    groups = {store: prices.prices(store, region) for store in sorted({row.store for row in rows})}
    regions = {store: _region_of(group, region) for store, group in groups.items() if group is not None}
    pages = {store: page for store, page in prices.pages.items() if store in regions}
    return PricesUsed(date=prices.date, source=prices.source, currency=prices.currency, regions=regions, pages=pages)


def _region_of(group: RegionPrices, region: str) -> str:
    """The region whose prices are used; a folder of this machine is in none."""
    if region in group.regions or group.store == "file":
        return region if region in group.regions else group.regions[0]
    return f"{group.regions[0]} ({region} is not in the list)"
