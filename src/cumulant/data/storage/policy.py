"""The declared storage classes as ages, and which class a file of an age has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Literal, NamedTuple, get_args

from cumulant.core.units import duration, show_duration
from cumulant.data.storage.spec import ClassesSpec, LifecycleSpec

StorageClass = Literal["hot", "cool", "archive"]
#: kinds of data whose class may be declared
LifecycleKind = Literal["data", "features", "logs", "artifacts"]
KINDS: tuple[LifecycleKind, ...] = get_args(LifecycleKind)
#: days that an object must be in S3 before a rule may move it, and then in a class before it may move on
S3_LEAST_DAYS = 30


class KindLifecycle(NamedTuple):
    """Ages at which files of one kind move, None: never. `expire`: the earliest age at which any of them is deleted."""

    cool: timedelta | None = None
    archive: timedelta | None = None
    expire: timedelta | None = None

    @property
    def moves(self) -> dict[StorageClass, timedelta]:
        """The classes that files move into, in the order of their ages."""
        declared: dict[StorageClass, timedelta | None] = {"cool": self.cool, "archive": self.archive}
        return {name: age for name, age in declared.items() if age is not None}

    def class_at(self, age: timedelta) -> StorageClass:
        """The class of a file of this age, once the rules of the store have been applied."""
        reached: StorageClass = "hot"
        for name, least in self.moves.items():
            reached = name if age >= least else reached
        return reached


class LifecycleFault(NamedTuple):
    """A contradiction: the path of its key in the project file, and what is wrong with it."""

    path: tuple[str, ...]
    text: str


def lifecycle_of(
    spec: LifecycleSpec, *, keep: Mapping[str, timedelta | None], log_keep: timedelta
) -> dict[LifecycleKind, KindLifecycle]:
    """Each kind's ages; `keep`: of each source how long its snapshots are kept, `log_keep`: the prediction log."""
    limits = [limit for limit in keep.values() if limit is not None]
    expire: dict[LifecycleKind, timedelta | None] = {"data": min(limits, default=None), "logs": log_keep}
    ages = {}
    for kind in KINDS:
        declared: ClassesSpec = getattr(spec, kind)
        cool, archive = (None if text is None else duration(text) for text in (declared.cool, declared.archive))
        ages[kind] = KindLifecycle(cool, archive, expire.get(kind))
    return ages


def lifecycle_faults(
    lifecycle: Mapping[LifecycleKind, KindLifecycle],
    *,
    keep: Mapping[str, timedelta | None],
    log_keep: timedelta,
    stores: Mapping[LifecycleKind, str],
) -> Iterator[LifecycleFault]:
    """Classes that no file would ever have, and what S3 refuses. `stores`: the URL scheme where each kind is stored."""
    for kind, ages in lifecycle.items():
        if ages.cool is not None and ages.archive is not None and ages.archive <= ages.cool:
            text = f"{show_duration(ages.archive)} is not after cool ({show_duration(ages.cool)}), so that no file"
            yield LifecycleFault(("lifecycle", kind, "archive"), f"lifecycle.{kind}.archive: {text} would be cool")
        limits = {f"data.{name}.keep": limit for name, limit in keep.items()} if kind == "data" else {}
        limits |= {"serving.log.keep": log_keep} if kind == "logs" else {}
        for name, age in ages.moves.items():
            for setting, limit in limits.items():
                if limit is not None and limit <= age:
                    text = f"{show_duration(age)} is not before {setting} ({show_duration(limit)}), which deletes first"
                    yield LifecycleFault(("lifecycle", kind, name), f"lifecycle.{kind}.{name}: {text}")
        if stores.get(kind) == "s3":
            yield from _s3_faults(kind, ages)


def _s3_faults(kind: LifecycleKind, ages: KindLifecycle) -> Iterator[LifecycleFault]:
    least, path = timedelta(days=S3_LEAST_DAYS), ("lifecycle", kind)
    if ages.cool is not None and ages.cool < least:
        text = f"lifecycle.{kind}.cool: S3 moves no object into STANDARD_IA before {S3_LEAST_DAYS}d; write 30d or more"
        yield LifecycleFault((*path, "cool"), text)
    elif ages.cool is not None and ages.archive is not None and ages.cool < ages.archive < ages.cool + least:
        days = (ages.cool + least).days
        text = f"lifecycle.{kind}.archive: S3 moves on from STANDARD_IA after {S3_LEAST_DAYS}d; write {days}d or more"
        yield LifecycleFault((*path, "archive"), text)
