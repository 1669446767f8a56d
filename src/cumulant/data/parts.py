"""Parts: what becomes of one source file. Accepted rows, refused rows and the facts about both.

A part is named by the file's content and the declaration, so an unchanged file is never read twice. Its
facts are written last: where they stand, the part is whole.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

import msgspec
import polars as pl

from cumulant.core.errors import DefinitionError
from cumulant.core.plan import DType, Field
from cumulant.core.refs import TableRef
from cumulant.data.casts import Cast, casts, numbers_meant, refuse_zoneless
from cumulant.data.csv_text import Table
from cumulant.data.deletions import without_deletions
from cumulant.data.identifier_text import padded_width
from cumulant.data.prepare import Prepare
from cumulant.data.profile import Profile, profile
from cumulant.data.rowwise import SAMPLE, check_row_wise
from cumulant.data.rules import (
    RowCheck,
    RuleCompiler,
    check_columns,
    check_conditions,
    compile_rules,
    reading_checks,
    reading_marks,
)
from cumulant.data.spec import SourceSpec, is_delay
from cumulant.data.unique import UniqueSet, first_times, repeats_of, unique_sets
from cumulant.ports.tables import TableStore

if TYPE_CHECKING:
    from cumulant.data.packs import Pack, PackFacts

RULE, POSITION = "__rule", "__row"
#: the rule that a CSV row with another number of fields than the header breaks
MALFORMED = "row:fields"
_CSV_SAMPLE = 5000


class PartField(msgspec.Struct, frozen=True, kw_only=True):
    """A column of a part. `empty`: it holds only nulls, so its type says nothing. `guessed`: from text. `padded`: the
    digits of its longest number with leading zeros, where it is read as numbers.
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
    """All that a snapshot must know of a part, so that reusing it reads no rows.

    `first`: its rows begin there in a table that holds those of several files (a pack); None: the table is its own.
    Then `refused_rules` counts its refused rows by rule, and `profile` holds counts and extremes only.
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

    @property
    def rows_refused(self) -> int:
        return sum(ref.rows for ref in self.refused) + sum((self.refused_rules or {}).values())


Facts = TypeVar("Facts", PartFacts, "PackFacts")


@dataclass(frozen=True)
class Workshop:
    """What turns the files of one source into parts."""

    source: str
    spec: SourceSpec
    tables: TableStore
    prepare: Prepare | None = None
    rule_compiler: RuleCompiler | None = None
    #: facts of parts that were read, and packs that were read or made
    held: dict[str, PartFacts] = field(default_factory=dict)
    packs: dict[str, Pack] = field(default_factory=dict)

    def key(self, digest: str, what: str) -> str:
        return f"data/{self.source}/{digest}/{what}"

    def stored(self, digest: str) -> PartFacts | None:
        """The facts of a part that stands whole, or None."""
        if digest not in self.held and (facts := self.recorded(digest, PartFacts)) is not None:
            self.held[digest] = facts
        return self.held.get(digest)

    def recorded(self, digest: str, kind: type[Facts]) -> Facts | None:
        """The facts of a part or pack whose tables all stand, or None."""
        key = self.key(digest, "facts")
        if self.tables.find(key) is None:
            return None
        facts: Facts = msgspec.json.decode(self.tables.scan(key).collect().item(0, "json"), type=kind)
        whole = all(self.tables.find(ref.key) is not None for ref in (facts.rows, *facts.refused))
        return facts if whole else None

    def rows(self, part: PartFacts) -> pl.LazyFrame:
        """The accepted rows of a part."""
        rows = self.tables.scan(part.rows)
        return rows if part.first is None else rows.slice(part.first, part.rows.rows)

    def make(self, digest: str, table: Table, *, url: str, guessed: bool) -> PartFacts:
        """Prepare, read, check and store the rows of one file. `guessed`: its types were inferred from text.

        Malformed rows are refused, and not shown to `prepare`.

        Raises:
            DataError: the file lacks a declared column, or its values have no place in a table.
            DefinitionError: `prepare` is not row-wise, or a rule cannot be applied.
            UserCodeError: `prepare` raised.
            StorageError: the parts cannot be written.
        """
        raw = table.rows
        if not raw.height:
            return self._empty(digest, raw)
        rows = self._prepared(raw)
        check_columns(self.spec, rows.columns, source=self.source, url=url)
        sorted_out = sort_out(rows, self)
        guesses = {*rows.columns} if guessed else table.partitions
        fields = part_fields(sorted_out, self.spec, guesses)
        unread = shape_refused(table)
        refused = {"refused": sorted_out.refused, **unread}
        written = self.tables.write(self.key(digest, "rows"), sorted_out.passed)
        facts = PartFacts(
            digest=digest,
            rows_in=raw.height + sum(frame.height for frame in unread.values()),
            rows_dropped=raw.height - rows.height,
            rows=written,
            refused=tuple(
                self.tables.write(self.key(digest, place), frame) for place, frame in refused.items() if frame.height
            ),
            fields=fields,
            checks=(*sorted_out.checks, *shape_checks(table, self.spec)),
            profile=profile(sorted_out.passed, plain_fields(fields, self.spec)),
            csv_bytes=csv_size(sorted_out.passed),
        )
        self.record(facts)
        return facts

    def record(self, facts: PartFacts | PackFacts) -> None:
        text = msgspec.json.encode(facts).decode()
        self.tables.write(self.key(facts.digest, "facts"), pl.DataFrame({"json": [text]}))

    def _prepared(self, raw: pl.DataFrame) -> pl.DataFrame:
        rows = self.prepared(raw)
        if self.prepare is not None:
            check_row_wise(self.prepare, raw, rows, name=self.prepare.name)
        return rows

    def prepared(self, raw: pl.DataFrame) -> pl.DataFrame:
        """What `prepare` makes of rows; whether it treats them one by one is for the caller to check."""
        return raw if self.prepare is None else self.prepare(raw)

    def _empty(self, digest: str, raw: pl.DataFrame) -> PartFacts:
        """A file with a header and no rows says nothing about columns and is not shown to `prepare`."""
        facts = PartFacts(
            digest=digest,
            rows_in=0,
            rows_dropped=0,
            rows=self.tables.write(self.key(digest, "rows"), raw.select(pl.all().cast(pl.String, strict=False))),
            refused=(),
            fields=(),
            checks=(),
            profile=Profile(0),
            csv_bytes=0,
        )
        self.record(facts)
        return facts


def shape_refused(table: Table) -> dict[str, pl.DataFrame]:
    """The rows that were refused before they were read: by their fields, and by declared paths."""
    found = {}
    if table.malformed is not None:  # nobody can say which of their values belongs to which column
        found["malformed"] = table.malformed.select(pl.lit(MALFORMED).alias(RULE), POSITION, pl.exclude(POSITION))
    if table.refused is not None:
        found["paths"] = table.refused
    return found


def shape_checks(table: Table, spec: SourceSpec) -> list[PartCheck]:
    """The checks of `shape_refused`."""
    checks = []
    if table.malformed is not None:
        text = f"each row has the {table.malformed.width - 2} fields of the header"
        checks.append(PartCheck(rule=MALFORMED, column=None, text=text, failed=table.malformed.height))
    if table.refused is not None:
        rules = table.refused[RULE].to_list()
        for rule in dict.fromkeys(rules):
            name, _, kind = rule.rpartition(":")
            path = f"{name} is a plain value or missing at {spec.columns.get(name)}"
            text = path if kind == "path" else f"{name} holds no error, and no formula without a stored value"
            checks.append(PartCheck(rule=rule, column=name, text=text, failed=rules.count(rule)))
    return checks


@dataclass(frozen=True)
class SortedOut:
    casts: list[Cast]
    passed: pl.DataFrame
    refused: pl.DataFrame
    checks: tuple[PartCheck, ...]
    #: digits of the longest text with leading zeros, of columns that are read as numbers
    padded: Mapping[str, int | None]
    #: of each row the rule that refuses it, and whether it fails each of `checks` that is no repeat
    rule: pl.Series
    marks: pl.DataFrame


def sort_out(rows: pl.DataFrame, shop: Workshop, owners: pl.Series | None = None) -> SortedOut:
    """Split rows into passed ones, under their final types, and refused ones with `__rule` and `__row`.

    `owners`: the file of each row, where they are of several; values may come once in each.
    """
    plan = casts(rows.schema, numbers_meant(rows, shop.spec), shop.source)
    widths = {cast.name: padded_width(rows[cast.name].str.strip_chars()) for cast in plan if cast.merging is not None}
    # The look for numbers that merge is costly, and idle where no text has leading zeros.
    plan = [replace(cast, merging=None) if widths.get(cast.name) is None else cast for cast in plan]
    reading = reading_checks(plan)
    checks = compile_rules(shop.spec, plan, source=shop.source, rule_compiler=shop.rule_compiler)
    checks = without_deletions(checks, shop.spec, {cast.name: cast.dtype for cast in plan}, shop.source)
    names = [cast.name for cast in plan]
    every = [*reading, *checks]
    typing = rows.lazy().select([cast.expr for cast in plan] + reading_marks(plan))
    check_conditions(checks, typing.select(names).head(0).collect(), source=shop.source)
    # one pass over the part: types, then every rule on the typed columns
    marked = _computed(typing.with_columns(_marks(every)), shop)
    _refuse_local_times(plan, marked, every, shop.source, owners)
    _refuse_aggregates(marked, every, shop.source)
    marks = [f"__mark{index}" for index in range(len(every))]
    failed = [int(marked[mark].sum()) for mark in marks]
    rule = marked.select(_first_rule(every, marks)).to_series()
    typed = _with_decimals(marked.select(names), rows, plan)
    found = [
        PartCheck(rule=check.rule, column=check.column, text=check.text, failed=count)
        for check, count in zip(every, failed, strict=True)
    ]
    # Which row of several keys has a unique value first, one part cannot say.
    for unique in unique_sets(shop.spec, names) if shop.spec.on_repeat != "latest" else ():
        rule, repeats = _mark_repeats(typed, rule, unique, shop.spec, owners)
        found.append(PartCheck(rule=unique.rule, column=unique.column, text=unique.text, failed=repeats))
    passed = typed.filter(rule.is_null()) if rule.null_count() != rule.len() else typed
    refused = _refused(rows, typed, rule, marked, reading)
    return SortedOut(plan, passed, refused, tuple(found), widths, rule, marked.select(marks))


def _with_decimals(typed: pl.DataFrame, rows: pl.DataFrame, plan: Sequence[Cast]) -> pl.DataFrame:
    """Decimals as they came: rules and profiles go by floats, keys and what is stored by all digits."""
    exact = [cast.name for cast in plan if cast.dtype == "float" and rows.schema[cast.name].is_decimal()]
    return typed.with_columns(rows.select(exact).get_columns())


def _computed(frame: pl.LazyFrame, shop: Workshop) -> pl.DataFrame:
    try:
        return frame.collect()
    except pl.exceptions.PolarsError as error:  # its text may quote values
        raise DefinitionError(
            f"source {shop.source}: a condition fails on some rows ({type(error).__name__})",
            subject=shop.source,
            hint=f"look for casts in: {'; '.join(shop.spec.table.where) or 'the rules'}",
        ) from error


def _refuse_aggregates(marked: pl.DataFrame, checks: Sequence[RowCheck], source: str) -> None:
    """A condition that looks at other rows (an average, a rank) judges a sample otherwise than all rows."""
    sample = marked.gather_every(max(marked.height // SAMPLE, 1)).head(max(marked.height // 2, 1))
    for index, check in enumerate(checks):
        mark = f"__mark{index}"
        alone = check.failing.fill_null(value=False)
        if check.column is None and not sample.select((alone == pl.col(mark)).all()).item():
            raise DefinitionError(
                f"source {source}: the condition `{check.text}` looks at other rows",
                subject=check.text,
                hint="compare columns of one row; what needs other rows is a feature",
            )


def _marks(checks: Sequence[RowCheck]) -> list[pl.Expr]:
    return [check.failing.fill_null(value=False).alias(f"__mark{index}") for index, check in enumerate(checks)]


def _first_rule(checks: Sequence[RowCheck], marks: Sequence[str]) -> pl.Expr:
    """The name of the first rule that a row fails; null for a row that passes."""
    if not checks:
        return pl.lit(None, pl.String).repeat_by(pl.len()).explode().alias(RULE)
    choices = [pl.when(mark).then(pl.lit(check.rule)) for check, mark in zip(checks, marks, strict=True)]
    return pl.coalesce(choices).alias(RULE)


def _refuse_local_times(
    plan: Sequence[Cast], marked: pl.DataFrame, checks: Sequence[RowCheck], source: str, owners: pl.Series | None
) -> None:
    """Stop where no time of a column, in one file, has a zone; single ones without are refused as rows."""
    for index, check in enumerate(checks):
        if check.rule.endswith(":zone") and check.column is not None:
            owner = pl.lit(0) if owners is None else owners
            local, valid = pl.col(f"__mark{index}").sum(), pl.col(check.column).is_not_null().sum()
            counts = marked.group_by(owner.alias("__owner")).agg(local.alias("local"), valid.alias("valid"))
            if counts.filter((pl.col("local") > 0) & (pl.col("local") == pl.col("valid"))).height:
                refuse_zoneless(next(cast for cast in plan if cast.name == check.column), source)


def _mark_repeats(
    typed: pl.DataFrame, rule: pl.Series, unique: UniqueSet, spec: SourceSpec, owners: pl.Series | None
) -> tuple[pl.Series, int]:
    index, known = pl.int_range(pl.len()).alias("index"), first_times(spec)
    owner = [] if owners is None else [owners.alias("__owner")]
    rows = typed.lazy().select(*dict.fromkeys([*unique.columns, *known]), *owner, index).filter(rule.is_null())
    if known:
        rows = rows.sort(pl.max_horizontal(known), "index", nulls_last=True)
    named = (*unique.columns, *(one.name for one in owner))
    positions = rows.filter(repeats_of(named, spec)).select("index").collect().to_series()
    if not positions.len():
        return rule, 0
    return rule.scatter(positions, unique.rule), positions.len()


def _refused(
    rows: pl.DataFrame, typed: pl.DataFrame, rule: pl.Series, marked: pl.DataFrame, reading: Sequence[RowCheck]
) -> pl.DataFrame:
    """The refused rows; values that could not be read stay as they came, as text, so nothing is lost."""
    bad = rule.is_not_null()
    if not bad.any():
        return typed.head(0)
    kept = typed.filter(bad)
    lost = {check.column for index, check in enumerate(reading) if marked[f"__mark{index}"].any()}
    texts = [pl.col(name).cast(pl.String, strict=False) for name in typed.columns if name in lost]
    positions = pl.int_range(rule.len(), eager=True).filter(bad)
    return kept.with_columns(rows.filter(bad).select(texts).get_columns() if texts else []).select(
        rule.filter(bad).alias(RULE), positions.cast(pl.Int64).alias(POSITION), *typed.columns
    )


def declared_types(spec: SourceSpec) -> set[str]:
    """Columns whose type is declared."""
    declared = {name for name, rule in spec.rules.items() if rule.type is not None}
    declared |= {spec.time.column} if spec.time else set()
    return declared | {when for when in spec.known_time if not is_delay(when)}


def part_fields(found: SortedOut, spec: SourceSpec, guesses: Collection[str]) -> tuple[PartField, ...]:
    declared, height = declared_types(spec), found.passed.height
    return tuple(
        PartField(
            name=cast.name,
            dtype=cast.dtype,
            zone=cast.zone,
            empty=cast.name not in declared and (cast.empty or found.passed[cast.name].null_count() == height),
            guessed=cast.name in guesses and cast.name not in declared,
            padded=found.padded.get(cast.name),
        )
        for cast in found.casts
    )


def plain_fields(fields: Sequence[PartField], spec: SourceSpec) -> list[Field]:
    """The columns of a part as the language of plans has them."""
    return [
        Field(name=field.name, dtype=field.dtype, personal=field.name in spec.personal, zone=field.zone)
        for field in fields
    ]


def csv_size(frame: pl.DataFrame) -> int:
    """Bytes that `frame` would take as CSV with short ISO times, measured on evenly spaced rows."""
    if not frame.height:
        return 0
    sample = frame.gather_every(max(frame.height // _CSV_SAMPLE, 1)).select(pl.exclude(pl.Binary))
    text = sample.write_csv(datetime_format="%Y-%m-%dT%H:%M:%SZ", include_header=False)
    return round(len(text.encode()) * frame.height / sample.height)
