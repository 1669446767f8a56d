"""What a first project takes for granted about a table: which columns the model may use, and why not the rest."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import DataError, DefinitionError, UsageError, did_you_mean, join_names
from cumulant.core.expr import Column, Node, columns
from cumulant.project.new.calendar_parts import CalendarPart, calendar_parts
from cumulant.project.new.elapsed_days import Elapsed, elapsed_days
from cumulant.project.new.leak_notes import leak_notes
from cumulant.project.new.leaks import gives_away, missing_predicts
from cumulant.project.new.plain_columns import as_plain, nested
from cumulant.project.new.target_notes import MOST_CLASSES, rare_note, target_note, with_classes

if TYPE_CHECKING:
    import polars as pl

    from cumulant.data.spec import SourceSpec

#: text with more values than this share of the rows is a name or a remark, not a category
_VARIOUS = 0.5
_FEW_ROWS = 50
#: a column with this share of different values is taken for an identifier; by its name, or in a table of many rows
_NEARLY_ALL, _NEARLY_ALL_OF_AN_ID, _MANY_ROWS = 0.999, 0.9, 1000
_ID_WORDS = frozenset({"id", "uuid", "guid"})
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
#: a repeated key goes to quarantine, of which a source may hold this share before the run stops
_QUARANTINE = 0.01
_READABLE = 0.9
_LISTED = 8
_A_TIME = "a time; derive numbers from it in features.py"
_TELLING = "missing values predict the target"


class Inspection(msgspec.Struct, frozen=True):
    """The proposed source, the columns that become features, and every assumption as one sentence.

    nested: columns that the source's `prepare` leaves out, since they hold no plain values.
    calendar: features that are parts of the event time. elapsed: features that are days from another time to it.
    """

    spec: SourceSpec
    features: tuple[str, ...]
    notes: tuple[str, ...]
    nested: tuple[str, ...] = ()
    calendar: tuple[CalendarPart, ...] = ()
    elapsed: tuple[Elapsed, ...] = ()


def inspect_table(
    raw: pl.DataFrame,
    *,
    path: str,
    target: str,
    time: str | None,
    key: Sequence[str],
    known: SourceSpec | None = None,
    quoted: Collection[str] = (),
    whole: bool = True,
) -> Inspection:
    """Look at a table as it was read, and decide.

    `target` is a column, or an expression over columns, which then are no features. `known` is what had to be
    found out to read the table (a separator, an encoding), `quoted` are columns of text whose digits are in quotes.
    `whole`: the table has all rows that there are, so that its values of a class are all of them.

    Raises:
        DataError: no such column, no rows, a target with one value or none, a time that cannot be read.
        UsageError: a key that repeats too often, a target that is named as time or key, or no feature is left.
    """
    from cumulant.data.proposal.proposal import infer

    node = _named(raw, target, time, key)
    column = node.name if isinstance(node, Column) else None
    # Too many values for classes are amounts, whatever the quotes around them.
    quoted = [name for name in quoted if name != column or raw[name].n_unique() <= MOST_CLASSES]
    proposal = infer(raw, path=path, time=time, key=key, target=column, quoted=quoted, rules=False)
    spec = proposal.spec
    if known is not None:
        spec = msgspec.structs.replace(
            spec, separator=known.separator, encoding=known.encoding, columns=known.columns, sheet=known.sheet
        )
    spec, assumed = as_plain(raw, spec)
    rows = _typed(raw, spec, time)
    label = _label(rows, node, target)
    notes = [
        *proposal.notes,
        *assumed,
        target_note(label, target),
        *rare_note(label, target, timed=spec.time is not None),
    ]
    if column is not None:
        spec, classes = with_classes(spec, label, column, whole=whole)
        notes += classes
    if shown := sorted(columns(node) & set(spec.personal)):
        # A personal column can be no target, and only its name said that it is one.
        spec = msgspec.structs.replace(spec, personal=[name for name in spec.personal if name not in shown])
        notes.append(f"not kept as personal, because the target is made of it: {', '.join(shown)}")
    if spec.time is not None and column is not None:
        known_at = next((name for name in proposal.later if name != column), "7d")
        when = "it is known later" if known_at == "7d" else f"it is known at {known_at}"
        notes.append(
            f'the target "{column}" counts as known with its row; if {when}, say so: '
            f"known_time: {{{known_at}: [{column}]}}"
        )
    if key:
        notes += _key_notes(rows, tuple(key))
    left_out = _left_out(rows, spec, label, node)
    features = tuple(name for name in rows.columns if name not in left_out and name != column)
    unusable = {*columns(node), *spec.personal}
    moment = None if spec.time is None or spec.time.column in unusable else spec.time.column
    calendar, calendar_notes = calendar_parts(
        rows, moment, zoneless=spec.time is not None and spec.time.zone is not None
    )
    elapsed = elapsed_days(rows, moment, [name for name, reason in left_out.items() if reason == _A_TIME], label)
    left_out = {
        name: _TELLING if reason == _A_TIME and missing_predicts(rows[name], label) else reason
        for name, reason in left_out.items()
        if name not in {pair.since for pair in elapsed}
    }
    if not (features or calendar or elapsed):
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(left_out.items())[:_LISTED])
        raise UsageError(
            "no column is left that a model could use",
            subject=path,
            hint=f"left out were {reasons}" if reasons else "the table has no column beside the target",
        )
    label_parts = {target: label} | {name: rows[name] for name in sorted(columns(node))}
    notes += [text for name, values in label_parts.items() for text in leak_notes(rows, features, values, name)]
    notes += [*_grouped(left_out), *_identifiers(rows, features, timed=spec.time is not None)]
    notes += [
        f"days from {pair.since} to {pair.column} are the feature {pair.feature}: in none of {rows.height:,} rows is "
        f"{pair.since} later than {pair.column}"
        for pair in elapsed
    ]
    return Inspection(spec, features, (*notes, *calendar_notes), tuple(nested(raw.schema)), calendar, elapsed)


def _named(raw: pl.DataFrame, target: str, time: str | None, key: Sequence[str]) -> Node:
    """Refuse names that are no columns; the target as a tree."""
    for column in raw.columns:
        if column.startswith("__"):
            raise DataError(
                f'column "{column}" starts with two underscores, which Cumulant keeps for itself',
                subject=column,
                hint="give it another name in the data",
            )
    for option, name in (("--time", time), *(("--key", name) for name in key)):
        if name is not None and name not in raw.columns:
            raise _no_column(option, name, raw.columns)
    if len(set(key)) != len(key):
        raise UsageError("--key names a column twice", subject=", ".join(key))
    node = _target(raw, target)
    for role, names in (("time", [time]), ("key", key)):
        if isinstance(node, Column) and node.name in names:
            raise UsageError(f'"{target}" is the target and cannot be the {role} too', subject=target)
    return node


def _target(raw: pl.DataFrame, target: str) -> Node:
    from cumulant.features.definition.parsing import parse, with_quoted_columns

    if target in raw.columns:
        return Column(target)
    if target.isidentifier():
        raise _no_column("--target", target, raw.columns)
    try:
        node = parse(target, columns=raw.columns)
    except DefinitionError as error:
        written = with_quoted_columns(target, raw.columns)
        near = did_you_mean(target, raw.columns) or _alike(target, raw.columns) or error.hint
        raise DataError(
            f'the target "{target}" is neither a column nor an expression over columns: {error.message}',
            subject=target,
            hint=near if written is None else f"write: {written}",
        ) from None
    if not columns(node):
        raise DataError(f'the target "{target}" reads no column', subject=target, hint="name one: delay > 15")
    return node


def _no_column(option: str, name: str, known: Sequence[str]) -> DataError:
    near = did_you_mean(name, known) or _alike(name, known)
    listed = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
    return DataError(
        f'there is no column "{name}", which {option} names', subject=name, hint=near or f"columns: {listed}"
    )


def _alike(name: str, columns: Sequence[str]) -> str | None:
    """The column of the same name but for case and blanks around it, else the only one with the name inside."""
    plain = name.strip().lower()
    same = [column for column in columns if column.strip().lower() == plain]
    inside = [column for column in columns if plain and plain in column.lower()]
    near = same[:1] or (inside if len(inside) == 1 else [])
    return f'did you mean "{near[0]}"?' if near else None


def _typed(raw: pl.DataFrame, spec: SourceSpec, time: str | None) -> pl.DataFrame:
    """The rows under the proposed types; columns that no table can hold are dropped."""
    from cumulant.data.text.casts import column_casts, natural_type

    plain = raw.select([name for name, dtype in raw.schema.items() if natural_type(dtype) is not None])
    rows = plain.select([cast.expr for cast in column_casts(plain.schema, spec, spec.path)])
    if time is not None:
        lost = rows[time].null_count() - raw[time].null_count()
        if lost > (1 - _READABLE) * max(raw.height, 1):
            raise DataError(
                f'column "{time}" is not a time: {lost:,} of {raw.height:,} values cannot be read as one',
                subject=time,
                hint="times are written as ISO 8601, 2013-04-01T06:00:00Z; others can be made in `prepare`",
            )
    return rows


def _label(rows: pl.DataFrame, node: Node, target: str) -> pl.Series:
    """The target's values."""
    from cumulant.features.offline.polars_compiler import evaluate

    if isinstance(node, Column) and node.name not in rows.columns:
        raise DataError(f'the target "{target}" holds lists or structs', subject=target, hint="take it apart first")
    try:
        return evaluate(node, rows)
    except DefinitionError as error:
        problem = f'the target "{target}" cannot be computed: {error.message}'
        raise DataError(problem, subject=target, hint=error.hint) from None


def _key_notes(rows: pl.DataFrame, key: tuple[str, ...]) -> list[str]:
    repeats = rows.height - rows.select(key).unique().height
    named = ", ".join(key)
    if repeats > _QUARANTINE * rows.height:
        raise UsageError(
            f"{named} does not identify a row: {repeats:,} of {rows.height:,} rows repeat an earlier one",
            subject=named,
            hint="name all columns of the key, --key A --key B, or leave it out",
        )
    return [f"{repeats:,} rows repeat {named} and will go to quarantine"] if repeats else []


def _left_out(rows: pl.DataFrame, spec: SourceSpec, label: pl.Series, target: Node) -> dict[str, str]:
    """Column to the reason why it is no feature, in the order of the table."""
    reasons = {}
    for name in rows.columns:
        if isinstance(target, Column) and name == target.name:
            continue
        reason = "the target is made from it" if name in columns(target) else None
        reason = (
            reason
            or (None if name.strip() else "has no name")
            or _role(name, spec)
            or _emptiness(rows[name])
            or _leak(rows[name], label)
            or _form(rows[name])
        )
        if reason is not None:
            reasons[name] = reason
    return reasons


def _role(name: str, spec: SourceSpec) -> str | None:
    if spec.keys == (name,):  # of a key of several columns each may well tell something
        return "identifies the row"
    if spec.time is not None and name == spec.time.column:
        return "the time of the event"
    return "personal" if name in spec.personal else None


def _emptiness(values: pl.Series) -> str | None:
    if values.null_count() == values.len():
        return "empty in every row"
    return "the same in every row" if values.n_unique() == 1 else None


def _leak(values: pl.Series, label: pl.Series) -> str | None:
    return "alone determines the target, which a prediction cannot know" if gives_away(values, label) else None


def _form(values: pl.Series) -> str | None:
    import polars as pl

    if isinstance(values.dtype, (pl.Datetime, pl.Date)):
        return _A_TIME
    if isinstance(values.dtype, pl.Binary):
        return "bytes"
    if values.len() < _FEW_ROWS:
        return None
    if isinstance(values.dtype, pl.String) and values.drop_nulls().n_unique() > _VARIOUS * values.len():
        return _nearly_key(values) or "text that is different in most rows"
    if isinstance(values.dtype, pl.Int64) and _counts(values):
        return "numbers the rows"
    return _nearly_key(values) if isinstance(values.dtype, (pl.Int64, pl.String)) else None


def _nearly_key(values: pl.Series) -> str | None:
    """Why whole numbers or texts that are different in nearly every row are taken for an identifier."""
    known = values.drop_nulls()
    different = known.n_unique() / max(known.len(), 1)
    named = bool(_ID_WORDS & {word.lower() for word in _WORD.findall(values.name)})
    if different < (_NEARLY_ALL_OF_AN_ID if named else _NEARLY_ALL) or (values.len() < _MANY_ROWS and not named):
        return None
    repeats = values.len() - values.n_unique()
    measure = "" if named else "; if it is a measure, add it in features.py"
    if repeats > _QUARANTINE * values.len() or values.null_count():
        return f"looks like an identifier: {different:.1%} of its values are different{measure}"
    return (
        f"nearly identifies the row: {repeats:,} of {values.len():,} rows repeat a value; --key {values.name} makes it "
        f"the key, and they go to quarantine{measure}"
    )


def _identifiers(rows: pl.DataFrame, features: Sequence[str], *, timed: bool) -> list[str]:
    """A warning where a feature is named like an identifier of what several rows belong to."""
    import polars as pl

    names = [
        name
        for name in features
        if _ID_WORDS & {word.lower() for word in _WORD.findall(name)}
        and isinstance(rows[name].dtype, (pl.Int64, pl.String))
        and rows[name].n_unique() > _FEW_ROWS
    ]
    if not names:
        return []
    whole = "intervals" if timed else "intervals and splits"  # with an event time rows are split in time
    text = (
        f"warning: features named like an identifier: {join_names(names, _LISTED)}; what a model learns of "
        f"single values does not hold for new ones: leave them out in features.py, or let {whole} keep them whole: "
        f"evaluation: {{clusters: {names[0]}}}"
    )
    return [text]


def _counts(values: pl.Series) -> bool:
    """Whether whole numbers are all those between the smallest and the largest, each once."""
    low, high = values.min(), values.max()
    every = isinstance(low, int) and isinstance(high, int) and high - low + 1 == values.len()
    return every and values.n_unique() == values.len() and not values.null_count()


def _grouped(left_out: dict[str, str]) -> list[str]:
    """One sentence a reason."""
    groups: dict[str, list[str]] = {}
    for name, reason in left_out.items():
        groups.setdefault(reason, []).append(name if name.strip() else f'"{name}"')
    return [f"not used by the model: {join_names(names, _LISTED)} ({reason})" for reason, names in groups.items()]
