"""Schema of a source: one type a column for all parts, and changes against the last accepted snapshot."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence

from msgspec.structs import replace

from cumulant.core.plan import DType, Field
from cumulant.data.parts.part import PartFacts, PartField
from cumulant.data.policy import SourcePolicy
from cumulant.data.shift import distance
from cumulant.data.snapshot import WIDER, ChangeKind, SchemaChange, Snapshot
from cumulant.data.spec import SourceSpec

_ALIKE_NAMES = 0.7
_ALIKE_VALUES = 0.15


def common_type(types: Sequence[DType]) -> DType:
    """The narrowest type that holds the values of all; text where nothing else does."""
    widest = types[0]
    for other in types[1:]:
        if widest == other or (other, widest) in WIDER:
            continue
        widest = other if (widest, other) in WIDER else "str"
    return widest


def fields_of(parts: Sequence[PartFacts], policy: SourcePolicy, previous: Snapshot | None) -> tuple[Field, ...]:
    """The snapshot's fields: of all parts, in order of first appearance.

    Types guessed from text stay as wide as in the last snapshot; an empty column keeps its type.
    """
    known = {field.name: field.dtype for field in previous.fields} if previous else {}
    spec = policy.spec
    never = {*spec.keys, *policy.required} | ({spec.time.column} if spec.time else set())
    columns: dict[str, list[PartField]] = {}
    for part in parts:
        for field in part.fields:
            columns.setdefault(field.name, []).append(field)
    result = []
    for name, fields in columns.items():
        types = [field.dtype for field in fields if not field.empty]
        if name in known and (not types or all(field.guessed for field in fields if not field.empty)):
            types.append(known[name])
        result.append(
            Field(
                name=name,
                dtype=common_type(types or [fields[0].dtype]),
                nullable=name not in never,
                personal=name in spec.personal,
                zone=next((field.zone for field in fields if field.zone), None),
            )
        )
    return tuple(result)


def text_columns(part: PartFacts, fields: Sequence[Field]) -> tuple[str, ...]:
    """Columns of a part that were guessed to be numbers and are text in the source: to be read again as text."""
    texts = {field.name for field in fields if field.dtype == "str"}
    return tuple(field.name for field in part.fields if field.guessed and field.dtype != "str" and field.name in texts)


def find_changes(
    previous: Snapshot,
    fresh: Sequence[tuple[str, PartFacts]],
    spec: SourceSpec,
    used: Collection[str] | None,
) -> tuple[SchemaChange, ...]:
    """Schema changes of new files (`fresh`: name and part as read) against the last accepted snapshot.

    `used`: the used columns, by use in a mapping (None: all). A change of one is refused where the policy does so.
    """
    changes: dict[tuple[str, str], SchemaChange] = {}
    for url, part in fresh:
        if not part.fields:
            continue
        for change in _changes_of(previous, part, url):
            first = changes.setdefault((change.kind, change.column), _apply_policy(change, spec, used))
            if first.file != change.file:
                changes[change.kind, change.column] = replace(first, others=first.others + 1)
    return tuple(changes.values())


def _apply_policy(change: SchemaChange, spec: SourceSpec, used: Collection[str] | None) -> SchemaChange:
    loses = change.kind not in ("added", "widened")
    concerned = not loses or used is None or change.column in used
    return replace(
        change,
        refused=concerned and getattr(spec.policy, change.kind) == "refuse",
        used_by=used.get(change.column) if loses and isinstance(used, Mapping) else None,
        unused=not concerned,
    )


def _changes_of(previous: Snapshot, part: PartFacts, url: str) -> list[SchemaChange]:
    before = {field.name: field.dtype for field in previous.fields}
    after = {field.name: field for field in part.fields}
    gone = [name for name in before if name not in after]
    new = [name for name in after if name not in before]
    changes = []
    for name in list(gone):
        twin = _find_renamed(name, new, previous, part)
        if twin is not None:
            gone.remove(name)
            new.remove(twin)
            changes.append(SchemaChange(kind="renamed", column=name, before=name, to=twin, file=url))
    changes += [SchemaChange(kind="removed", column=name, before=before[name], file=url) for name in gone]
    changes += [SchemaChange(kind="added", column=name, to=after[name].dtype, file=url) for name in new]
    for name, field in after.items():
        kind = _type_change(before[name], field) if name in before else None
        if kind is not None:
            changes.append(SchemaChange(kind=kind, column=name, before=before[name], to=field.dtype, file=url))
    return changes


def _type_change(before: DType, field: PartField) -> ChangeKind | None:
    if field.empty or field.dtype == before:
        return None
    if (before, field.dtype) in WIDER:
        return "widened"
    narrower = (field.dtype, before) in WIDER or before == "str"
    return None if field.guessed and narrower else "narrowed"


def _find_renamed(name: str, new: Sequence[str], previous: Snapshot, part: PartFacts) -> str | None:
    """The new column that looks like `name` under another name: a like name or like values, one type."""
    old = previous.profile[name]
    types = {field.name: field.dtype for field in part.fields}
    ranked = []
    for other in new:
        if types[other] != old.dtype:
            continue
        likeness = difflib.SequenceMatcher(None, _plain(name), _plain(other)).ratio()
        if likeness >= _ALIKE_NAMES or _has_like_values(previous, name, part, other):
            ranked.append((likeness, other))
    return max(ranked)[1] if ranked else None


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _has_like_values(previous: Snapshot, name: str, part: PartFacts, other: str) -> bool:
    """Whether two columns hold alike values; False where the profile has too few to compare."""
    before, after = previous.profile[name], part.profile[other]
    if before.distinct < 3 or not (before.top or before.quantiles):
        return False
    gap = distance(before, after)
    return gap is not None and gap <= _ALIKE_VALUES
