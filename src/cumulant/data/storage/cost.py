"""What stored files cost in a month, by what they belong to and by storage class; and which class does not pay."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

import msgspec

from cumulant.core.units import show_duration
from cumulant.data.storage.policy import KindLifecycle, LifecycleKind, StorageClass
from cumulant.data.storage.prices import GIB, ClassTerms, PriceList, RegionPrices

#: what a stored file belongs to
StoredKind = Literal[
    "data", "features", "logs", "artifacts", "training", "online", "journal", "registry", "audit", "other"
]
ClassSource = Literal["read", "sampled", "declared", "local"]
_NEVER = KindLifecycle()
#: within which a store applies a rule to a file that has reached its age, at most, and what rules of it are rendered by
_APPLIED = timedelta(days=3)
_RENDERED = {"s3": "s3", "az": "azure", "gs": "gcs"}
_MONTH = timedelta(days=30)
#: ages that contradict each other are refused elsewhere; here a span has a length
_LEAST = timedelta(days=1)


class StoredSize(NamedTuple):
    """One file of a store: `name` is that of its source or log, `modified` seconds since 1970, `store` a URL scheme.
    `read_class`: its class in the store's words, empty where that was not read.
    """

    kind: StoredKind
    name: str
    store: str
    bytes: int
    modified: float
    read_class: str = ""


class CostRow(msgspec.Struct, frozen=True, kw_only=True):
    """Files of one kind, name and class; `monthly`: in the currency of the list, None where it has no price.

    `class_source`: the class was `read` from the store of all these files; or of `read_files` of them, and the others
    have it in proportion (`sampled`); or it is what the lifecycle declares for the age of the files; a folder (`local`)
    has none. A class that was read and has no price has the store's name of it, and counts as hot.

    `hot_monthly`: the same files if all were hot; `move_fees`: what the store bills once for moving them there, through
    the classes before.
    """

    kind: StoredKind
    name: str
    store: str
    storage_class: str
    class_source: ClassSource
    files: int
    read_files: int
    bytes: int
    monthly: float | None
    hot_monthly: float | None
    move_fees: float | None


class ClassBalance(msgspec.Struct, frozen=True, kw_only=True):
    """What a declared class saves of a GiB that is stored from its age on, for `days` (None: with no end).

    `saves` is for these days, or for a month where they have no end, after the fees for reading all of it `reads` times
    a month and for the least time of the class; `break_even_reads`: full reads a month at which nothing is saved.
    `move_fee`: billed once for moving a GiB in files of the stored sizes, None where these were not listed; `saves` is
    after it where the days have an end. `break_even_bytes`: of a file whose move costs what the class saves without
    reads in these days or this month.
    """

    kind: LifecycleKind
    storage_class: StorageClass
    name: str
    days: float | None
    minimum_days: int
    saves: float
    break_even_reads: float | None
    move_fee: float | None
    break_even_bytes: float | None
    warning: str | None


class _Sample:
    """Of files of one kind and declared class: how many were read to be in each class, and how many others count in it,
    in proportion. Classes are in the store's words.
    """

    def __init__(self) -> None:
        self.read, self._others = Counter[str](), Counter[str]()

    def next_class(self) -> str:
        """Of one more file that was not read."""
        total, count = self.read.total(), self._others.total() + 1
        name = max(self.read, key=lambda each: self.read[each] * count / total - self._others[each])
        self._others[name] += 1
        return name


def cost_rows(
    stored: Collection[StoredSize],
    lifecycle: Mapping[LifecycleKind, KindLifecycle],
    prices: PriceList,
    *,
    region: str,
    now: datetime,
) -> list[CostRow]:
    """Monthly costs, each file in the class that was read of it. Where it was read of others of its kind and declared
    class only, those that were not have their classes in the same shares; where it was read of none, each has the class
    that the declared lifecycle gives its age. Local files are hot.

    A class bills a file of less than its least size as of that.
    """
    ages = {str(kind): each for kind, each in lifecycle.items()}
    declared = [_declared_class(file, ages.get(file.kind, _NEVER), prices, now) for file in stored]
    samples: defaultdict[tuple[str, str, str], _Sample] = defaultdict(_Sample)
    for file, by_age in zip(stored, declared, strict=True):
        if file.read_class:
            samples[file.store, file.kind, by_age].read[file.read_class] += 1
    counted: defaultdict[tuple[StoredKind, str, str, str, ClassSource], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for file, by_age in zip(stored, declared, strict=True):
        sample = samples.get((file.store, file.kind, by_age))
        stores_name = file.read_class or (sample.next_class() if sample else "")
        reached, terms = _class_of(file.store, stores_name, by_age, prices)
        source: ClassSource = "local" if file.store == "file" else "read" if stores_name else "declared"
        sums = counted[file.kind, file.name, file.store, reached, source]
        sums[0] += 1
        sums[1] += file.bytes
        sums[2] += max(file.bytes, terms.minimum_bytes)
        sums[3] += bool(file.read_class)
    rows = []
    for (kind, name, store, reached, source), (files, size, billed, read) in sorted(counted.items()):
        group = prices.prices(store, region)
        price = None if group is None else group.named(reached)
        if group is not None and price is None and source == "read":
            price = group.hot
        moved = _move_price(prices, store, ages.get(kind, _NEVER), reached)
        rows.append(
            CostRow(
                kind=kind,
                name=name,
                store=store,
                storage_class=reached,
                class_source="sampled" if source == "read" and read < files else source,
                files=files,
                read_files=read,
                bytes=size,
                monthly=None if price is None else billed / GIB * price,
                hot_monthly=None if group is None else size / GIB * group.hot,
                move_fees=None if group is None else files * moved,
            )
        )
    return rows


def _class_of(store: str, stores_name: str, by_age: StorageClass, prices: PriceList) -> tuple[str, ClassTerms]:
    """The class of a file, by our name where it has a price, and its terms. `stores_name`: that which counts before the
    one `by_age`; empty: none is known.
    """
    known = prices.class_named(store, stores_name) if stores_name else by_age
    if known is None:
        return stores_name, ClassTerms(name=stores_name)
    return known, prices.terms_of(store, known)


def _declared_class(file: StoredSize, declared: KindLifecycle, prices: PriceList, now: datetime) -> StorageClass:
    age = timedelta(seconds=max(0.0, now.timestamp() - file.modified))
    reached: StorageClass = "hot" if file.store == "file" else declared.class_at(age)
    if file.store == "s3" and file.bytes < prices.terms_of("s3", reached).minimum_bytes:
        return "hot"  # the rendered rules leave it there
    return reached


def class_warnings(
    stored: Iterable[StoredSize], lifecycle: Mapping[LifecycleKind, KindLifecycle], prices: PriceList, now: datetime
) -> Iterator[str]:
    """Where the classes that were read are not those that the lifecycle declares, or have no price."""
    ages = {str(kind): each for kind, each in lifecycle.items()}
    unpriced, hot, read = Counter[tuple[str, str]](), Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for file in stored:
        if not file.read_class:
            continue
        read[file.store, ""] += 1
        read[file.store, file.kind] += 1
        known = prices.class_named(file.store, file.read_class)
        if known is None:
            unpriced[file.store, file.read_class] += 1
        elif known == "hot":
            declared = _declared_class(file, ages.get(file.kind, _NEVER), prices, now - _APPLIED)
            hot[file.store, file.kind] += declared != "hot"
    for (store, name), files in sorted(unpriced.items()):
        counted = f"{files:,} of {read[store, '']:,} files read"
        yield f"files in {name} of {store}: {counted}; the price list has no price of it, so that they count as hot"
    for (store, kind), files in sorted(hot.items()):
        if files:
            rules = f"`cumulant data lifecycle --render {_RENDERED[store]}` writes the rules"
            counted = f"{files:,} of {read[store, kind]:,} files read"
            yield f"files of {kind} that are hot in {store} though lifecycle.{kind} moves them: {counted}; {rules}"


def _move_price(prices: PriceList, store: str, declared: KindLifecycle, reached: str) -> float:
    """Of one file into the class that it has reached, through those before it."""
    total = 0.0
    for name in declared.moves if reached in declared.moves else ():
        total += prices.terms_of(store, name).transition / 1000
        if name == reached:
            break
    return total


def balances(
    lifecycle: Mapping[LifecycleKind, KindLifecycle],
    prices: PriceList,
    *,
    stores: Mapping[LifecycleKind, str],
    region: str,
    reads: float = 0.0,
    stored: Collection[StoredSize] = (),
) -> Iterator[ClassBalance]:
    """Whether each declared class pays in the store of its kind, where the list has its prices; not for local folders.

    `reads`: how often all of a kind is read in a month, as each training reads the data; `stored`: the files whose
    sizes give the fees of moves.
    """
    for kind, ages in lifecycle.items():
        store = stores.get(kind, "file")
        group = prices.prices(store, region)
        if store == "file" or group is None:
            continue
        ends = [*ages.moves.values(), ages.expire][1:]
        for (name, begin), end in zip(ages.moves.items(), ends, strict=True):
            span = None if end is None else max(end - begin, _LEAST)
            terms = prices.terms_of(store, name)
            files = [file.bytes for file in stored if file.kind == kind and file.store == store]
            if store == "s3":  # the rendered rules leave smaller files hot
                files = [size for size in files if size >= terms.minimum_bytes]
            mean = sum(files) / len(files) if files else None
            yield _balance(kind, name, span, group=group, terms=terms, reads=reads, mean=mean)


def _balance(
    kind: LifecycleKind,
    storage_class: StorageClass,
    span: timedelta | None,
    *,
    group: RegionPrices,
    terms: ClassTerms,
    reads: float,
    mean: float | None,
) -> ClassBalance:
    months = 1.0 if span is None else span / _MONTH
    billed = months if span is None else max(months, terms.minimum_days / 30)
    gain = group.hot * months - group.of(storage_class) * billed
    a_move = terms.transition / 1000
    move_fee = a_move * GIB / mean if mean else None
    read_fees = terms.retrieval * reads * months
    saves = gain - read_fees - (move_fee or 0.0 if span is not None else 0.0)
    warning = None
    if gain <= 0 and span is not None:
        warning = f"files stay {show_duration(span)} in {terms.name}, which bills at least {terms.minimum_days} days"
    elif gain <= read_fees:
        fee = f"{terms.retrieval:g} a GiB"
        warning = f"reading all of it {reads:g} times a month from {terms.name} costs {fee} each time"
    elif saves <= 0 and mean and span is not None:
        files = f"files of {mean / 1024:,.0f} KiB on average"
        there = f"{show_duration(span)} there save {gain - read_fees:.3g}"
        warning = f"moving {files} into {terms.name} costs {move_fee:.3g} a GiB, and {there}"
    return ClassBalance(
        kind=kind,
        storage_class=storage_class,
        name=terms.name,
        days=None if span is None else span / timedelta(days=1),
        minimum_days=terms.minimum_days,
        saves=saves,
        break_even_reads=gain / months / terms.retrieval if terms.retrieval and gain > 0 else None,
        move_fee=move_fee,
        break_even_bytes=a_move / gain * GIB if a_move and gain > 0 else None,
        warning=warning and f"lifecycle.{kind}.{storage_class} costs more than it saves: {warning}",
    )
