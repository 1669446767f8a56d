"""Price lists of storage: the package's own, of the date in its name, or a file of the user."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from cumulant.core.errors import DataError, NotFoundError
from cumulant.data.storage.policy import StorageClass

#: the list that is used without `--prices`
PRICES = "prices-2026-12.toml"
#: bytes of the unit that clouds bill
GIB = 1 << 30
#: how stores name what is in no cheaper class
_HOT = frozenset({"STANDARD", "HOT"})
Price = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=0)]


class ClassTerms(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a class costs beside its bytes: `retrieval` a GiB read, `transition` 1,000 objects moved into it.

    `minimum_days`: an object that leaves earlier is billed for so many; `minimum_bytes`: a smaller one as so many.
    """

    name: str
    minimum_days: Count = 0
    minimum_bytes: Count = 0
    retrieval: Price = 0.0
    transition: Price = 0.0


class RegionPrices(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prices of a GiB for a month by class, in regions of one store."""

    store: str
    regions: Annotated[tuple[str, ...], Meta(min_length=1)]
    hot: Price
    cool: Price
    archive: Price

    def of(self, storage_class: StorageClass) -> float:
        price: float = getattr(self, storage_class)
        return price

    def named(self, name: str) -> float | None:
        """The price of a class by our name of it; None: there is none."""
        return {"hot": self.hot, "cool": self.cool, "archive": self.archive}.get(name)


class PriceCheck(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Figures that the page at an address has, by store, region or class, and name; `dated`: the date of the page,
    where it says one. Without a page they are not confirmed.
    """

    page: str
    dated: str = ""
    figures: tuple[str, ...]


class PriceList(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """List prices with their date and source. Stores are named by the scheme of their URL: s3, az, gs, file."""

    date: Annotated[str, Meta(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    source: str
    currency: Annotated[str, Meta(pattern="^[A-Z]{3}$")]
    pages: Mapping[str, str] = {}
    terms: Mapping[str, Mapping[StorageClass, ClassTerms]] = {}
    groups: tuple[RegionPrices, ...]
    checks: tuple[PriceCheck, ...] = ()

    def prices(self, store: str, region: str) -> RegionPrices | None:
        """Prices of a store in a region; of its first group where no group names the region; None: of none."""
        groups = [group for group in self.groups if group.store == store]
        return next((group for group in groups if region in group.regions), groups[0] if groups else None)

    def regions(self) -> frozenset[str]:
        """Every region that a group names."""
        return frozenset(region for group in self.groups for region in group.regions)

    def class_named(self, store: str, name: str) -> StorageClass | None:
        """The class that a store names so; None: the list has no price of it."""
        if name.upper() in _HOT:
            return "hot"
        named = {terms.name.upper(): each for each, terms in self.terms.get(store, {}).items()}
        return named.get(name.upper())

    def terms_of(self, store: str, storage_class: StorageClass) -> ClassTerms:
        """Terms of a class; without any where the list has none."""
        return self.terms.get(store, {}).get(storage_class) or ClassTerms(name=storage_class)


@cache
def package_prices() -> PriceList:
    """The list of this package."""
    return _parse(files("cumulant.data.storage").joinpath(PRICES).read_bytes(), PRICES)


def read_prices(path: Path) -> PriceList:
    """A list of the user, in TOML as the package's own.

    Raises:
        NotFoundError: the file does not exist or cannot be read.
        DataError: it is no price list.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise NotFoundError(
            f"the price list cannot be read: {error.strerror}",
            subject=str(path),
            hint=f"write one as {PRICES} of the package has it",
        ) from None
    return _parse(content, str(path))


def _parse(content: bytes, name: str) -> PriceList:
    try:
        return msgspec.toml.decode(content, type=PriceList)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DataError(
            f"this is no price list: {error}",
            subject=name,
            hint="it is TOML with date, source, currency and groups, each with store, regions, hot, cool and archive",
        ) from None
