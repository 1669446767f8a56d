"""Parts: the accepted rows of one source file, its refused rows, and the facts about both.

A part is named by the file's content and the declaration. Its facts are written last: where they exist, the part is
whole. Many small files share a pack (`packs`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TypeVar

import msgspec
import polars as pl

from cumulant.core.plan import DType, Field
from cumulant.core.refs import TableRef
from cumulant.core.system.memory import memory_limit
from cumulant.data.erased_subjects import FilteredPrepare
from cumulant.data.parts.spill import MemoryBudget
from cumulant.data.policy import SourcePolicy
from cumulant.data.prepare import Prepare
from cumulant.data.profile import ColumnProfile, Profile
from cumulant.data.snapshot import PACKED, WIDER
from cumulant.data.spec import SourceSpec
from cumulant.data.text.casts import conform
from cumulant.ports.tables import UNPROTECTED, Protection, TableStore

#: the rule that a CSV row with another number of fields than the header breaks
MALFORMED = "row:fields"


class PartField(msgspec.Struct, frozen=True, kw_only=True):
    """A column of a part. `empty`: only nulls, of unknown type. `guessed`: from text.

    `padded`: the digits of its longest number with leading zeros, where it is read as numbers.
    """

    name: str
    dtype: DType
    zone: str | None = None
    empty: bool = False
    guessed: bool = False
    padded: int | None = None


class PartCheck(msgspec.Struct, frozen=True, kw_only=True):
    rule: str
    column: str | None
    text: str
    failed: int


class PartFacts(msgspec.Struct, frozen=True, kw_only=True):
    """All that a snapshot needs of a part, so that reusing it reads no rows.

    `first`: its rows begin there in the table of a pack, `refused_rules` counts refused rows by rule, and `profile` has
    counts and extremes only; None: the table is its own.
    """

    digest: str
    rows_in: int
    rows_dropped: int
    rows: TableRef
    refused: tuple[TableRef, ...]
    fields: tuple[PartField, ...]
    checks: tuple[PartCheck, ...]
    profile: Profile
    csv_bytes: int
    first: int | None = None
    refused_rules: dict[str, int] | None = None
    #: doubts about the file, though it is read
    notes: tuple[str, ...] = ()

    @property
    def rows_refused(self) -> int:
        return sum(ref.rows for ref in self.refused) + sum((self.refused_rules or {}).values())


class PackedFile(msgspec.Struct, frozen=True, array_like=True):
    """What a pack knows of one file.

    `failed`: a number for each check of its group; `nulls`, `low`, `high` (of whole numbers): for each field; `empty`:
    the places of fields without a value.
    """

    group: int
    rows_in: int
    rows_dropped: int
    rows: int
    refused: dict[str, int]
    failed: tuple[int, ...] = ()
    empty: tuple[int, ...] = ()
    nulls: tuple[int, ...] = ()
    low: tuple[float | None, ...] = ()
    high: tuple[float | None, ...] = ()
    notes: tuple[str, ...] = ()


class PackGroup(msgspec.Struct, frozen=True):
    """What files of the same columns and types share; counts of checks are 0 and no field is `empty` here."""

    fields: tuple[PartField, ...]
    checks: tuple[PartCheck, ...]


class PackFacts(msgspec.Struct, frozen=True, kw_only=True):
    digest: str
    rows: TableRef
    refused: tuple[TableRef, ...]
    groups: tuple[PackGroup, ...]
    files: tuple[PackedFile, ...]
    profile: Profile
    csv_bytes: int


@dataclass(frozen=True)
class Pack:
    """The facts of a pack, and its files as parts."""

    facts: PackFacts
    parts: tuple[PartFacts, ...]

    @staticmethod
    def of(facts: PackFacts) -> Pack:
        fields: dict[tuple[int, tuple[int, ...]], tuple[PartField, ...]] = {}
        starts = accumulate((file.rows for file in facts.files), initial=0)
        parts = []
        for index, (file, first) in enumerate(zip(facts.files, starts, strict=False)):
            named = (file.group, file.empty)
            if named not in fields:
                fields[named] = tuple(
                    msgspec.structs.replace(field, empty=True) if place in file.empty else field
                    for place, field in enumerate(facts.groups[file.group].fields)
                )
            parts.append(_part(facts, index, first, fields[named]))
        return Pack(facts, tuple(parts))


def _part(facts: PackFacts, index: int, first: int, fields: tuple[PartField, ...]) -> PartFacts:
    file = facts.files[index]
    checks = facts.groups[file.group].checks
    share = file.rows / facts.rows.rows if facts.rows.rows else 0.0
    columns = zip(fields, file.nulls, file.low, file.high, strict=True)
    return PartFacts(
        digest=f"{facts.digest}{PACKED}{index}",
        rows_in=file.rows_in,
        rows_dropped=file.rows_dropped,
        rows=TableRef(facts.rows.key, file.rows, round(facts.rows.bytes * share)),
        refused=(),
        fields=fields,
        checks=tuple(
            msgspec.structs.replace(check, failed=failed) if failed else check
            for check, failed in zip(checks, file.failed, strict=True)
        ),
        profile=Profile(
            file.rows,
            tuple(
                ColumnProfile(
                    name=field.name, dtype=field.dtype, rows=file.rows, nulls=nulls, distinct=0, min=low, max=high
                )
                for field, nulls, low, high in columns
            ),
        ),
        csv_bytes=round(facts.csv_bytes * share),
        first=first,
        refused_rules=file.refused,
        notes=file.notes,
    )


Facts = TypeVar("Facts", PartFacts, PackFacts)


@dataclass(frozen=True)
class PartContext:
    """The source whose files become parts: its declaration, stored tables, and the facts read so far."""

    source: str
    policy: SourcePolicy
    tables: TableStore
    prepare: Prepare | FilteredPrepare | None = None
    budget: MemoryBudget = field(default_factory=lambda: MemoryBudget(memory_limit(None)))
    #: facts of parts that were read, and packs that were read or made
    facts: dict[str, PartFacts] = field(default_factory=dict)
    packs: dict[str, Pack] = field(default_factory=dict)

    @property
    def spec(self) -> SourceSpec:
        return self.policy.spec

    def key(self, digest: str, what: str) -> str:
        return f"data/{self.source}/{digest}/{what}"

    @property
    def protect(self) -> Protection:
        """What is personal in the tables of the source's rows."""
        return Protection(self.spec.subject, tuple(sorted(self.spec.personal)))

    def write(self, digest: str, what: str, frames: pl.DataFrame | Iterable[pl.DataFrame]) -> TableRef:
        """Store a table of rows. Raises StorageError."""
        return self.tables.write(self.key(digest, what), frames, protect=self.protect)

    def find_part(self, digest: str) -> PartFacts | None:
        """The facts of a complete part, or None."""
        if digest not in self.facts and (facts := self.find_facts(digest, PartFacts)) is not None:
            self.facts[digest] = facts
        return self.facts.get(digest)

    def find_facts(self, digest: str, kind: type[Facts]) -> Facts | None:
        """The facts of a part or pack whose tables all exist, or None."""
        key = self.key(digest, "facts")
        if self.tables.find(key) is None:
            return None
        facts: Facts = msgspec.json.decode(self.tables.scan(key).collect().item(0, "json"), type=kind)
        whole = all(self.tables.find(ref.key) is not None for ref in (facts.rows, *facts.refused))
        return facts if whole else None

    def rows(self, part: PartFacts) -> pl.LazyFrame:
        rows = self.tables.scan(part.rows)
        return rows if part.first is None else rows.slice(part.first, part.rows.rows)

    def record(self, facts: PartFacts | PackFacts) -> None:
        text = msgspec.json.encode(facts).decode()
        personal = Protection(columns=("json",)) if self.protect else UNPROTECTED  # the extremes of columns
        self.tables.write(self.key(facts.digest, "facts"), pl.DataFrame({"json": [text]}), protect=personal)

    def apply_prepare(self, raw: pl.DataFrame) -> pl.DataFrame:
        """The rows as `prepare` returns them; the caller checks whether it is row-wise."""
        return raw if self.prepare is None else self.prepare(raw)


def declared_types(spec: SourceSpec) -> set[str]:
    declared = {name for name, rule in spec.rules.items() if rule.type is not None}
    declared |= {spec.time.column} if spec.time else set()
    return declared.union(spec.known_times)


def is_grown(read: PartFacts, earlier: PartFacts, fields: Sequence[Field], context: PartContext) -> bool:
    """Whether the accepted rows of `earlier` are the first of `read`, column by column."""
    rows = earlier.rows.rows
    if not rows or read.rows.rows < rows or read.rows_in <= earlier.rows_in or not is_as_wide(read, earlier):
        return False
    return all(
        conform(context.rows(read), [column])
        .head(rows)
        .collect()
        .equals(conform(context.rows(earlier), [column]).collect())
        for column in fields
    )


def is_as_wide(read: PartFacts, earlier: PartFacts) -> bool:
    """Whether the types of `read` hold the values of `earlier`."""
    types = {column.name: column.dtype for column in read.fields if not column.empty}
    before = [
        (column.dtype, types[column.name]) for column in earlier.fields if column.name in types and not column.empty
    ]
    return all(old == new or (old, new) in WIDER for old, new in before)
