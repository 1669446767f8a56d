"""Parts of files that are read in pieces: the same as of the whole file, in bounded memory.

Each piece is prepared and checked under one plan; passed rows are spilled, repeats of keys are searched there.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

import msgspec
import polars as pl

from cumulant.core.errors import CumulantError
from cumulant.core.plan import Field
from cumulant.data.files.file_pieces import PieceError, Pieces
from cumulant.data.parts.group_repeats import find_repeats
from cumulant.data.parts.part import PartCheck, PartContext, PartFacts
from cumulant.data.parts.part_making import (
    csv_size,
    misshapen_rows,
    part_fields,
    plain_fields,
    prepare_rows,
    shape_checks,
)
from cumulant.data.parts.row_sorting import (
    RowPlan,
    check_rows,
    count_failures,
    plan_rows,
    refuse_local_times,
    refused_frame,
    unread_columns,
)
from cumulant.data.parts.spill import Spill, spill_in
from cumulant.data.profile import TOP, ColumnProfile, Profile, merge, profile
from cumulant.data.row_columns import ROW, RULE
from cumulant.data.rules.row_checks import check_columns
from cumulant.data.rules.unique import UniqueSet, ordering_times, unique_sets
from cumulant.data.text.casts import column_casts, numeric_texts, texts_with_limits, with_numbers
from cumulant.data.text.csv_text import FileTable
from cumulant.data.text.identifier_text import padded_width
from cumulant.statistics.cardinality import DistinctCount

_KNOWN = "__known"


def build_part_in_pieces(context: PartContext, digest: str, pieces: Pieces, *, url: str) -> PartFacts | None:
    """The part of a file's pieces; None where only the whole file decides a type, or has a refused row's texts.

    Raises:
        DataError, DefinitionError, UserCodeError, StorageError: as `part_making.build_part`.
    """
    try:
        return _build_part(context, digest, pieces, url=url)
    except PieceError:
        return None
    except CumulantError:
        if pieces.may_fail and _has_unreadable_piece(pieces):  # which is raised first where the whole is read
            return None
        raise


def _has_unreadable_piece(pieces: Pieces) -> bool:
    try:
        for _ in pieces.tables():
            pass
    except PieceError:
        return True
    return False


def _build_part(context: PartContext, digest: str, pieces: Pieces, *, url: str) -> PartFacts | None:
    schema = _prepared_types(pieces, context)
    if schema is None:
        return None
    prepares = _PreparedPieces(pieces, context, schema)
    check_columns(context.spec, list(schema), source=context.source, url=url)
    plan = _plan(prepares, schema, context)
    if plan is None:
        return None
    guesses = set(schema) if context.prepare and pieces.guessed else pieces.guessed
    part = _check_pieces(prepares, plan, frozenset(), digest, guesses)
    if isinstance(part, frozenset):  # refused rows of every piece keep the texts of these columns
        part = _check_pieces(prepares, plan, part, digest, guesses)
    if not isinstance(part, PartFacts):
        return None
    context.record(part)
    return part


def _check_pieces(
    prepares: _PreparedPieces, plan: RowPlan, unread: frozenset[str], digest: str, guesses: Collection[str]
) -> PartFacts | frozenset[str] | None:
    """The part, or the columns with a value of another type where `unread` lacks them; None where rows repeat."""
    context = prepares.context
    with spill_in(context.budget.scratch) as spill:
        part = _Part(context, plan, spill, unread)
        for table, rows in prepares.pieces():
            part.add(table, rows)
        if not part.unread_so_far <= unread:
            return frozenset(part.unread_so_far)
        refuse_local_times(plan, part.local_times(), context.source)
        return part.store(digest, guesses=guesses)


def _prepared_types(pieces: Pieces, context: PartContext) -> dict[str, pl.DataType] | None:
    """The types of the columns that `prepare` makes of all pieces; None where pieces have incompatible types."""
    if not context.prepare:
        return dict(pieces.schema)
    types: dict[str, pl.DataType] = {}
    for table in pieces.tables():
        schema = context.apply_prepare(table.rows).schema
        if types and schema.keys() != types.keys():
            return None
        for name, dtype in schema.items():
            wider = _wider_type(types.get(name, dtype), dtype)
            if wider is None:
                return None
            types[name] = wider
    return types


def _wider_type(before: pl.DataType, dtype: pl.DataType) -> pl.DataType | None:
    if before in (dtype, pl.Null()):
        return dtype
    if dtype == pl.Null() or (before == pl.Float64() and dtype.is_integer()):
        return before
    return dtype if dtype == pl.Float64() and before.is_integer() else None


class _PreparedPieces:
    """The pieces as `prepare` makes them, under one set of types."""

    def __init__(self, pieces: Pieces, context: PartContext, schema: dict[str, pl.DataType]) -> None:
        self._pieces, self.context, self._schema = pieces, context, schema

    def pieces(self) -> Iterator[tuple[FileTable, pl.DataFrame]]:
        """Each piece as read, and its prepared rows."""
        for table in self._pieces.tables():
            yield table, prepare_rows(table.rows, self.context).cast(self._schema)  # type: ignore[arg-type]


def _plan(prepares: _PreparedPieces, schema: dict[str, pl.DataType], context: PartContext) -> RowPlan | None:
    """How the file is read, as `sort_rows` has it; None where numbers with leading zeros must be compared by value."""
    limited = texts_with_limits(schema, context.spec)
    spec, merging = (
        context.spec,
        [cast.name for cast in column_casts(schema, context.spec, context.source) if cast.merging is not None],
    )
    if limited or merging:
        counts: dict[str, Counter[str]] = {name: Counter() for name in limited}
        for _, rows in prepares.pieces():
            for name in limited:
                counts[name] += numeric_texts(rows, name)
            if any(padded_width(rows[name].str.strip_chars()) is not None for name in {*limited, *merging}):
                return None
        spec = with_numbers(spec, counts)
    return plan_rows(column_casts(schema, spec, context.source), {}, context)


@dataclass
class _Part:
    """What is known of the pieces so far; their rows are in `spill`."""

    context: PartContext
    plan: RowPlan
    spill: Spill
    #: columns with a value that cannot be read as its type: those that are known of, and those of the pieces so far
    unread: frozenset[str]
    unread_so_far: set[str] = field(default_factory=set)
    rows_in: int = 0
    files: int = 0
    dropped: int = 0
    csv_bytes: int = 0
    failed: Counter[int] = field(default_factory=Counter)
    shapes: dict[str, PartCheck] = field(default_factory=dict)
    local: list[pl.DataFrame] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)
    profiles: list[Profile] = field(default_factory=list)
    distinct: dict[str, DistinctCount] = field(default_factory=lambda: defaultdict(DistinctCount))
    refused: dict[object, list[str]] = field(default_factory=dict)
    position: int = 0

    @property
    def fields(self) -> list[Field]:
        return plain_fields(self.plan.casts, self.context.spec)

    def add(self, table: FileTable, rows: pl.DataFrame) -> None:
        misshapen = misshapen_rows(table)
        self.rows_in += table.rows.height + sum(frame.height for frame in misshapen.values())
        self.dropped += table.rows.height - rows.height
        for check in shape_checks(table, self.context.spec):
            before = self.shapes[check.rule].failed if check.rule in self.shapes else 0
            self.shapes[check.rule] = msgspec.structs.replace(check, failed=before + check.failed)
        checked = check_rows(rows, self.plan, self.context)
        failed = checked.failed(self.plan)
        self.failed.update(dict(enumerate(failed)))
        self.local.append(checked.local_times(self.plan))
        self.unread_so_far |= unread_columns(self.plan, failed)
        refused = refused_frame(rows, checked.typed, checked.rule, self.unread)
        if refused.height:
            self._refuse(refused.with_columns(pl.col(ROW) + self.position))
        for frame in misshapen.values():
            self._refuse(frame)
        position = pl.int_range(self.position, self.position + rows.height, dtype=pl.Int64, eager=True)
        passed = checked.typed.with_columns(position.alias(ROW)).filter(checked.rule.is_null())
        self.position += rows.height
        self._pass(passed)

    def _pass(self, passed: pl.DataFrame) -> None:
        """Set aside rows that pass, with their positions."""
        self.files += 1
        self.passed.append(f"passed-{self.files}")
        self.spill.write(self.passed[-1], passed)

    def _refuse(self, frame: pl.DataFrame) -> None:
        """Refused rows, set aside by their columns and types."""
        names = self.refused.setdefault(tuple(frame.schema.items()), [])
        names.append(f"refused-{sum(map(len, self.refused.values()))}")
        self.spill.write(names[-1], frame)

    def local_times(self) -> pl.DataFrame:
        counts = pl.concat(self.local)
        return counts.group_by("owner", "column", maintain_order=True).sum()

    def store(self, digest: str, *, guesses: Collection[str]) -> PartFacts | None:
        """The facts of the stored part; None where rows repeat and their texts are needed."""
        checks = count_failures(self.plan, [self.failed[index] for index in range(len(self.plan.checks))])
        repeats = self._without_repeats()
        if self.unread and any(check.failed for check in repeats):
            return None
        checks += repeats
        rows = self.context.write(digest, "rows", self._frames())
        merged = self._profile()
        nulls = {column.name: column.nulls for column in merged.columns}
        return PartFacts(
            digest=digest,
            rows_in=self.rows_in,
            rows_dropped=self.dropped,
            rows=rows,
            refused=tuple(
                self.context.write(digest, f"refused-{number}", (self.spill.read(name) for name in names))
                for number, names in enumerate(self.refused.values())
            ),
            fields=part_fields(self.plan, nulls, merged.rows, self.context.spec, guesses),
            checks=(*checks, *sorted(self.shapes.values(), key=lambda shape: shape.column is not None)),
            profile=merged,
            csv_bytes=self.csv_bytes,
        )

    def _frames(self) -> Iterator[pl.DataFrame]:
        frames = (self.spill.read(name).drop(ROW) for name in self.passed)
        empty = True
        for frame in frames:
            if frame.height:
                empty = False
                yield frame
        if empty:
            yield self.spill.read(self.passed[0]).drop(ROW)

    def _profile(self) -> Profile:
        """The profile of the rows that pass; distinct values are counted in all pieces together."""
        for file in self.passed:
            passed = self.spill.read(file).drop(ROW)
            self.profiles.append(profile(passed, self.fields))
            self.csv_bytes += csv_size(passed)
            for name in self.plan.names:
                self.distinct[name].add(passed[name].drop_nulls().hash().to_numpy())
        merged = merge(self.profiles, self.fields)
        return Profile(merged.rows, tuple(self._described(column) for column in merged.columns))

    def _described(self, column: ColumnProfile) -> ColumnProfile:
        top = column.top
        if column.dtype == "int":  # of which only columns of few values have their most frequent ones counted
            pieces = [own for own in (piece[column.name] for piece in self.profiles) if own.nulls < own.rows]
            values = {item.value for own in pieces for item in own.top}
            top = top if all(own.top for own in pieces) and len(values) <= TOP else ()
        return msgspec.structs.replace(column, distinct=self.distinct[column.name].estimate(), top=top)

    def _without_repeats(self) -> list[PartCheck]:
        """Take out the rows whose key or unique value came before, with a check for each rule."""
        checks = []
        for unique in (
            unique_sets(self.context.spec, self.plan.names) if self.context.spec.on_repeat != "latest" else ()
        ):
            positions = self._repeats(unique)
            if positions.len():
                self._take_out(positions, unique.rule)
            checks.append(PartCheck(rule=unique.rule, column=unique.column, text=unique.text, failed=positions.len()))
        return checks

    def _repeats(self, unique: UniqueSet) -> pl.Series:
        known = ordering_times(self.context.spec)
        first = [pl.max_horizontal(known).alias(_KNOWN)] if known else []

        def frames() -> Iterator[pl.DataFrame]:
            for name in self.passed:
                yield self.spill.scan(name).select(*unique.columns, *first, ROW).collect()

        repeats = find_repeats(
            frames,
            unique.columns,
            [*([_KNOWN] if known else []), ROW],
            self.context.spec,
            rows=self.position,
            budget=self.context.budget,
            in_order=not known,
        )
        return repeats[ROW].sort()

    def _take_out(self, positions: pl.Series, rule: str) -> None:
        """Move the rows at these positions, which are in order, to the refused ones."""
        gone, names = positions.to_frame(), self.passed
        self.passed = []
        for name in names:
            rows = self.spill.read(name)
            refused = rows.join(gone, on=ROW, how="semi", maintain_order="left")
            if not refused.height:
                self.passed.append(name)
                continue
            self.spill.delete([name])
            self._refuse(refused.select(pl.lit(rule).alias(RULE), ROW, pl.exclude(ROW)))
            self._pass(rows.join(gone, on=ROW, how="anti", maintain_order="left"))
